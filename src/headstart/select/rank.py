"""Ranking candidates for some data: a prior over networks and a probe on the data, combined by their certainty."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import NormalDist
from textwrap import shorten
from typing import TYPE_CHECKING

import numpy as np

from headstart.core.errors import EncoderError, PlanError, nearest
from headstart.core.registry import resolve
from headstart.core.settings import Rank, Split
from headstart.data import require_targets
from headstart.evaluation import wilson
from headstart.pipeline.material import clusters
from headstart.planning import DEFAULT_ENCODER
from headstart.select.catalog import HERE, Filters, catalog, select, whereabouts
from headstart.select.expect import CONFIDENCE, Estimate, Expected, Reach, expected, reach_of
from headstart.select.history import History, Traits, shipped
from headstart.select.probe import (
    UNUSABLE,
    Items,
    Probe,
    look,
    probe,
    require_enough,
    sampled,
    settled,
    steps_of,
    task_of,
    untested,
)
from headstart.select.reasons import ABSENT, DEAR, FAILED, Grounds, notes, reasons
from headstart.select.timing import Times, log_cost, paces
from headstart.train.runtime import Context, Event

if TYPE_CHECKING:
    from headstart.core.settings import Source
    from headstart.data import TableDataset
    from headstart.select.catalog import Entry

USUAL_SPLIT, UNLIMITED = Split(), Rank()
LONGEST_NOTE = 160
"""Characters of a reason that a table can hold."""
MOST_SHARED = 0.95
"""Largest correlation between the answers of two candidates that is believed."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate in a ranking.

    `score` is the quality that is expected of it after fine-tuning, by which rows are ordered; `prior` what was
    expected before the data were looked at, in standard deviations of networks on a data set. `frozen`, `knn`, `logme`
    and `h_score` are None where it was not probed, `fine_tuned` also where too few runs are recorded; `note` says why.
    Seconds are what all labelled items should take here: to encode, with heads, and to fine-tune all layers by the
    usual settings; `latency_ms` is one item alone on one thread.
    """

    entry: Entry
    score: float
    frozen: Estimate | None
    fine_tuned: Estimate | None
    prior: float
    knn: float | None
    logme: float | None
    h_score: float | None
    encode_seconds: float
    extract_seconds: float
    finetune_seconds: float
    latency_ms: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Candidates, the best first, with the pick, why it is the pick (three lines), and what else is worth saying.

    Those that were probed come before those that only the prior places (of these, such as cost far more come later),
    and what cannot be used comes last; the pick is the first. `n` is how many items were probed.
    """

    rows: tuple[Ranked, ...]
    pick: str
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    n: int
    modality: str
    task: str

    def shown(self, most: int) -> tuple[Ranked, ...]:
        """Return the first rows, and beyond `most` those that were probed or failed all the same."""
        return tuple(
            row
            for place, row in enumerate(self.rows)
            if place < most or row.frozen or row.note.startswith(FAILED)
        )


@dataclass
class _Probed:
    """What was learnt of the candidates on the data: probes by name, and why others have none."""

    items: Items | None = None
    probes: dict[str, Probe] = field(default_factory=dict[str, Probe])
    notes: dict[str, str] = field(default_factory=dict[str, str])
    failed: set[str] = field(default_factory=set[str])

    @property
    def opening(self) -> float:
        """The seconds that opening an item takes a thread; 0 where nothing was opened."""
        return statistics.median([one.opening_seconds for one in self.probes.values()] or [0.0])

    @property
    def n(self) -> int:
        """How many items the probes asked about."""
        return max((int(np.isfinite(one.item_quality).sum()) for one in self.probes.values()), default=0)


