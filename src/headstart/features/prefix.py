"""Prefix caching: what a frozen prefix says of each item and view is computed once; only the rest trains.

Howard & Ruder's and fastai's frozen phases run the whole network every epoch; with the first k layer groups frozen
their output never changes, so it is kept (float16) and read back by memory map.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from headstart.core.errors import TrainingError
from headstart.core.hashing import digest
from headstart.core.registry import resolve
from headstart.features.runtime import Run, choose_runtime
from headstart.features.shards import Shards
from headstart.train.batches import Batch, cuts, prefetch
from headstart.train.runtime import Context, Event, draw, limited_threads
from headstart.train.signals import stopping

if TYPE_CHECKING:
    from headstart.core.protocols import Dataset, Encoder
    from headstart.core.types import Form

VERSION = 1
"""Version of this step; bump when its numbers move."""
BUCKET = "activations-v1"
CHUNK = 8
"""Items a pass; chunks follow the order of the data, so that a run that was cut makes the same ones again."""
SHARD_BYTES = 32 << 20
"""A killed run loses at most this much."""
SHARE = 0.25
"""Cached training may take this share of the time that training everything takes."""
MOST_VIEWS = 8


@dataclass(frozen=True)
class Cut:
    """An encoder cut after its first `depth` groups: `prefix` runs frozen on prepared values, `suffix` trains."""

    depth: int
    prefix: Run
    suffix: nn.Module


@dataclass(frozen=True)
class Activations:
    """The prefix's output for items (by hash) and views, in the store."""

    shards: tuple[Shards, ...]
    hashes: tuple[str, ...]

    @property
    def lengths(self) -> np.ndarray | None:
        """Return the numbers of each item's row, None where all rows are of one shape."""
        sizes = np.array([self.shards[0].row(item, "activations").size for item in self.hashes])
        return None if len(sizes) == 0 or (sizes == sizes[0]).all() else sizes

    def gather(self, indices: np.ndarray, views: np.ndarray) -> list[np.ndarray]:
        """Return rows of float16, one for each (item, view) pair, in this order."""
        pairs = zip(indices, views, strict=True)
        return [self.shards[view].row(self.hashes[index], "activations") for index, view in pairs]


def cut(encoder: Encoder, depth: int, *, form: Form, context: Context) -> Cut | None:
    """Cut an encoder after `depth` groups, its prefix in the fastest exact runtime; None where it cannot be cut."""
    parts = encoder.split(depth, form) if depth else None
    if parts is None:
        return None
    return Cut(depth, choose_runtime(encoder, form, context, depth=depth), parts[1])


def activations(
    dataset: Dataset,
    encoder: Encoder,
    prefix: Run,
    *,
    depth: int,
    views: int,
    strength: str,
    context: Context,
) -> Activations:
    """Return the prefix's output for every item and view, computing only what the store does not hold.

    View 0 is the picture itself, view v > 0 an augmented one drawn from (seed, view, item hash). Interrupted on
    SIGTERM or SIGINT; what was finished stays in the store.
    """
    hashes = tuple(dataset.item_hash(index) for index in range(len(dataset)))
    shards: list[Shards] = []
    for view in range(views):
        key = activation_key(encoder, depth=depth, view=view, strength=strength, seed=context.seed)
        shards.append(Shards(context.store, BUCKET, key))
    chunks = _Chunks(dataset, encoder, prefix, hashes, tuple(shards), strength=strength, seed=context.seed)
    with limited_threads(1), stopping(context.command) as stop:
        _fill(chunks, context, check=stop.check)
    return Activations(tuple(shards), hashes)


def activation_key(encoder: Encoder, *, depth: int, view: int, strength: str, seed: int) -> str:
    """Return the key of one view's activations: content only; the picture itself is the same for every seed."""
    spec = encoder.spec
    modality = resolve("modality", spec.modality)
    drawn = {"view": view, "strength": strength, "seed": seed} if view else {}
    return digest(
        "activations", VERSION, modality.VERSION, spec.name, spec.weights_sha256, spec.contract, depth, drawn
    )


def view_of(seed: int, epoch: int, indices: np.ndarray, views: int) -> np.ndarray:
    """Return which view each item shows in an epoch: each goes through all of them in turn, from its own start."""
    starts = [int(draw(seed, "first view", 0, int(index)).integers(views)) for index in indices]
    return (np.array(starts) + epoch) % views


