"""How long networks take here: a log-linear model of their facts, calibrated by timing one of them."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headstart.core.hashing import digest
from headstart.core.settings import Pretrained, parse
from headstart.features.runtime import choose_runtime
from headstart.model import open_encoder
from headstart.train.runtime import channels_last, device_name

if TYPE_CHECKING:
    from headstart.core.protocols import Encoder
    from headstart.core.types import Form
    from headstart.select.catalog import Entry
    from headstart.train.runtime import Context

VERSION = 1
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
HEAD_SECONDS = 3e-4
"""Racing heads, an item."""
TIMED_SECONDS, LEAST_PASSES = 0.2, 3
BATCH = 8
REFERENCE_LENGTH = 80
"""Words of the text that the reference network of texts is timed on."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds an item takes: alone on one thread, frozen, with nothing beside it (`latency`); in a batch that all
    threads share, by torch, which trains (`batch`).
    """

    latency: float
    batch: float

    def times(self, factor: float) -> Pace:
        """Return the pace of a network that takes so many times as long."""
        return Pace(self.latency * factor, self.batch * factor)


def paces(
    entries: Sequence[Entry], measured: Mapping[str, Pace], reference: Entry | None, context: Context
) -> dict[str, Pace]:
    """Return the pace of each candidate: as measured on the data, else by the model.

    The model's constant is that of the reference network here (None: of the machines that timm was timed on), moved
    by how much slower the measured candidates are on these data than it says (their items may be longer).
    """
    kind = context.device.type
    if reference is None:
        base, start = Pace(1.0, 1.0), -INTERCEPTS["cpu" if kind == "cpu" else "cuda"]
    else:
        base, start = calibrated(reference, context), log_cost(reference, kind)
    model = {entry.name: base.times(math.exp(log_cost(entry, kind) - start)) for entry in entries}
    off = [
        (pace.latency / model[name].latency, pace.batch / model[name].batch)
        for name, pace in measured.items()
    ]
    latency, batch = (statistics.median(one) for one in zip(*off, strict=True)) if off else (1.0, 1.0)
    moved = {name: Pace(pace.latency * latency, pace.batch * batch) for name, pace in model.items()}
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


def calibrated(reference: Entry, context: Context) -> Pace:
    """Return the pace of the reference network here, timed once for each machine and kept in the store.

    Random numbers take as long as learnt ones, but the tokenizer of a network of texts comes with its weights.
    """

    def measure() -> Pace:
        encoder = open_encoder(parse(Pretrained, dict(reference.encoder), what="the reference network"))
        return _measured(encoder, [encoder.prepare(_raw(encoder)).value] * BATCH, context, None)

    return _kept(measure, context, reference.name, dict(reference.encoder))


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


def timed(encoder: Encoder, values: Sequence[np.ndarray], context: Context, form: Form | None = None) -> Pace:
    """Return the pace of an open network on prepared items; timed once for items of this size and kept in the store."""
    spec, size = encoder.spec, list(encoder.batch(values).shape)
    return _kept(
        lambda: _measured(encoder, values, context, form), context, spec.name, spec.contract, form, size
    )


def _measured(encoder: Encoder, values: Sequence[np.ndarray], context: Context, form: Form | None) -> Pace:
    """Time an open network, in about a second."""
    wanted: Form = form or ("pooled" if "pooled" in encoder.spec.width else "sequence")
    run = choose_runtime(encoder, wanted, context)
    alone = values[len(values) // 2 : len(values) // 2 + 1]
    network = channels_last(encoder.network(wanted).eval().to(context.device))
    batch = encoder.batch(values)

    def forward() -> None:
        with torch.inference_mode():
            network(batch.to(context.device)).sum().item()

    return Pace(_seconds(lambda: run(alone)), _seconds(forward) / len(values))


def _seconds(work: Callable[[], object]) -> float:
    """Return the median seconds that some work takes, after doing it once unobserved."""
    work()
    found: list[float] = []
    while len(found) < LEAST_PASSES or sum(found) < TIMED_SECONDS:
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def training_seconds(pace: Pace, *, items: int, epochs: int) -> float:
    """Return what training all of a network takes."""
    return items * epochs * TRAINING_STEP * pace.batch


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
