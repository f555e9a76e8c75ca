"""What every head solver is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from headstart.methods.heads.space import Space


@dataclass(frozen=True)
class Rows:
    """Training rows: `space.points` [n, r], class ids `targets` [n] and the `fold` [n] of each row's item.

    The first `num_scored` rows are the items themselves; further ones are augmented views of them, which train but
    are never scored. A view has its item's fold, so that no view of a held-out item is trained on.
    """

    space: Space
    targets: Tensor
    fold: Tensor
    num_classes: int
    num_scored: int

    @property
    def num_folds(self) -> int:
        """Return the number of folds."""
        return int(self.fold.max()) + 1


@dataclass(frozen=True)
class Variant:
    """One head with one setting: its logits for items it did not see [num_scored, C], and how to fit it on all."""

    name: str
    logits: Tensor
    fit: Callable[[], nn.Module]
