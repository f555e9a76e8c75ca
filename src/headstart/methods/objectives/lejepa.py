"""LeJEPA: views of an item agree, and their embeddings are spread like a normal distribution; no teacher, no tricks.

Balestriero & LeCun 2025 (arXiv 2511.08544):

    L = l SIGReg(z) + (1 - l) mean over views v of ||z_v - mean over views of z||^2

SIGReg projects the embeddings z [N, K] of each view on random directions and takes, for each, the Epps-Pulley distance
between their characteristic function and that of N(0, 1):

    N integral over t of |1/N sum_n exp(i t x_n) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt

over 17 knots t of [0, 3] by the trapezoid rule, doubled as the integrand is even. It is 0 only for what is normal in
all directions: so embeddings cannot collapse. Of a sample of N(0, I) its expectation is the integral of
(1 - exp(-t^2)) exp(-t^2 / 2), whatever N.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from headstart.core.errors import PlanError
from headstart.core.types import InputContract
from headstart.methods.objectives import Network, Seen

if TYPE_CHECKING:
    from headstart.core.settings import Pretrain

DIRECTIONS, KNOTS, FURTHEST = 1024, 17, 3.0
HIDDEN_FACTOR = 4


class LeJepa(nn.Module):
    """Agreement of views with a normal spread; implements Objective."""

    version: ClassVar[int] = 2

    def __init__(self, encoder: Network, settings: Pretrain) -> None:
        """Make the projector; PlanError for texts, of which no views are made."""
        super().__init__()
        if not isinstance(encoder.spec.contract, InputContract):
            raise PlanError(
                f"the objective lejepa was asked of {encoder.spec.name}, a network for {encoder.spec.modality}",
                expected="a network for pictures, of which views can be made",
                fix="leave pretrain.objective out",
            )
        if settings.mask_ratio is not None:
            raise PlanError(
                f"pretrain.mask_ratio is {settings.mask_ratio:g}, but lejepa hides nothing",
                expected="no mask ratio: views of whole pictures are compared",
                fix="leave it out",
            )
        self.views, self.weight = settings.views, settings.regularisation
        self.body, self._network = encoder.module, encoder.network("pooled")
        width, inner = settings.decoder_width, HIDDEN_FACTOR * settings.decoder_width
        self.decoder = nn.Sequential(
            nn.Linear(encoder.spec.width["pooled"], inner), nn.BatchNorm1d(inner), nn.GELU(), nn.Linear(inner, width)
        )  # fmt: skip

    def loss(self, inputs: Sequence[Tensor], generator: np.random.Generator) -> Tensor:
        """Return the loss of a batch, one tensor of pictures [N, C, H, W] a view."""
        # All views in one pass: BatchNorm sees them together, and the network is called once.
        found = self.decoder(self._network(torch.cat(list(inputs)))).float()
        embeddings = found.view(len(inputs), -1, found.shape[1])
        drawn = generator.standard_normal((found.shape[1], DIRECTIONS), dtype=np.float32)
        directions = torch.from_numpy(drawn).to(found.device)
        spread = torch.stack([sigreg(view, directions) for view in embeddings]).mean()
        return self.weight * spread + (1 - self.weight) * agreement(embeddings)

    def show(self, inputs: Sequence[Tensor], generator: np.random.Generator) -> list[Seen]:
        """Return nothing: nothing is hidden."""
        return []


def agreement(embeddings: Tensor) -> Tensor:
    """Return the mean squared distance of views [V, N, K] to their mean over the views."""
    return (embeddings - embeddings.mean(0, keepdim=True)).square().mean()


def sigreg(embeddings: Tensor, directions: Tensor) -> Tensor:
    """Return the mean Epps-Pulley distance of embeddings [N, K] to N(0, I) along `directions` [K, P], of any length."""
    unit = directions / directions.norm(dim=0, keepdim=True)
    return cast("Tensor", _EppsPulley.apply(embeddings @ unit))


class _EppsPulley(torch.autograd.Function):
    """The mean distance over columns of [N, P], with its gradient in closed form.

    Knots lie evenly, so that exp(i t x) at one is that at the knot before times exp(i h x): one sine and one cosine of
    each number are computed in all, and none is kept.
    """

    @staticmethod
    def forward(ctx: Any, projected: Tensor) -> Tensor:
        """Return the distance, a number."""
        count = len(projected)
        waves = [(real.mean(0), imaginary.mean(0)) for real, imaginary in _waves(projected)]
        real, imaginary = (torch.stack(part) for part in zip(*waves, strict=True))
        knots = torch.linspace(0, FURTHEST, KNOTS, device=projected.device)[:, None]
        normal = (-knots.square() / 2).exp()
        weights = normal * trapezoid(knots[:, 0])[:, None]
        scale = 2 * weights * knots / projected.shape[1]
        ctx.save_for_backward(projected, scale * imaginary, scale * (normal - real))
        distance = (real - normal).square() + imaginary.square()
        return count * (distance * weights).sum(0).mean()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Return the gradient [N, P]: d real / dx = -t sin(t x) / N, d imaginary / dx = t cos(t x) / N."""
        projected, of_real, of_imaginary = ctx.saved_tensors
        found = torch.zeros_like(projected)
        for (real, imaginary), up, down in zip(_waves(projected), of_real, of_imaginary, strict=True):
            found.addcmul_(real, up).addcmul_(imaginary, down)
        return gradients[0] * found


def _waves(projected: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield cosine and sine of each knot times numbers [N, P]."""
    step = FURTHEST / (KNOTS - 1)
    first_real, first_imaginary = (step * projected).cos(), (step * projected).sin()
    real, imaginary = torch.ones_like(projected), torch.zeros_like(projected)
    for _ in range(KNOTS):
        yield real, imaginary
        real, imaginary = (
            torch.addcmul(real * first_real, imaginary, first_imaginary, value=-1),
            torch.addcmul(imaginary * first_real, real, first_imaginary),
        )


def trapezoid(knots: Tensor) -> Tensor:
    """Return the weights of knots by which an even function is integrated over both sides of 0."""
    step = FURTHEST / (KNOTS - 1)
    weights = torch.full_like(knots, 2 * step)
    weights[0] = weights[-1] = step
    return weights
