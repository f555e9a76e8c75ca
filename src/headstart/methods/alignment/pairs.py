"""Batches that hold both domains, interleaved, so that every part of one that memory allows still holds both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from headstart.train.batches import Batch
from headstart.train.runtime import draw

Open = Callable[[np.ndarray, int], Tensor]
"""Items of a domain in a lap (a pass over it) as one tensor whose first dimension runs over them."""
Restyle = Callable[..., Tensor]
"""`(source, target, generator=...)`: the source's inputs in the style of the target's, as the modality does it."""


@dataclass(frozen=True)
class Side:
    """One domain: `open` gives its inputs, `varied` strongly varied ones (None: nobody asks), `targets` its labels."""

    name: str
    count: int
    batch_size: int
    open: Open
    item: Callable[[int], str]
    varied: Open | None = None
    targets: Callable[[np.ndarray], Tensor] | None = None

    @property
    def steps(self) -> int:
        """Steps a lap."""
        return -(-self.count // self.batch_size)

    def indices(self, number: int, seed: int) -> tuple[np.ndarray, int]:
        """Return the items of the step with this number in the run, and its lap."""
        lap, place = divmod(number, self.steps)
        order = _order(seed, self.name, lap, self.count)
        return order[even_batches(self.count, self.batch_size)[place]], lap


@dataclass(frozen=True)
class Pairs:
    """Steps with items of the source (None: there is none) and of the target; implements BatchSource.

    Its tensors are inputs [N, ...], targets [N, ...] (of the source alone; no label of the target is ever looked at),
    places in their datasets [N], whether a row is of the source [N], and, where asked for, strongly varied inputs of
    the target (rows of the source hold their own inputs there).
    """

    source: Side | None
    target: Side
    seed: int
    restyle: Restyle | None = None

    @property
    def sides(self) -> tuple[Side, ...]:
        """The domains that there are."""
        return (self.target,) if self.source is None else (self.source, self.target)

    @property
    def steps(self) -> int:
        """Steps an epoch: a lap of the longer domain."""
        return max(side.steps for side in self.sides)

    @property
    def rows(self) -> int:
        """Rows a batch at most."""
        return sum(min(side.batch_size, side.count) for side in self.sides)

    def names(self, epoch: int, step: int) -> tuple[str, ...]:
        """Return the ids of a step's items, in the order of the batch."""
        number = epoch * self.steps + step
        chosen = [side.indices(number, self.seed)[0] for side in self.sides]
        found = [
            f"{side.name} {side.item(int(index))}"
            for side, indices in zip(self.sides, chosen, strict=True)
            for index in indices
        ]
        return tuple(found[row] for row in interleaved([len(indices) for indices in chosen]))

    def load(self, epoch: int, step: int) -> Batch:
        """Load a step's batch."""
        number = epoch * self.steps + step
        chosen = [side.indices(number, self.seed) for side in self.sides]
        inputs = [side.open(*at) for side, at in zip(self.sides, chosen, strict=True)]
        counts = [len(indices) for indices, _ in chosen]
        if self.restyle is not None and self.source is not None:
            inputs[0] = self.restyle(*inputs, generator=draw(self.seed, "style", epoch, step))
        tensors = [
            joined(inputs),
            self._targets(chosen[0][0], counts),
            torch.from_numpy(np.concatenate([indices for indices, _ in chosen]).copy()),
            torch.tensor([side is self.source for side in self.sides]).repeat_interleave(
                torch.tensor(counts)
            ),
        ]
        if self.target.varied is not None:
            tensors.append(joined([*inputs[:-1], self.target.varied(*chosen[-1])]))
        order = torch.from_numpy(interleaved(counts))
        return Batch(self.names(epoch, step), tuple(tensor[order] for tensor in tensors), step=number)

    def _targets(self, indices: np.ndarray, counts: Sequence[int]) -> Tensor:
        """Return the source's targets, followed by zeros that nobody reads for the target's rows."""
        if self.source is None or self.source.targets is None:
            return torch.zeros(sum(counts), dtype=torch.int64)
        targets = self.source.targets(indices)
        return torch.cat([targets, targets.new_zeros(counts[-1], *targets.shape[1:])])


@lru_cache(maxsize=8)
def _order(seed: int, name: str, lap: int, count: int) -> np.ndarray:
    """Return a domain's order in a lap.

    Each domain has its own: with one order for both, folders that are sorted by class would meet class by class.
    """
    order = draw(seed, f"{name} order", lap, 0).permutation(count)
    order.setflags(write=False)
    return order


def even_batches(count: int, size: int) -> list[np.ndarray]:
    """Return the places of `count` items in the fewest batches of at most `size`, as even as can be."""
    return np.array_split(np.arange(count), -(-count // size))


def interleaved(counts: Sequence[int]) -> np.ndarray:
    """Return the order that spreads each of several blocks of rows evenly over the whole."""
    return np.argsort(np.concatenate([(np.arange(count) + 0.5) / count for count in counts]), kind="stable")


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Put batches behind one another, padded to one shape as encoders pad: whole numbers with -1, others with 0."""
    shapes = np.array([part.shape[1:] for part in parts])
    if len(parts) == 1 or (shapes == shapes[0]).all():
        return torch.cat(list(parts))
    fill = 0 if parts[0].is_floating_point() else -1
    wide = parts[0].new_full((sum(map(len, parts)), *shapes.max(0).tolist()), fill)
    start = 0
    for part in parts:
        wide[(slice(start, start + len(part)), *(slice(length) for length in part.shape[1:]))] = part
        start += len(part)
    return wide
