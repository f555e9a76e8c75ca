"""Folders of pictures that look natural enough to be told apart: smooth random fields with a class colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("ant", "bee", "cat")


def picture(number: int, *, side: int = 96, tint: int = 0) -> Image.Image:
    """Return the picture of a number: the same number gives the same picture."""
    generator = np.random.default_rng(number)
    coarse = generator.integers(0, 200, (6, 6, 3), dtype=np.uint8)
    coarse[..., tint % 3] += 55
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def folder_of(root: Path, *, per_class: int = 8, splits: tuple[str, ...] = ("",)) -> Path:
    """Write `per_class` JPEGs a class (and split) under `root` and return it."""
    number = 0
    for split in splits:
        for tint, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True, exist_ok=True)
            for _ in range(per_class):
                picture(number, tint=tint).save(root / split / name / f"{number:04d}.jpg", quality=92)
                number += 1
    return root
