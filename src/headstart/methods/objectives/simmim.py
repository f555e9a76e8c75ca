"""SimMIM: hidden blocks of a picture, predicted pixel by pixel from the last map of any network.

Xie et al. 2022 (arXiv 2111.09886):  L = 1/|M| sum over hidden pixels p of |x_p - y_p|

with pixels x on the network's own scale and a prediction y by one 1 x 1 convolution and a pixel shuffle. Hidden blocks
are replaced by one learned block of pixels before the network, which to a network of patches is a learned token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from headstart.methods.objectives import Network, Seen
from headstart.methods.objectives._pixels import Scale, block_of, contract_of, map_size, seen_of, stride_of
from headstart.modalities.hiding import choose_blocks, enlarged, grid_of

if TYPE_CHECKING:
    from headstart.core.settings import Pretrain

RATIO = 0.6


class Decoder(nn.Module):
    """A map [N, D, h, w] to pixels [N, C, H, W] by a 1 x 1 convolution and a pixel shuffle; and the block of pixels
    [C, block, block] that stands for a hidden one.
    """

    def __init__(self, width: int, *, channels: int, stride: int, block: int) -> None:
        """Make the layers; the block begins as the mean colour."""
        super().__init__()
        self.convolution = nn.Conv2d(width, channels * stride * stride, 1)
        self.shuffle = nn.PixelShuffle(stride)
        self.token = nn.Parameter(torch.zeros(channels, block, block))

    def forward(self, features: Tensor) -> Tensor:
        """Predict pixels on the network's own scale."""
        return self.shuffle(self.convolution(features))


class SimMim(nn.Module):
    """Masked image modelling for any network with a map; implements Objective."""

    version: ClassVar[int] = 1
    views: int = 1

    def __init__(self, encoder: Network, settings: Pretrain) -> None:
        """Make the decoder; PlanError where the network gives no map or the blocks do not divide the picture."""
        super().__init__()
        contract = contract_of(encoder, "simmim")
        stride = stride_of(contract, map_size(encoder, contract), encoder.spec.name)
        self.block = block_of(settings, contract, stride)
        self.grid, self.ratio = grid_of(contract.size, self.block), settings.mask_ratio or RATIO
        self.body, self.scale = encoder.module, Scale(contract)
        self.decoder = Decoder(
            encoder.spec.width["map"], channels=contract.channels, stride=stride, block=self.block
        )
        self._encoder = encoder

    def loss(self, inputs: Sequence[Tensor], generator: np.random.Generator) -> Tensor:
        """Return the mean absolute error over hidden pixels of uint8 pictures [N, C, H, W]."""
        mask = self._mask(inputs[0], generator)
        where = enlarged(mask, self.block)
        error = (self.predicted(inputs[0], mask) - self.scale(inputs[0])).abs() * where
        return error.sum() / (where.sum() * inputs[0].shape[1])

    def predicted(self, pictures: Tensor, mask: Tensor) -> Tensor:
        """Return pixels [N, C, H, W] predicted from pictures of which `mask` [N, rows, columns] is hidden."""
        return self.decoder(self._encoder(self.hidden(pictures, mask), "map").value)

    def hidden(self, pictures: Tensor, mask: Tensor) -> Tensor:
        """Return float pictures 0..255 with the learned block wherever `mask` is true."""
        token = self.scale.back(self.decoder.token[None]).repeat(1, 1, *self.grid)
        return torch.where(enlarged(mask, self.block), token, pictures.to(token.dtype))

    def show(self, inputs: Sequence[Tensor], generator: np.random.Generator) -> list[Seen]:
        """Return pictures, what was left of them, and what was predicted."""
        mask = self._mask(inputs[0], generator)
        hidden = self.hidden(inputs[0], mask)
        return seen_of(self.scale, inputs[0], hidden, self.predicted(inputs[0], mask), mask, self.block)

    def _mask(self, pictures: Tensor, generator: np.random.Generator) -> Tensor:
        """Draw what is hidden."""
        return choose_blocks(len(pictures), self.grid, ratio=self.ratio, generator=generator).to(
            pictures.device
        )
