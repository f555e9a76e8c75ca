"""Standardised features in their own principal axes, where every solver below is cheap.

A rotation changes no penalty and no distance, but makes the Gram matrix diagonal: ridge regression becomes closed-form
for every penalty at once and logistic regression gets an exact diagonal curvature bound.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from headstart.core.types import Form

NEGLIGIBLE = 1e-3
"""Axes with less than this share of the largest variance are left out: any useful penalty shrinks them to nothing."""

LEAST_DEVIATION = 0.5
"""Columns that vary less than this share of the median are not stretched further: nearly dead features carry little,
and a head that magnifies them makes fine-tuning explode."""


@dataclass(frozen=True)
class Space:
    """`points` [n, r] are the standardised training features in principal axes; `axes` [D, r] leads back."""

    form: Form
    mean: Tensor
    scale: Tensor
    axes: Tensor
    variances: Tensor
    points: Tensor

    def spread(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (mean, scale, weight [C, D]) over all columns of the form for a map [r, C] found in this space."""
        return self.mean, self.scale, (self.axes @ weight).T.contiguous()


def principal_space(features: Tensor, form: Form, *, is_stretched: bool = True) -> Space:
    """Standardise features [n, D], or centre them only, and rotate them into their principal axes."""
    mean, deviation = features.mean(0), features.std(0, correction=0)
    scale = 1 / deviation.clamp(min=LEAST_DEVIATION * float(deviation.median()) + 1e-12)
    scale = scale if is_stretched else torch.ones_like(scale)
    standard = (features - mean) * scale
    n = len(standard)
    if n <= standard.shape[1]:
        values, vectors = torch.linalg.eigh(standard @ standard.T)
        keep = values > NEGLIGIBLE * values[-1]
        points = vectors[:, keep] * values[keep].sqrt()
        axes = standard.T @ (vectors[:, keep] / values[keep].sqrt())
    else:
        values, vectors = torch.linalg.eigh(standard.T @ standard)
        keep = values > NEGLIGIBLE * values[-1]
        axes = vectors[:, keep]
        points = standard @ axes
    return Space(form, mean, scale, axes, values[keep] / n, points)