def rank(
    dataset: TableDataset,
    entries: Sequence[Entry],
    *,
    source: Source,
    context: Context,
    sample: int = UNLIMITED.sample,
    split: Split = USUAL_SPLIT,
    history: History | None = None,
) -> Ranking:
    """Return the candidates for labelled data, the best first; nothing is fetched, and the test split is not looked at.

    That is the data's own, or the one that a fit with the settings `split` and the context's seed will draw. Candidates
    whose weights are on this machine are probed on at most `sample` items, the cheapest first; the others are placed by
    their prior. `history` are the recorded runs to learn from (those shipped by default).
    DataError where nothing can be compared on these data, PlanError where no candidate suits them, EncoderError where
    none of the candidates can be loaded.
    """
    require_targets(dataset, source=source.uri)
    suited = _suited(dataset, entries)
    _require_enough(sampled(dataset, most=sample, seed=context.seed))  # Before anything is encoded.
    suited.sort(key=lambda entry: log_cost(entry, context.device.type))
    here = [entry for entry in suited if whereabouts(entry) in HERE]
    trained = num_trained(dataset, split)
    dataset = untested(dataset, here, split=split, source=source, context=context)
    chosen = sampled(dataset, most=sample, seed=context.seed)
    _require_enough(chosen)
    known = shipped(dataset.modality, dataset.task) if history is None else history
    found = _probed(suited, chosen, source, context)
    _require_usable(found, len(suited))
    traits = {entry.name: Traits.of(entry) for entry in suited}
    quality, error = _readings(list(traits), found)
    result = expected(traits, quality, error, history=known)
    times = _timing(suited, dataset, trained, len(chosen), found, context)
    recorded = reach_of(known)
    reach = recorded if recorded and recorded.covers(trained) else None
    rows = [_row(entry, place, result, found, reach, times(entry)) for place, entry in enumerate(suited)]
    limit = DEAR * max((row.finetune_seconds for row in rows if row.frozen), default=math.inf)

    def order(row: Ranked) -> tuple[bool, bool, bool, float, float]:
        is_dear = row.frozen is None and row.finetune_seconds > limit
        return row.entry.name in found.failed, row.frozen is None, is_dear, -row.score, -row.prior

    rows.sort(key=order)
    usable = [row for row in rows if row.frozen] or [
        row for row in rows if row.entry.name not in found.failed
    ]
    places = {entry.name: place for place, entry in enumerate(suited)}
    pick = places[usable[0].entry.name]
    grounds = Grounds(
        dataset.modality, dataset.task, task_of(dataset).quality_name, known.num_sets, trained, recorded,
        float(result.posterior.prior_share[pick]), int(result.known.num_sets[pick]),
    )  # fmt: skip
    return Ranking(
        tuple(rows), usable[0].entry.name, reasons(usable, grounds), notes(rows, usable[0], grounds),
        found.n, dataset.modality, dataset.task,
    )  # fmt: skip


def considered(
    dataset: TableDataset, names: Sequence[str] | None = None, limits: Rank = UNLIMITED
) -> tuple[Entry, ...]:
    """Return the candidates of the catalog, and of the user's own file, that suit some data and keep to `limits`.

    PlanError names a candidate that is not known, or the limit that left none.
    """
    known = catalog(dataset.modality, own=Path(limits.catalog) if limits.catalog else None)
    if names is not None and not names:
        raise PlanError(
            "no candidate is named",
            expected="networks that `headstart models` lists, divided by commas",
            fix="name some, or leave --candidates out to rank all that suit",
        )
    if names is not None:
        by_name = {entry.name: entry for entry in known}
        for name in names:
            if name not in by_name:
                raise PlanError(
                    f"the candidate '{name}' is not in the catalog{nearest(name, by_name)}",
                    expected=f"one of the {len(known)} networks for {dataset.modality} that `headstart models` lists",
                    fix="correct the name, or describe it in a file of your own (--catalog FILE)",
                )
        known = tuple(by_name[name] for name in names)
    filters = Filters(
        task=dataset.task, licence=limits.licence, max_parameters_m=limits.max_parameters_m,
        max_gmacs=limits.max_gmacs, offline=limits.offline,
    )  # fmt: skip
    return select(known, filters)


def _suited(dataset: TableDataset, entries: Sequence[Entry]) -> list[Entry]:
    """Return the candidates for this kind of input and task, each name once; PlanError where none is."""
    form = task_of(dataset).form
    named = {entry.name: entry for entry in entries}
    suited = [one for one in named.values() if one.modality == dataset.modality and form in one.forms]
    if not suited:
        nouns = resolve("modality", dataset.modality).NOUN[1]
        given = ", ".join(named) or "no candidate"
        raise PlanError(
            f"none of the candidates suits these data ({given})",
            expected=f"a network for {nouns} with features of form '{form}', which {dataset.task} needs",
            fix="`headstart models` lists them; leave --candidates and filters out to rank all of those",
        )
    return suited


def _require_enough(sample: TableDataset) -> None:
    """Refuse a sample on which no cross-validation can compare networks (DataError)."""
    require_enough(sample, clusters(sample.groups, ()))


def _probed(entries: Sequence[Entry], sample: TableDataset, source: Source, context: Context) -> _Probed:
    """Probe the candidates whose weights are here, in their order; those that cannot be loaded are told of."""
    found = _Probed()
    for done, entry in enumerate(entries):
        event = Event("probe", done, len(entries), entry.name)
        context.progress(event)
        place = whereabouts(entry)
        if place not in HERE:
            files = [str(entry.encoder[key]) for key in ("weights", "folder") if key in entry.encoder]
            named = f" ({', '.join(files)})" if place == "absent" and files else ""
            elsewhere = " (they would be fetched from the hub)" if place == "hub" else named
            found.notes[entry.name] = f"{ABSENT}: its weights are not on this machine{elsewhere}"
            continue
        try:
            seen = look(entry, sample, source, context)
            found.items = found.items or settled(sample, seen.encoded, source)
            # The heads' own bars would hide how many candidates are done.
            found.probes[entry.name] = probe(seen, found.items, _under(event, context))
        except UNUSABLE as error:
            # A library's reasons may run over many lines.
            reason = shorten(error.given, LONGEST_NOTE, placeholder=" ...")
            found.notes[entry.name] = f"{FAILED}: {reason}"
            found.failed.add(entry.name)
            context.progress(Event("probe", message=f"{entry.name} is skipped: {reason}"))
    context.progress(Event("probe", len(entries), len(entries)))
    return found


