"""Every image classification network of torchvision as an encoder: `torchvision:NAME[.WEIGHTS]`."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.densenet import DenseNet
from torchvision.models.vision_transformer import VisionTransformer

from headstart.core.errors import EncoderError, nearest
from headstart.core.settings import Pretrained
from headstart.core.types import LIMITS, EncoderSpec, InputContract, Limits
from headstart.encoders._network import Architecture, ImageEncoder, contract_of, groups_of
from headstart.encoders._weights import fill, fit_channels, origins, read_weights, seeded, unreachable

LICENCE = "BSD-3-Clause"
"""Of torchvision and of the weights that it trained itself; others name theirs."""
_HEADS = ("classifier", "fc", "heads", "head")
_AUXILIARY = ("aux1", "aux2", "AuxLogits")
_BEHIND = ("permute", "avgpool", "flatten", "dropout", *_AUXILIARY, *_HEADS)
"""What does not lead to the last map."""
_OPENED = ("features", "layers", "trunk_output", "blocks")
"""Sequences whose members are layer groups of their own."""
_NORMS = (nn.BatchNorm2d, nn.LayerNorm)
_LEFT_OUT = ("mnasnet*",)
"""Their state cannot be put back from plain tensors; timm has the same networks."""
_OLD_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(?=[12]\.)")
_INCEPTIONS = ("googlenet", "inception_v3")
"""Trained on inputs (x - 0.5) / 0.5, with two heads beside the last that are of no use afterwards."""


def open_torchvision(settings: Pretrained, *, limits: Limits = LIMITS) -> ImageEncoder:
    """Open `torchvision:NAME`; weights are fetched, read from a file with torchvision's names or left random."""
    name, _, tag = settings.name.removeprefix("torchvision:").partition(".")
    name = name.lower()
    known = models.list_models(module=models, exclude=_LEFT_OUT)
    if name not in known:
        raise EncoderError(
            f"torchvision has no image classification network '{name}'{nearest(name, known)}",
            expected=f"one of {', '.join(known)}",
            fix="correct the name",
        )
    weights = _weights(name, tag)
    contract = _contract(name, weights, settings)
    body = _create(name, settings, contract.size)
    head = _classifier(body)
    state, source = _state(weights, settings)
    if state is None:
        receipt = origins(body, source="random numbers")
    else:
        adapted = _fit_first(body, state, settings.channels)
        others = tuple(f"{name}." for name in (head, *_AUXILIARY))
        receipt = fill(body, {**state, **adapted}, source=source, head=others, adapted=adapted)
    _behead(body, head)
    licence = str(weights.meta.get("license", LICENCE)) if settings.weights == "pretrained" else "unknown"
    spec = EncoderSpec(
        name=settings.name, modality="image", width={}, contract=contract, weights_sha256="",
        licence=licence, source=receipt.source,
    )  # fmt: skip
    return ImageEncoder(body, _architecture(body), spec=spec, receipt=receipt, limits=limits)


def _weights(name: str, tag: str) -> Any:
    """Return torchvision's entry of the pretrained weights, its default ones without a tag."""
    entries = models.get_model_weights(name)
    if tag and tag not in entries.__members__:
        raise EncoderError(
            f"torchvision has no weights '{tag}' of {name}{nearest(tag, entries.__members__)}",
            expected=f"one of {', '.join(entries.__members__)}",
            fix=f"correct it, or leave it out: torchvision:{name}",
        )
    return entries[tag or "DEFAULT"]


def _contract(name: str, weights: Any, settings: Pretrained) -> InputContract:
    """Return the input contract of torchvision's own weights, with what the settings override."""
    preset = weights.transforms()
    is_centred = name in _INCEPTIONS
    return contract_of(
        settings,
        size=(preset.crop_size[0], preset.crop_size[0]),
        mean=(0.5,) * 3 if is_centred else preset.mean,
        std=(0.5,) * 3 if is_centred else preset.std,
        crop=preset.crop_size[0] / preset.resize_size[0],
        interpolation="bicubic" if preset.interpolation.value == "bicubic" else "bilinear",
    )


