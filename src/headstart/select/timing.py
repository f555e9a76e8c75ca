"""How long networks take here: timed where their weights are, else by a log-linear model of their facts."""

from __future__ import annotations

import copy
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_

from headstart.core.hashing import digest
from headstart.core.settings import FineTune, Pretrained, parse
from headstart.features.runtime import choose_runtime
from headstart.model import open_encoder
from headstart.train.adamw import AdamW, Row
from headstart.train.optim import still_statistics
from headstart.train.runtime import channels_last, device_name, exactly, limited_threads
from headstart.train.step import is_out_of_memory, too_large

if TYPE_CHECKING:
    from headstart.core.protocols import Encoder
    from headstart.core.types import Form
    from headstart.select.catalog import Entry
    from headstart.train.runtime import Context

VERSION = 2
"""Version of the timing; bump when it is done otherwise."""
BUCKET = "timings-v1"
EXPONENTS: Mapping[str, tuple[float, float, float]] = {
    "cpu": (0.364, 0.389, 0.268),
    "cuda": (0.184, 0.714, 0.026),
}
"""Of GMACs, millions of activations and millions of parameters in the seconds an item: least squares on logarithms
over timm's published results (benchmark-infer-fp32-nchw-pt240-cpu-i7_12700h-dynamo.csv: 1,440 rows, R2 0.98, nine in
ten within x1.39; benchmark-infer-amp-nchw-pt291-cu128-4090.csv: 1,627 rows, x1.80). `python -m benchmarks rank` fits
them anew."""
INTERCEPTS: Mapping[str, float] = {"cpu": -5.508, "cuda": -10.355}
"""The constant of the same fits: the logarithm of seconds on those two machines, where this one was not timed."""
TRAINING_STEP = 3.43
"""A training step takes so many forward passes: the median over 677 networks in timm's published results."""
VALIDATED = 1.1
"""Steps that validation is worth beside an epoch of training: a forward pass of a quarter as many items."""
HEAD_SECONDS, HEAD_CLASS_SECONDS = 5e-4, 5e-5
"""Racing heads, an item, and an item and class."""
TIMED_SECONDS, LEAST_PASSES = 1.0, 3
DEAREST_STEP = 2.0
"""Seconds of a timed training step, about: of large networks it has fewer items."""
REFERENCE_LENGTH = 80
"""Words of the text that the reference network of texts is timed on."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds an item takes: alone on one thread, frozen, with nothing beside it (`latency`); in a step that trains all
    of the network, on all threads (`training`).
    """

    latency: float
    training: float

    def times(self, factor: float) -> Pace:
        """Return the pace of a network that takes so many times as long."""
        return Pace(self.latency * factor, self.training * factor)


def paces(
    entries: Sequence[Entry],
    measured: Mapping[str, Pace],
    reference: Entry | None,
    context: Context,
    *,
    batch_size: int,
) -> dict[str, Pace]:
    """Return the pace of each candidate: as measured on the data, else by the model.

    The model's constant is that of the reference network here (None: of the machines that timm was timed on), moved
    by how much slower the measured candidates are on these data than it says (their items may be longer).
    """
    kind = context.device.type
    if reference is None:
        base, start = Pace(1.0, TRAINING_STEP), -INTERCEPTS["cpu" if kind == "cpu" else "cuda"]
    else:
        base, start = calibrated(reference, context, batch_size=batch_size), log_cost(reference, kind)
    model = {entry.name: base.times(math.exp(log_cost(entry, kind) - start)) for entry in entries}
    off = [
        (pace.latency / model[name].latency, pace.training / model[name].training)
        for name, pace in measured.items()
    ]
    latency, training = (statistics.median(one) for one in zip(*off, strict=True)) if off else (1.0, 1.0)
    moved = {name: Pace(pace.latency * latency, pace.training * training) for name, pace in model.items()}
    return {**moved, **measured}


def log_cost(entry: Entry, device: str = "cpu") -> float:
    """Return the logarithm of the time that an item takes, in a unit that depends on the machine alone.

    log t = a + sum of EXPONENTS times the logarithms of GMACs, activations and parameters; the two former grow with the
    square of a picture's side, where the entry's settings change that.
    """
    exponents = EXPONENTS["cpu" if device == "cpu" else "cuda"]
    side = entry.encoder.get("image_size") or entry.input_side
    area = (side / entry.input_side) ** 2 if entry.modality == "image" else 1.0
    facts = (entry.gmacs * area, entry.activations_m * area, entry.parameters_m)
    return sum(power * math.log(max(fact, 1e-3)) for power, fact in zip(exponents, facts, strict=True))


def calibrated(reference: Entry, context: Context, *, batch_size: int) -> Pace:
    """Return the pace of the reference network here, timed once for each machine and kept in the store.

    Random numbers take as long as learnt ones, but the tokenizer of a network of texts comes with its weights.
    """

    def measure() -> Pace:
        encoder = open_encoder(parse(Pretrained, dict(reference.encoder), what="the reference network"))
        return _measured(encoder, [encoder.prepare(_raw(encoder)).value], batch_size, context, None)

    return _kept(measure, context, reference.name, dict(reference.encoder), batch_size)


