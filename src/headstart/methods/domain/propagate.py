"""Label propagation: neighbours lend one another their labels.

Z <- a S Z + (1 - a) Y with Y what the head says, S = D^(-1/2) W D^(-1/2) and W the cubed cosine to the 10 nearest items
(Zhou et al. 2004, Learning with local and global consistency; Iscen et al. 2019, arXiv 1904.04717).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

NEIGHBOURS, POWER, REACH, ROUNDS = 10, 3, 0.9, 30
CHUNK = 1024
"""Items that are compared with all others at a time."""


def propagate(points: Tensor, said: Tensor) -> Tensor:
    """Return probabilities [m, C] of points [m, r], starting from those that the head `said` [m, C]."""
    nearest, weights = _neighbours(points)
    begin = said.to(points.dtype)
    degree = weights.sum(1).index_add(0, nearest.flatten(), weights.flatten()).clamp(min=1e-9).rsqrt()
    weights = weights * degree[:, None] * degree[nearest]
    spread = begin
    for _ in range(ROUNDS):
        # W is symmetric: every item hears its neighbours, and tells them.
        heard = torch.einsum("mk,mkc->mc", weights, spread[nearest])
        told = (weights[:, :, None] * spread[:, None]).flatten(0, 1)
        spread = REACH * heard.index_add(0, nearest.flatten(), told) + (1 - REACH) * begin
    return spread / spread.sum(1, keepdim=True)


def _neighbours(points: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nearest others of each point [m, k] and half the cubed cosines to them [m, k]."""
    unit = normalize(points - points.mean(0), dim=1)
    wanted = min(NEIGHBOURS, len(unit) - 1)
    nearest, weights = [], []
    for start in range(0, len(unit), CHUNK):
        cosines = unit[start : start + CHUNK] @ unit.T
        here = torch.arange(len(cosines))
        cosines[here, start + here] = -1.0
        value, index = cosines.topk(wanted, dim=1)
        nearest.append(index)
        weights.append(value.clamp(min=0).pow(POWER) / 2)
    return torch.cat(nearest), torch.cat(weights)
