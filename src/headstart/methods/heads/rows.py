"""What every head solver is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from headstart.methods.heads.space import Space

Link = Literal["softmax", "sigmoid", "identity"]
"""What turns a head's outputs into answers: one of several classes, each label by itself, or a number."""


@dataclass(frozen=True)
class Rows:
    """Training rows: `space.points` [n, r], their `targets` and the `fold` [n] of each row's item.

    By `link`, targets are class ids [n] (softmax), shares of labels [n, C] (sigmoid) or numbers [n, 1] (identity).

    The first `num_scored` rows are the items themselves; further ones are augmented views of them, which train but
    are never scored. A view has its item's fold, so that no view of a held-out item is trained on.
    """

    space: Space
    targets: Tensor
    fold: Tensor
    num_classes: int
    num_scored: int
    link: Link = "softmax"

    @property
    def truth(self) -> Tensor:
        """Return the targets as one column an output [n, C] float32: 1 for the class of an item, 0 for others."""
        if self.link != "softmax":
            return self.targets
        return nn.functional.one_hot(self.targets, self.num_classes).float()

    @property
    def num_folds(self) -> int:
        """Return the number of folds."""
        return int(self.fold.max()) + 1


@dataclass(frozen=True)
class Variant:
    """One head with one setting: its outputs for rows it did not see [num_scored, C], and how to fit it on rows.

    `fit` takes the rows that raced, or all of them where only a part did.
    """

    name: str
    logits: Tensor
    fit: Callable[[Rows], nn.Module]
