"""Scores that say how sure they are: intervals, classes, domains, confusions, reliability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from headstart.core.errors import DataError
from headstart.core.types import Score
from headstart.evaluation.metrics import (
    BINS,
    CLASS_METRICS,
    CONFIDENCE,
    METRICS,
    bin_of,
    blocks_of,
    draw_weights,
    weighted_metrics,
    wilson,
)

_DOMAIN_METRICS = ("accuracy", "balanced_accuracy", "log_loss")


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One class; `low` and `high` are the Wilson interval of its recall, None where undefined."""

    label: str
    support: int
    predicted: int
    precision: float | None
    recall: float | None
    low: float | None
    high: float | None
    f1: float | None


@dataclass(frozen=True, slots=True)
class DomainRow:
    """One domain and its accuracy, balanced accuracy and log-loss."""

    domain: str
    scores: tuple[Score, ...]


@dataclass(frozen=True, slots=True)
class Bin:
    """Items whose top probability lies in [low, high): their mean probability and their accuracy."""

    low: float
    high: float
    n: int
    probability: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Confusion:
    """Items of class `truth` that were called `predicted`: how many, and which share of that class."""

    truth: str
    predicted: str
    count: int
    share: float


@dataclass(frozen=True)
class Evaluation:
    """How good predictions are, over `n` items; `num_groups` is 0 where items were resampled one by one."""

    labels: tuple[str, ...]
    n: int
    scores: tuple[Score, ...]
    per_class: tuple[ClassRow, ...]
    per_domain: tuple[DomainRow, ...]
    confusion: tuple[tuple[int, ...], ...]
    """[C, C] counts, rows are the truth; empty where classes do not exclude each other."""
    reliability: tuple[Bin, ...]
    notes: tuple[str, ...] = ()
    """What a reader must know: classes without test items, scores not defined, how it was resampled."""
    num_groups: int = 0
    resamples: int = 1000
    task: str = "classification"

    @property
    def primary(self) -> Score:
        """The measure that decides."""
        return self.scores[0]

    def score(self, name: str) -> Score:
        """Return one metric; KeyError where it is unknown or not defined on these items (see `notes`)."""
        return {score.name: score for score in self.scores}[name]

    def confused(self, limit: int = 10) -> tuple[Confusion, ...]:
        """Return the pairs of classes that are mistaken for each other most often, worst first."""
        pairs = [
            Confusion(self.labels[row], self.labels[column], count, count / sum(counts))
            for row, counts in enumerate(self.confusion)
            for column, count in enumerate(counts)
            if count and row != column
        ]
        pairs.sort(key=lambda pair: (-pair.count, -pair.share, pair.truth, pair.predicted))
        return tuple(pairs[:limit])

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; of the confusion matrix, [truth, predicted, count] of each cell not zero, if any."""
        cells = [
            [row, column, count]
            for row, counts in enumerate(self.confusion)
            for column, count in enumerate(counts)
            if count
        ]
        return {**_listed(asdict(self)), "confusion": cells if self.confusion else None}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Evaluation:
        """Read what `to_json` wrote."""
        matrix = np.zeros((len(values["labels"]), len(values["labels"])), int)
        for row, column, count in values["confusion"] or ():
            matrix[row, column] = count
        return cls(
            labels=tuple(values["labels"]),
            n=values["n"],
            scores=_scores(values["scores"]),
            per_class=tuple(ClassRow(**row) for row in values["per_class"]),
            per_domain=tuple(
                DomainRow(row["domain"], _scores(row["scores"])) for row in values["per_domain"]
            ),
            confusion=() if values["confusion"] is None else _counts(matrix),
            reliability=tuple(Bin(**row) for row in values["reliability"]),
            notes=tuple(values["notes"]),
            num_groups=values["num_groups"],
            resamples=values["resamples"],
            task=values.get("task", "classification"),
        )


def evaluate(
    probabilities: np.ndarray,
    targets: np.ndarray,
    *,
    labels: Sequence[str],
    domains: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Score predictions, each metric with its 95 % percentile bootstrap interval.

    `probabilities` [N, C] sum to 1 an item, `targets` [N] are class ids. With `groups`, whole groups are
    drawn again instead of items, as items of one patient are not independent. An interval is widened to hold
    the value itself where the bootstrap is biased (calibration error). Raises DataError for arrays that do
    not fit together.
    """
    probabilities, targets = _checked(probabilities, targets, labels)
    blocks, num_groups = blocks_of(groups, len(targets))
    measured = _measure(probabilities, targets, blocks, CLASS_METRICS, resamples=resamples, seed=seed)
    matrix = np.zeros((len(labels), len(labels)), int)
    np.add.at(matrix, (targets, probabilities.argmax(1)), 1)
    return Evaluation(
        labels=tuple(labels),
        n=len(targets),
        scores=measured,
        per_class=_class_rows(matrix, labels),
        per_domain=_domain_rows(probabilities, targets, blocks, domains, resamples=resamples, seed=seed),
        confusion=_counts(matrix),
        reliability=reliability(probabilities.max(1), probabilities.argmax(1) == targets),
        notes=_notes(matrix, labels, measured, num_groups),
        num_groups=num_groups,
        resamples=resamples,
    )


