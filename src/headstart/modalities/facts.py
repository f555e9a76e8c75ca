"""What an audit needs of a picture: its size, a perceptual hash, a thumbnail."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

HASH_SIDE = 32
"""Pixels a side of the greys that are hashed."""
_HASH_BANDS, _THUMBNAIL_SIDE = 8, 16
_FLAT = 0.5
"""A DCT coefficient below this (grey levels, orthonormal) is noise of the decoder, not a part of the picture."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What an audit needs of one picture, from the same decode that feeds the network.

    `width`, `height` and `channels` are the file's, after EXIF rotation; `phash` is the 64-bit DCT perceptual hash
    of the whole picture, `thumbnail` its greys, uint8 [16, 16].
    """

    width: int
    height: int
    channels: int
    phash: int
    thumbnail: np.ndarray


def grey(pixels: np.ndarray) -> np.ndarray:
    """Return greys [H, W]: Pillow's luma for three channels, else the mean of the channels."""
    if pixels.ndim == 2:
        return pixels
    if pixels.shape[2] == 3:
        return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))
    return np.rint(pixels.mean(axis=2, dtype=np.float32)).astype(np.uint8)


def _cosines() -> np.ndarray:
    """Return the first rows of the orthonormal DCT-II, float32 [8, 32]."""
    rows, columns = np.arange(_HASH_BANDS)[:, None], np.arange(HASH_SIDE)[None]
    matrix = np.cos(np.pi * (2 * columns + 1) * rows / (2 * HASH_SIDE)) * math.sqrt(2 / HASH_SIDE)
    matrix[0] /= math.sqrt(2)
    return matrix.astype(np.float32)


_COSINES = _cosines()


def facts_of(picture: Image.Image | np.ndarray, *, size: tuple[int, int], channels: int) -> Facts:
    """Note the hash and thumbnail of a decoded picture beside the size (width, height) and channels of its file."""
    greys = _small_greys(picture)
    coefficients = (_COSINES @ greys @ _COSINES.T).ravel()
    coefficients[np.abs(coefficients) < _FLAT] = 0
    # The mean grey (the first coefficient) says nothing of what is seen, so the median leaves it out.
    bits = coefficients > np.partition(coefficients[1:], 31)[31]
    side = HASH_SIDE // _THUMBNAIL_SIDE
    small = greys.reshape(_THUMBNAIL_SIDE, side, _THUMBNAIL_SIDE, side).mean(axis=(1, 3))
    phash = int.from_bytes(np.packbits(bits).tobytes(), "big")
    return Facts(*size, channels, phash, np.rint(small).astype(np.uint8))


def _small_greys(picture: Image.Image | np.ndarray) -> np.ndarray:
    """Average a picture to float32 [32, 32] greys."""
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(grey(picture))
    # The gap lets Pillow average whole blocks first and keeps the fractions at the edges right.
    small = picture.convert("L").resize((HASH_SIDE, HASH_SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(small, dtype=np.float32)
