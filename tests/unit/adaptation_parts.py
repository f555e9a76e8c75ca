"""Digits as a source and as targets that shifted in known ways, which the tests of adaptation share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from picture_parts import digits, machine
from PIL import Image

import headstart
from headstart.adaptation.outcome import Adaptation

EACH = 56


def halves() -> tuple[tuple[list[np.ndarray], list[str]], tuple[list[np.ndarray], list[str]]]:
    """Return two halves of the digits, drawn so that the same hands wrote both."""
    pictures, labels = digits(2 * EACH)
    order = np.random.default_rng(0).permutation(len(labels))
    parts = [
        ([pictures[row] for row in part], [labels[row] for row in part]) for part in np.array_split(order, 2)
    ]
    return parts[0], parts[1]


def darkened(pictures: list[np.ndarray]) -> list[np.ndarray]:
    """Return pictures as by night: a third of the light, and noise."""
    noise = np.random.default_rng(0)
    return [(0.3 * one + noise.normal(0, 8, one.shape)).clip(0, 255).astype(np.uint8) for one in pictures]


def write(root: Path, pictures: list[np.ndarray], labels: list[str]) -> Path:
    """Write pictures into class folders."""
    for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        (root / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(root / label / f"{number:03d}.png")
    return root


def fitted(root: Path) -> Path:
    """Fit a tiny network to one half of the digits and return its model folder; the source lies at ROOT/day."""
    source = write(root / "day", *halves()[0])
    headstart.fit(source, encoder="tiny-cnn", output=root / "model", machine=machine(root))
    return root / "model"


def adapt(root: Path, target: Any, **values: Any) -> Adaptation:
    """Adapt the model of a folder, everything under `root`."""
    values = {"output": root / "adapted", "machine": machine(root), **values}
    return headstart.adapt(root / "model", target, **values)