@dataclass(frozen=True)
class _Chunks:
    """The items of a dataset in fixed chunks as a source of batches: epoch is the view, step the chunk."""

    dataset: Dataset
    encoder: Encoder
    prefix: Run
    hashes: tuple[str, ...]
    shards: tuple[Shards, ...]
    strength: str
    seed: int

    @cached_property
    def firsts(self) -> tuple[int, ...]:
        """Return the index of each distinct item, in order."""
        first: dict[str, int] = {}
        for index, item in enumerate(self.hashes):
            first.setdefault(item, index)
        return tuple(first.values())

    @property
    def steps(self) -> int:
        """Chunks a view."""
        return len(cuts(len(self.firsts), CHUNK)) - 1

    def missing(self, view: int, chunk: int) -> list[int]:
        """Return the items of a chunk that the store does not hold."""
        edges = cuts(len(self.firsts), CHUNK)
        items = self.firsts[edges[chunk] : edges[chunk + 1]]
        return [index for index in items if self.hashes[index] not in self.shards[view]]

    def names(self, epoch: int, step: int) -> tuple[str, ...]:
        """Return the ids of a chunk's missing items."""
        return tuple(self.dataset[index].id for index in self.missing(epoch, step))

    def load(self, epoch: int, step: int) -> Batch:
        """Open a chunk's missing items and run the prefix on them; ids are their hashes."""
        indices = self.missing(epoch, step)
        draws = [draw(self.seed, "view", epoch, self.hashes[index]) for index in indices] if epoch else None
        inputs = [self.dataset[index].input for index in indices]
        rows = half(self.prefix(prepare_all(self.encoder, inputs, draws, self.strength)))
        # Rows of texts differ in length: each is a tensor of its own.
        return Batch(
            tuple(self.hashes[index] for index in indices), tuple(map(torch.from_numpy, rows)), epoch
        )


def prepare_all(
    encoder: Encoder, inputs: Sequence[object], draws: Sequence[np.random.Generator] | None, strength: str
) -> list[np.ndarray]:
    """Open inputs as their encoder's values, augmented where `draws` are given."""
    pairs = zip(inputs, draws or [None] * len(inputs), strict=True)
    return [encoder.prepare(raw, draw=generator, strength=strength).value for raw, generator in pairs]


