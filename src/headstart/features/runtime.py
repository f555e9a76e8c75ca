"""The fastest exact way to run a frozen network here: onnxruntime on a CPU, torch on a GPU."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from headstart.core.hashing import digest
from headstart.train.runtime import Context, autocast, channels_last

if TYPE_CHECKING:
    from headstart.core.protocols import Encoder
    from headstart.core.types import Form

VERSION = 2
"""Version of the exported graphs; bump when the export changes."""
TOLERANCE = 1e-4
"""Largest relative difference between a runtime's features and torch's (max abs difference / max abs value)."""

Run = Callable[[np.ndarray], np.ndarray]
"""uint8 pictures [N, H, W, C] to float32 [N, ...]; may be called from several threads at once."""


def choose_runtime(encoder: Encoder, form: Form, context: Context) -> Run:
    """Return the fastest exact runtime for an encoder's vector form on the context's device."""
    network = encoder.network(form)
    if context.device.type != "cpu":
        return torch_runtime(network, context)
    contract = encoder.spec.contract
    key = digest(
        "graph", VERSION, encoder.spec.weights_sha256, encoder.spec.name, contract, form, torch.__version__
    )
    return onnx_runtime(network, (*contract.size, contract.channels), key=key, context=context)


def torch_runtime(network: nn.Module, context: Context, *, precision: str = "bfloat16") -> Run:
    """Run a network by torch in eval mode, channels-last, in bfloat16 where the device gains from it."""
    network = channels_last(network.eval().to(context.device))

    def run(pictures: np.ndarray) -> np.ndarray:
        batch = torch.from_numpy(pictures).to(context.device, non_blocking=True).permute(0, 3, 1, 2)
        with torch.inference_mode(), autocast(context.device, precision):
            return network(batch).float().cpu().numpy()

    return _never_alone(run)


def onnx_runtime(network: nn.Module, shape: tuple[int, int, int], *, key: str, context: Context) -> Run:
    """Run a network by onnxruntime on the CPU, exported once into the store; by torch where the two disagree.

    `shape` is (height, width, channels) of the pictures; BatchNorm is folded into the convolutions by the export.
    """
    from headstart.features.graph import export, open_session

    def make(folder: Path) -> None:
        try:
            parity = {"relative_difference": export(network, shape, folder / "graph.onnx")}
        except torch.onnx.OnnxExporterError as error:
            # An operator that ONNX has not (VGG's adaptive pooling of small pictures, for one).
            fault = f"cannot be had ({str(error).splitlines()[0][:120]})"
            parity = {"relative_difference": math.inf, "fault": fault}
        (folder / "parity.json").write_text(json.dumps(parity))

    folder, _ = context.store.get_or("graphs-v1", key, make)
    parity = json.loads((folder / "parity.json").read_text())
    if not parity["relative_difference"] <= TOLERANCE:
        fault = parity.get("fault") or f"differs from torch by {parity['relative_difference']:.1e}"
        warnings.warn(f"onnxruntime {fault} on this network: torch runs it", stacklevel=2)
        return torch_runtime(network, context)
    session = open_session(folder / "graph.onnx")

    def run(pictures: np.ndarray) -> np.ndarray:
        # One by one: no slower on a CPU, as activations stay in its cache, and no item depends on its neighbours.
        rows = np.ascontiguousarray(pictures)
        found = [np.asarray(session.run(None, {"pictures": rows[i : i + 1]})[0]) for i in range(len(rows))]
        return np.concatenate(found)

    return run


def _never_alone(run: Run) -> Run:
    """Run a lone picture together with itself: torch has other kernels, with other roundings, for a batch of one."""

    def paired(pictures: np.ndarray) -> np.ndarray:
        return run(pictures) if len(pictures) > 1 else run(np.repeat(pictures, 2, 0))[:1]

    return paired
