"""The gradient reversal layer and the domain discriminator that adversarial terms share.

Ganin & Lempitsky 2015, arXiv 1409.7495: R(x) = x, dR/dx = -coefficient; what lies before it learns to confuse what lies
behind it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

HIDDEN = 1024
"""Units of each hidden layer of the discriminator."""
STEEPNESS = 10.0


class _Reversal(torch.autograd.Function):
    """Identity forward, negated and scaled gradient backward."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, coefficient: float) -> Tensor:
        """Return the features."""
        ctx.coefficient = coefficient
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Turn the gradient round."""
        return -ctx.coefficient * gradients[0], None


def reverse(features: Tensor, coefficient: float) -> Tensor:
    """Return the features; their gradient will be multiplied by -coefficient."""
    return _Reversal.apply(features, coefficient)  # pyright: ignore[reportReturnType] - torch has no type for it


def ramp(progress: float) -> float:
    """Return 2 / (1 + exp(-10 progress)) - 1: from 0 to 1, so that early noise of the discriminator does no harm."""
    return 2 / (1 + math.exp(-STEEPNESS * progress)) - 1


class Discriminator(nn.Module):
    """Rows [N, D] to the logit [N] of coming from the source: twice Linear-BatchNorm-ReLU, then Linear."""

    def __init__(self, width: int) -> None:
        """Make the layers."""
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU(),
            nn.Linear(HIDDEN, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU(),
            nn.Linear(HIDDEN, 1),
        )  # fmt: skip

    def forward(self, rows: Tensor) -> Tensor:
        """Return logits."""
        return self.layers(rows)[:, 0]

    def loss(self, source: Tensor, target: Tensor, weights: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Return the binary cross-entropy of telling the rows apart; each domain counts one half."""
        logits = self(torch.cat([source, target]))
        sides = logits[: len(source)], -logits[len(source) :]
        losses = [nn.functional.softplus(-side) for side in sides]
        if weights is not None:
            losses = [loss * weight for loss, weight in zip(losses, weights, strict=True)]
        return (losses[0].mean() + losses[1].mean()) / 2
