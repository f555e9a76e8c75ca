"""Scores of several labels an item, each with its interval, and one row a label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headstart.core.errors import DataError
from headstart.evaluation.intervals import by_domain, doubt_notes, measured
from headstart.evaluation.metrics import blocks_of, wilson
from headstart.evaluation.scores import ClassRow, Evaluation, reliability

THRESHOLD = 0.5
"""A label is given where its calibrated probability is at least this."""


def evaluate_labels(
    probabilities: np.ndarray,
    targets: np.ndarray,
    *,
    labels: Sequence[str],
    domains: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Score probabilities [N, C] of each label by itself against 0/1 targets [N, C].

    Macro-F1 and mean average precision leave out labels that no item has (as truth or, for F1, as answer). DataError
    for arrays that do not fit together.
    """
    given, truth = _checked(probabilities, targets, labels)
    blocks, num_groups = blocks_of(groups, len(truth))
    said = given >= THRESHOLD

    def measure(weights: np.ndarray, chosen: np.ndarray) -> dict[str, np.ndarray]:
        return _measures(weights, given[chosen], truth[chosen], said[chosen])

    everything = np.arange(len(truth))
    scores = measured(measure, everything, blocks, resamples=resamples, seed=seed)
    return Evaluation(
        labels=tuple(labels),
        n=len(truth),
        scores=scores,
        per_class=label_rows(
            labels, (truth & said).sum(0).tolist(), said.sum(0).tolist(), truth.sum(0).tolist()
        ),
        per_domain=by_domain(measure, blocks, domains, resamples=resamples, seed=seed),
        confusion=(),
        reliability=reliability(np.maximum(given, 1 - given).ravel(), (said == truth).ravel()),
        notes=(*_absent(labels, truth), *doubt_notes(scores, num_groups)),
        num_groups=num_groups,
        resamples=resamples,
        task="multilabel",
    )


def _measures(
    weights: np.ndarray, probabilities: np.ndarray, truth: np.ndarray, said: np.ndarray
) -> dict[str, np.ndarray]:
    """Return every metric [R] for item weights [n, R]."""
    kind, total = weights.dtype, weights.sum(0)
    right, support, called = ((part.astype(kind).T @ weights) for part in (truth & said, truth, said))
    eps = np.finfo(np.float64).eps
    losses = -np.log(np.clip(np.where(truth, probabilities, 1 - probabilities), eps, None)).mean(1)
    exact = (truth == said).all(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = 2 * right / (support + called)
        known = ~np.isnan(f1)
        macro = np.where(known, f1, 0).sum(0) / known.sum(0)
        micro = 2 * right.sum(0) / (support + called).sum(0)
    return {
        "macro_f1": macro,
        "micro_f1": micro,
        "mean_average_precision": _average_precision(weights, probabilities, truth),
        "exact_match": exact.astype(kind) @ weights / total,
        "log_loss": losses.astype(kind) @ weights / total,
    }


def _average_precision(weights: np.ndarray, probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the mean over labels [R] of the step-wise area under precision and recall (as scikit-learn's)."""
    rows = [
        _ranked(weights, scores, positive)
        for scores, positive in zip(probabilities.T, truth.T, strict=True)
        if positive.any()
    ]
    if not rows:
        return np.full(weights.shape[1], np.nan)
    found = np.stack(rows)
    known = ~np.isnan(found)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known, found, 0).sum(0) / known.sum(0)


def _ranked(weights: np.ndarray, scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Return one label's average precision [R]: precision at each positive's threshold, ties counted as one."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    # An item is reached at the last place that has its score.
    place = np.searchsorted(-ranked, -scores[positive], "right")
    ends, which = np.unique(place, return_inverse=True)
    starts = np.concatenate([[0], ends[:-1]])
    reached = np.cumsum(np.add.reduceat(weights[order[: ends[-1]]], starts, axis=0, dtype=np.float64), axis=0)
    own = np.zeros_like(reached)
    np.add.at(own, which, weights[positive])
    found = np.cumsum(own, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(reached > 0, found / reached, 0)
        return (precision * own).sum(0) / found[-1]


def label_rows(
    names: Sequence[str], right: Sequence[int], said: Sequence[int], support: Sequence[int]
) -> tuple[ClassRow, ...]:
    """Return precision, recall with its Wilson interval, and F1 of each name from its counts."""
    rows: list[ClassRow] = []
    for name, hits, called, true in zip(names, right, said, support, strict=True):
        low, high = wilson(hits, true) if true else (None, None)
        precision, recall = hits / called if called else None, hits / true if true else None
        f1 = 2 * hits / (true + called) if true + called else None
        rows.append(ClassRow(name, true, called, precision, recall, low, high, f1))
    return tuple(rows)


def _absent(labels: Sequence[str], truth: np.ndarray) -> list[str]:
    """Name the labels that no item has."""
    absent = [label for label, support in zip(labels, truth.sum(0), strict=True) if not support]
    if not absent:
        return []
    named = ", ".join(absent[:5]) + (f" and {len(absent) - 5} more labels" if len(absent) > 5 else "")
    return [f"no test items with {named}: average precision leaves such labels out"]


def _checked(
    probabilities: np.ndarray, targets: np.ndarray, labels: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return float64 probabilities and boolean targets, or say what does not fit."""
    given, truth = np.asarray(probabilities, np.float64), np.asarray(targets)
    fault = ""
    if not len(truth) or given.shape != (len(truth), len(labels)) or truth.shape != given.shape:
        fault = (
            f"probabilities of shape {given.shape}, targets of shape {truth.shape} and {len(labels)} labels"
        )
    elif not np.isfinite(given).all() or (given < 0).any() or (given > 1).any():
        fault = "values that are not probabilities (below 0, above 1 or not finite)"
    elif not np.isin(truth, (0, 1)).all():
        fault = "targets other than 0 and 1"
    if fault:
        raise DataError(
            fault,
            expected="probabilities [N, C] and 0/1 targets [N, C] for C labels, N at least 1",
            fix="pass sigmoid(logits) of the labelled items, and a column a label",
        )
    return given, truth.astype(bool)
