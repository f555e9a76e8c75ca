"""Scores of predicted numbers, each with its interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headstart.core.errors import DataError
from headstart.evaluation.intervals import by_domain, doubt_notes, measured
from headstart.evaluation.metrics import blocks_of
from headstart.evaluation.scores import Evaluation


def evaluate_values(
    predicted: np.ndarray,
    targets: np.ndarray,
    *,
    domains: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Score predicted numbers [N] against true ones [N] by R2, MAE, RMSE and Spearman's rank correlation.

    R2 is 1 - squared error / spread of these targets, so 0 is what answering their mean would reach; it is not defined,
    and left out, where all targets are equal. DataError for arrays that do not fit together.
    """
    guess, truth = _checked(predicted, targets)
    blocks, num_groups = blocks_of(groups, len(truth))

    def measure(weights: np.ndarray, chosen: np.ndarray) -> dict[str, np.ndarray]:
        return _measures(weights.astype(np.float64), guess[chosen], truth[chosen])

    scores = measured(measure, np.arange(len(truth)), blocks, resamples=resamples, seed=seed)
    notes = doubt_notes(scores, num_groups)
    if "r2" not in {score.name for score in scores}:
        notes.append("R2 and Spearman's correlation are not defined: the test items all have one value")
    return Evaluation(
        labels=(),
        n=len(truth),
        scores=scores,
        per_class=(),
        per_domain=by_domain(measure, blocks, domains, resamples=resamples, seed=seed),
        confusion=(),
        reliability=(),
        notes=tuple(notes),
        num_groups=num_groups,
        resamples=resamples,
        task="regression",
    )


def _measures(weights: np.ndarray, guess: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """Return every metric [R] for item weights [n, R]."""
    total, error = weights.sum(0), guess - truth
    centred = truth - truth.mean()
    squared = (error**2) @ weights
    # Around each resample's own mean.
    spread = (centred**2) @ weights - (centred @ weights) ** 2 / total
    least = 1e-12 * float((centred**2).sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "r2": np.where(spread > least, 1 - squared / spread, np.nan),
            "mae": np.abs(error) @ weights / total,
            "rmse": np.sqrt(squared / total),
            "spearman": _correlation(weights, _ranks(weights, guess), _ranks(weights, truth)),
        }


def _ranks(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return each item's rank [n, R] among the weighted items; tied items share their mean rank."""
    known, place = np.unique(values, return_inverse=True)
    mass = weights
    if len(known) < len(values):
        order = np.argsort(place, kind="stable")
        starts = np.searchsorted(place[order], np.arange(len(known)))
        mass = np.add.reduceat(weights[order], starts, axis=0)
        return (np.cumsum(mass, axis=0) - mass / 2)[place]
    sorted_mass = mass[np.argsort(place)]
    return (np.cumsum(sorted_mass, axis=0) - sorted_mass / 2)[place]


def _correlation(weights: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return Pearson's weighted correlation [R] of two columns [n, R]; NaN where one does not vary."""
    total = weights.sum(0)
    one, other = (part - (weights * part).sum(0) / total for part in (first, second))
    products = [(weights * left * right).sum(0) for left, right in ((one, other), (one, one), (other, other))]
    scale = np.sqrt(products[1] * products[2])
    return np.where(scale > 1e-9 * total, products[0] / scale, np.nan)


def _checked(predicted: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return float64 numbers, or say what does not fit."""
    guess, truth = np.asarray(predicted, np.float64), np.asarray(targets, np.float64)
    fault = ""
    if guess.ndim != 1 or guess.shape != truth.shape or not len(truth):
        fault = f"predictions of shape {guess.shape} for targets of shape {truth.shape}"
    elif not np.isfinite(guess).all() or not np.isfinite(truth).all():
        fault = "numbers that are not finite"
    if fault:
        raise DataError(
            fault,
            expected="one finite prediction for each of at least one finite target",
            fix="leave out items without a number; a network that gives infinities has a bad head or input",
        )
    return guess, truth
