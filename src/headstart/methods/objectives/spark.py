"""SparK: masked image modelling for convolutional networks, in which hidden places stay empty at every depth.

Tian et al. 2023 (arXiv 2301.03580):  L = 1/|M| sum over hidden patches i of ||n(x_i) - y_i||^2 / P

An ordinary convolution lets what is seen flow into hidden places, until nothing is hidden any more, and BatchNorm
counts empty places. Here what enters and leaves every convolution is multiplied by the mask at its own resolution, and
BatchNorm's statistics are those of the places that are seen: what sparse convolutions would compute. A small decoder
fills the last map's empty places with a learned vector and predicts pixels. (The paper's decoder also looks at earlier
maps; ours, as it is thrown away, sees the last alone.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from headstart.core.errors import PlanError
from headstart.methods.objectives import Network, Seen
from headstart.methods.objectives._pixels import (
    Scale,
    contract_of,
    map_size,
    patch_loss,
    patches_of,
    seen_patches,
    stride_of,
)
from headstart.modalities.hiding import choose_blocks, enlarged

if TYPE_CHECKING:
    from headstart.core.settings import Pretrain

RATIO = 0.6
LEAST_POSITIONS = 9


class Decoder(nn.Module):
    """A map [N, D, h, w] with empty places, and where they are, to patches [N, h x w, P]."""

    def __init__(self, inputs: int, outputs: int, *, width: int, depth: int) -> None:
        """Make the layers."""
        super().__init__()
        self.enter, self.token = nn.Conv2d(inputs, width, 1), nn.Parameter(0.02 * torch.randn(width, 1, 1))
        layers = (
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(1, width), nn.GELU())
            for _ in range(depth)
        )
        self.layers, self.leave = nn.Sequential(*layers), nn.Conv2d(width, outputs, 1)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """Predict; `mask` [N, h, w] is true where nothing was seen."""
        filled = torch.where(mask[:, None], self.token, self.enter(features))
        return self.leave(self.layers(filled)).flatten(2).transpose(1, 2)


class Spark(nn.Module):
    """Sparse masked modelling for networks of convolutions; implements Objective."""

    version: ClassVar[int] = 1
    views: int = 1

    def __init__(self, encoder: Network, settings: Pretrain) -> None:
        """Make the decoder; PlanError where the network has no convolutions or its map is too small."""
        super().__init__()
        contract = contract_of(encoder, "spark")
        if not any(isinstance(part, nn.Conv2d) for part in encoder.module.modules()):
            raise PlanError(
                f"the objective spark was asked of {encoder.spec.name}, which has no convolutions",
                expected="a convolutional network",
                fix="leave pretrain.objective out",
            )
        self.grid, self.ratio = map_size(encoder, contract), settings.mask_ratio or RATIO
        if self.grid[0] * self.grid[1] < LEAST_POSITIONS:
            raise PlanError(
                f"the last map of {encoder.spec.name} has {self.grid[0]} x {self.grid[1]} positions for pictures of "
                f"{contract.size[0]} x {contract.size[1]} pixels",
                expected=f"at least {LEAST_POSITIONS}, of which some are hidden",
                fix="raise encoder.image_size, or --set pretrain.objective=simmim, which hides smaller blocks",
            )
        self.side = stride_of(contract, self.grid, encoder.spec.name)
        self.body, self.scale, self._encoder = encoder.module, Scale(contract), encoder
        self.normalised = settings.normalise_pixels
        self.decoder = Decoder(
            encoder.spec.width["map"], contract.channels * self.side**2,
            width=settings.decoder_width, depth=settings.decoder_depth,
        )  # fmt: skip

    def loss(self, inputs: Sequence[Tensor], generator: np.random.Generator) -> Tensor:
        """Return the mean squared error over hidden patches of uint8 pictures [N, C, H, W]."""
        mask = self._mask(inputs[0], generator)
        truth = patches_of(self.scale(inputs[0]), self.side)
        return patch_loss(self.predicted(inputs[0], mask), truth, mask.flatten(1), normalised=self.normalised)

    def predicted(self, pictures: Tensor, mask: Tensor) -> Tensor:
        """Return patches [N, h x w, P] predicted from pictures of which `mask` [N, h, w] is hidden."""
        return self.decoder(self.encoded(pictures, mask), mask)

    def encoded(self, pictures: Tensor, mask: Tensor) -> Tensor:
        """Return the last map [N, D, h, w], empty where hidden, as sparse convolutions would make it."""
        seen = ~mask
        shown = torch.where(enlarged(mask, self.side), self.scale.mean, pictures.to(self.scale.mean.dtype))
        with sparse(self.body, seen):
            return self._encoder(shown, "map").value * seen[:, None]

    def show(self, inputs: Sequence[Tensor], generator: np.random.Generator) -> list[Seen]:
        """Return pictures, what was left of them, and what was predicted."""
        mask, pictures = self._mask(inputs[0], generator), inputs[0]
        patches = self.predicted(pictures, mask)
        return seen_patches(self.scale, pictures, patches, mask, normalised=self.normalised)

    def _mask(self, pictures: Tensor, generator: np.random.Generator) -> Tensor:
        """Draw what is hidden."""
        found = choose_blocks(len(pictures), self.grid, ratio=self.ratio, generator=generator)
        return found.to(pictures.device)


@contextmanager
def sparse(body: nn.Module, seen: Tensor) -> Iterator[None]:
    """Keep hidden places empty at every depth inside the block; `seen` [N, h, w] is true where nothing is hidden."""
    handles: list[Any] = []
    for part in body.modules():
        if isinstance(part, BatchNorm):
            over = _Over(seen)
            handles.append(part.register_forward_pre_hook(over.gather))
            handles.append(part.register_forward_hook(over.scatter))
        elif isinstance(part, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)):
            handles.append(part.register_forward_pre_hook(_emptied_input(seen)))
            handles.append(part.register_forward_hook(_emptied(seen)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def at(seen: Tensor, size: tuple[int, int]) -> Tensor | None:
    """Return the mask [N, h, w] at a map's size; None where the map is coarser (a vector that weighs channels)."""
    if size[0] < seen.shape[1] or size[1] < seen.shape[2]:
        return None
    rows = torch.arange(size[0], device=seen.device) * seen.shape[1] // size[0]
    columns = torch.arange(size[1], device=seen.device) * seen.shape[2] // size[1]
    return seen[:, rows][:, :, columns]


