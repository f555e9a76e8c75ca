"""Paired differences: test items are drawn again, and seeds are few, which Student's t allows for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

import numpy as np

from headstart.core.types import Score
from headstart.evaluation.metrics import blocks_of, draw_weights
from headstart.evaluation.scores import score_of

RESAMPLES = 2000


def crossed_gain(
    gain: np.ndarray,
    *,
    name: str,
    groups: Sequence[str] | None = None,
    beside: Sequence[np.ndarray] = (),
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Score:
    """Return the mean of `gain` [S, N] (S seeds, N items) with its 95 % interval over test items and seeds.

    Items (or whole groups) are drawn again, the same for every seed. Of so few seeds another draw would say too little:
    what they vary by is added as Student's t (1908) has it. `beside` [S, N] are the gains of the same arms on other
    label budgets, whose seeds add degrees of freedom; the larger of their variance and that of `gain` counts. As seeds
    vary by chance of the items too, the interval is a little wide rather than narrow. With one seed only items count.
    """
    gain = np.asarray(gain, dtype=np.float64)
    num_seeds, num_items = gain.shape
    blocks, _ = blocks_of(groups, num_items)
    mean = gain.mean(0)
    drawn = np.concatenate(
        [mean @ weights / weights.sum(0) for weights in draw_weights(blocks, resamples, seed)]
    )
    if num_seeds > 1:
        variances = [float(one.mean(1).var(ddof=1)) for one in (gain, *beside) if len(one) == num_seeds]
        variance = max(variances[0], fmean(variances))
        noise = np.random.default_rng(seed + 1).standard_t((num_seeds - 1) * len(variances), len(drawn))
        drawn = drawn + math.sqrt(variance / num_seeds) * noise
    return score_of(name, float(gain.mean()), drawn, num_items)


def num_blocks(groups: Sequence[str], n: int) -> int:
    """Return how many of n test items stand for themselves, a group counted once."""
    return len(set(blocks_of(groups, n)[0].tolist()))
