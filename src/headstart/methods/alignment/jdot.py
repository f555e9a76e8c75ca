"""DeepJDOT: each target row is to look like, and be answered as, the source rows that are transported to it.

Damodaran et al. 2018, arXiv 1803.10081:

    cost_ij = |f_si - f_tj|^2 / D + 0.1 CE(y_si, g_tj),
    gamma = argmin over plans of <gamma, cost>,   L = <gamma, cost>

with features f [N, D], source ids y [N], target logits g [N, C]. The plan gamma [n, m] (equal weights on both sides) is
exact, made for each batch without gradient by the library POT. Of the paper's two factors (0.001 and 0.0001) the
proportion is kept; as squared distances grow with D, they are divided by it. Domains whose classes differ in number
within a batch are matched wrongly in part, so the term is to be a small part of the loss.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from headstart.core.errors import PlanError
from headstart.core.settings import Adapt
from headstart.methods.alignment import Needs, Rows, Sizes

CLASSES = 0.1
"""What a wrong class costs, beside a mean squared difference of 1."""


class Jdot(nn.Module):
    """The joint-distribution optimal transport loss of a batch."""

    needs: ClassVar[Needs] = Needs(source=True, features=True)
    weight: ClassVar[float] = 0.1

    def __init__(self, sizes: Sizes, settings: Adapt) -> None:
        """Look for the library now rather than after the encoding (PlanError where it is missing)."""
        super().__init__()
        _library()

    def forward(self, source: Rows, target: Rows, *, progress: float) -> Tensor:
        """Return the cost of the cheapest plan."""
        assert source.truth is not None, "the source has labels"
        apart = torch.cdist(source.features, target.features).square() / source.features.shape[1]
        cost = apart - CLASSES * target.outputs.log_softmax(1)[:, source.truth].T
        return (plan(cost.detach()) * cost).sum()


def plan(cost: Tensor) -> Tensor:
    """Return the exact transport plan [n, m] of least cost between rows that weigh the same."""
    found = _library().emd([], [], cost.double().cpu().numpy())
    return torch.from_numpy(np.asarray(found)).to(cost)


def _library() -> Any:
    """Return POT; PlanError where it is not installed."""
    try:
        import ot
    except ModuleNotFoundError:
        raise PlanError(
            "the term jdot is set, but the package POT (optimal transport) is not installed",
            expected="the extra `transport`",
            fix="pip install 'headstart[transport]', or leave the term jdot out",
        ) from None
    return ot
