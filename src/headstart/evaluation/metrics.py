"""Metrics of weighted items, for a thousand resamples at once, and how the resamples are drawn."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95
"""Share of repeated experiments whose interval covers the truth."""
BINS = 15
"""Equal-width bins of the top probability in the reliability plot and the calibration error."""
METRICS: Mapping[str, bool] = {
    "accuracy": True,
    "balanced_accuracy": True,
    "macro_f1": True,
    "auroc": True,
    "log_loss": False,
    "calibration_error": False,
    "micro_f1": True,
    "mean_average_precision": True,
    "exact_match": True,
    "r2": True,
    "mae": False,
    "rmse": False,
    "spearman": True,
    "span_f1": True,
    "span_precision": True,
    "span_recall": True,
    "token_accuracy": True,
}
"""Every metric, and whether higher is better."""
CLASS_METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "log_loss", "calibration_error")
"""Those of single-label classification, the one that decides first."""
_CHUNK = 4_000_000


def weighted_metrics(
    weights: np.ndarray, probabilities: np.ndarray, targets: np.ndarray, names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return metric -> value [R] for item weights [N, R]; NaN where a resample does not define one.

    Classes that a resample has no item of are left out of its means, as scikit-learn does for absent classes.
    """
    n, num_classes = probabilities.shape
    items, kind = np.arange(n), weights.dtype
    predicted, top, total = probabilities.argmax(1), probabilities.max(1), weights.sum(0)
    truth, said = np.zeros((2, num_classes, n), kind)
    truth[targets, items] = said[predicted, items] = 1
    support, called, right = truth @ weights, said @ weights, (truth * said) @ weights
    confidence_gap = np.zeros((BINS, n), kind)
    confidence_gap[bin_of(top), items] = top - (predicted == targets)
    losses = -np.log(np.clip(probabilities[items, targets], np.finfo(np.float64).eps, None))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = {
            "accuracy": right.sum(0) / total,
            "balanced_accuracy": _mean(right / support),
            "macro_f1": _mean(2 * right / (support + called)),
            "auroc": _auroc(weights, probabilities, truth > 0) if "auroc" in names else np.full(1, np.nan),
            "log_loss": losses.astype(kind) @ weights / total,
            "calibration_error": np.abs(confidence_gap @ weights).sum(0) / total,
        }
    return {name: found[name] for name in names}


def _auroc(weights: np.ndarray, probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the macro one-vs-rest AUROC [R]: the weighted share of (positive, negative) pairs in order."""
    rows: list[np.ndarray] = []
    for scores, positive in zip(probabilities.T, truth, strict=True):
        order = np.argsort(scores, kind="stable")
        up, down = order[positive[order]], order[~positive[order]]
        if not len(up) or not len(down):
            continue
        left, right = (np.searchsorted(scores[down], scores[up], side) for side in ("left", "right"))
        # Only the places where positives lie need the weight of the negatives below: sum in between them.
        cuts = np.unique(np.concatenate([left, right, [0, len(down)]]))
        below = np.zeros((len(cuts), weights.shape[1]), weights.dtype)
        np.cumsum(np.add.reduceat(weights[down], cuts[:-1], axis=0), axis=0, out=below[1:])
        wins = below[np.searchsorted(cuts, left)] + below[np.searchsorted(cuts, right)]
        rows.append(np.einsum("pr,pr->r", wins, weights[up]) / (2 * weights[up].sum(0) * below[-1]))
    return _mean(np.stack(rows)) if rows else np.full(weights.shape[1], np.nan)


def _mean(rows: np.ndarray) -> np.ndarray:
    """Return the mean over classes [R] of those that are defined (not NaN); NaN where none is."""
    known = ~np.isnan(rows)
    return np.where(known, rows, 0).sum(0) / known.sum(0)


def draw_weights(blocks: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield how often each item was drawn, float32 [N, R'], in chunks of bounded memory."""
    draws, count = np.random.default_rng(seed), int(blocks.max()) + 1
    step = max(1, _CHUNK // len(blocks))
    for start in range(0, resamples, step):
        width = min(step, resamples - start)
        drawn = draws.integers(0, count, (width, count)) * width + np.arange(width)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=count * width).reshape(count, width)
        yield counts.astype(np.float32)[blocks]


def blocks_of(groups: Sequence[str] | None, n: int) -> tuple[np.ndarray, int]:
    """Return the block each item is drawn with, [N], and the number of groups (0 where items stand alone)."""
    if groups is None or not any(groups):
        return np.arange(n), 0
    # An item without a group stands for itself.
    names = [f"group {name}" if name else f"item {index}" for index, name in enumerate(groups)]
    known, blocks = np.unique(names, return_inverse=True)
    return (blocks, len(known)) if len(known) < n else (np.arange(n), 0)


def wilson(successes: int, n: int, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the Wilson score interval of a share; unlike the bootstrap it stays honest at 0 and 1."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, spread = successes / n, z * z / n
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    return middle - half if successes else 0.0, middle + half if successes < n else 1.0


def bin_of(top: np.ndarray) -> np.ndarray:
    """Return the bin of each top probability."""
    return np.minimum((top * BINS).astype(int), BINS - 1)
