"""AFN, stepwise: features of both domains with ever larger norms (Xu et al. 2019, arXiv 1811.07456).

    L = mean_s (|f_s| - (|f_s|' + 1))^2 + mean_t (|f_t| - (|f_t|' + 1))^2

over features f [N, D], where ' means without gradient: each step lengthens every feature a little, and large norms
transfer better. No discriminator, and no source needed.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from headstart.core.settings import Adapt
from headstart.methods.alignment import Needs, Rows, Sizes

STEP = 1.0
"""By how much each feature shall become longer."""


class Afn(nn.Module):
    """The stepwise adaptive feature norm loss."""

    needs: ClassVar[Needs] = Needs(features=True)
    weight: ClassVar[float] = 0.05

    def __init__(self, sizes: Sizes, settings: Adapt) -> None:
        """Make it; it keeps nothing."""
        super().__init__()

    def forward(self, source: Rows, target: Rows, *, progress: float) -> Tensor:
        """Return the loss of the sides that have rows."""
        losses = [enlargement(side.features) for side in (source, target) if len(side)]
        return sum(losses[1:], losses[0])


def enlargement(features: Tensor) -> Tensor:
    """Return the loss of rows [N, D]; its value is STEP^2, its gradient lengthens them."""
    norms = features.norm(dim=1)
    return (norms - (norms.detach() + STEP)).square().mean()
