"""MK-MMD: equal means in the space of several Gaussian kernels (DAN: Long et al. 2015, arXiv 1502.02791).

    L = sum_a  mean K_a(f_s, f_s') + mean K_a(f_t, f_t') - 2 mean K_a(f_s, f_t),
    K_a(x, y) = exp(-|x - y|^2 / (2 a m)),   a in {1/8, 1/4, 1/2, 1, 2}

over features f [N, D]; m is the mean squared distance of all pairs of the batch, without gradient.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from headstart.core.settings import Adapt
from headstart.methods.alignment import Needs, Rows, Sizes

BANDWIDTHS = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0)


class Mmd(nn.Module):
    """The squared maximum mean discrepancy of the features, 0 for equal samples."""

    needs: ClassVar[Needs] = Needs(source=True, features=True)
    weight: ClassVar[float] = 1.0

    def __init__(self, sizes: Sizes, settings: Adapt) -> None:
        """Make it; it keeps nothing."""
        super().__init__()

    def forward(self, source: Rows, target: Rows, *, progress: float) -> Tensor:
        """Return the discrepancy of the two sides."""
        return discrepancy(source.features, target.features)


def discrepancy(source: Tensor, target: Tensor) -> Tensor:
    """Return the squared MMD of rows [n, D] and [m, D], summed over the kernels."""
    rows, count = torch.cat([source, target]), len(source)
    squares = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").square()
    mean = squares.detach().sum() / max(1, len(rows) * (len(rows) - 1))
    kernel = sum(
        ((-squares / (2 * a * mean.clamp(min=1e-12))).exp() for a in BANDWIDTHS), torch.zeros_like(squares)
    )
    return kernel[:count, :count].mean() + kernel[count:, count:].mean() - 2 * kernel[:count, count:].mean()
