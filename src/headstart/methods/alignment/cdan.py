"""CDAN+E: domains that cannot be told apart by features and predictions together (Long et al. 2018, arXiv 1705.10667).

    L = 1/2 mean_s w -log D(R(h_s)) + 1/2 mean_t w -log(1 - D(R(h_t))),   h = f (x) p  [N, D C]

p = softmax(g) is detached, w = 1 + exp(-H(p)) (scaled to mean 1 in each domain) lets sure rows count more, R reverses
gradients. Where D C > 4096, h = (f A) * (p B) / sqrt(1024) with fixed random A [D, 1024] and B [C, 1024].
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from headstart.core.settings import Adapt
from headstart.methods.alignment import Needs, Rows, Sizes, entropy
from headstart.methods.alignment.reversal import Discriminator, ramp, reverse

MOST = 4096
"""Entries of the full product; beyond that it is drawn at random."""
RANDOM = 1024


class Cdan(nn.Module):
    """The conditional domain-adversarial loss with entropy weights; the discriminator trains along."""

    needs: ClassVar[Needs] = Needs(source=True, features=True)
    weight: ClassVar[float] = 1.0
    of_features: Tensor
    of_classes: Tensor

    def __init__(self, sizes: Sizes, settings: Adapt) -> None:
        """Make the discriminator and, where the product is large, its random map."""
        super().__init__()
        full = sizes.width * sizes.num_classes
        self.is_random = full > MOST
        if self.is_random:
            self.register_buffer("of_features", torch.randn(sizes.width, RANDOM))
            self.register_buffer("of_classes", torch.randn(sizes.num_classes, RANDOM))
        self.discriminator = Discriminator(RANDOM if self.is_random else full)

    def forward(self, source: Rows, target: Rows, *, progress: float) -> Tensor:
        """Return how well the domains can be told apart, with reversed gradients for the features."""
        shares = [side.outputs.detach().softmax(1) for side in (source, target)]
        joint = [
            reverse(self.joined(side.features, share), ramp(progress))
            for side, share in zip((source, target), shares, strict=True)
        ]
        weights = [1 + (-entropy(share)).exp() for share in shares]
        even = [weight / weight.mean() for weight in weights]
        return self.discriminator.loss(joint[0], joint[1], (even[0], even[1]))

    def joined(self, features: Tensor, shares: Tensor) -> Tensor:
        """Return h [N, D C], or its random projection [N, 1024]."""
        if self.is_random:
            return (features @ self.of_features) * (shares @ self.of_classes) / math.sqrt(RANDOM)
        return (features[:, :, None] * shares[:, None]).flatten(1)
