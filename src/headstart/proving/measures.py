"""What tells why a transfer went wrong: how far features drifted, and whether running statistics fit the data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

if TYPE_CHECKING:
    from headstart.core.protocols import Encoder
    from headstart.core.types import Form

BATCH = 16
FEWEST = 4
"""The unbiased estimate needs as many items."""


def linear_cka(one: np.ndarray, other: np.ndarray) -> float:
    """Return how alike two sets of features [N, D] and [N, E] of the same items are, about 0 to 1.

    Linear centred kernel alignment (Kornblith et al. 2019, arXiv 1905.00414) with the unbiased estimate of Song et al.
    (2012), as the plain one nears 1 for any features that are wider than there are items. NaN for fewer than four items
    or features that do not vary.
    """
    if len(one) < FEWEST:
        return float("nan")
    cross, own, theirs = (_hsic(a, b) for a, b in ((one, other), (one, one), (other, other)))
    return float(cross / np.sqrt(own * theirs)) if own > 0 and theirs > 0 else float("nan")


def _hsic(one: np.ndarray, other: np.ndarray) -> float:
    """Return the unbiased Hilbert-Schmidt independence criterion of linear kernels."""
    kernels: list[np.ndarray] = []
    for rows in (one, other):
        centred = np.asarray(rows, dtype=np.float64) - rows.mean(0)
        kernel = centred @ centred.T
        np.fill_diagonal(kernel, 0.0)
        kernels.append(kernel)
    first, second = kernels
    n = len(first)
    sums = first.sum() * second.sum() / ((n - 1) * (n - 2))
    paired = 2 * float(first.sum(0) @ second.sum(0)) / (n - 2)
    return float((first * second).sum() + sums - paired) / (n * (n - 3))


def group_features(encoder: Encoder, values: Sequence[np.ndarray], form: Form) -> dict[str, np.ndarray]:
    """Return what each layer group gives for some items, [N, D], the mean over places; groups that do not run are left
    out.
    """
    found: dict[str, list[np.ndarray]] = {}
    with _watched(encoder) as caught:
        for batch in _batches(encoder, values):
            caught.clear()
            with torch.inference_mode():
                encoder.network(form)(batch)
            for name, tensor in caught.items():
                found.setdefault(name, []).append(_per_row(tensor))
    return {name: np.concatenate(parts) for name, parts in found.items()}


@contextmanager
def _watched(encoder: Encoder) -> Iterator[dict[str, Tensor]]:
    """Catch what the last module of each layer group gives while the block runs."""
    caught: dict[str, Tensor] = {}
    handles: list[Any] = []

    def listen(name: str, module: nn.Module) -> None:
        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            first = output[0] if isinstance(output, (tuple, list)) else output
            if isinstance(first, Tensor) and first.dim() > 1:
                caught[name] = first.detach()

        handles.append(module.register_forward_hook(keep))

    encoder.module.eval()
    for group in encoder.layer_groups():
        for module in group.modules:  # The last that runs is what stays.
            listen(group.name, module)
    try:
        yield caught
    finally:
        for handle in handles:
            handle.remove()


def _per_row(tensor: Tensor) -> np.ndarray:
    """Return the mean over all places of maps [N, C, H, W] or of tokens [N, L, D]."""
    wide = tensor.float()
    if wide.dim() == 4:
        wide = wide.mean((2, 3))
    elif wide.dim() > 2:
        wide = wide.flatten(1, -2).mean(1)
    return wide.cpu().numpy()


def drift(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the CKA of each layer group between two states of a network."""
    shared = [name for name in before if name in after and len(before[name]) == len(after[name])]
    found = {name: linear_cka(before[name], after[name]) for name in shared}
    return {name: value for name, value in found.items() if not np.isnan(value)}


def statistics_gap(encoder: Encoder, values: Sequence[np.ndarray], form: Form) -> tuple[float, int]:
    """Return how far the data's channel means lie from BatchNorm's running means, in running deviations, and the
    number of such layers.

    The running statistics are those of what the network learnt from, so this is how far the two domains are apart. The
    mean over channels and layers of the absolute gap; 0 for a network without BatchNorm.
    """
    sums: dict[int, tuple[Tensor, int]] = {}
    layers = [
        part
        for part in encoder.module.modules()
        if isinstance(part, _BatchNorm) and part.running_mean is not None
    ]
    handles = [layer.register_forward_pre_hook(_adding(sums, place)) for place, layer in enumerate(layers)]
    encoder.module.eval()
    try:
        for batch in _batches(encoder, values):
            with torch.inference_mode():
                encoder.network(form)(batch)
    finally:
        for handle in handles:
            handle.remove()
    gaps: list[float] = []
    for place, (total, count) in sums.items():
        mean, variance = layers[place].running_mean, layers[place].running_var
        if mean is None or variance is None:
            continue
        gaps.append(float(((total / count - mean).abs() / (variance + layers[place].eps).sqrt()).mean()))
    return (float(np.mean(gaps)) if gaps else 0.0), len(gaps)


def _adding(sums: dict[int, tuple[Tensor, int]], place: int) -> Callable[[nn.Module, Any], None]:
    """Return the hook that adds what enters one layer."""

    def hook(_module: nn.Module, inputs: Any) -> None:
        _add(sums, place, inputs[0])

    return hook


def _add(sums: dict[int, tuple[Tensor, int]], place: int, inputs: Tensor) -> None:
    """Add the channel sums of a batch [N, C, ...] to what was seen before."""
    flat = inputs.detach().float().transpose(0, 1).flatten(1)
    total, count = sums.get(place, (torch.zeros_like(flat[:, 0]), 0))
    sums[place] = total + flat.sum(1), count + flat.shape[1]


def _batches(encoder: Encoder, values: Sequence[np.ndarray]) -> Iterator[Tensor]:
    """Yield the values batch by batch on the network's device."""
    device = next(encoder.module.parameters()).device
    for start in range(0, len(values), BATCH):
        yield encoder.batch(values[start : start + BATCH]).to(device)
