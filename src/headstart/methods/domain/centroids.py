"""Pseudo-labels by the nearest class centroid of the target, as in SHOT; the source is not needed.

c_k = sum_i P_ik f_i / |sum_i P_ik f_i|, label_i = argmax_k cos(f_i, c_k), and once more with the labels in place of P
(Liang, Hu and Feng 2020, Do we really need to access the source data?, arXiv 2002.08546).
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import normalize, one_hot

SHARPNESS = 10.0
ROUNDS = 2


def nearest_centroids(points: Tensor, said: Tensor) -> Tensor:
    """Return probabilities [m, C] of points [m, r] by their cosine to centroids, from those that the head `said`."""
    unit = normalize(points - points.mean(0), dim=1)
    shares = said.to(points.dtype)
    cosines = shares
    for _ in range(ROUNDS):
        centroids = normalize(shares.T @ unit, dim=1)
        cosines = unit @ centroids.T
        # A class that nobody is put into has no centroid to be near to.
        cosines[:, shares.sum(0) == 0] = -1.0
        shares = one_hot(cosines.argmax(1), said.shape[1]).to(points.dtype)
    return (SHARPNESS * cosines).softmax(1)
