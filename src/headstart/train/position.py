"""The values of a run: how it shall go, where it stands, how it went."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Validation:
    """How good the module is on the validation items: mean loss, and the measure that decides (higher is better)."""

    loss: float
    quality: float
    more: Mapping[str, float] = field(default_factory=dict[str, float])
    """Other figures, which decide nothing: they go into the epoch's row of the history."""

    def beats(self, other: Validation | None) -> bool:
        """Tell whether it is better: of higher quality, or of the same with a lower loss."""
        if other is None or not math.isfinite(self.loss):
            return other is None
        return not math.isfinite(other.loss) or (self.quality, -self.loss) > (other.quality, -other.loss)


Validate = Callable[[Callable[[], None]], Validation]
"""Evaluates the module as it is (in eval mode); calls the function it is given between batches, which may raise."""


@dataclass(frozen=True)
class LoopSettings:
    """How the loop runs; `factor(step)` multiplies every learning rate, `micro` items fit one pass.

    `chance` is the loss of knowing nothing (None: unknown), `identity` what a checkpoint must share with the run that
    continues it (data, classes, settings).
    """

    stage: str
    epochs: int
    factor: Callable[[int], float]
    micro: int
    clip_norm: float = 1.0
    ema: float = 0.0
    patience: int = 5
    keep: Literal["best", "last"] = "best"
    """Which weights stay: those that validate best, or the last epoch's, where nothing may be chosen."""
    precision: str = "float32"
    checkpoint_steps: int | None = None
    freeze_statistics: bool = True
    chance: float | None = None
    quality: str = "accuracy"
    """What the validation's quality is called."""
    stop_after: int | None = None
    """Epochs after which this call ends; a later one, with the same checkpoints, goes on from there."""
    identity: Mapping[str, Any] = field(default_factory=dict)

    @property
    def last(self) -> int:
        """The epoch with which this call ends at the latest."""
        return min(self.stop_after or self.epochs, self.epochs)


@dataclass(frozen=True)
class Trained:
    """What a run gave: the module holds the best weights; epoch 0 is the start.

    `history` has a row an epoch: epoch, train_loss, validation_loss, validation_quality, learning_rate, seconds and
    stage (how many groups beside the head trained).
    """

    history: tuple[dict[str, float], ...]
    start: Validation
    best: Validation
    best_epoch: int
    steps: int
    notes: tuple[str, ...]


@dataclass
class Position:
    """Where a run stands, in plain numbers: everything that a checkpoint keeps beside tensors."""

    step: int = 0
    validated: int = -1
    """Epochs whose validation is done; the start counts as epoch 0."""
    micro: int = 0
    loss_sum: float = 0.0
    items: int = 0
    first_loss: float = 0.0
    smoothed: float = 0.0
    stale: int = 0
    lowest: float | None = None
    best_epoch: int = 0
    best_number: int | None = None
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    scores: list[tuple[float, float]] = field(default_factory=list)
    """(loss, quality) on validation of the start and of each epoch."""
    notes: list[str] = field(default_factory=list)
    finished: bool = False
