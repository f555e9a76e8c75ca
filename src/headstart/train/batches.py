"""Batches as a pure function of (epoch, step): nothing to save, nothing to rewind, any number of loader threads."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from headstart.core.errors import DataError
from headstart.train.runtime import Event, draw, ignore

POOL = 32
"""Batches among which items are sorted by length."""
_POLL = 0.1  # Seconds between looks at whether somebody asked to stop.


@dataclass(frozen=True, slots=True)
class Batch:
    """Items that are used together: ids and tensors whose first dimension runs over them.

    `step` counts from the start of the run; `start` is the place of the first item within its step, so that a part of
    a batch draws its own random numbers.
    """

    ids: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    step: int = 0
    start: int = 0

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.ids)

    def parts(self, size: int) -> list[Batch]:
        """Return it in the fewest parts of at most `size` items, as even as can be."""
        count = -(-len(self) // size)
        edges = [len(self) * part // count for part in range(count + 1)]
        return [self.part(start, stop) for start, stop in pairwise(edges)]

    def part(self, start: int, stop: int) -> Batch:
        """Return the items from `start` to before `stop`."""
        tensors = tuple(tensor[start:stop] for tensor in self.tensors)
        return Batch(self.ids[start:stop], tensors, self.step, self.start + start)

    def to(self, device: torch.device) -> Batch:
        """Return it with its tensors on a device."""
        return replace(self, tensors=tuple(tensor.to(device, non_blocking=True) for tensor in self.tensors))


class BatchSource(Protocol):
    """Where batches come from; `load` must depend on its arguments alone and is called from several threads."""

    @property
    def steps(self) -> int:
        """Steps an epoch."""
        ...

    def names(self, epoch: int, step: int) -> Sequence[str]:
        """Return the ids of the items that a step loads, without loading them."""
        ...

    def load(self, epoch: int, step: int) -> Batch:
        """Load the batch of a step (counted within its epoch)."""
        ...


@dataclass(frozen=True)
class Items:
    """Items by index as a BatchSource; final.

    `open(indices, epoch)` returns their tensors, `name(index)` an id. With `shuffle`, an epoch's order is the
    permutation drawn from (seed, epoch); a last batch of one item joins the one before. Where `lengths` [count] are
    given, a batch holds items of like length, so that little is padded.
    """

    count: int
    batch_size: int
    open: Callable[[np.ndarray, int], tuple[Tensor, ...]]
    name: Callable[[int], str]
    seed: int = 0
    shuffle: bool = True
    lengths: np.ndarray | None = None
    _orders: dict[int, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    @property
    def steps(self) -> int:
        """Steps an epoch."""
        return len(cuts(self.count, self.batch_size)) - 1

    def indices(self, epoch: int, step: int) -> np.ndarray:
        """Return the items of a step."""
        edges = cuts(self.count, self.batch_size)
        return self._order(epoch)[edges[step] : edges[step + 1]]

    def _order(self, epoch: int) -> np.ndarray:
        """Return the items of an epoch in the order in which they are used."""
        if self.lengths is None:
            return permutation(self.seed, epoch, self.count) if self.shuffle else np.arange(self.count)
        if epoch not in self._orders:
            for past in [past for past in self._orders if past < epoch - 1]:
                self._orders.pop(past, None)
            self._orders[epoch] = (
                bucketed(self.seed, epoch, self.lengths, self.batch_size)
                if self.shuffle
                else np.argsort(self.lengths, kind="stable")
            )
        return self._orders[epoch]

    def names(self, epoch: int, step: int) -> tuple[str, ...]:
        """Return the ids of a step's items."""
        return tuple(self.name(int(index)) for index in self.indices(epoch, step))

    def load(self, epoch: int, step: int) -> Batch:
        """Load a step's batch."""
        tensors = self.open(self.indices(epoch, step), epoch)
        return Batch(self.names(epoch, step), tensors, step=epoch * self.steps + step)


@lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """Return the order of an epoch's items, drawn from (seed, epoch)."""
    order = draw(seed, "order", epoch, 0).permutation(count)
    order.setflags(write=False)
    return order


