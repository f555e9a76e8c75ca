"""Closed-form scores of how well features suit targets: shown beside a ranking, never its judge.

On public tables they say little that the size of a network does not, and they are not comparable across widths.
"""

from __future__ import annotations

import math

import numpy as np

STEPS = 100
"""Most iterations of LogME's fixed point, which takes about ten."""
TOLERANCE = 1e-5
"""Relative change of the ratio of the two precisions at which the fixed point is reached."""
TINY = 1e-12


def logme(features: np.ndarray, targets: np.ndarray) -> float:
    """Return the log of the maximum evidence of a linear model, an item and an output (You et al. 2021).

    Features F [n, D]; targets are one column an output, [n, C]: indicators of classes or labels, or numbers. For each
    column y, p(y) = N(0, F F^T / a + I / b) is maximised over both precisions by the fixed point
    a = g / |m|^2, b = (n - g) / |y - F m|^2 with g = sum s^2 / (s^2 + a / b) over the singular values s of F; the mean
    of log p(y) / n over columns is the score (arXiv 2102.11005; the fixed point is that of arXiv 2110.10545).
    """
    values = features.astype(np.float64)
    left, singular, _ = np.linalg.svd(values, full_matrices=False)
    outputs = targets.astype(np.float64)
    inside = (left.T @ outputs) ** 2
    outside = np.maximum((outputs**2).sum(0) - inside.sum(0), 0.0)
    columns = zip(inside.T, outside, strict=True)
    return float(np.mean([_evidence(singular**2, *column, shape=values.shape) for column in columns]))


def _evidence(squares: np.ndarray, inside: np.ndarray, outside: float, *, shape: tuple[int, int]) -> float:
    """Return log p(y) / n of one column, given the squares of F's singular values [k] and of y along them [k]."""
    (count, width), ratio = shape, 1.0
    prior = noise = length = residual = 1.0
    for _ in range(STEPS):
        degrees = float((squares / (squares + ratio)).sum())
        length = float((squares * inside / (squares + ratio) ** 2).sum())
        residual = float((inside * (ratio / (squares + ratio)) ** 2).sum()) + outside
        prior, noise = degrees / (length + TINY), (count - degrees) / (residual + TINY)
        before, ratio = ratio, prior / noise
        if abs(ratio - before) <= TOLERANCE * before:
            break
    spread = float(np.log(prior + noise * squares).sum()) + (width - len(squares)) * math.log(prior)
    whole = width * math.log(prior) + count * math.log(noise) - spread - count * math.log(2 * math.pi)
    return (whole - noise * residual - prior * length) / (2 * count)


def h_score(features: np.ndarray, classes: np.ndarray) -> float:
    """Return the regularised H-score of features [n, D] for class ids [n] (Ibrahim et al. 2022, arXiv 2110.06893).

    tr(S_a^-1 (1 - a) S_z): the covariance S_z of the class means in units of the whole covariance S, which is shrunk to
    a multiple of the identity, S_a = (1 - a) S + a tr(S) / D I, by the share a of Ledoit and Wolf (2004).
    """
    centred = features.astype(np.float64) - features.mean(0, dtype=np.float64)
    count, width = centred.shape
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    variances = singular**2 / count
    share = _shrinkage(centred, variances)
    if not variances.sum():
        return 0.0
    truth = np.eye(int(classes.max()) + 1)[classes]
    held = truth.sum(0)
    # Class means along the principal axes: they lie in the row space, so no other direction counts.
    means = (truth.T @ left) * singular / np.maximum(held, 1)[:, None]
    between = (held[:, None] / count * means**2).sum(0)
    shrunk = (1 - share) * variances + share * variances.sum() / width
    return float(((1 - share) * between[shrunk > 0] / shrunk[shrunk > 0]).sum())


def _shrinkage(centred: np.ndarray, variances: np.ndarray) -> float:
    """Return Ledoit and Wolf's share for centred rows [n, D] with these variances along their axes."""
    count, width = centred.shape
    squared = float((variances**2).sum())
    apart = squared - float(variances.sum()) ** 2 / width
    lengths = float(((centred**2).sum(1) ** 2).sum())
    noise = lengths / count**2 - squared / count
    return min(1.0, max(0.0, noise / apart)) if apart > 0 else 1.0
