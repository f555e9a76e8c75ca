"""MAE: a network of patches reads only what is not hidden, a small decoder predicts the rest.

He et al. 2022 (arXiv 2111.06377):  L = 1/|M| sum over hidden patches i of ||n(x_i) - y_i||^2 / P

with pixels x_i [P] of a patch, their own mean taken away and divided by their deviation (n), and predictions y_i. With
three quarters hidden the network reads a quarter of the tokens: this is what makes it fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from torch import Tensor, nn

from headstart.core.errors import PlanError
from headstart.methods.objectives import Patches, Seen
from headstart.methods.objectives._decoder import PatchDecoder
from headstart.methods.objectives._pixels import (
    Scale,
    contract_of,
    map_size,
    patch_loss,
    patches_of,
    seen_patches,
    stride_of,
)
from headstart.modalities.hiding import choose_blocks

if TYPE_CHECKING:
    from headstart.core.settings import Pretrain

RATIO = 0.75


class Mae(nn.Module):
    """The masked autoencoder for networks that can go without patches; implements Objective."""

    version: ClassVar[int] = 1
    views: int = 1

    def __init__(self, encoder: Patches, settings: Pretrain) -> None:
        """Make the decoder; PlanError where the network needs all of its patches."""
        super().__init__()
        contract = contract_of(encoder, "mae")
        visible = getattr(encoder, "visible", None)
        if visible is None:
            raise PlanError(
                f"the objective mae was asked of {encoder.spec.name}, which cannot go without some of its patches",
                expected="a plain vision transformer, such as timm:vit_small_patch16_224",
                fix="leave pretrain.objective out, or --set pretrain.objective=simmim",
            )
        self.grid, self.ratio = map_size(encoder, contract), settings.mask_ratio or RATIO
        self.side = stride_of(contract, self.grid, encoder.spec.name)
        self.body, self.scale, self._visible = encoder.module, Scale(contract), visible
        self.normalised = settings.normalise_pixels
        self.decoder = PatchDecoder(
            encoder.spec.width["map"], contract.channels * self.side**2, grid=self.grid,
            width=settings.decoder_width, depth=settings.decoder_depth,
        )  # fmt: skip

    def loss(self, inputs: Sequence[Tensor], generator: np.random.Generator) -> Tensor:
        """Return the mean squared error over hidden patches of uint8 pictures [N, C, H, W]."""
        mask = self._mask(inputs[0], generator)
        truth = patches_of(self.scale(inputs[0]), self.side)
        return patch_loss(self.predicted(inputs[0], mask), truth, mask.flatten(1), normalised=self.normalised)

    def predicted(self, pictures: Tensor, mask: Tensor) -> Tensor:
        """Return patches [N, T, P] predicted from those that `mask` [N, rows, columns] leaves."""
        places = visible_places(mask)
        return self.decoder(self._visible(pictures, places), places)

    def show(self, inputs: Sequence[Tensor], generator: np.random.Generator) -> list[Seen]:
        """Return pictures, what was left of them, and what was predicted."""
        mask, pictures = self._mask(inputs[0], generator), inputs[0]
        patches = self.predicted(pictures, mask)
        return seen_patches(self.scale, pictures, patches, mask, normalised=self.normalised)

    def _mask(self, pictures: Tensor, generator: np.random.Generator) -> Tensor:
        """Draw what is hidden: as many patches in every picture."""
        found = choose_blocks(len(pictures), self.grid, ratio=self.ratio, generator=generator)
        return found.to(pictures.device)


def visible_places(mask: Tensor) -> Tensor:
    """Return the places [N, K] that a mask [N, rows, columns] leaves, in row-major order."""
    seen = ~mask.flatten(1)
    return seen.nonzero()[:, 1].view(len(mask), -1)
