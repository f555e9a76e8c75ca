"""Paired differences over test items and seeds, both drawn again."""

from __future__ import annotations

from collections.abc import Sequence

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
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Score:
    """Return the mean of `gain` [S, N] (S seeds, N items) with its 95 % bootstrap interval.

    A resample draws seeds and, apart from them, items (or whole groups), the same items for every seed: what another
    draw of the training labels and what other test items would change both show (the pigeonhole bootstrap, Owen 2007,
    arXiv 0712.1111, which is a little wide rather than narrow). With one seed only items are drawn.
    """
    gain = np.asarray(gain, dtype=np.float64)
    num_seeds, num_items = gain.shape
    blocks, _ = blocks_of(groups, num_items)
    draws = np.random.default_rng(seed + 1)
    drawn: list[np.ndarray] = []
    for weights in draw_weights(blocks, resamples, seed):
        width = weights.shape[1]
        by_seed = gain @ weights / weights.sum(0)
        chosen = draws.integers(0, num_seeds, (num_seeds, width))
        drawn.append(by_seed[chosen, np.arange(width)].mean(0))
    return score_of(name, float(gain.mean()), np.concatenate(drawn), num_items)
