"""The verbs: plan, explain, run, fit, audit, rank, prove, labels, evaluate, predict, load.

`fit` is `plan` and then `run`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from headstart.core.errors import PlanError, nearest
from headstart.core.machine import Machine, read_machine
from headstart.core.plan import Plan
from headstart.core.settings import Auto, Extract, FewShot, FineTune, Prove, Rank, Source, Split, parse
from headstart.core.types import Audit, Prediction, Target
from headstart.data import TableDataset, from_memory, open_dataset, require_targets, with_answers
from headstart.evaluation import Evaluation
from headstart.model import Model
from headstart.planning import Opened, proposed, sections
from headstart.result import Result
from headstart.store import Store
from headstart.train.runtime import Context, Event, choose_device, ignore

if TYPE_CHECKING:
    from headstart.labelling import LabelReport
    from headstart.proving.outcome import Proof
    from headstart.select.rank import Ranking

Data = str | Path | TableDataset | tuple[Sequence[Any], Sequence[Any]]
"""A folder, a table file, an opened dataset, or (pictures or texts, targets) in memory."""
Progress = Callable[[Event], None]
MethodName = Literal["auto", "extract", "fewshot", "finetune"]
METHODS = ("auto", "extract", "fewshot", "finetune")
AUTO = "auto"
"""The encoder's name where the network shall be chosen."""
Chosen = Extract | FewShot | FineTune


def fit(
    data: Data,
    *,
    encoder: str | None = None,
    method: MethodName | Chosen = "auto",
    output: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    baseline: bool = False,
    machine: Machine | None = None,
) -> Result:
    """Fit a model to labelled data and return the result: audit, scores with intervals, model folder, report.

    `settings` are dotted keys such as {"finetune.layer_decay": 0.65, "data.group_column": "patient"}; `baseline`
    also trains the network from scratch, to show what transfer gained. A second run comes from the store.
    With `encoder="auto"` the network is chosen: candidates whose weights are on this machine are ranked, the best race
    by short fine-tunes, and the winner is trained, all within the setting `auto.minutes`.
    Raises HeadstartError (DataError, PlanError, EncoderError, ...) that says what to do.
    """
    opened = open_plan(data, encoder=encoder, method=method, settings=settings, machine=machine)
    return run(opened, output=output, baseline=baseline, machine=machine)


def plan(
    data: Data,
    *,
    encoder: str | None = None,
    method: MethodName | Chosen = "auto",
    settings: Mapping[str, Any] | None = None,
    machine: Machine | None = None,
) -> Plan:
    """Look at the data and return a fully resolved plan, without running it.

    With `encoder="auto"` candidates are ranked and raced, and the plan is the winner's.
    """
    return open_plan(data, encoder=encoder, method=method, settings=settings, machine=machine).plan


def open_plan(
    data: Data,
    *,
    encoder: str | None = None,
    method: MethodName | Chosen = "auto",
    settings: Mapping[str, Any] | None = None,
    machine: Machine | None = None,
    progress: Progress = ignore,
) -> Opened:
    """Return a plan together with the data and the network that were opened to make it; `run` takes either.

    With `encoder="auto"` the network is chosen here, which takes most of the minutes allowed.
    """
    given = sections(settings or {})
    wish = _wish(given.pop("auto", {}), encoder)
    source, dataset = _labelled(data, given.pop("data", {}))
    if isinstance(method, str) and method not in METHODS:
        raise PlanError(
            f"unknown method '{method}'{nearest(method, METHODS)}",
            expected=", ".join(METHODS),
            fix="correct the name",
        )
    context = _context(machine or read_machine(), 0, progress)
    if encoder == AUTO:
        from headstart.select.auto import choose

        return choose(dataset, source, wish, method=method, given=given, context=context)
    return proposed(dataset, source, encoder=encoder, method=method, given=given, context=context)


def foresee(data: Data, *, settings: Mapping[str, Any] | None = None) -> str:
    """Say in plain words which networks `encoder="auto"` would rank and race on some data; open none of them."""
    from headstart.select.auto import foreseen

    given = sections(settings or {})
    _, dataset = _labelled(data, given.get("data", {}))
    return foreseen(dataset, _wish(given.get("auto", {}), AUTO))


def run(
    plan: Plan | Opened,
    *,
    dataset: TableDataset | None = None,
    output: Path | None = None,
    baseline: bool = False,
    strict: bool = False,
    machine: Machine | None = None,
    progress: Progress = ignore,
) -> Result:
    """Run a plan, or fetch its result from the store, and put the model folder at `output`.

    `dataset` is needed where the data are in memory. With `strict`, findings of the audit are errors.
    """
    from headstart.runs import finished

    opened = plan if isinstance(plan, Opened) else Opened(plan, dataset or open_dataset(plan.data))
    plan, dataset = opened.plan, opened.dataset
    if plan.fingerprint and plan.fingerprint != dataset.fingerprint:
        raise PlanError(
            f"the data at {plan.data.uri or 'hand'} are not those of the plan (fingerprint "
            f"{dataset.fingerprint[:12]} instead of {plan.fingerprint[:12]})",
            expected="the same items, labels, groups and splits",
            fix="make the plan anew with `headstart explain DATA --json`, or put the data back",
        )
    context = _context(machine or read_machine(), plan.seed, progress)
    return finished(opened, context, output=output, baseline=baseline, strict=strict)


