"""Decoded pictures on disk, so that every later epoch of full fine-tuning only crops.

A picture is kept as uint8 with its shorter side a bit above the network's input. What is not an ordinary 8-bit
grey or colour file, or is small already, is left to be opened as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from headstart.core.hashing import digest
from headstart.train.runtime import Context, Event

if TYPE_CHECKING:
    from headstart.core.protocols import Dataset
    from headstart.core.types import InputContract

VERSION = 1
"""Version of this step; bump when its pixels move."""
BUCKET = "pictures-v1"
CHUNK = 128
"""Pictures an entry of the store."""
MARGIN = 1.3
"""Shorter side of a kept picture, as a multiple of the network's input."""
MOST_BYTES = 8 << 30
"""Data that would take more are not kept; a constant, so that a resumed run decides the same."""
_PLAIN_MODES = ("L", "RGB")
_ROTATION = 0x0112
_MOST_PIXELS = 64_000_000


class Pictures:
    """Inputs of a dataset by index, decoded where that is kept."""

    lengths: np.ndarray | None = None
    """Pictures are all of one size once they are open."""

    def __init__(self, dataset: Dataset, kept: dict[int, np.ndarray]) -> None:
        """Join a dataset with the pictures that are kept (memory-mapped)."""
        self._dataset, self._kept = dataset, kept

    def __getitem__(self, index: int) -> Any:
        """Return a decoded picture, or the item's own input."""
        kept = self._kept.get(index)
        return kept if kept is not None else self._dataset[index].input


def keep_pictures(
    dataset: Dataset, contract: InputContract, *, context: Context, check: Callable[[], None] = lambda: None
) -> Pictures:
    """Decode every ordinary picture once into the store; `check` is called between chunks and may raise."""
    side = math.ceil(max(contract.size) * MARGIN)
    if len(dataset) * side * side * 4 * contract.channels > MOST_BYTES or contract.channels not in (1, 3):
        return Pictures(dataset, {})
    kept: dict[int, np.ndarray] = {}
    starts = range(0, len(dataset), CHUNK)
    for done, start in enumerate(starts, 1):
        check()
        indices = range(start, min(start + CHUNK, len(dataset)))
        key = digest("pictures", VERSION, side, [dataset.item_hash(index) for index in indices])
        write = partial(_write, dataset=dataset, indices=indices, side=side, threads=context.threads)
        folder, _ = context.store.get_or(BUCKET, key, write)
        kept.update(zip(indices, _read(folder), strict=True))
        context.progress(Event("decode", done, len(starts)))
    return Pictures(dataset, {index: picture for index, picture in kept.items() if picture.size})


def shrunk(raw: Any, side: int) -> np.ndarray | None:
    """Return a file's pixels, uint8 [H, W, C], shorter side `side`; None for what is better opened as it is."""
    if not isinstance(raw, Path) or raw.suffix.lower() == ".npy":
        return None
    try:
        with Image.open(raw) as picture:
            width, height = picture.size
            plain = picture.mode in _PLAIN_MODES and "transparency" not in picture.info
            if not plain or width * height > _MOST_PIXELS or picture.getexif().get(_ROTATION, 1) != 1:
                return None
            scale = side / min(width, height)
            if scale >= 1:
                return None
            size = (round(width * scale), round(height * scale))
            picture.draft(None, size)
            small = picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None  # The encoder opens it and names what is wrong.
    pixels = np.asarray(small)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _write(folder: Path, *, dataset: Dataset, indices: Sequence[int], side: int, threads: int) -> None:
    """Decode some pictures and write them one after another, with their shapes beside."""
    empty = np.empty((0, 0, 0), np.uint8)
    with ThreadPoolExecutor(max(1, threads)) as pool:
        shapes: list[tuple[int, ...]] = []
        parts: list[np.ndarray] = []
        for picture in pool.map(lambda index: shrunk(dataset[index].input, side), indices):
            shapes.append((picture if picture is not None else empty).shape)
            parts.append((picture if picture is not None else empty).reshape(-1))
    np.save(folder / "pixels.npy", np.concatenate(parts))
    np.save(folder / "shapes.npy", np.array(shapes, dtype=np.int64))


def _read(folder: Path) -> list[np.ndarray]:
    """Map the pictures of an entry."""
    shapes = np.load(folder / "shapes.npy", allow_pickle=False)
    sizes = shapes.prod(1)
    if not sizes.sum():
        return [np.empty(shape, np.uint8) for shape in shapes]
    pixels = np.load(folder / "pixels.npy", mmap_mode="r", allow_pickle=False)
    ends = np.cumsum(sizes)
    return [
        pixels[end - size : end].reshape(shape) for end, size, shape in zip(ends, sizes, shapes, strict=True)
    ]
