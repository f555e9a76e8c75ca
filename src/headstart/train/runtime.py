"""What a run runs on: device, precision, threads, progress, and randomness without state.

Every random draw is a pure function of (seed, stream, epoch, item) or of (seed, step), so a run that was cut and
started again draws the same numbers, whatever the number of loader threads, and no generator state is saved.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from headstart.core.errors import PlanError
from headstart.store import Store

if TYPE_CHECKING:
    import torch
    from torch import nn

T = TypeVar("T")
CUBLAS = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
"""Read when cuBLAS first computes; without it no matrix product repeats its bits for certain."""


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
    """Return the device of this name; `auto` takes CUDA, then Apple's MPS, then the CPU (PlanError where absent).

    With CUDA, float32 then means float32 in this process: convolutions are not rounded to TensorFloat-32.
    """
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    present = ["cpu", *(["mps"] if torch.backends.mps.is_available() else [])]
    present += ["cuda", *(f"cuda:{number}" for number in range(count))] if count else []
    if name == "auto":
        name = next(kind for kind in ("cuda", "mps", "cpu") if kind in present)
    if name not in present:
        raise PlanError(
            f"the device '{name}' is not there",
            expected=f"auto or one of {', '.join(present)}",
            fix="leave the device to `auto`",
        )
    if name.startswith("cuda"):
        # What the store holds may be read on any machine, so it must not depend on where it was computed.
        torch.backends.cudnn.allow_tf32 = False
        os.environ.setdefault(*CUBLAS)
    return torch.device(name)


def device_name(device: torch.device) -> str:
    """Return what decides the last bits of a result: the GPU's name, of other devices the kind."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@contextmanager
def exact_kernels(device: torch.device) -> Iterator[None]:
    """Let a GPU compute with kernels that repeat their bits; one that has none raises (see `lacks_exact_kernel`)."""
    import torch

    if device.type != "cuda":
        yield
        return
    os.environ.setdefault(*CUBLAS)
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    more: Any = torch.utils.deterministic
    filling, more.fill_uninitialized_memory = (
        more.fill_uninitialized_memory,
        False,
    )  # It would cost a pass each.
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        more.fill_uninitialized_memory = filling


@contextmanager
def computing(context: Context) -> Iterator[None]:
    """Compute with the context's threads and exact kernels inside the block."""
    with limited_threads(context.threads), exact_kernels(context.device):
        yield


def lacks_exact_kernel(error: BaseException) -> bool:
    """Tell whether an error says that an operation has no kernel that repeats its bits."""
    return isinstance(error, RuntimeError) and "does not have a deterministic implementation" in str(error)


def exactly(device: torch.device, work: Callable[[], T]) -> T:
    """Return what some work gives with exact kernels, or once more with any where an operation has none."""
    with exact_kernels(device):
        try:
            return work()
        except RuntimeError as error:
            if not lacks_exact_kernel(error):
                raise
            loosen(error)
        return work()


def loosen(error: BaseException) -> str:
    """Allow any kernel for the rest of an `exact_kernels` block, and say what that costs."""
    import torch

    torch.use_deterministic_algorithms(True, warn_only=True)
    operation = str(error).split(" does not have")[0]
    return f"{operation} has no exact kernel on this device: another run may differ in the last digits"


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
