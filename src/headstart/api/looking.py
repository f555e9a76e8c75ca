"""Verbs that look and leave the model alone: audit, rank, prove, labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.api._given import (
    Data,
    Progress,
    context_of,
    labelled,
    opened_data,
    refuse_left,
    source_of,
    uri_of,
)
from headstart.core.errors import PlanError
from headstart.core.machine import Machine, read_machine
from headstart.core.settings import (
    Prove,
    Rank,
    Source,
    Split,
    parse,
)
from headstart.core.types import Audit
from headstart.data import title_of
from headstart.planning import proposed, sections
from headstart.train.runtime import Event, ignore

if TYPE_CHECKING:
    from headstart.labelling import LabelReport
    from headstart.proving.outcome import Proof
    from headstart.select.rank import Ranking


def audit(
    data: Data,
    *,
    settings: Mapping[str, Any] | None = None,
    strict: bool = False,
    machine: Machine | None = None,
    progress: Progress = ignore,
) -> Audit:
    """Look for unreadable items, duplicates, leaks between splits, small classes and more; train nothing."""
    from headstart.data.audit import audit as audited
    from headstart.data.audit import inspect, refuse_grave

    source = source_of(data, settings)
    dataset = opened_data(data, source)
    progress(Event("audit", 0, len(dataset)))
    facts, failures = inspect(dataset, settings=source, threads=(machine or read_machine()).threads)
    progress(Event("audit", len(dataset), len(dataset)))
    found = audited(dataset, facts, failures, settings=source).audit
    if strict:
        refuse_grave(found)
    return found


def rank(
    data: Data,
    *,
    candidates: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    machine: Machine | None = None,
    progress: Progress = ignore,
) -> Ranking:
    """Rank pretrained networks for labelled data, the best first, by what is known of them and by a probe on the data.

    `candidates` are names of the catalog, all that suit by default; the settings `rank.*` limit them. Those whose
    weights are on this machine are probed on a sample outside the test split: the data's own, or the one that `fit`
    with the same settings draws.
    PlanError where no network passes, DataError where the data are too few, EncoderError where none can be loaded.
    """
    from headstart.select.rank import considered
    from headstart.select.rank import rank as ranked

    given = sections(settings or {})
    source, dataset = labelled(data, given.pop("data", {}))
    limits = parse(Rank, given.pop("rank", {}), what="--set rank.*")
    split = parse(Split, given.pop("split", {}), what="--set split.*")
    context = context_of(machine or read_machine(), given.pop("seed", 0), progress)
    refuse_left(given, expected="rank.*, data.*, split.* or seed")
    entries = considered(dataset, candidates, limits)
    return ranked(dataset, entries, source=source, context=context, sample=limits.sample, split=split)


def prove(
    data: Data,
    *,
    encoder: str | None = None,
    output: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    machine: Machine | None = None,
    progress: Progress = ignore,
) -> Proof:
    """Prove what transfer gains on labelled data: frozen and fine-tuned beside training from scratch, and a verdict.

    All arms see the same split, the same seeds and an equal time; scores are taken over label budgets too. The settings
    `prove.*` say how many minutes and seeds, and the score to which time and labels are told. With `output` a page and
    the JSON go there.
    PlanError where the network is not pretrained, StoreError where other things lie at `output`; where the minutes are
    too few, what was cut is said, and the least that would do. Interrupted, the same call goes on.
    """
    from headstart.proving.page import publish, require_free
    from headstart.proving.proof import Question
    from headstart.proving.proof import prove as proven

    if output is not None:
        require_free(output)
    given = sections(settings or {})
    source, dataset = labelled(data, given.pop("data", {}))
    asked = parse(Prove, given.pop("prove", {}), what="--set prove.*")
    question = Question(title_of(source.uri, "data"), **asked.model_dump())
    context = context_of(machine or read_machine(), 0, progress)
    opened = proposed(dataset, source, encoder=encoder, method="finetune", given=given, context=context)
    proof = proven(opened, question, context)
    if output is not None:
        publish(proof, output)
    return proof


def labels(
    data: Data,
    *,
    next: int = 30,
    encoder: str | None = None,
    output: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    machine: Machine | None = None,
    progress: Progress = ignore,
) -> LabelReport:
    """Find labels that are likely wrong and up to `next` unlabelled items worth labelling; write page and tables.

    The data may have no labels at all, or no unlabelled item. The tables `wrong_labels.csv` and `next_labels.csv` at
    `output` have a column to fill in; the setting `data.answers` gives them back, here and to `fit`. Without `output`
    they go to `labels/NAME`, numbered where a table there is filled in already.
    """
    from headstart.labelling import find, free_folder, publish

    if next < 0:
        raise PlanError(f"{next} items to label next", expected="0 or more", fix="leave `next` out for 30")
    given = sections(settings or {})
    source = parse(Source, {"uri": uri_of(data), **given.pop("data", {})}, what="--set data.*")
    dataset = opened_data(data, source, needs_label=False)
    title = title_of(source.uri, "labels")
    folder = free_folder(output, title)
    context = context_of(machine or read_machine(), 0, progress)
    opened = proposed(dataset, source, encoder=encoder, method="extract", given=given, context=context)
    found = find(opened, replace(context, seed=opened.plan.seed), count=next)
    return publish(found, folder, title=title)