def _kept(measure: Callable[[], Pace], context: Context, *what: Any) -> Pace:
    """Return a pace from the store, measured now where this machine has not yet."""
    key = digest("timing", VERSION, machine_facts(context), *what)

    def write(folder: Path) -> None:
        (folder / "pace.json").write_text(json.dumps(asdict(measure())))

    folder, _ = context.store.get_or(BUCKET, key, write)
    return Pace(**json.loads((folder / "pace.json").read_text()))


def _raw(encoder: Encoder) -> Any:
    """Return an item of the usual size for a network."""
    if encoder.spec.modality == "text":
        return " ".join(["word"] * REFERENCE_LENGTH)
    height, width = encoder.spec.contract.size  # pyright: ignore[reportAttributeAccessIssue]
    return np.zeros((height, width, 3), np.uint8)


def timed(
    encoder: Encoder,
    values: Sequence[np.ndarray],
    context: Context,
    form: Form | None = None,
    *,
    batch_size: int,
) -> Pace:
    """Return the pace of an open network on prepared items, in steps of `batch_size`; timed once for items of this size
    and kept in the store.
    """
    spec, size = encoder.spec, list(encoder.batch(values).shape)
    return _kept(
        lambda: _measured(encoder, values, batch_size, context, form),
        context, spec.name, spec.contract, form, size, batch_size,
    )  # fmt: skip


def _measured(
    encoder: Encoder, values: Sequence[np.ndarray], batch_size: int, context: Context, form: Form | None
) -> Pace:
    """Time an open network, in about two seconds."""
    wanted: Form = form or ("pooled" if "pooled" in encoder.spec.width else "sequence")
    run = choose_runtime(encoder, wanted, context)
    alone = values[len(values) // 2 : len(values) // 2 + 1]
    latency = _seconds(lambda: run(alone))
    most = int(DEAREST_STEP / (TRAINING_STEP * latency))
    count = max(1, min(batch_size, most))
    batch = list(islice(cycle(values), count))
    with limited_threads(context.threads):
        return Pace(latency, exactly(context.device, lambda: _training(encoder, wanted, batch, context)))


def _training(encoder: Encoder, form: Form, values: Sequence[np.ndarray], context: Context) -> float:
    """Return the seconds an item of a step of training; of fewer items where memory runs out."""
    try:
        return _seconds(_step(encoder, form, values, context)) / len(values)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if len(values) == 1:
            raise too_large(error) from error
    # Behind the block above, as what an error holds on to is not freed inside.
    return _training(encoder, form, values[: len(values) // 2], context)


def _step(encoder: Encoder, form: Form, values: Sequence[np.ndarray], context: Context) -> Callable[[], None]:
    """Return a step of fine-tuning all layers, on a copy of the network."""
    network = channels_last(copy.deepcopy(encoder.network(form)).to(context.device))
    network.train().requires_grad_(True)
    still_statistics(network)
    parameters = list(network.parameters())
    optimizer = AdamW([Row(parameters, 0.0, 0.0, 0.0)])
    batch = encoder.batch(values)

    def step() -> None:
        network(batch.to(context.device)).float().square().mean().backward()
        clip_grad_norm_(parameters, 1.0).item()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _seconds(work: Callable[[], object]) -> float:
    """Return the median seconds that some work takes, after doing it once unobserved."""
    work()
    found: list[float] = []
    while len(found) < LEAST_PASSES or sum(found) < TIMED_SECONDS:
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def encoding_seconds(pace: Pace, opening: float, context: Context) -> float:
    """Return what encoding an item takes, where `opening` it takes a thread so many seconds."""
    if context.device.type == "cpu":
        return (pace.latency + opening) / context.threads
    return max(pace.training / TRAINING_STEP, opening / context.threads)


def training_seconds(pace: Pace, opening: float, context: Context, *, items: int, epochs: int) -> float:
    """Return what training all of a network takes, with validation; `opening` an item takes a thread so many seconds.

    On a GPU items are opened while it computes.
    """
    if context.device.type == "cpu":
        each = pace.training + opening / context.threads
    else:
        each = max(pace.training, opening / context.workers)
    return VALIDATED * items * epochs * each


@dataclass(frozen=True, slots=True)
class Times:
    """How fast a candidate is, for how many items and classes, and the seconds in which a thread opens an item."""

    pace: Pace
    labelled: int
    trained: int
    num_classes: int
    opening: float
    context: Context

    @property
    def heads(self) -> float:
        """What racing heads takes."""
        return self.labelled * (HEAD_SECONDS + HEAD_CLASS_SECONDS * self.num_classes)

    @property
    def finetune(self) -> float:
        """What training all layers by the usual settings takes."""
        return training_seconds(
            self.pace, self.opening, self.context, items=self.trained, epochs=FineTune().epochs
        )

    def encode(self, measured: float | None) -> float:
        """Return what encoding all labelled items takes: as measured, else by the pace."""
        each = encoding_seconds(self.pace, self.opening, self.context) if measured is None else measured
        return self.labelled * each


def machine_facts(context: Context) -> dict[str, Any]:
    """Return what decides how fast a network is here."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": context.threads,
        "device": device_name(context.device),
        "torch": torch.__version__,
    }


def _processor() -> str:
    """Return the processor's name."""
    described = Path("/proc/cpuinfo")
    if described.exists():
        for line in described.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
