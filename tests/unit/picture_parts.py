"""Small real pictures that the tests share (scikit-learn's handwritten digits), a machine, a context."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits

from headstart.core.machine import Machine
from headstart.store import Store
from headstart.train.runtime import Context, Event, ignore

NAMES = ("zero", "one", "two")


@cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Return the digits as uint8 [n, 8, 8] and their classes."""
    loaded: Any = load_digits()
    return (loaded.images * 15).astype(np.uint8), loaded.target


def digits(each: int = 12, *, skip: int = 0) -> tuple[list[np.ndarray], list[str]]:
    """Return pictures uint8 [32, 32] of three classes, `each` of each, after the first `skip` of each."""
    images, targets = _digits()
    pictures: list[np.ndarray] = []
    labels: list[str] = []
    for number, name in enumerate(NAMES):
        for row in np.flatnonzero(targets == number)[skip : skip + each]:
            pictures.append(np.kron(images[row], np.ones((4, 4), np.uint8)))
            labels.append(name)
    return pictures, labels


def digit_folder(root: Path, each: int = 12, *, skip: int = 0) -> Path:
    """Write the digits as PNG files, a folder a class."""
    pictures, labels = digits(each, skip=skip)
    for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        (root / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(root / label / f"{number:03d}.png")
    return root


def machine(root: Path, *, threads: int = 1) -> Machine:
    """Return a machine with its store under `root`."""
    return Machine(store=root / "store", device="cpu", threads=threads)


def context(
    root: Path, *, threads: int = 1, progress: Callable[[Event], None] = ignore, seed: int = 0
) -> Context:
    """Return a context with its store under `root`."""
    return Context(Store(root / "store"), torch.device("cpu"), threads, seed, progress)
