"""The fastest exact way to run a frozen network here: onnxruntime on a CPU, torch on a GPU."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from headstart.core.errors import TrainingError
from headstart.core.hashing import digest
from headstart.train.runtime import Context, channels_last

if TYPE_CHECKING:
    from headstart.core.protocols import Encoder
    from headstart.core.types import Form

VERSION = 3
"""Version of the exported graphs; bump when the export changes."""
TOLERANCE = 1e-4
"""Largest relative difference between a runtime's features and torch's (max abs difference / max abs value)."""

Run = Callable[[Sequence[np.ndarray]], list[np.ndarray]]
"""Values (as an encoder prepares them) to one float32 row an item; may be called from several threads at once."""


def choose_runtime(encoder: Encoder, form: Form, context: Context, *, depth: int = 0) -> Run:
    """Return the fastest exact runtime for a form of an encoder, or for the prefix of a cut at `depth`, here."""
    if context.device.type != "cpu":
        return torch_runtime(encoder, form, context, depth=depth)
    encoder.module.cpu()  # It may have trained on a GPU.
    return onnx_runtime(encoder, form, context, depth=depth)


def torch_runtime(encoder: Encoder, form: Form, context: Context, *, depth: int = 0) -> Run:
    """Run a network by torch in eval mode and float32: what is stored is the same, to rounding, on every device.

    Where a GPU's memory does not hold the items, they go through in halves; TrainingError where it holds not even one.
    """
    parts = encoder.split(depth, form) if depth else (encoder.network(form),)
    assert parts is not None, "the caller has seen that it can be cut"
    network = channels_last(parts[0].eval().to(context.device))
    # Torch plans a GPU's convolutions once a thread, in seconds; and a GPU has one queue: one thread serves it.
    lane = ThreadPoolExecutor(1, thread_name_prefix="gpu") if context.device.type != "cpu" else None

    def compute(batch: Tensor) -> Tensor:
        with torch.inference_mode():
            return network(batch.to(context.device)).float()

    def run(values: Sequence[np.ndarray]) -> list[np.ndarray]:
        # Torch has other kernels, with other roundings, for a batch of one: a lone item runs beside itself.
        given = values if len(values) > 1 else [*values, *values]
        batch = encoder.batch(given)
        try:
            outputs = lane.submit(compute, batch).result() if lane else compute(batch)
        except torch.OutOfMemoryError as error:
            if len(values) == 1:
                raise _too_large(encoder, error) from error
        else:
            return encoder.rows(given, outputs, form, depth=depth)[: len(values)]
        # Not in the block above: what an error holds on to is not freed there.
        half = len(values) // 2
        return [*run(values[:half]), *run(values[half:])]

    return run


def _too_large(encoder: Encoder, error: BaseException) -> TrainingError:
    """Return the error for an item that a GPU's memory does not hold."""
    return TrainingError(
        f"memory ran out while {encoder.spec.name} encoded a single item ({str(error).splitlines()[0]})",
        expected="a GPU with memory for one item",
        fix="free its memory, use a smaller encoder.image_size or network, or --device cpu",
    )


def onnx_runtime(encoder: Encoder, form: Form, context: Context, *, depth: int = 0) -> Run:
    """Run a network by onnxruntime on the CPU, exported once into the store; by torch where the two disagree."""
    from headstart.features.graph import open_session

    spec = encoder.spec
    key = digest(
        "graph", VERSION, spec.weights_sha256, spec.name, spec.contract, form, depth, torch.__version__
    )
    folder, _ = context.store.get_or("graphs-v1", key, lambda folder: _export(encoder, form, depth, folder))
    parity = json.loads((folder / "parity.json").read_text())
    if not parity["relative_difference"] <= TOLERANCE:
        fault = parity.get("fault") or f"differs from torch by {parity['relative_difference']:.1e}"
        warnings.warn(f"onnxruntime {fault} on this network: torch runs it", stacklevel=2)
        return torch_runtime(encoder, form, context, depth=depth)
    session = open_session(folder / "graph.onnx")

    def run(values: Sequence[np.ndarray]) -> list[np.ndarray]:
        # One by one: no slower on a CPU, as activations stay in its cache, and no item depends on its neighbours.
        return [
            encoder.join(
                value,
                [np.asarray(session.run(None, {"pieces": piece})[0]) for piece in encoder.pieces(value)],
                form,
                depth=depth,
            )
            for value in values
        ]

    return run


def _export(encoder: Encoder, form: Form, depth: int, folder: Path) -> None:
    """Write an encoder's graph and how far it is from torch into a folder."""
    from headstart.features import graph

    wanted = encoder.graph(form, depth=depth)
    parity: dict[str, object] = {"relative_difference": math.inf, "fault": "has no graph"}
    if wanted is not None:
        try:
            parity = {"relative_difference": graph.export(wanted, folder / "graph.onnx")}
        except torch.onnx.OnnxExporterError as error:
            # An operator that ONNX has not (VGG's adaptive pooling of small pictures, for one).
            parity["fault"] = f"cannot be had ({str(error).splitlines()[0][:120]})"
    (folder / "parity.json").write_text(json.dumps(parity))
