"""A probe: how good cheap heads on a network's frozen features are on a sample of the data, by cross-validation."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from headstart.core.errors import DataError, EncoderError, ModelFolderError, PlanError, TrainingError
from headstart.core.registry import resolve
from headstart.core.settings import Extract, Pretrained, Source, Split, parse
from headstart.data.audit import audit
from headstart.features.encode import Encoded, Rows, encode, take
from headstart.features.runtime import choose_runtime
from headstart.model import Model, open_encoder
from headstart.pipeline.heads import race_heads, racing_forms
from headstart.pipeline.material import audited, clusters, drawn
from headstart.planning import TIMED_ITEMS, sample_values
from headstart.select.scores import h_score, logme
from headstart.select.timing import Pace, encoding_seconds, timed
from headstart.train.runtime import choose_batch_size, device_memory

if TYPE_CHECKING:
    from headstart.core.protocols import Encoder, Task
    from headstart.core.types import Form, Target
    from headstart.data import TableDataset
    from headstart.select.catalog import Entry
    from headstart.train.runtime import Context

FOLDS = 5
REPEATS, FEW_ITEMS = 3, 1_000
"""With fewer items than FEW_ITEMS, folds are drawn REPEATS times."""
FEWEST_VALUES = 8
"""Fewest items that numbers, several labels or tags are probed on."""
SCORED_ROWS = 5_000
"""Rows that LogME and the H-score look at, at most (of words of texts there are many)."""
UNUSABLE = (EncoderError, ModelFolderError, PlanError, TrainingError)
"""What a candidate raises that cannot be used."""
TIMED_FROM = 32
"""With fewer items encoded now, the time that each takes is that of a forward pass."""


@dataclass(frozen=True, eq=False)
class Items:
    """What every candidate is probed on: these `rows` of the sample; `groups` [n] names what must share a fold."""

    dataset: TableDataset
    rows: tuple[int, ...]
    groups: tuple[str, ...]

    @property
    def task(self) -> Task:
        """What the targets ask for."""
        return task_of(self.dataset)

    @property
    def targets(self) -> list[Target]:
        """The targets, all of them known."""
        return [cast("Target", target) for target in self.dataset.targets]


@dataclass(frozen=True, eq=False)
class Seen:
    """A candidate that was opened and has encoded the sample, in the seconds that an item took."""

    encoder: Encoder
    settings: Pretrained
    form: Form
    encoded: Encoded
    item_seconds: float | None


@dataclass(frozen=True, eq=False)
class Probe:
    """What a candidate came to on n items: cross-validated `quality`, the best of linear heads and cosine kNN.

    `error` is its standard error, `item_quality` [n] how well each item was answered by heads that had not seen it
    (NaN where none was asked, as of many words).
    `knn` and `h_score` are None where the task has no such thing. `encode_seconds` is what an item takes with all
    threads at work, opening it included; `opening_seconds` what one thread takes to open it.
    """

    quality: float
    error: float
    knn: float | None
    logme: float
    h_score: float | None
    item_quality: np.ndarray
    encode_seconds: float
    opening_seconds: float
    pace: Pace


def task_of(dataset: TableDataset) -> Task:
    """Return what the targets of a dataset ask for."""
    return resolve("task", dataset.task)(dataset.labels)


def untested(
    dataset: TableDataset, entries: Sequence[Entry], *, split: Split, source: Source, context: Context
) -> TableDataset:
    """Return the data with the test split that a fit with this seed draws: nothing is chosen on items that score it.

    It is drawn as a run draws it, from the audit of all items as the first of `entries` that opens has seen them. (Near
    twins of texts are told by features, so with another network they may differ.) A test split that the data bring
    stays; where no candidate opens, so do the data.
    """
    if not split.respect:
        dataset = dataset.with_splits([None] * len(dataset))
    elif "test" in dataset.splits:
        return dataset
    for entry in entries:
        try:
            whole = look(entry, dataset, source, context).encoded
        except UNUSABLE:
            continue  # The ranking looks at it again and tells why.
        found = audited(dataset, whole, source)
        kept = drawn(dataset, found, task_of(dataset), split, seed=context.seed)
        held_out = {name for name, part in zip(kept.ids, kept.splits, strict=True) if part == "test"}
        parts = zip(dataset.ids, dataset.splits, strict=True)
        return dataset.with_splits(["test" if name in held_out else part for name, part in parts])
    return dataset


def sampled(dataset: TableDataset, *, most: int, seed: int) -> TableDataset:
    """Return at most `most` labelled items outside the test split, classes (or ranges, or types) in proportion.

    Of each class there are two at least, as far as the data and `most` allow.
    """
    task = task_of(dataset)
    pairs = enumerate(zip(dataset.targets, dataset.splits, strict=True))
    rows = [row for row, (target, name) in pairs if target is not None and name != "test"]
    if len(rows) <= most:
        return dataset.subset(rows)
    strata = task.strata([cast("Target", dataset.targets[row]) for row in rows])
    members: defaultdict[str, list[int]] = defaultdict(list)
    for place in np.random.default_rng(seed).permutation(len(rows)).tolist():
        members[strata[place]].append(rows[place])
    # An item's turn is its share of its class: half of every class comes before the other half.
    turns = [
        (place / len(held) if place > 1 else 0.0, row)
        for held in members.values()
        for place, row in enumerate(held)
    ]
    chosen = sorted(turns, key=lambda turn: turn[0])[:most]
    return dataset.subset(sorted(row for _, row in chosen))


def look(entry: Entry, sample: TableDataset, source: Source, context: Context) -> Seen:
    """Open a candidate and encode the sample, or take its features from the store.

    EncoderError or PlanError where it cannot be opened or lacks the form of features that the task needs.
    """
    settings = parse(Pretrained, dict(entry.encoder), what=f"the catalog's entry {entry.name}")
    encoder = open_encoder(settings, limits=source.limits)
    if encoder.spec.modality != sample.modality:
        raise EncoderError(
            f"{entry.name} opens a network for {encoder.spec.modality}, the data are {sample.modality}",
            expected=f"a network for {sample.modality}",
            fix="correct the entry's modality",
        )
    task = task_of(sample)
    if task.form not in encoder.spec.width:
        raise EncoderError(
            f"{entry.name} has no features of form '{task.form}', which {task.name} needs",
            expected=f"a network with that form; this one has {', '.join(encoder.spec.width)}",
            fix="leave it out of the candidates",
        )
    # Fitting encodes several depths at once, so that it finds these features in the store.
    form: Form = "depths" if task.form == "pooled" and len(encoder.spec.depths) > 1 else task.form
    choose_runtime(encoder, form, context)  # Exporting is no part of what an item takes.
    start = time.perf_counter()
    encoded = encode(sample, encoder, form=form, context=context)
    seconds = time.perf_counter() - start
    count = encoded.num_encoded
    return Seen(encoder, settings, form, encoded, seconds / count if count >= TIMED_FROM else None)


def settled(sample: TableDataset, encoded: Encoded, source: Source) -> Items:
    """Return the items of a sample that can be read, twins tied, by the facts that a first encoding brought.

    DataError where too few are left to compare networks on. How many may be bad is asked of the data as a whole.
    """
    lenient = source.model_copy(update={"max_bad": 1.0})
    found = audit(sample, encoded.facts, encoded.failures, settings=lenient)
    kept = sample.subset(found.keep)
    groups = clusters(kept.groups, found.ties)
    require_enough(kept, groups)
    return Items(kept, tuple(found.keep), tuple(groups))


def require_enough(dataset: TableDataset, groups: Sequence[str]) -> None:
    """Refuse labelled items by which no cross-validation can compare networks; `groups` [n] share folds (DataError)."""
    nouns = resolve("modality", dataset.modality).NOUN
    if dataset.task == "classification":
        held = set(zip(dataset.targets, groups, strict=True))
        twice = sum(count > 1 for count in Counter(target for target, _ in held).values())
        is_enough, expected = (
            twice > 1,
            f"two classes at least with two different {nouns[1]} (or groups) each",
        )
    else:
        is_enough = len(set(groups)) >= FEWEST_VALUES
        expected = f"{FEWEST_VALUES} different {nouns[1]} (or groups) at least"
    if not is_enough:
        raise DataError(
            f"{len(dataset)} labelled {nouns[0] if len(dataset) == 1 else nouns[1]} outside the test split are too few "
            "to compare networks by",
            expected=expected,
            fix=f"add labelled {nouns[1]}",
        )


def probe(seen: Seen, items: Items, context: Context) -> Probe:
    """Return what a candidate's features are worth on the items that all are probed on."""
    encoder, task = seen.encoder, items.task
    place = {index: row for row, index in enumerate(seen.encoded.indices)}
    missing = [row for row in items.rows if row not in place]
    if missing:
        raise EncoderError(
            f"{encoder.spec.name} cannot read {len(missing)} items that others read "
            f"({seen.encoded.failures[missing[0]]})",
            expected="every item",
            fix="leave it out of the candidates",
        )
    rows = take(seen.encoded.features, [place[row] for row in items.rows])
    views = racing_forms(encoder, seen.form, [rows])
    model = Model(encoder, task, None, seen.settings)
    scores, item_quality = _raced(model, views, items, context)
    best = max(scores, key=lambda name: scores[name][0])
    nearest = [score for name, (score, _) in scores.items() if name.startswith("knn")]
    values, opening = _opened(items.dataset, encoder)
    pace = timed(encoder, values, context, task.form, batch_size=steps_of(len(items.rows), context))
    return Probe(
        *scores[best],
        knn=max(nearest, default=None),
        **_closed_forms(_final(encoder, seen.form, rows), items, task),
        item_quality=item_quality,
        encode_seconds=seen.item_seconds or encoding_seconds(pace, opening, context),
        opening_seconds=opening,
        pace=pace,
    )


