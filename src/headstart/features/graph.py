"""Frozen networks as ONNX graphs: exported, simplified, and compared with torch."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper

from headstart.core.types import Graph


def export(graph: Graph, path: Path) -> float:
    """Write a graph from `pieces` to `features`; return how far it is from torch on its example.

    The distance is max abs difference / max abs value. BatchNorm is folded into convolutions by the exporter, padding
    by `absorb_padding`. (onnxruntime's own fusion of transformer layers was measured: 6 % slower here.)
    """
    with warnings.catch_warnings(), torch.inference_mode():
        # The exporter through TorchScript is deprecated, but five times faster (docs/decisions/0003).
        warnings.simplefilter("ignore")
        # A failing export prints its graph; standard output belongs to the caller (`--json`).
        torch._C._jit_set_onnx_log_output_stream("stderr")
        torch.onnx.export(
            graph.module, (graph.example,), str(path), dynamo=False, input_names=["pieces"], output_names=["features"],
            dynamic_axes={"pieces": {axis: f"axis{axis}" for axis in graph.dynamic}, "features": {0: "axis0"}},
        )  # fmt: skip
        expected = graph.module(graph.example).numpy()
    onnx.save(absorb_padding(_folded(path)), path)
    given = np.asarray(open_session(path).run(None, {"pieces": graph.example.numpy()})[0])
    return float(np.abs(given - expected).max() / max(float(np.abs(expected).max()), 1e-12))


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """Open a graph for callers that bring their own threads: no thread pool below, none of its spinning."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def absorb_padding(model: onnx.ModelProto) -> onnx.ModelProto:
    """Move zero padding of height and width into the convolutions that it feeds; change the model in place.

    onnxruntime would pad in a pass of its own, a tenth of the time of a small network with "same" padding.
    """
    constants = {item.name: item for item in model.graph.initializer}
    padding = {node.output[0]: node for node in model.graph.node if node.op_type == "Pad"}
    users = [name for node in model.graph.node for name in node.input]
    for node in model.graph.node:
        before = padding.get(node.input[0]) if node.op_type == "Conv" else None
        edges = _edges(before, constants) if before is not None else None
        if before is None or edges is None or users.count(before.output[0]) != 1:
            continue
        own = next((list(item.ints) for item in node.attribute if item.name == "pads"), [0, 0, 0, 0])
        kept = [item for item in node.attribute if item.name not in ("pads", "auto_pad")]
        del node.attribute[:]
        joined = [one + other for one, other in zip(own, edges, strict=True)]
        node.attribute.extend([*kept, onnx.helper.make_attribute("pads", joined)])
        node.input[0] = before.input[0]
        model.graph.node.remove(before)
    used = {name for node in model.graph.node for name in node.input}
    for name in constants.keys() - used:
        model.graph.initializer.remove(constants[name])
    return model


def _edges(pad: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> list[int] | None:
    """Return a Pad's (top, left, bottom, right) where it pads a map with zeros by known numbers, else None."""
    mode = next((item.s for item in pad.attribute if item.name == "mode"), b"constant")
    if mode != b"constant" or len(pad.input) < 2 or pad.input[1] not in constants:
        return None
    if len(pad.input) > 2 and pad.input[2]:
        value = constants.get(pad.input[2])
        if value is None or numpy_helper.to_array(value).any():
            return None
    edges = numpy_helper.to_array(constants[pad.input[1]]).tolist()
    is_map = len(edges) == 8 and not any(edges[place] for place in (0, 1, 4, 5))
    return [edges[2], edges[3], edges[6], edges[7]] if is_map and min(edges) >= 0 else None


def _folded(path: Path) -> onnx.ModelProto:
    """Let onnxruntime compute everything that is constant, and read the graph back."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    model = path.read_bytes()
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return onnx.load(path)