def _emptied(seen: Tensor) -> Any:
    """Return the hook that empties hidden places of a map [N, C, H, W]."""

    def hook(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        kept = at(seen, (output.shape[2], output.shape[3])) if output.dim() == 4 else None
        return output if kept is None else output * kept[:, None]

    return hook


def _emptied_input(seen: Tensor) -> Any:
    """Return the hook that empties what a layer is given (a norm before it may have filled hidden places again)."""

    def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        given = inputs[0]
        kept = at(seen, (given.shape[2], given.shape[3])) if given.dim() == 4 else None
        return inputs if kept is None else (given * kept[:, None], *inputs[1:])

    return hook


class _Over:
    """Lets a BatchNorm see the places that are not hidden alone, as one row [1, C, places, 1]."""

    def __init__(self, seen: Tensor) -> None:
        """Keep the mask."""
        self.seen = seen
        self.kept: Tensor | None = None
        self.shape = torch.Size()

    def gather(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """Take the places that are seen."""
        given = inputs[0]
        self.kept = at(self.seen, (given.shape[2], given.shape[3])) if given.dim() == 4 else None
        if self.kept is None:
            return None
        self.shape = given.shape
        return (given.permute(0, 2, 3, 1)[self.kept].t()[None, :, :, None], *inputs[1:])

    def scatter(self, _: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Put them back where they were, nothing elsewhere."""
        if self.kept is None:
            return output
        count, channels, height, width = self.shape
        whole = output.new_zeros(count, height, width, channels)
        return whole.index_put((self.kept,), output[0, :, :, 0].t()).permute(0, 3, 1, 2)