def steps_of(items: int, context: Context) -> int:
    """Return the items of a step of fine-tuning on so many."""
    return choose_batch_size(items, memory_bytes=device_memory(context.device))


def _opened(dataset: TableDataset, encoder: Encoder) -> tuple[list[np.ndarray], float]:
    """Return some items as the network takes them, and the seconds that one takes to open."""
    sample_values(dataset, encoder, TIMED_ITEMS)  # The first time loads libraries and files.
    start = time.perf_counter()
    values = sample_values(dataset, encoder, TIMED_ITEMS)
    return values, (time.perf_counter() - start) / len(values)


def _final(encoder: Encoder, form: Form, rows: Rows) -> Rows:
    """Return the final features, or of transformers the mean of all layers: what closed-form scores look at."""
    if form != "depths":
        return rows
    name: Form = "layers" if "layers" in encoder.spec.width else "pooled"
    return cast("np.ndarray", rows)[:, encoder.spec.columns(name)]


def _raced(
    model: Model, views: Mapping[Form, Sequence[Rows]], items: Items, context: Context
) -> tuple[dict[str, tuple[float, float]], np.ndarray]:
    """Return (quality, standard error) of every kind of head, and how well each item was answered by the best (NaN: no
    head was asked).

    Of few items the folds say much by chance: they are drawn several times, and the mean is taken.
    """
    heads = ("logistic", "ridge") if model.task.form == "sequence" else ("logistic", "ridge", "knn")
    settings = parse(Extract, {"heads": heads, "folds": FOLDS}, what="the probe")
    repeats = REPEATS if len(items.rows) < FEW_ITEMS else 1
    found: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    quality, times = np.zeros((2, len(items.rows)))
    for repeat in range(repeats):
        drawn = replace(context, seed=context.seed + repeat)
        done = race_heads(model, views, items.targets, items.groups, settings, drawn)
        best: dict[str, tuple[float, float]] = {}
        for row in done.race:
            kind = row.name.split(",")[0].split()[0]
            reading = row.score, row.standard_error
            best[kind] = max(best.get(kind, reading), reading)
        for kind, reading in best.items():
            found[kind].append(reading)
        answered = [items.targets[index] for index in done.held_out]
        probabilities = model.probabilities(done.held_out_outputs)
        quality[done.held_out] += model.task.item_quality(probabilities, answered)
        times[done.held_out] += 1
    means = {kind: tuple(np.mean(rows, axis=0).tolist()) for kind, rows in found.items()}
    asked = np.divide(quality, times, out=np.full_like(quality, np.nan), where=times > 0)
    return cast("dict[str, tuple[float, float]]", means), asked


def _closed_forms(rows: Rows, items: Items, task: Task) -> dict[str, Any]:
    """Return LogME, and where items have one class each the H-score, of at most SCORED_ROWS rows."""
    if task.form == "sequence":
        values, targets, _ = task.flatten(cast("list[np.ndarray]", rows), items.targets)
    else:
        values, targets = np.asarray(rows), task.encode(items.targets)
    if len(values) > SCORED_ROWS:
        some = np.sort(np.random.default_rng(0).choice(len(values), SCORED_ROWS, replace=False))
        values, targets = values[some], targets[some]
    if task.link != "softmax":
        columns = targets.reshape(len(targets), -1)
        return {"logme": logme(values, columns[:, columns.any(0)]), "h_score": None}
    classes = np.unique(targets, return_inverse=True)[1]
    return {
        "logme": logme(values, np.eye(int(classes.max()) + 1)[classes]),
        "h_score": h_score(values, classes),
    }
