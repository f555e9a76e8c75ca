"""What a guard against forgetting sees of a training, and what it adds to its loss; it knows no method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from torch import Tensor, nn

from headstart.train.batches import Batch

if TYPE_CHECKING:
    from headstart.core.protocols import Dataset, Task
    from headstart.train.runtime import Context

Opened = Callable[[np.ndarray, int], Tensor]
"""What enters the part that trains, for items by index in an epoch."""


@dataclass(frozen=True)
class Part:
    """The part of a network that trains, at its start: `body` maps what enters it to features.

    `parameters` are those of the network (not of the head) that train, by name; `feed` opens the items of a dataset as
    the training opens its own, `exact` without augmentation.
    """

    body: nn.Module
    parameters: Mapping[str, nn.Parameter]
    feed: Callable[[Dataset], Opened]
    exact: Callable[[Dataset], Opened]
    context: Context


@dataclass(frozen=True)
class Past:
    """A task that was learnt before: its goal, the head that it ended with, and its training items where at hand."""

    name: str
    task: Task
    head: nn.Module
    training: Dataset | None


Term = Callable[[Tensor, Tensor, Batch], Tensor]
"""From what enters the part that trains, its features and the batch to a scalar, already weighted."""


class Guard(Protocol):
    """A term that is added to a loss so that what was learnt before is kept."""

    @property
    def identity(self) -> Any:
        """JSON values that decide the term: a checkpoint continues only under the same."""
        ...

    def term(self, part: Part) -> Term:
        """Look at the part before it trains and return the term."""
        ...


@dataclass(frozen=True)
class Guards:
    """Several guards as one: their terms are summed."""

    members: Sequence[Guard]

    @property
    def identity(self) -> Any:
        """What decides all of them."""
        return [member.identity for member in self.members]

    def term(self, part: Part) -> Term:
        """Return the sum."""
        terms = [member.term(part) for member in self.members]

        def total(inputs: Tensor, features: Tensor, batch: Batch) -> Tensor:
            values = [one(inputs, features, batch) for one in terms]
            return sum(values[1:], values[0])

        return total
