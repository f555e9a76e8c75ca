"""Hiding a part of an input: square blocks of pictures, tokens of texts; tensors as an encoder batches them."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor

from headstart.core.errors import PlanError

HIDDEN, SWAPPED = 0.8, 0.1
"""Of the chosen tokens, the share that is replaced by the mask token, and by any other token (BERT: Devlin et al. 2019,
arXiv 1810.04805); the rest stays as it is."""
IGNORED = -100
"""The target of a token that need not be predicted."""
PADDING = -1


def hide_blocks(
    pictures: Tensor, *, ratio: float, block: int, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Hide square blocks of pictures [N, C, H, W] of any type.

    Returns the pictures, hidden blocks filled with the mean colour of what is left to see (so that nothing of what is
    hidden shows), and the mask [N, H / block, W / block], true where hidden. PlanError where the ratio is not between
    0 and 1, or where blocks do not divide the pictures.
    """
    rows, columns = grid_of((pictures.shape[2], pictures.shape[3]), block)
    mask = choose_blocks(len(pictures), (rows, columns), ratio=ratio, generator=generator).to(pictures.device)
    hidden = enlarged(mask, block)
    seen = ~hidden
    values = pictures.to(torch.float32)
    mean = (values * seen).sum((2, 3), keepdim=True) / seen.sum((2, 3), keepdim=True)
    if not pictures.is_floating_point():
        mean = mean.round()
    return torch.where(hidden, mean.to(pictures.dtype), pictures), mask


def choose_blocks(
    count: int, grid: tuple[int, int], *, ratio: float, generator: np.random.Generator
) -> Tensor:
    """Return a mask [count, rows, columns], true for the same number of blocks, drawn anew, in each picture."""
    require_ratio(ratio)
    places = grid[0] * grid[1]
    if places < 2:
        raise PlanError(
            "a picture of a single block has nothing left to see when that is hidden",
            expected="at least two blocks a picture",
            fix="make the blocks smaller (pretrain.block) or the pictures larger (encoder.image_size)",
        )
    number = min(places - 1, max(1, round(ratio * places)))
    order = generator.random((count, places)).argsort(1, kind="stable")
    mask = np.zeros((count, places), bool)
    np.put_along_axis(mask, order[:, :number], True, axis=1)
    return torch.from_numpy(mask).view(count, *grid)


def enlarged(mask: Tensor, block: int) -> Tensor:
    """Return a mask of blocks [N, rows, columns] as one of pixels, [N, 1, H, W]."""
    return mask.repeat_interleave(block, 1).repeat_interleave(block, 2)[:, None]


def grid_of(size: tuple[int, int], block: int) -> tuple[int, int]:
    """Return how many rows and columns of blocks a picture of `size` (height, width) has."""
    if block < 1 or size[0] % block or size[1] % block:
        raise PlanError(
            f"blocks of {block} pixels do not divide pictures of {size[0]} x {size[1]}",
            expected="a divisor of height and width",
            fix="choose another pretrain.block, or an encoder.image_size that is a multiple of it",
        )
    return size[0] // block, size[1] // block


def hide_tokens(
    ids: Tensor,
    *,
    ratio: float,
    mask_id: int,
    vocabulary: int,
    special: Collection[int],
    generator: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Hide tokens of texts int64 [N, L], padded with -1; special tokens are never chosen.

    Returns ids (of the chosen, 80 % become `mask_id`, 10 % any other token below `vocabulary`, 10 % stay) and targets
    [N, L], IGNORED where nothing is to be predicted. At least one token of each text that has any is chosen.
    """
    require_ratio(ratio)
    kept = sorted({*special})
    known = ids.cpu().numpy()
    can_hide = (known != PADDING) & ~np.isin(known, kept)
    chance = np.where(can_hide, generator.random(known.shape), np.inf)
    chosen = (chance < ratio) | ((chance == chance.min(1, keepdims=True)) & can_hide)
    way = generator.random(known.shape)
    others = np.setdiff1d(np.arange(vocabulary), [*kept, mask_id])
    drawn = others[generator.integers(0, max(1, len(others)), known.shape)] if len(others) else known
    new = np.where(chosen & (way < HIDDEN), mask_id, known)
    new = np.where(chosen & (way >= HIDDEN) & (way < HIDDEN + SWAPPED), drawn, new)
    targets = np.where(chosen, known, IGNORED)
    return torch.from_numpy(new).to(ids.device), torch.from_numpy(targets).to(ids.device)


def require_ratio(ratio: float) -> None:
    """Refuse to hide nothing or everything."""
    if not 0 < ratio < 1:
        raise PlanError(
            f"a mask ratio of {ratio:g}",
            expected="a number between 0 (nothing hidden: nothing to predict) and 1 (nothing left to predict it from)",
            fix="set pretrain.mask_ratio to, say, 0.6 for pictures or 0.15 for texts",
        )
