"""One optimiser step: gradients in parts, a guard against numbers that are not finite, recovery from lack of memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from headstart.core.errors import TrainingError
from headstart.train.batches import Batch
from headstart.train.optim import still_statistics
from headstart.train.runtime import autocast

Loss = Callable[[Batch], Tensor]
"""The mean loss over a batch's items; draws what it needs from torch (seeded a step) or from (seed, batch.step)."""

FINDER_HINT = "lower finetune.learning_rate; `headstart.train.finder.find_learning_rate` measures a good one"


@dataclass
class Gradients:
    """How gradients are made: items in one pass (`micro`, halved when memory runs out), device, precision."""

    device: torch.device
    micro: int
    precision: str = "float32"
    clip_norm: float = 1.0


def accumulate(
    module: nn.Module, loss: Loss, batch: Batch, settings: Gradients, *, check: Callable[[], None]
) -> float:
    """Add the gradients of the batch's mean loss, part by part, and return that loss.

    `check` is called between parts and may raise. TrainingError, naming the items, where the loss is not finite.
    """
    total = 0.0
    for part in batch.parts(settings.micro):
        check()
        moved = part.to(settings.device)
        # The variance of a single item is no statistic: BatchNorm uses its running ones there.
        stilled = still_statistics(module) if len(part) == 1 else []
        with autocast(settings.device, settings.precision):
            value = loss(moved)
        for norm in stilled:
            norm.train()
        share = len(part) / len(batch)
        number = float(value.detach())
        if not math.isfinite(number):
            raise not_finite(module, loss, moved, what=f"the loss is {number}")
        (value * share).backward()
        total += number * share
    return total


def clip(parameters: Sequence[nn.Parameter], settings: Gradients, batch: Batch) -> None:
    """Scale gradients down to the largest allowed norm; TrainingError where they are not finite."""
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, settings.clip_norm))
    if not math.isfinite(norm):
        raise TrainingError(
            f"the gradient is {norm} at step {batch.step} (items {', '.join(batch.ids)})",
            expected="finite gradients",
            fix=f"check these items; if they are sound, {FINDER_HINT}",
        )


def not_finite(module: nn.Module, loss: Loss, batch: Batch, *, what: str) -> TrainingError:
    """Return the error for a batch whose loss is not finite, naming the items that cause it."""
    bad = [item for index, item in enumerate(batch.ids) if not _has_finite_inputs(batch, index)]
    reason = "their inputs are not finite"
    if not bad:
        bad = [
            item for index, item in enumerate(batch.ids) if not _has_finite_loss(module, loss, batch, index)
        ]
        reason = "their own loss is not finite"
    if not bad:
        bad, reason = list(batch.ids), "together"
    return TrainingError(
        f"{what} at step {batch.step} through {', '.join(bad)} ({reason}); the last checkpoint is sound",
        expected="finite numbers",
        fix=f"check or remove these items; if they are sound, {FINDER_HINT}",
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory ran out, on any device."""
    text = str(error).lower()
    said = ("out of memory", "can't allocate memory", "status_alloc_failed")  # The last: cuBLAS and cuDNN.
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(words in text for words in said)
    )


def too_large(error: BaseException) -> TrainingError:
    """Return the error for a pass of a single item that memory does not hold."""
    return TrainingError(
        f"memory ran out with a single item a pass ({str(error).strip().partition(chr(10))[0]})",
        expected="memory for one item",
        fix="use a smaller picture size, train fewer layer groups, or a smaller network",
    )


def outputs_of(run: Callable[[Tensor], Tensor], batch: Batch, device: torch.device) -> list[Tensor]:
    """Return what `run` gives for each item of a batch, float32 on the CPU; in halves where memory runs out."""
    try:
        return list(run(batch.to(device).tensors[0]).float().cpu())
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if len(batch) == 1:
            raise too_large(error) from error
    # Behind the block above, as what an error holds on to is not freed inside.
    middle = len(batch) // 2
    parts = batch.part(0, middle), batch.part(middle, len(batch))
    return [row for part in parts for row in outputs_of(run, part, device)]


def _has_finite_inputs(batch: Batch, index: int) -> bool:
    """Tell whether every floating-point tensor of one item is finite."""
    return all(
        bool(torch.isfinite(tensor[index]).all()) for tensor in batch.tensors if tensor.is_floating_point()
    )


def _has_finite_loss(module: nn.Module, loss: Loss, batch: Batch, index: int) -> bool:
    """Tell whether one item alone gives a finite loss (with nothing random and no statistics moved)."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            return bool(torch.isfinite(loss(batch.part(index, index + 1))))
    finally:
        for part, mode in modes:
            part.training = mode