def _create(name: str, settings: Pretrained, size: tuple[int, int]) -> nn.Module:
    """Create the network with random weights, its classifier kept so that the receipt can name it."""
    given: dict[str, Any] = dict(settings.arguments)
    if name in _INCEPTIONS:
        given = {"aux_logits": False, "init_weights": False, **given}
    if name.startswith("vit_"):
        given = {"image_size": size[0], **given}
    if name.startswith("maxvit_"):
        given = {"input_size": size, **given}
    try:
        body = seeded(lambda: models.get_model(name, weights=None, **given))
    except (TypeError, ValueError, AssertionError) as error:
        raise EncoderError(
            f"torchvision's {name} cannot be made like this: {error}",
            expected="arguments and an image size that the network takes",
            fix="correct encoder.arguments or encoder.image_size, or leave them out",
        ) from error
    return _with_channels(body, settings.channels)


def _with_channels(body: nn.Module, channels: int) -> nn.Module:
    """Give the first convolution this many input channels."""
    name, first = _first(body)
    if channels != first.in_channels:
        body.set_submodule(name, seeded(lambda: _untrained_like(first, channels)))
    return body


def _untrained_like(first: nn.Conv2d, channels: int) -> nn.Conv2d:
    """Return an untrained convolution like this one for so many input channels."""
    made = copy.deepcopy(first)
    made.in_channels = channels
    made.weight = nn.Parameter(torch.empty(len(first.weight), channels, *first.weight.shape[2:]))
    made.reset_parameters()
    return made


def _first(body: nn.Module) -> tuple[str, nn.Conv2d]:
    """Return the convolution that sees the picture, with its name."""
    return next((name, part) for name, part in body.named_modules() if isinstance(part, nn.Conv2d))


def _fit_first(body: nn.Module, state: Mapping[str, Tensor], channels: int) -> dict[str, Tensor]:
    """Return the first convolution's weight of `state` for this many channels, where it has others."""
    name = f"{_first(body)[0]}.weight"
    if name not in state or state[name].shape[1] != 3 or channels == 3:
        return {}
    return {name: fit_channels(state[name], channels)}


def _state(weights: Any, settings: Pretrained) -> tuple[Mapping[str, Tensor] | None, str]:
    """Return the weights that the settings ask for (None: random numbers) and where they came from."""
    if settings.weights == "random":
        return None, ""
    if settings.weights != "pretrained":
        return _renamed(read_weights(settings.weights)), settings.weights
    try:
        state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except Exception as error:  # Sockets, servers, proxies, full disks and bad hashes have no common base.
        raise unreachable(settings.name, error) from error
    return _renamed(state), f"torchvision's weights {weights}"


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state with the names of DenseNet's layers as they are today (`norm1`, in old files `norm.1`)."""
    return {_OLD_NAME.sub(r"\1", name): tensor for name, tensor in state.items()}


def _classifier(body: nn.Module) -> str:
    """Return the name of the layer that ends in one number a class: the last of the head that has parameters."""
    head = next(name for name in _HEADS if hasattr(body, name))
    inside = [
        name
        for name, part in body.get_submodule(head).named_children()
        if any(True for _ in part.parameters())
    ]
    return f"{head}.{inside[-1]}" if inside else head


def _behead(body: nn.Module, classifier: str) -> None:
    """Remove the classifier, what comes after it, and the dropout in front of it, which belongs to the new head."""
    head, _, inner = classifier.partition(".")
    kept: list[tuple[str, nn.Module]] = []
    for name, part in body.get_submodule(head).named_children():
        if name == inner:
            break
        kept.append((name, part))
    while kept and isinstance(kept[-1][1], nn.Dropout):
        kept.pop()
    rest, takes_maps = nn.Sequential(), True
    for name, part in kept:
        rest.add_module(name, _Flattening(part) if takes_maps and isinstance(part, nn.Linear) else part)
        takes_maps = takes_maps and not isinstance(part, (nn.Linear, nn.Flatten))
    body.add_module(head, rest)
    if hasattr(body, "dropout"):
        del body.dropout


