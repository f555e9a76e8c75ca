"""The network and the items that every subject trains: small, but with BatchNorm, dropout and augmentation."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.faults._process import Run, Traps

COUNT, CLASSES, BAD_ITEM = 24, 4, 7
SHAPE = (3, 8, 8)


class TinyNet(nn.Module):
    """A convolution with BatchNorm, a dropout, a linear head."""

    def __init__(self, run: Run) -> None:
        """Draw the same weights each time."""
        super().__init__()
        torch.manual_seed(3)
        dropout = nn.Dropout(0.2 if run.random else 0.0)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), dropout)
        self.head = nn.Linear(8, CLASSES)
        self.traps = Traps(run)
        if run.frozen:
            self.requires_grad_(False)

    def forward(self, pictures: Tensor) -> Tensor:
        """Classify float pictures [N, 3, 8, 8]."""
        if torch.is_grad_enabled():
            self.traps.forward()
        return self.head(self.body(pictures).mean((2, 3)))


def items(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Return pictures whose class shows in one channel's mean, and the classes; one item is spoilt on request."""
    generator = np.random.default_rng(0)
    labels = np.arange(COUNT) % CLASSES
    pictures = generator.normal(size=(COUNT, *SHAPE)).astype(np.float32)
    if run.spoilt != "labels":
        pictures[:, 0] += 2 * (labels % 2)[:, None, None]
        pictures[:, 1] += 2 * (labels // 2)[:, None, None]
    if run.spoilt == "nan":
        pictures[BAD_ITEM, 0, 0, 0] = np.nan
    return pictures, labels


def opened(run: Run, picture: np.ndarray, index: int, noise: np.ndarray | None) -> np.ndarray:
    """Return an item as it is opened: augmented by `noise`, or hanging or out of memory on request."""
    if index == BAD_ITEM and run.spoilt == "hang":
        time.sleep(600)
    if index == BAD_ITEM and run.spoilt == "memory" and not run.notes("memory"):
        run.note("memory", "once")
        raise MemoryError("simulated: the loader ran out of memory")
    return picture if noise is None or not run.random else picture + 0.1 * noise
