"""BatchNorm statistics of a domain, blended with a network's own by the number of items.

AdaBN (Li et al. 2017, arXiv 1603.04779) replaces the running statistics by those of the target; with few items they are
blended (Schneider et al. 2020, arXiv 2006.16971), for the mean and the variance of every channel alike:

    mu = (1 - a) mu_s + a mu_t,   a = n / (n + 16)

with n items. A network that was itself trained on the source takes the target's statistics. Where it rests as it was
pretrained and only a head knows the source, both domains need their own: re-estimate on the source, fit the head on
features under these, and use the target's statistics for the target. Target statistics alone would part the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from headstart.core.errors import PlanError
from headstart.features.inputs import keep_inputs
from headstart.train.runtime import Context, Event, draw, limited_threads

if TYPE_CHECKING:
    from headstart.core.protocols import Dataset, Encoder
    from headstart.core.types import Form

VERSION = 1
"""Version of the re-estimation; bump when its numbers move."""
PRIOR = 16
"""Items that the network's own statistics count as."""
BATCH = 64
"""Items a pass: each pass normalises by its own, so that deeper layers see shallower ones already re-estimated."""

Statistics = Mapping[str, Tensor]
"""Running means and variances by their names in the encoder's module."""


def has_statistics(encoder: Encoder) -> bool:
    """Tell whether a network has BatchNorm layers with running statistics."""
    return bool(_norms(encoder.module))


def statistics_of(encoder: Encoder) -> Statistics:
    """Return copies of a network's running statistics."""
    return {name: tensor.detach().clone() for name, tensor in _tensors(encoder.module).items()}


def reestimate(
    encoder: Encoder, dataset: Dataset, *, context: Context, form: Form = "pooled", prior: float = PRIOR
) -> Statistics:
    """Return the statistics of a dataset's items, blended with the network's own, which stays as it is.

    No label is looked at. Items are taken in a drawn order, as one class alone would say little of a domain. PlanError
    where the network has no BatchNorm or there are fewer than two items.
    """
    if not has_statistics(encoder) or len(dataset) < 2:
        raise PlanError(
            f"statistics of {encoder.spec.name} were to be taken from {len(dataset)} items",
            expected="a network with BatchNorm layers, and at least two items",
            fix="leave this out: other ways of adapting do without",
        )
    encoder.module.to(context.device)
    before = statistics_of(encoder)
    try:
        _measure(encoder, dataset, context=context, form=form)
        found = statistics_of(encoder)
    finally:
        use_statistics(encoder, before)
    share = len(dataset) / (len(dataset) + prior)
    return {name: torch.lerp(before[name], found[name], share) for name in before}


def use_statistics(encoder: Encoder, statistics: Statistics) -> None:
    """Put statistics into a network, in place."""
    tensors = _tensors(encoder.module)
    with torch.no_grad():
        for name, value in statistics.items():
            tensors[name].copy_(value)


@contextmanager
def with_statistics(encoder: Encoder, statistics: Statistics) -> Iterator[None]:
    """Let a network use other statistics inside the block."""
    before = statistics_of(encoder)
    use_statistics(encoder, statistics)
    try:
        yield
    finally:
        use_statistics(encoder, before)


def _measure(encoder: Encoder, dataset: Dataset, *, context: Context, form: Form) -> None:
    """Run all items through the network, whose statistics become the mean of those of the passes."""
    module, network = encoder.module, encoder.network(form)
    inputs = keep_inputs(dataset, encoder, context=context, exact=True)
    order = draw(context.seed, "statistics", 0, 0).permutation(len(dataset))
    norms = _norms(module)
    kept = [(norm, norm.momentum, norm.training, norm.num_batches_tracked) for norm in norms.values()]
    counts = [None if count is None else count.clone() for *_, count in kept]
    for norm in norms.values():
        norm.reset_running_stats()
        norm.momentum = None  # Each pass counts alike.
        norm.train()
    try:
        with limited_threads(context.threads), torch.no_grad():
            batches = np.array_split(order, -(-len(order) // BATCH))
            for done, batch in enumerate(batches, 1):
                network(encoder.collate([inputs[int(index)] for index in batch]).to(context.device))
                context.progress(Event("statistics", done, len(batches)))
    finally:
        for (norm, momentum, was_training, tracked), count in zip(kept, counts, strict=True):
            norm.momentum = momentum
            norm.train(was_training)
            if tracked is not None and count is not None:
                tracked.copy_(count)


def _norms(module: nn.Module) -> dict[str, BatchNorm]:
    """Return the BatchNorm layers that keep running statistics, by name."""
    return {
        name: part
        for name, part in module.named_modules()
        if isinstance(part, BatchNorm) and part.running_mean is not None
    }


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return the running means and variances by name."""
    found: dict[str, Tensor] = {}
    for name, norm in _norms(module).items():
        for kind in ("running_mean", "running_var"):
            found[f"{name}.{kind}"] = getattr(norm, kind)
    return found
