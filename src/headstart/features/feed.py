"""What reaches the part of a network that trains: cached activations, or items opened and augmented anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from headstart.features.inputs import keep_inputs
from headstart.features.prefix import Activations, Cut, activations, half, prepare_all, view_of
from headstart.train.runtime import Context, draw
from headstart.train.signals import stopping

if TYPE_CHECKING:
    from headstart.core.protocols import Dataset, Encoder, Task


@dataclass(frozen=True)
class Feed:
    """How a dataset's items reach the module that trains: the tensor of the chosen items in an epoch.

    `lengths` [n], where items differ in length, let batches hold items of like length.
    """

    open: Callable[[np.ndarray, int], Tensor]
    dataset: Dataset
    lengths: np.ndarray | None = None


def training_feed(
    dataset: Dataset, encoder: Encoder, place: Cut | None, *, views: int, strength: str, context: Context
) -> Feed:
    """Return cached activations of several views, or new augmentations every epoch (through the frozen prefix)."""
    if place and views:
        kept = activations(
            dataset,
            encoder,
            place.prefix,
            depth=place.depth,
            views=views,
            strength=strength,
            context=context,
        )
        return _cached(
            dataset, encoder, kept, lambda indices, epoch: view_of(context.seed, epoch, indices, views)
        )
    with stopping(context.command) as stop:
        inputs = keep_inputs(dataset, encoder, context=context, check=stop.check)

    def open_items(indices: np.ndarray, epoch: int) -> Tensor:
        draws = [draw(context.seed, "augment", epoch, int(index)) for index in indices]
        values = prepare_all(encoder, [inputs[int(index)] for index in indices], draws, strength)
        return encoder.stack(half(place.prefix(values))) if place else encoder.batch(values)

    return Feed(open_items, dataset, inputs.lengths)


def validation_feed(dataset: Dataset, encoder: Encoder, place: Cut | None, context: Context) -> Feed:
    """Return the cached activations of the items themselves, or the items."""
    if place:
        kept = activations(
            dataset, encoder, place.prefix, depth=place.depth, views=1, strength="none", context=context
        )
        return _cached(dataset, encoder, kept, lambda indices, _: np.zeros_like(indices))

    inputs = keep_inputs(dataset, encoder, context=context, exact=True)

    def open_items(indices: np.ndarray, _: int) -> Tensor:
        return encoder.collate([inputs[int(index)] for index in indices])

    return Feed(open_items, dataset, inputs.lengths)


def _cached(
    dataset: Dataset, encoder: Encoder, kept: Activations, view: Callable[[np.ndarray, int], np.ndarray]
) -> Feed:
    """Return the kept activations of items, each in the view that it shows in an epoch."""

    def open_items(indices: np.ndarray, epoch: int) -> Tensor:
        return encoder.stack(kept.gather(indices, view(indices, epoch)))

    return Feed(open_items, dataset, kept.lengths)


def with_targets(feed: Feed, task: Task) -> Callable[[np.ndarray, int], tuple[Tensor, ...]]:
    """Return what opens inputs and targets together."""

    def open_both(indices: np.ndarray, epoch: int) -> tuple[Tensor, ...]:
        targets = task.collate([feed.dataset[int(index)].target for index in indices])
        return feed.open(indices, epoch), targets

    return open_both


def as_floats(inputs: Tensor) -> Tensor:
    """Return activations as float32 in the layout of the weights; pictures stay uint8."""
    if inputs.dtype != torch.float16:
        return inputs
    layout = torch.channels_last if inputs.dim() == 4 else torch.contiguous_format
    return inputs.to(torch.float32, memory_format=layout)