def half(rows: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return activations as float16; TrainingError where they do not fit its range."""
    with np.errstate(over="ignore"):
        small = [row.astype(np.float16) for row in rows]
    largest = max((float(np.abs(row).max()) for row in rows), default=0.0)
    if not largest <= float(np.finfo(np.float16).max):
        raise TrainingError(
            f"activations reach {largest:.3g}, beyond the range of float16",
            expected="activations within 65504",
            fix="cut at another depth (finetune.train_last)",
        )
    return small


def _fill(chunks: _Chunks, context: Context, *, check: Callable[[], None]) -> None:
    """Compute every missing chunk, view by view, appending shards of bounded size."""
    every = [(view, chunk) for view in range(len(chunks.shards)) for chunk in range(chunks.steps)]
    positions = [position for position in every if chunks.missing(*position)]
    stream = prefetch(
        chunks,
        positions,
        workers=context.threads,
        timeout=context.timeout,
        check=check,
        progress=context.progress,
    )
    waiting: list[Batch] = []
    size = 0
    for done, batch in enumerate(stream, 1):
        check()
        if waiting and (waiting[0].step != batch.step or size >= SHARD_BYTES):
            _append(chunks.shards, waiting)
            waiting, size = [], 0
        waiting.append(batch)
        size += sum(row.nbytes for row in batch.tensors)
        context.progress(Event("activations", done, len(positions)))
    if waiting:
        _append(chunks.shards, waiting)


def _append(shards: Sequence[Shards], batches: Sequence[Batch]) -> None:
    """Write some chunks of one view as one shard."""
    rows = [row.numpy() for batch in batches for row in batch.tensors]
    is_even = len({row.shape for row in rows}) == 1
    items = [item for batch in batches for item in batch.ids]
    shards[batches[0].step].append(items, {"activations": np.stack(rows) if is_even else rows})


# -- depth and number of views --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Figures:
    """What a depth costs, measured.

    Seconds an item of the prefix (once a view) and of a training step (each epoch), and bytes an item and view.
    """

    depth: int
    prefix_seconds: float
    step_seconds: float
    row_bytes: int


@dataclass(frozen=True, slots=True)
class Choice:
    """How many groups to freeze, how many views to keep, and what that should cost."""

    depth: int
    views: int
    seconds: float
    num_bytes: int


def choose(
    figures: Sequence[Figures], *, items: int, epochs: int, most_bytes: int, share: float = SHARE
) -> Choice | None:
    """Choose depth and views: a pure function of measured figures; None where no depth fits the disk.

    `figures` hold depth 0 (everything trains) as the reference. The shallowest cut whose cached training takes at
    most `share` of training everything is taken (the cheapest cut where none does), with as many views as that time
    and `most_bytes` of disk allow, at most one an epoch.
    """
    whole = next(row for row in figures if row.depth == 0)
    allowed = share * items * epochs * whole.step_seconds

    def cost(row: Figures, views: int) -> Choice:
        seconds = items * (views * row.prefix_seconds + epochs * row.step_seconds)
        return Choice(row.depth, views, seconds, items * views * row.row_bytes)

    fitting = [row for row in figures if row.depth and items * row.row_bytes <= most_bytes]
    if not fitting:
        return None
    quick = [row for row in fitting if cost(row, 1).seconds <= allowed]
    taken = (
        min(quick, key=lambda row: row.depth) if quick else min(fitting, key=lambda row: cost(row, 1).seconds)
    )
    choices = [cost(taken, views) for views in range(1, min(MOST_VIEWS, epochs) + 1)]
    return max(
        (
            one
            for one in choices
            if one.views == 1 or (one.seconds <= allowed and one.num_bytes <= most_bytes)
        ),
        key=lambda one: one.views,
    )


def measure(
    encoder: Encoder,
    head: nn.Module,
    inputs: Tensor,
    *,
    form: Form,
    context: Context,
    depths: Sequence[int] | None = None,
) -> tuple[Figures, ...]:
    """Time each possible cut (or those at `depths`) on a few collated items: forward of the prefix, forward and
    backward of the rest.

    Depth 0 is the whole network; depths at which the encoder cannot be cut are left out. Weights stay as they are.
    """
    whole = encoder.network(form)
    trained = [*whole.parameters(), *head.parameters()]
    wanted = [parameter.requires_grad for parameter in trained]
    with limited_threads(context.threads):
        for parameter in trained:
            parameter.requires_grad_(True)
        try:
            forward = _seconds(lambda: _forward(whole, inputs)) / len(inputs)
            rows = [Figures(0, 0.0, _step_seconds(whole, head, inputs), 0)]
            for depth in range(1, len(encoder.layer_groups()) + 1) if depths is None else depths:
                parts = encoder.split(depth, form)
                if parts is not None:
                    rows.append(_measure_cut(depth, parts, head, inputs, forward))
        finally:
            for parameter, before in zip(trained, wanted, strict=True):
                parameter.requires_grad_(before)
                parameter.grad = None
    return tuple(rows)


def _measure_cut(
    depth: int, parts: tuple[nn.Module, nn.Module], head: nn.Module, inputs: Tensor, forward: float
) -> Figures:
    """Measure one cut; its prefix takes what the whole forward pass takes beyond the suffix."""
    prefix, suffix = parts
    crossing = _forward(prefix, inputs)
    rest = _seconds(lambda: _forward(suffix, crossing)) / len(inputs)
    row_bytes = 2 * crossing[0].numel()
    return Figures(depth, max(0.0, forward - rest), _step_seconds(suffix, head, crossing), row_bytes)


def _step_seconds(module: nn.Module, head: nn.Module, inputs: Tensor) -> float:
    """Return the seconds an item of one forward and backward pass."""

    def step() -> None:
        outputs = head(module(inputs))
        if outputs.requires_grad:
            outputs.square().mean().backward()

    return _seconds(step) / len(inputs)


def _forward(module: nn.Module, inputs: Tensor) -> Tensor:
    """Run a module without gradients."""
    with torch.no_grad():
        return module(inputs)


def _seconds(work: Callable[[], object]) -> float:
    """Return the shorter of two timings."""
    times: list[float] = []
    for _ in range(2):
        start = time.perf_counter()
        work()
        if torch.cuda.is_initialized():  # Calls return before the GPU has done its work.
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)
