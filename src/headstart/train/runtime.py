"""What a run runs on: device, precision, threads, progress, and randomness without state.

Every random draw is a pure function of (seed, stream, epoch, item) or of (seed, step), so a run that was cut and
started again draws the same numbers, whatever the number of loader threads, and no generator state is saved.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from headstart.core.errors import PlanError
from headstart.store import Store

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True, slots=True)
class Event:
    """Something worth showing: `done` of `total` units of a stage, a line of text, figures by name."""

    stage: str
    done: int = 0
    total: int = 0
    message: str = ""
    values: Mapping[str, float] = field(default_factory=dict)


def ignore(event: Event) -> None:
    """Show nothing (the default progress)."""


@dataclass(frozen=True)
class Context:
    """Everything about this machine and this run that never enters a result's key.

    `folder` is where this run keeps its checkpoints (None: it keeps none and cannot be resumed); `command` is what a
    person types to resume. `workers` loader threads open inputs, `timeout` seconds is how long one batch may take.
    """

    store: Store
    device: torch.device
    threads: int
    seed: int
    progress: Callable[[Event], None] = ignore
    folder: Path | None = None
    command: str = "the same command again"
    workers: int = 2
    timeout: float = 120.0


def draw(seed: int, stream: str, epoch: int, item: int | str) -> np.random.Generator:
    """Return the generator of one item: the same four values give the same numbers on every machine.

    `stream` names what is drawn ("augment", "order", ...), so that two uses never share numbers.
    """
    return np.random.Generator(np.random.Philox(key=_key(16, seed, stream, epoch, item)))


def seed_step(seed: int, step: int) -> None:
    """Seed torch on every device (dropout, stochastic depth) for one optimiser step."""
    import torch

    # Not torch.manual_seed: before CUDA is in use it queues one more call each time, for ever.
    number = _key(8, seed, "step", step) >> 1
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(number)
    elif torch.backends.mps.is_available():
        torch.mps.manual_seed(number)


def _key(size: int, *parts: int | str) -> int:
    """Hash the parts to an integer of `size` bytes."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=size).digest(), "little")


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of this name; `auto` takes CUDA, then Apple's MPS, then the CPU (PlanError where absent)."""
    import torch

    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if present[kind]))
    if not present.get(name.partition(":")[0], False):
        raise PlanError(
            f"the device '{name}' is not there",
            expected=f"auto or one of {', '.join(kind for kind, there in present.items() if there)}",
            fix="leave the device to `auto`",
        )
    return torch.device(name)


def gains_from_bfloat16(device: torch.device) -> bool:
    """Tell whether bfloat16 is faster than float32 here: on CUDA from compute capability 8; emulated on CPUs."""
    import torch

    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return the context of a forward pass: bfloat16 autocast where asked for and where the hardware gains."""
    import torch

    if precision == "bfloat16" and gains_from_bfloat16(device):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def channels_last(module: nn.Module) -> nn.Module:
    """Store four-dimensional weights channels-last, in place: convolutions are faster on CPU and on tensor cores."""
    import torch

    return module.to(memory_format=torch.channels_last)


@contextmanager
def limited_threads(count: int) -> Iterator[None]:
    """Let torch compute with `count` threads inside the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose_batch_size(items: int, *, memory_bytes: int | None = None, item_bytes: int = 40_000_000) -> int:
    """Return items a step, a pure function of the data's size and, on a GPU, of its memory.

    About forty steps an epoch, a power of two from 4 to 32 (64 on a GPU that holds them at `item_bytes` an item).
    """
    most = 32 if memory_bytes is None else int(min(64, max(4, memory_bytes // (2 * item_bytes))))
    wished = max(4, min(most, items // 40))
    return 1 << (wished.bit_length() - 1)


def device_memory(device: torch.device) -> int | None:
    """Return a GPU's memory in bytes, None for other devices."""
    import torch

    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None