class _Flattening(nn.Linear):
    """A linear layer over whole maps, so that what comes before it is a map still."""

    def __init__(self, source: nn.Linear) -> None:
        """Take over the weights of `source`."""
        super().__init__(source.in_features, source.out_features, bias=source.bias is not None, device="meta")
        self.weight, self.bias = source.weight, source.bias

    def forward(self, input: Tensor) -> Tensor:
        """Flatten, then map."""
        return super().forward(input.flatten(1))


@dataclass(frozen=True, slots=True)
class _Layout:
    """The names of the modules that lead to the last map, in order, and of those that follow its pooling."""

    trunk: tuple[str, ...]
    head: str
    rest: tuple[str, ...]
    has_pool: bool
    """Pools by a module of its own."""
    is_channels_last: bool
    """Its maps are [N, H, W, D] until they are pooled."""

    @classmethod
    def of(cls, body: nn.Module) -> _Layout:
        """Read it off a network without classifier."""
        trunk: list[str] = []
        for name, child in body.named_children():
            if name in _OPENED and isinstance(child, (nn.Sequential, nn.ModuleList)):
                trunk += [f"{name}.{inner}" for inner, _ in child.named_children()]
            elif name not in _BEHIND:
                trunk.append(name)
        head = next(name for name in _HEADS if hasattr(body, name))
        rest = [f"{head}.{name}" for name, _ in body.get_submodule(head).named_children()]
        return cls(tuple(trunk), head, tuple(rest), hasattr(body, "avgpool"), hasattr(body, "permute"))

    def maps(self, body: nn.Module, pictures: Tensor) -> Tensor:
        """Run everything up to the last map."""
        for name in self.trunk:
            pictures = body.get_submodule(name)(pictures)
        return pictures.relu() if isinstance(body, DenseNet) else pictures

    def pool(self, body: nn.Module, maps: Tensor) -> Tensor:
        """Pool the last map to a vector and run what is left of the head."""
        pooled = body.get_submodule("permute")(maps) if self.is_channels_last else maps
        if self.has_pool:
            pooled = body.get_submodule("avgpool")(pooled)
        for name in self.rest:
            pooled = body.get_submodule(name)(pooled)
        if self.rest:
            return pooled
        return pooled.flatten(1) if self.has_pool else pooled.mean((2, 3))


def _architecture(body: nn.Module) -> Architecture:
    """Describe a torchvision network: all are a sequence of modules but the vision transformers."""
    layout = _Layout.of(body)
    if isinstance(body, VisionTransformer):
        names = tuple(f"encoder.layers.{name}" for name, _ in body.encoder.layers.named_children())
        named = {"embedding": ["class_token", "encoder.pos_embedding"]}
        named["embedding"] += [f"conv_proj.{name}" for name, _ in body.conv_proj.named_parameters()]
        named |= _named(body, (*names, "encoder.ln", *layout.rest))
        return Architecture(_tokens, _class_token, groups_of(body, named), prefix_tokens=1)
    named = _named(body, (*layout.trunk, *layout.rest))
    return Architecture(
        layout.maps, layout.pool, groups_of(body, named), channels_last=layout.is_channels_last
    )


def _named(body: nn.Module, modules: tuple[str, ...]) -> dict[str, list[str]]:
    """Return group name -> parameter names: one group a module that has any; a norm belongs to what precedes it."""
    named: dict[str, list[str]] = {}
    for module in modules:
        part = body.get_submodule(module)
        own = [f"{module}.{name}" for name, _ in part.named_parameters()]
        if isinstance(part, _NORMS) and named:
            named[next(reversed(named))] += own
        elif own:
            named[module] = own
    return named


def _tokens(body: Any, pictures: Tensor) -> Tensor:
    """Return the tokens [N, 1 + T, D] of a vision transformer, the class token first."""
    # Not by its own forward, whose assertions cannot be cut.
    patches = body.conv_proj(pictures).flatten(2).transpose(1, 2)
    tokens = torch.cat([body.class_token.expand(patches.shape[0], -1, -1), patches], 1)
    tokens = body.encoder.dropout(tokens + body.encoder.pos_embedding)
    return body.encoder.ln(body.encoder.layers(tokens))


def _class_token(body: Any, tokens: Tensor) -> Tensor:
    """Return the class token [N, D], through what is left of the head."""
    return body.heads(tokens[:, 0])
