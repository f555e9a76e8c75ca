"""UDALM: the task on the source and language modelling on the target, mixed (Karouzos et al. 2021, arXiv 2104.07078).

    L = lambda task(source) + (1 - lambda) masked-language(target),   lambda = n_s / (n_s + n_t)

with the rows n_s and n_t of a batch. The task's loss is added by itself, so this term is (1 - lambda) / lambda =
n_t / n_s times the masked-language loss: L divided by lambda, of which the optimiser sees no difference. The caller
hands in the masked-language loss; the network had best been trained on the target's texts by it before.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from headstart.core.settings import Adapt
from headstart.methods.alignment import Needs, Rows, Sizes


class Udalm(nn.Module):
    """The target's share of the mixed loss."""

    needs: ClassVar[Needs] = Needs(source=True, language=True)
    weight: ClassVar[float] = 1.0

    def __init__(self, sizes: Sizes, settings: Adapt) -> None:
        """Make it; it keeps nothing."""
        super().__init__()

    def forward(self, source: Rows, target: Rows, *, progress: float) -> Tensor:
        """Return the masked-language loss, weighted by the batch's shares."""
        assert target.language is not None, "the masked-language loss was asked for"
        return target.language * (len(target) / len(source))
