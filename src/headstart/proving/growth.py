"""The power law by which an arm's error falls with labels, and about how many more a score takes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from headstart.evaluation.metrics import blocks_of, draw_weights
from headstart.proving.outcome import ArmFound, Growth
from headstart.report.words import count

FEWEST_BUDGETS = 4
"""Three numbers are fitted, so fewer budgets than this say nothing."""
POWERS = np.linspace(0.05, 2.0, 196)
"""Exponents that are tried; published learning curves lie within (Hestness et al. 2017, arXiv 1712.00409)."""
RESAMPLES = 400
FARTHEST = 20.0
"""A law is not believed beyond so many times the labels at hand."""
MOST_UNREACHED = 0.2
"""Where more of the resamples than this never reach the score, nothing is said."""


def fit_power_law(
    labels: np.ndarray, errors: np.ndarray, least: float = 1e-3
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (a, b, c) [R] of the least squares of a + b n^-c, a and b not negative, for R curves at once.

    `labels` [K] rising, `errors` [R, K]. Deviations count in parts of the error, as a curve falls over magnitudes, or
    of the `least` that can be told from none.
    """
    errors = np.atleast_2d(errors)
    scale = 1 / np.maximum(np.abs(errors), least)
    best = np.full(len(errors), np.inf)
    found = np.zeros((3, len(errors)))
    for power in POWERS:
        a, b = _two(scale, scale * labels**-power, scale * errors)
        lost = ((scale * (a[:, None] + b[:, None] * labels**-power - errors)) ** 2).sum(1)
        better = lost < best - 1e-15
        best[better] = lost[better]
        for row, values in enumerate((a, b, np.full(len(a), power))):
            found[row, better] = values[better]
    return found[0], found[1], found[2]


def _two(ones: np.ndarray, slopes: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a and b [R], neither negative, of least squares of a * ones + b * slopes to values, all [R, K]."""
    oo, ss, os = (ones**2).sum(1), (slopes**2).sum(1), (ones * slopes).sum(1)
    ov, sv = (ones * values).sum(1), (slopes * values).sum(1)
    determinant = np.maximum(oo * ss - os**2, 1e-300)
    a, b = (ss * ov - os * sv) / determinant, (oo * sv - os * ov) / determinant
    level, fall = np.maximum(ov / oo, 0), np.maximum(sv / ss, 0)
    return np.where(b < 0, level, np.where(a < 0, 0.0, a)), np.where(b < 0, 0.0, np.where(a < 0, fall, b))


def needed(a: np.ndarray, b: np.ndarray, c: np.ndarray, error: float) -> np.ndarray:
    """Return the labels at which a + b n^-c falls to `error`; infinite where it never does."""
    gap = error - a
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(
            (gap > 0) & (b > 0), (np.maximum(gap, 1e-300) / b) ** (-1 / c), np.where(gap > 0, 0.0, np.inf)
        )


def growth_of(
    arm: ArmFound,
    target: float,
    quality: Sequence[np.ndarray] | None,
    *,
    num_test: int,
    groups: Sequence[str] | None = None,
    seed: int = 0,
) -> Growth:
    """Return an arm's law and the labels that `target` takes, with the interval over seeds and test items drawn again.

    `quality` has for each budget an array [S, N]: how well the model of each seed answers each of `num_test` items;
    None where the score is no mean over items, so that only seeds can be drawn.
    """
    labels = np.array([point.budget.n for point in arm.points], dtype=np.float64)
    if len(labels) < FEWEST_BUDGETS:
        words = (
            f"cannot tell: {count(len(labels), 'budget')} are too few for a law ({FEWEST_BUDGETS} are needed)"
        )
        return Growth(arm.name, target, 0.0, 0.0, 0.0, None, None, None, words)
    errors = 1 - np.array([point.value for point in arm.points])
    least = 0.5 / num_test
    a, b, c = (float(value[0]) for value in fit_power_law(labels, errors, least))
    if quality is None:
        quality, groups = [np.array(point.scores)[:, None] for point in arm.points], None
    laws = fit_power_law(labels, np.clip(errors + _chance(quality, groups, seed), 0, None), least)
    spread = needed(*laws, 1 - target)
    low, high = np.quantile(spread, (0.025, 0.975), method="inverted_cdf")
    middle = float(needed(np.array([a]), np.array([b]), np.array([c]), 1 - target)[0])
    words, told = _words(
        arm, target, (middle, float(low), float(high)), unreached=float(np.isinf(spread).mean())
    )
    bounds = (middle, float(low), float(high)) if told else (None, None, None)
    return Growth(arm.name, target, a, b, c, *bounds, words)


def _chance(quality: Sequence[np.ndarray], groups: Sequence[str] | None, seed: int) -> np.ndarray:
    """Return by how much errors [R, K] move where seeds and, apart from them, items are drawn again.

    The same items for every seed and budget, as all were scored on the same (Owen 2007, arXiv 0712.1111).
    """
    num_seeds = min(len(one) for one in quality)
    blocks, _ = blocks_of(groups, quality[0].shape[1])
    draws = np.random.default_rng(seed + 1)
    rows: list[np.ndarray] = []
    for weights in draw_weights(blocks, RESAMPLES, seed):
        width = weights.shape[1]
        chosen = draws.integers(0, num_seeds, (num_seeds, width))
        by_seed = [one[:num_seeds] @ weights / weights.sum(0) for one in quality]
        means = [one[chosen, np.arange(width)].mean(0) for one in by_seed]
        rows.append(
            np.stack([one[:num_seeds].mean() - mean for one, mean in zip(quality, means, strict=True)], 1)
        )
    return np.concatenate(rows)


def _words(
    arm: ArmFound, target: float, bounds: tuple[float, float, float], *, unreached: float
) -> tuple[str, bool]:
    """Say how many labels the score takes; and whether a number can be given."""
    middle, low, high = bounds
    here = arm.final.budget.n
    done = next((point.budget.n for point in arm.points if point.value >= target), None)
    if done is not None:
        short = max((point.budget.n for point in arm.points if point.budget.n < done), default=0)
        if short and math.isfinite(high) and low > 0 and high <= FARTHEST * here:
            about = min(max(middle, short), done)
            span = f" (95% interval {_round(min(low, about))} to {_round(max(high, about))})"
            return f"reached with about {_round(about)} labels{span}", True
        return f"reached with {done:,} labels or fewer", False
    if math.isinf(middle) or unreached > MOST_UNREACHED:
        return "cannot tell: by these curves more labels of this kind may never reach it", False
    if middle > FARTHEST * here or high > FARTHEST**2 * here:
        return (
            f"cannot tell: more than {FARTHEST:g} times the {here:,} labels at hand, too far to foresee",
            False,
        )
    more, high = max(0.0, middle - here), max(high, middle, here)
    span = f"95% interval {_round(max(0.0, low - here))} to {_round(high - here) if math.isfinite(high) else 'no end'}"
    return f"about {_round(more)} more labels ({span})", True


def _round(number: float) -> str:
    """Write a number of labels with two digits that count."""
    if number < 100:
        return f"{number:.0f}"
    digits = 1 - math.floor(math.log10(number))
    return f"{round(number, digits):,.0f}"
