"""Clusters of the target's features, which one of the votes compares the candidates' classes with."""

from __future__ import annotations

import numpy as np

ROUNDS = 30


def clusters_of(features: np.ndarray, count: int, *, seed: int = 0) -> np.ndarray:
    """Return the cluster [m] of each row [m, D] by spherical k-means over standardised columns (k-means++ starts).

    There are `count` clusters, or a third as many as there are rows where these are few.
    """
    deviation = features.std(0)
    points = (features - features.mean(0)) / np.maximum(deviation, 0.5 * np.median(deviation) + 1e-12)
    unit = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    count = max(1, min(count, len(unit) // 3))
    draw = np.random.default_rng(seed)
    centres = _starts(unit, count, draw)
    nearest = np.zeros(len(unit), np.int64)
    for _ in range(ROUNDS):
        before, nearest = nearest, (unit @ centres.T).argmax(1)
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, unit)
        # A cluster that lost its items keeps its place.
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(lengths > 0, sums / np.maximum(lengths, 1e-12), centres)
        if (before == nearest).all():
            break
    return nearest


def _starts(unit: np.ndarray, count: int, draw: np.random.Generator) -> np.ndarray:
    """Draw rows far from each other (Arthur and Vassilvitskii 2007)."""
    chosen = [int(draw.integers(len(unit)))]
    distance = 1 - unit @ unit[chosen[0]]
    for _ in range(count - 1):
        chances = distance.clip(0)
        total = float(chances.sum())
        chosen.append(int(draw.choice(len(unit), p=chances / total)) if total > 0 else 0)
        distance = np.minimum(distance, 1 - unit @ unit[chosen[-1]])
    return unit[chosen]
