"""Labels carried along the optimal transport from source to target.

plan = argmin <plan, |s_i - t_j|^2> - eps entropy(plan), then P_j = sum_i plan_ij onehot(y_i) / sum_i plan_ij
(Courty et al. 2017, Optimal transport for domain adaptation, arXiv 1507.00504; labels as in Redko et al. 2019, arXiv
1803.04899). It assumes that the classes occur in the same shares in both domains. Needs POT (`pip install
headstart[transport]`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from headstart.core.errors import PlanError
from headstart.methods.domain.ground import Ground

MOST = 2000
"""Items of a domain that are transported: the plan has as many entries as there are pairs."""
REGULARISATION = 0.02
"""Of the entropy, in units of the largest cost."""


def transport(ground: Ground, *, seed: int) -> Tensor:
    """Return probabilities [m, C] of the target by the source items that are carried there."""
    try:
        import ot
    except ImportError as error:
        raise PlanError(
            "label transport was asked for, but POT is not installed",
            expected="the package POT",
            fix="pip install 'headstart[transport]'",
        ) from error
    source, truth = _some(ground.source, ground.truth, seed)
    cost = torch.cdist(source, ground.target).square()
    cost = cost / cost.max().clamp(min=1e-12)
    shares, others = (torch.full((count,), 1 / count, dtype=torch.float64) for count in cost.shape)
    plan: Any = ot.sinkhorn(
        shares, others, cost.double(), REGULARISATION, method="sinkhorn_log", numItermax=200, warn=False
    )
    carried = plan.T @ one_hot(truth, ground.num_classes).double()
    return (carried / carried.sum(1, keepdim=True).clamp(min=1e-30)).float()


def _some(points: Tensor, truth: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Return at most MOST items, drawn by the seed."""
    if len(points) <= MOST:
        return points, truth
    chosen = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))[:MOST].sort().values
    return points[chosen], truth[chosen]