def paired_gain(
    gain: np.ndarray,
    *,
    name: str,
    groups: Sequence[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Score:
    """Return the mean of how much better one model answered each item, `gain` [N], with its 95 % bootstrap interval.

    As a resample draws the same items for both models, what is hard for both cancels out: an interval without 0 is a
    difference that these items prove. DataError where there are no items.
    """
    if not len(gain):
        raise DataError("no items to compare on", expected="at least one item", fix="predict some items")
    blocks, _ = blocks_of(groups, len(gain))
    drawn = [gain @ weights / weights.sum(0) for weights in draw_weights(blocks, resamples, seed)]
    return score_of(name, float(gain.mean()), np.concatenate(drawn), len(gain))


def _measure(
    probabilities: np.ndarray,
    targets: np.ndarray,
    blocks: np.ndarray,
    metrics: Sequence[str],
    *,
    resamples: int,
    seed: int,
) -> tuple[Score, ...]:
    """Return each metric that these items define: its value in float64, its interval by float32 weights."""
    n = len(targets)
    values = weighted_metrics(np.ones((n, 1)), probabilities, targets, metrics)
    chunks = [
        weighted_metrics(w, probabilities, targets, metrics) for w in draw_weights(blocks, resamples, seed)
    ]
    scores = {
        name: score_of(name, float(value[0]), np.concatenate([chunk[name] for chunk in chunks]), n)
        for name, value in values.items()
        if not np.isnan(value[0])
    }
    if scores["accuracy"].value in (0.0, 1.0):
        # Every resample is the same here, so the bootstrap knows no doubt; Wilson's interval does.
        count = int(blocks.max()) + 1
        low, high = wilson(round(scores["accuracy"].value * count), count)
        scores["accuracy"] = Score("accuracy", scores["accuracy"].value, low, high, n)
    return tuple(scores.values())


def score_of(name: str, value: float, drawn: np.ndarray, n: int) -> Score:
    """Return the percentile interval of a metric's resamples, widened to hold the value itself."""
    known = drawn[~np.isnan(drawn)]
    edges = np.quantile(known, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]) if len(known) else (value, value)
    return Score(
        name, value, min(float(edges[0]), value), max(float(edges[1]), value), n, METRICS.get(name, True)
    )


def _class_rows(matrix: np.ndarray, labels: Sequence[str]) -> tuple[ClassRow, ...]:
    """Return precision, recall with its Wilson interval, and F1 of each class."""
    rows: list[ClassRow] = []
    for index, label in enumerate(labels):
        right, support = int(matrix[index, index]), int(matrix[index].sum())
        said = int(matrix[:, index].sum())
        low, high = wilson(right, support) if support else (None, None)
        recall, precision = right / support if support else None, right / said if said else None
        f1 = 2 * right / (support + said) if support + said else None
        rows.append(ClassRow(label, support, said, precision, recall, low, high, f1))
    return tuple(rows)


def _domain_rows(
    probabilities: np.ndarray,
    targets: np.ndarray,
    blocks: np.ndarray,
    domains: Sequence[str] | None,
    *,
    resamples: int,
    seed: int,
) -> tuple[DomainRow, ...]:
    """Score each domain by itself; none where the data name fewer than two."""
    names = sorted(set(domains or ()))
    if len(names) < 2:
        return ()
    rows: list[DomainRow] = []
    for name in names:
        chosen = np.flatnonzero(np.asarray(domains, dtype=object) == name)
        own = np.unique(blocks[chosen], return_inverse=True)[1]
        scores = _measure(
            probabilities[chosen], targets[chosen], own, _DOMAIN_METRICS, resamples=resamples, seed=seed
        )
        rows.append(DomainRow(name, scores))
    return tuple(rows)


def reliability(certainty: np.ndarray, right: np.ndarray) -> tuple[Bin, ...]:
    """Return the bins that hold answers, given how sure each was [M] and whether it was right [M]."""
    place = bin_of(certainty)
    return tuple(
        Bin(
            i / BINS,
            (i + 1) / BINS,
            int(inside.sum()),
            certainty[inside].mean().item(),
            right[inside].mean().item(),
        )
        for i in range(BINS)
        if (inside := place == i).any()
    )


def _notes(
    matrix: np.ndarray, labels: Sequence[str], scores: tuple[Score, ...], num_groups: int
) -> tuple[str, ...]:
    """Say what the numbers leave out."""
    notes: list[str] = []
    absent = [label for label, support in zip(labels, matrix.sum(1), strict=True) if not support]
    if absent:
        named = ", ".join(absent[:5]) + (f" and {len(absent) - 5} more classes" if len(absent) > 5 else "")
        notes.append(f"no test items of {named}: recall and AUROC leave such classes out")
    if "auroc" not in {score.name for score in scores}:
        notes.append("AUROC is not defined: the test items are all of one class")
    if num_groups:
        notes.append(
            f"intervals draw whole groups ({num_groups}) again: items of one group are not independent"
        )
    if np.trace(matrix) == matrix.sum():
        notes.append("every test item is right: only the interval of accuracy (Wilson) shows the doubt left")
    return tuple(notes)


def _checked(
    probabilities: np.ndarray, targets: np.ndarray, labels: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return float64 probabilities and integer targets, or say what does not fit."""
    given, ids = np.asarray(probabilities, np.float64), np.asarray(targets)
    fault = ""
    if given.ndim != 2 or given.shape != (len(ids), len(labels)) or not len(ids):
        fault = f"probabilities of shape {given.shape} for {len(ids)} targets and {len(labels)} labels"
    elif not np.isfinite(given).all() or (given < 0).any() or np.abs(given.sum(1) - 1).max() > 1e-3:
        fault = "rows that are not probabilities (negative, not finite, or a sum other than 1)"
    elif ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= len(labels):
        fault = f"targets other than class ids 0 to {len(labels) - 1}"
    if fault:
        raise DataError(
            fault,
            expected="probabilities [N, C] with N targets in 0..C-1 and C labels, N at least 1",
            fix="pass softmax(logits) of the labelled items, and targets as positions in `labels`",
        )
    return given, ids.astype(np.int64)


def _scores(rows: Sequence[Mapping[str, Any]]) -> tuple[Score, ...]:
    """Read scores from JSON values."""
    return tuple(Score(**row) for row in rows)


def _counts(matrix: np.ndarray) -> tuple[tuple[int, ...], ...]:
    """Return a matrix of counts as a value that compares and hashes."""
    return tuple(tuple(int(count) for count in row) for row in matrix)


def _listed(value: Any) -> Any:
    """Turn tuples into lists, as JSON reads them back."""
    if isinstance(value, dict):
        return {name: _listed(item) for name, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, (list, tuple)) else value