def bucketed(seed: int, epoch: int, lengths: np.ndarray, batch_size: int) -> np.ndarray:
    """Return an epoch's order in which neighbours are of like length, a pure function of (seed, epoch).

    The epoch's permutation is cut into pools of POOL batches, each is sorted by length, and the batches of all pools
    are taken in a drawn order.
    """
    count = len(lengths)
    order = permutation(seed, epoch, count)
    pools = [order[start : start + POOL * batch_size] for start in range(0, count, POOL * batch_size)]
    by_length = np.concatenate([pool[np.argsort(lengths[pool], kind="stable")] for pool in pools])
    edges = cuts(count, batch_size)
    # The last batch may be of another size, so it keeps its place.
    places = [*draw(seed, "buckets", epoch, 0).permutation(len(edges) - 2), len(edges) - 2]
    return np.concatenate([by_length[edges[place] : edges[place + 1]] for place in places])


@lru_cache(maxsize=16)
def cuts(count: int, batch_size: int) -> tuple[int, ...]:
    """Return the edges of the batches of `count` items; a last batch of one item joins the one before."""
    edges = [*range(0, count, batch_size), count]
    if len(edges) > 2 and edges[-1] - edges[-2] == 1:
        del edges[-2]
    return tuple(edges)


def prefetch(
    source: BatchSource,
    positions: Iterable[tuple[int, int]],
    *,
    workers: int,
    timeout: float,
    check: Callable[[], None] = lambda: None,
    progress: Callable[[Event], None] = ignore,
) -> Generator[Batch, None, None]:
    """Yield the batch of each (epoch, step) in order, loaded ahead by `workers` threads (0: loaded here).

    At most 2 x workers batches wait in memory. `check` is called while waiting and may raise. DataError names the
    items of a batch that takes longer than `timeout` seconds; a batch that runs out of memory is loaded once more,
    with no other beside it.
    """
    if workers == 0:
        yield from (source.load(*position) for position in positions)
        return
    jobs: queue.SimpleQueue[tuple[Future[Batch], tuple[int, int]] | None] = queue.SimpleQueue()
    for _ in range(workers):
        # Daemons: a thread that hangs in a read must not keep the process from ending.
        threading.Thread(target=_serve, args=(source, jobs), name="loader", daemon=True).start()
    waiting: list[tuple[Future[Batch], tuple[int, int]]] = []
    upcoming = iter(positions)
    try:
        while True:
            while len(waiting) < 2 * workers and (position := next(upcoming, None)) is not None:
                waiting.append((Future(), position))
                jobs.put(waiting[-1])
            if not waiting:
                return
            future, position = waiting.pop(0)
            try:
                yield _wait(future, source, position, timeout=timeout, check=check)
            except MemoryError:
                progress(Event("load", message="out of memory while loading: this batch is loaded alone"))
                for other, _ in waiting:
                    _wait_quietly(other)
                yield source.load(*position)
    finally:
        for future, _ in waiting:
            future.cancel()
        for _ in range(workers):
            jobs.put(None)


def _serve(source: BatchSource, jobs: queue.SimpleQueue[Any]) -> None:
    """Load batches until told to end."""
    while (job := jobs.get()) is not None:
        future, position = job
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(source.load(*position))
            except BaseException as error:  # Handed to the thread that waits for it.
                future.set_exception(error)


def _wait(
    future: Future[Batch],
    source: BatchSource,
    position: tuple[int, int],
    *,
    timeout: float,
    check: Callable[[], None],
) -> Batch:
    """Return the batch when it is there, looking around meanwhile."""
    until = time.monotonic() + timeout
    while True:
        check()
        try:
            return future.result(timeout=_POLL)
        except TimeoutError:
            if future.done():  # The loading itself raised a TimeoutError.
                raise
            if time.monotonic() > until:
                raise DataError(
                    f"no batch for {timeout:g} s while opening {', '.join(source.names(*position))}",
                    expected="each of these to open in time",
                    fix="check these files and the disk or share that they lie on",
                ) from None


def _wait_quietly(future: Future[Batch]) -> None:
    """Let a batch finish loading; whoever asks for it hears of its errors."""
    future.exception()
