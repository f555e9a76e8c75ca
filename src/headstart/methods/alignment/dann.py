"""DANN: features from which a discriminator cannot tell the domain (Ganin et al. 2016, arXiv 1505.07818).

    L = 1/2 mean_s -log D(R(f_s)) + 1/2 mean_t -log(1 - D(R(f_t)))

with features f [N, D], the gradient reversal R of coefficient 2 / (1 + exp(-10 progress)) - 1, and a discriminator D
that learns to minimise L while the features learn to maximise it.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from headstart.core.settings import Adapt
from headstart.methods.alignment import Needs, Rows, Sizes
from headstart.methods.alignment.reversal import Discriminator, ramp, reverse


class Dann(nn.Module):
    """The domain-adversarial loss; the discriminator trains along."""

    needs: ClassVar[Needs] = Needs(source=True, features=True)
    weight: ClassVar[float] = 0.1
    """A ramp over thousands of steps, as the field's libraries have it, comes to about this in the few hundred of a
    small run; at 1 the discriminator then undoes what the labels teach."""

    def __init__(self, sizes: Sizes, settings: Adapt) -> None:
        """Make the discriminator."""
        super().__init__()
        self.discriminator = Discriminator(sizes.width)

    def forward(self, source: Rows, target: Rows, *, progress: float) -> Tensor:
        """Return how well the domains can be told apart, with reversed gradients for the features."""
        coefficient = ramp(progress)
        return self.discriminator.loss(
            reverse(source.features, coefficient), reverse(target.features, coefficient)
        )
