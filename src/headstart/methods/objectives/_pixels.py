"""What objectives over pictures share: the network's own scale, patches, and pictures for a person to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from headstart.core.errors import PlanError
from headstart.core.types import InputContract
from headstart.methods.objectives import Network, Seen
from headstart.modalities.hiding import enlarged, grid_of

if TYPE_CHECKING:
    from headstart.core.settings import Pretrain

LEAST_SIDE = 4
"""Fewer positions a side leave too little to predict the rest from."""


class Scale(nn.Module):
    """Pixels 0..255 to the scale that a network was trained on, and back."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, contract: InputContract) -> None:
        """Keep one mean and deviation a channel."""
        super().__init__()
        for name, values in (("mean", contract.mean), ("deviation", contract.std)):
            self.register_buffer(name, 255 * torch.tensor(values).view(1, -1, 1, 1), persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return float pictures [N, C, H, W] of about zero mean and unit deviation."""
        return (pictures.to(self.mean.dtype) - self.mean) / self.deviation

    def back(self, pictures: Tensor) -> Tensor:
        """Return what `forward` was given."""
        return pictures * self.deviation + self.mean


def contract_of(encoder: Network, objective: str) -> InputContract:
    """Return the input contract of a network of pictures that has a map; PlanError for any other network."""
    contract = encoder.spec.contract
    if not isinstance(contract, InputContract) or "map" not in encoder.spec.width:
        raise PlanError(
            f"the objective {objective} was asked of {encoder.spec.name}, which gives no map of a picture",
            expected="a network of pictures that keeps positions to its end",
            fix="leave pretrain.objective out, or choose another encoder",
        )
    return contract


def map_size(encoder: Network, contract: InputContract) -> tuple[int, int]:
    """Return how many rows and columns a network's last map has, from one blank picture."""
    blank = torch.zeros(1, contract.channels, *contract.size, dtype=torch.uint8)
    place = next(encoder.module.parameters()).device
    was_training = encoder.module.training
    encoder.module.eval()
    with torch.no_grad():
        rows, columns = encoder(blank.to(place), "map").value.shape[2:]
    encoder.module.train(was_training)
    return int(rows), int(columns)


def stride_of(contract: InputContract, size: tuple[int, int], name: str) -> int:
    """Return the pixels a position of a map; PlanError where it is no whole number, the same in both directions."""
    strides = {side / positions for side, positions in zip(contract.size, size, strict=True)}
    if len(strides) > 1 or not next(iter(strides)).is_integer():
        raise PlanError(
            f"{name} makes a map of {size[0]} x {size[1]} of pictures of {contract.size[0]} x {contract.size[1]}",
            expected="a size that its stride divides",
            fix="choose another encoder.image_size, a multiple of 32 for most networks",
        )
    return int(next(iter(strides)))


def block_of(settings: Pretrain, contract: InputContract, stride: int) -> int:
    """Return the side of a hidden block: as set, else one position of the map, halved until enough are left."""
    if settings.block is not None:
        grid_of(contract.size, settings.block)
        return settings.block
    block = stride
    while block > 1 and block % 2 == 0 and min(contract.size) // block < LEAST_SIDE:
        block //= 2
    return block


def patches_of(pictures: Tensor, side: int) -> Tensor:
    """Cut pictures [N, C, H, W] into patches [N, rows x columns, C x side x side]."""
    count, channels, height, width = pictures.shape
    cut = pictures.reshape(count, channels, height // side, side, width // side, side)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(count, -1, channels * side * side)


def pictures_of(patches: Tensor, side: int, size: tuple[int, int]) -> Tensor:
    """Put patches [N, rows x columns, C x side x side] together again."""
    rows, columns = size[0] // side, size[1] // side
    cut = patches.reshape(len(patches), rows, columns, -1, side, side)
    return cut.permute(0, 3, 1, 4, 2, 5).reshape(len(patches), -1, *size)


def standard(patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return patches with their own mean taken away and divided by their own deviation, and both."""
    mean = patches.mean(-1, keepdim=True)
    deviation = (patches.var(-1, keepdim=True, unbiased=False) + 1e-6).sqrt()
    return (patches - mean) / deviation, mean, deviation


def patch_loss(predicted: Tensor, truth: Tensor, mask: Tensor, *, normalised: bool) -> Tensor:
    """Return the mean squared error over hidden patches [N, T, P]; `mask` [N, T] is true where hidden."""
    wanted = standard(truth)[0] if normalised else truth
    error = (predicted - wanted).square().mean(-1)
    return (error * mask).sum() / mask.sum()


def seen_of(
    scale: Scale, inputs: Tensor, hidden: Tensor, predicted: Tensor, mask: Tensor, block: int
) -> list[Seen]:
    """Return pictures to look at: inputs 0..255, hidden parts grey, and predictions where parts were hidden."""
    where = enlarged(mask, block)
    shown = torch.where(where, scale.back(predicted), inputs.float())
    grey = torch.where(where, torch.full_like(inputs, 128, dtype=torch.float32), hidden.float())
    rows = zip(inputs.float(), grey, shown, strict=True)
    return [Seen(original=_bytes(row[0]), hidden=_bytes(row[1]), predicted=_bytes(row[2])) for row in rows]


def seen_patches(
    scale: Scale, pictures: Tensor, patches: Tensor, mask: Tensor, *, normalised: bool
) -> list[Seen]:
    """Return pictures [N, C, H, W] to look at beside predicted patches [N, T, P]; `mask` [N, rows, columns] hides.

    Where patches were predicted without their own mean and deviation, those of the truth are put back.
    """
    side, size = pictures.shape[2] // mask.shape[1], (pictures.shape[2], pictures.shape[3])
    if normalised:
        _, mean, deviation = standard(patches_of(scale(pictures), side))
        patches = patches * deviation + mean
    return seen_of(scale, pictures, pictures, pictures_of(patches, side, size), mask, side)


def _bytes(picture: Tensor) -> np.ndarray:
    """Return a picture [C, H, W] as uint8 [H, W, C]."""
    return picture.detach().cpu().round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
