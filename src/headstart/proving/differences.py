"""Paired differences: test items are drawn again, and seeds are few, which a moderated t allows for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

import numpy as np

from headstart.core.types import Score
from headstart.evaluation.metrics import blocks_of, draw_weights
from headstart.evaluation.scores import score_of

RESAMPLES = 2000
USUAL_DEVIATION, CREDIT = 0.05, 4.0
"""Of a gain over seeds, in parts of its scale, before any run, and the seeds that this belief is worth. It is three
times what fine-tunes of `benchmarks rank` vary by: training from scratch on few items varies by more."""


def crossed_gain(
    gain: np.ndarray,
    *,
    name: str,
    groups: Sequence[str] | None = None,
    beside: Sequence[np.ndarray] = (),
    scale: float = 1.0,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Score:
    """Return the mean of `gain` [S, N] (S seeds, N items) with its 95 % interval over test items and seeds.

    Items (or whole groups) are drawn again, the same for every seed. Of so few seeds another draw would say too little:
    what they vary by is added as a moderated t (Smyth 2004, doi 10.2202/1544-6115.1027), whose variance is shrunk
    towards what runs are believed to vary by, USUAL_DEVIATION of the `scale` of gains. `beside` [S, N] are the gains of
    the same arms on other label budgets, whose seeds add degrees of freedom; the larger of their variance and that of
    `gain` counts. With one seed only items count.
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
        freedom = num_seeds - 1
        believed = CREDIT * (USUAL_DEVIATION * scale) ** 2
        own = (believed + freedom * variances[0]) / (CREDIT + freedom)
        freedom *= len(variances)
        every = (believed + freedom * fmean(variances)) / (CREDIT + freedom)
        noise = np.random.default_rng(seed + 1).standard_t(CREDIT + freedom, len(drawn))
        drawn = drawn + math.sqrt(max(own, every) / num_seeds) * noise
    return score_of(name, float(gain.mean()), drawn, num_items)


def num_blocks(groups: Sequence[str], n: int) -> int:
    """Return how many of n test items stand for themselves, a group counted once."""
    return len(set(blocks_of(groups, n)[0].tolist()))
