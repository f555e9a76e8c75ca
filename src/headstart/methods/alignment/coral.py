"""Deep CORAL: equal covariances of both domains (Sun & Saenko 2016, arXiv 1607.01719).

    L = |C_s - C_t|_F^2 / (4 C^2),   C_s, C_t [C, C] the covariances of the outputs

As in the paper the last layer's outputs [N, C] are aligned, not the features below: a covariance of few columns can be
estimated from a batch.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from headstart.core.settings import Adapt
from headstart.methods.alignment import Needs, Rows, Sizes


class Coral(nn.Module):
    """The distance of the two covariances, 0 where they are equal."""

    needs: ClassVar[Needs] = Needs(source=True)
    weight: ClassVar[float] = 1.0

    def __init__(self, sizes: Sizes, settings: Adapt) -> None:
        """Make it; it keeps nothing."""
        super().__init__()

    def forward(self, source: Rows, target: Rows, *, progress: float) -> Tensor:
        """Return the distance of the outputs' covariances."""
        return distance(source.outputs, target.outputs)


def distance(source: Tensor, target: Tensor) -> Tensor:
    """Return the CORAL distance of rows [n, D] and [m, D]."""
    return (covariance(source) - covariance(target)).square().sum() / (4 * source.shape[1] ** 2)


def covariance(rows: Tensor) -> Tensor:
    """Return the covariance [D, D] of rows [N, D]; zero for a single one."""
    centred = rows - rows.mean(0)
    return centred.T @ centred / max(1, len(rows) - 1)