def explain(plan: Plan, *, machine: Machine | None = None) -> str:
    """Say in plain words what a plan will do and how long it should take here."""
    from headstart.describe import describe

    return describe(plan, _context(machine or read_machine(), plan.seed, ignore))


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

    source = _source(data, settings)
    dataset = _opened(data, source)
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
    source, dataset = _labelled(data, given.pop("data", {}))
    limits = parse(Rank, given.pop("rank", {}), what="--set rank.*")
    split = parse(Split, given.pop("split", {}), what="--set split.*")
    context = _context(machine or read_machine(), given.pop("seed", 0), progress)
    _refuse_left(given, expected="rank.*, data.*, split.* or seed")
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
    PlanError where the network is not pretrained; where the minutes are too few, what was cut is said, and the least
    that would do. Interrupted, the same call goes on.
    """
    from headstart.proving.page import publish
    from headstart.proving.proof import Question
    from headstart.proving.proof import prove as proven

    given = sections(settings or {})
    source, dataset = _labelled(data, given.pop("data", {}))
    asked = parse(Prove, given.pop("prove", {}), what="--set prove.*")
    question = Question(Path(source.uri).stem or "data", **asked.model_dump())
    context = _context(machine or read_machine(), 0, progress)
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
    source = parse(Source, {"uri": _uri(data), **given.pop("data", {})}, what="--set data.*")
    dataset = _opened(data, source, needs_label=False)
    title = Path(source.uri).stem or "labels"
    folder = free_folder(output, title)
    context = _context(machine or read_machine(), 0, progress)
    opened = proposed(dataset, source, encoder=encoder, method="extract", given=given, context=context)
    found = find(opened, replace(context, seed=opened.plan.seed), count=next)
    return publish(found, folder, title=title)


def load(folder: str | Path) -> Model:
    """Load a model folder; nothing in it is executed (ModelFolderError where it was altered)."""
    from headstart.model import load_model

    return load_model(Path(folder))


def predict(
    model: Model | str | Path,
    inputs: Sequence[Any],
    *,
    abstain: float | None = None,
    settings: Mapping[str, Any] | None = None,
    machine: Machine | None = None,
    progress: Progress = ignore,
) -> list[Prediction]:
    """Predict files, folders of files, tables, texts or arrays; probabilities are calibrated, in the inputs' order.

    A string is a text to a network of texts and a path to others; a `Path` is always a path. `settings` may say which
    column of a table holds the texts or paths ({"data.text_column": "body"}). With `abstain`, at most this share of
    answers is wrong (split-conformal); the other labels are None. An unreadable file is warned about and left out.
    """
    from headstart.data.unlabelled import open_inputs

    loaded = model if isinstance(model, Model) else load(model)
    source = _source("", settings)
    dataset = open_inputs(inputs, modality=loaded.encoder.spec.modality, source=source)
    return loaded.predict(dataset, _context(machine or read_machine(), 0, progress), abstain=abstain)


def evaluate(
    model: Model | str | Path,
    data: Data,
    *,
    settings: Mapping[str, Any] | None = None,
    machine: Machine | None = None,
    progress: Progress = ignore,
) -> Evaluation:
    """Score a model on every labelled item of some data, each metric with its interval."""
    loaded = model if isinstance(model, Model) else load(model)
    source = _source(data, settings)
    dataset = _opened(data, source)
    labelled = dataset.subset([row for row, target in enumerate(dataset.targets) if target is not None])
    encoded = loaded.encode(labelled, _context(machine or read_machine(), 0, progress))
    part = labelled.subset(encoded.indices)
    domains = part.domains if any(part.domains) else None
    groups = [group or f"#{row}" for row, group in enumerate(part.groups)] if any(part.groups) else None
    outputs = loaded.logits_of(encoded, loaded.head.form)
    scored = loaded.task.evaluate(
        loaded.probabilities(outputs),
        cast("list[Target]", part.targets),
        domains=domains,
        groups=groups,
        seed=0,
    )
    bad = len(encoded.failures)
    return replace(scored, notes=(*scored.notes, f"{bad} items could not be read")) if bad else scored


def _context(machine: Machine, seed: int, progress: Progress) -> Context:
    """Return what a run on this machine needs."""
    return Context(
        Store(machine.store),
        choose_device(machine.device),
        machine.threads,
        seed,
        progress,
        workers=machine.threads,
    )


def _wish(values: Mapping[str, Any], encoder: str | None) -> Auto:
    """Return how a network is to be chosen; PlanError where one is named beside."""
    if values and encoder != AUTO:
        raise PlanError(
            f"{', '.join(f'auto.{name}' for name in values)} set, but not --encoder auto",
            expected="limits of the choice together with --encoder auto",
            fix="add --encoder auto, or leave them out",
        )
    return parse(Auto, values, what="--set auto.*")


def _refuse_left(given: Mapping[str, Any], *, expected: str) -> None:
    """Refuse settings that a verb has no use for."""
    if given:
        raise PlanError(
            f"{', '.join(given)} set, which plays no part here", expected=expected, fix="leave it out"
        )


def _labelled(data: Data, settings: Mapping[str, Any]) -> tuple[Source, TableDataset]:
    """Open data that something can be learnt from."""
    source = parse(Source, {"uri": _uri(data), **settings}, what="--set data.*")
    dataset = _opened(data, source)
    require_targets(dataset, source=source.uri)
    return source, dataset


def _opened(data: Data, source: Source, *, needs_label: bool = True) -> TableDataset:
    """Open data of any kind; without `needs_label` they may have none."""
    if not isinstance(data, (TableDataset, tuple)):
        return open_dataset(source, needs_label=needs_label)
    made = data if isinstance(data, TableDataset) else from_memory(data[0], data[1], task=source.task)
    return with_answers(made, source)


def _uri(data: Data) -> str:
    """Return where data lie; empty for data in memory."""
    return str(data) if isinstance(data, (str, Path)) else ""


def _source(data: Data, settings: Mapping[str, Any] | None) -> Source:
    """Return where data lie and how they are read."""
    given = sections(settings or {}).get("data", {})
    return parse(Source, {"uri": _uri(data), **given}, what="--set data.*")