def _require_usable(found: _Probed, count: int) -> None:
    """Refuse a ranking in which every candidate failed (EncoderError)."""
    if len(found.failed) == count:
        faults = "; ".join(f"{name}: {note}" for name, note in found.notes.items())
        raise EncoderError(
            f"none of the {count} candidates can be used ({faults})",
            expected="a network whose weights can be loaded",
            fix="mend the entries named, or give other candidates",
        )


def _under(event: Event, context: Context) -> Context:
    """Return a context that says `event` whenever anything moves."""
    return replace(context, progress=lambda _: context.progress(event))


def _readings(names: Sequence[str], found: _Probed) -> tuple[np.ndarray, np.ndarray]:
    """Return the probed quality of each candidate (NaN: none) and the standard error of its difference to the others.

    What all find hard moves no difference, so the variance that answers share is taken off.
    """
    probes = [found.probes.get(name) for name in names]
    shared = shared_of([one.item_quality for one in probes if one])
    quality = np.array([one.quality if one else math.nan for one in probes])
    error = np.array([one.error * math.sqrt(1 - shared) if one else math.nan for one in probes])
    return quality, error


def shared_of(answers: Sequence[np.ndarray]) -> float:
    """Return the mean correlation over items [n] of how well candidates answered them; 0 where none shows.

    Items about which some candidate was not asked (NaN) are left out.
    """
    if len(answers) < 2:
        return 0.0
    rows = np.stack(answers)
    rows = rows[:, np.isfinite(rows).all(0)]
    if rows.shape[1] < 2 or not (rows.std(1) > 0).all():
        return 0.0
    alike = np.corrcoef(rows)
    return float(np.clip(alike[~np.eye(len(alike), dtype=bool)].mean(), 0.0, MOST_SHARED))


def num_trained(dataset: TableDataset, split: Split = USUAL_SPLIT) -> int:
    """Return how many labelled items a fit would train on: those of the training split, or the share of it."""
    splits = dataset.splits if split.respect else [None] * len(dataset)
    given = {name for name in splits if name}
    held_out = (0 if "test" in given else split.test) + (0 if "validation" in given else split.validation)
    pool = sum(
        target is not None and name in (None, "train")
        for target, name in zip(dataset.targets, splits, strict=True)
    )
    return max(1, round(pool * (1 - held_out)))


def _timing(
    entries: Sequence[Entry], dataset: TableDataset, trained: int, n: int, found: _Probed, context: Context
) -> Callable[[Entry], Times]:
    """Return what tells how fast a candidate is here, for the data's items, of which so many are trained on and n were
    probed.
    """
    measured = {name: one.pace for name, one in found.probes.items()}
    pace = paces(entries, measured, _reference(dataset), context, batch_size=steps_of(n, context))
    labelled = sum(target is not None for target in dataset.targets)
    return lambda entry: Times(
        pace[entry.name], labelled, trained, len(dataset.labels), found.opening, context
    )


def _reference(dataset: TableDataset) -> Entry | None:
    """Return the network that this machine is timed by: the embedded one, if it is installed."""
    name = DEFAULT_ENCODER[dataset.modality]
    entry = next((one for one in catalog(dataset.modality) if one.name == name), None)
    return entry if entry and whereabouts(entry) in HERE else None


def _row(
    entry: Entry, place: int, result: Expected, found: _Probed, reach: Reach | None, times: Times
) -> Ranked:
    """Return a candidate's row; `place` is its place in what is expected."""
    one = found.probes.get(entry.name)
    score = float(result.quality[place])
    encode = times.encode(one.encode_seconds if one else None)
    return Ranked(
        entry=entry,
        score=score,
        frozen=_measured(one, found) if one else None,
        fine_tuned=reach.around(score, found.n) if one and reach else None,
        prior=float(result.known.mean[place]),
        knn=one.knn if one else None,
        logme=one.logme if one else None,
        h_score=one.h_score if one else None,
        encode_seconds=encode,
        extract_seconds=encode + times.heads,
        finetune_seconds=times.finetune,
        latency_ms=1000 * times.pace.latency,
        note=found.notes.get(entry.name, ""),
    )


def _measured(one: Probe, found: _Probed) -> Estimate:
    """Return a probe's quality with the interval of its standard error, or with Wilson's where that is wider and the
    quality is a share: near 1, few items vary by less than they may be off.
    """
    half = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * one.error
    low, high = one.quality - half, min(1.0, one.quality + half)
    if found.items and found.items.task.link != "identity":
        share = wilson(round(one.quality * found.n), found.n, confidence=CONFIDENCE)
        low, high = min(low, share[0]), max(high, share[1])
    return Estimate(one.quality, low, high, found.n)
