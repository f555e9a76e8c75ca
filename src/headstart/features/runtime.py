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
from torch import Tensor, nn

from headstart.core.hashing import digest
from headstart.train.runtime import Context, autocast, channels_last

if TYPE_CHECKING:
    from headstart.core.protocols import Encoder
    from headstart.core.types import Form

VERSION = 1
"""Version of the exported graphs; bump when the export changes."""
TOLERANCE = 1e-4
"""Largest relative difference between a runtime's features and torch's (max abs difference / max abs value)."""

Run = Callable[[np.ndarray], np.ndarray]
"""uint8 pictures [N, H, W, C] to float32 [N, ...]; may be called from several threads at once."""


class _FromRows(nn.Module):
    """Take pictures as rows [N, H, W, C], as they lie in memory."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pictures: Tensor) -> Tensor:
        """Put channels first and run."""
        return self.network(pictures.permute(0, 3, 1, 2))


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
    import onnxruntime

    folder, _ = context.store.get_or("graphs-v1", key, lambda folder: _export(network, shape, folder))
    parity = json.loads((folder / "parity.json").read_text())
    if not parity["relative_difference"] <= TOLERANCE:
        fault = parity.get("fault") or f"differs from torch by {parity['relative_difference']:.1e}"
        warnings.warn(f"onnxruntime {fault} on this network: torch runs it", stacklevel=2)
        return torch_runtime(network, context)
    options = onnxruntime.SessionOptions()
    # Each of our threads runs its own batches: no thread pool below, none of its spinning.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(folder / "graph.onnx", options, providers=["CPUExecutionProvider"])

    def run(pictures: np.ndarray) -> np.ndarray:
        return np.asarray(session.run(None, {"pictures": np.ascontiguousarray(pictures)})[0])

    return _never_alone(run)


def _never_alone(run: Run) -> Run:
    """Run a single picture beside its own copy: alone it takes other sums and gets other last bits than in a batch."""

    def padded(pictures: np.ndarray) -> np.ndarray:
        return run(pictures) if len(pictures) > 1 else run(np.repeat(pictures, 2, axis=0))[:1]

    return padded


def _export(network: nn.Module, shape: tuple[int, int, int], folder: Path) -> None:
    """Write graph.onnx and how far its output is from torch's on random pictures."""
    import onnxruntime

    # The exporter puts the module back into the mode it had, with all of its children: eval from the outside.
    module = _FromRows(network).eval()
    generator = torch.Generator().manual_seed(0)
    example = torch.randint(0, 256, (2, *shape), dtype=torch.uint8, generator=generator)
    axes = {"pictures": {0: "n"}, "features": {0: "n"}}
    with warnings.catch_warnings(), torch.inference_mode():
        # The exporter through TorchScript is deprecated, but five times faster (docs/decisions/0003).
        warnings.simplefilter("ignore")
        # A failing export prints its graph; standard output belongs to the caller (`--json`).
        torch._C._jit_set_onnx_log_output_stream("stderr")
        try:
            torch.onnx.export(
                module, (example,), str(folder / "graph.onnx"), dynamo=False,
                input_names=["pictures"], output_names=["features"], dynamic_axes=axes,
            )  # fmt: skip
        except torch.onnx.OnnxExporterError as error:
            # An operator that ONNX has not (VGG's adaptive pooling of small pictures, for one).
            fault = f"cannot be had ({str(error).splitlines()[0][:120]})"
            parity = {"relative_difference": math.inf, "fault": fault}
            (folder / "parity.json").write_text(json.dumps(parity))
            return
        expected = module(example).numpy()
    session = onnxruntime.InferenceSession(folder / "graph.onnx", providers=["CPUExecutionProvider"])
    given = np.asarray(session.run(None, {"pictures": example.numpy()})[0])
    difference = float(np.abs(given - expected).max() / max(float(np.abs(expected).max()), 1e-12))
    (folder / "parity.json").write_text(json.dumps({"relative_difference": difference}))
