"""Every network of timm as an encoder: `timm:NAME[.TAG]`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.models import group_parameters
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from headstart.core.errors import EncoderError, nearest
from headstart.core.settings import Pretrained
from headstart.core.types import LIMITS, EncoderSpec, InputContract, Limits
from headstart.encoders._network import Architecture, ImageEncoder, contract_of, groups_of
from headstart.encoders._weights import fill, fit_channels, origins, read_weights, seeded, unreachable


def open_timm(settings: Pretrained, *, limits: Limits = LIMITS) -> ImageEncoder:
    """Open `timm:NAME`; weights are fetched from the hub, read from a file or left random as the settings say."""
    return build(settings.name.removeprefix("timm:"), settings, limits=limits)


def build(
    name: str,
    settings: Pretrained,
    *,
    state: Mapping[str, Tensor] | None = None,
    source: str = "",
    limits: Limits = LIMITS,
) -> ImageEncoder:
    """Create timm's network `name` and fill it from `state`, from a file, from the hub or not at all."""
    body = _create(name, settings)
    if state is None and settings.weights == "pretrained":
        state, source = _hub_state(name), f"hub weights of {name}"
    elif state is None and settings.weights != "random":
        state, source = read_weights(settings.weights), settings.weights
    if state is None:
        receipt = origins(body, source="random numbers")
    else:
        adapted = _fit_channels(body, state, settings.channels)
        whole = {**state, **adapted}
        receipt = fill(body, whole, source=source, head=_head_names(body), adapted=adapted)
    with contextlib.suppress(AttributeError):
        body.reset_classifier(0)
    facts = body.pretrained_cfg
    contract = _contract(facts, settings)
    _fix_padding(body, contract)
    spec = EncoderSpec(
        name=settings.name, modality="image", width={}, contract=contract, weights_sha256="",
        licence=str(facts.get("license") or "unknown"), source=receipt.source,
    )  # fmt: skip
    return ImageEncoder(body, _architecture(body), spec=spec, receipt=receipt, limits=limits)


def known_names() -> list[str]:
    """Return every network name that timm has."""
    return timm.list_models()


def _create(name: str, settings: Pretrained) -> Any:
    """Create the network with random weights, its classifier kept so that the receipt can name it."""
    base = name.split(".")[0]
    if not timm.is_model(base):
        raise EncoderError(
            f"timm has no network '{base}'{nearest(base, timm.list_models())}",
            expected="a name that `headstart models --source timm` lists",
            fix="correct the name",
        )
    wanted: dict[str, Any] = {"in_chans": settings.channels, **settings.arguments}
    try:
        if settings.image_size is not None:
            with contextlib.suppress(
                TypeError
            ):  # Convolutional networks take any size and have no such argument.
                return _made(name, {**wanted, "img_size": settings.image_size})
        return _made(name, wanted)
    except TypeError as error:
        raise EncoderError(
            f"timm's {name} cannot be made with {dict(settings.arguments)}: {error}",
            expected="arguments that the network takes",
            fix="correct encoder.arguments, or leave it out",
        ) from error


def _made(name: str, wanted: Mapping[str, Any]) -> nn.Module:
    """Create a network of random weights."""
    return seeded(lambda: timm.create_model(name, pretrained=False, **wanted))


def _hub_state(name: str) -> Mapping[str, Tensor]:
    """Fetch the pretrained weights from the hub."""
    try:
        return timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # The hub client raises a dozen kinds of errors, none of them a common base.
        raise unreachable(name, error) from error


def _fit_channels(body: Any, state: Mapping[str, Tensor], channels: int) -> dict[str, Tensor]:
    """Sum or repeat the first convolution's input channels so that its weights serve any number; return it alone."""
    first = body.pretrained_cfg.get("first_conv")
    names = [first] if isinstance(first, str) else list(first or ())
    return {
        f"{name}.weight": fit_channels(state[f"{name}.weight"], channels)
        for name in names
        if f"{name}.weight" in state and state[f"{name}.weight"].shape[1] == 3 and channels != 3
    }


def _head_names(body: Any) -> tuple[str, ...]:
    """Return the prefixes of the classifier's parameters, which a new task replaces."""
    names = body.pretrained_cfg.get("classifier") or ()
    return tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))


def _contract(facts: Mapping[str, Any], settings: Pretrained) -> InputContract:
    """Return the input contract of the weights, with what the settings override."""
    return contract_of(
        settings,
        size=(int(facts["input_size"][-2]), int(facts["input_size"][-1])),
        mean=facts["mean"],
        std=facts["std"],
        crop=float(facts.get("crop_pct") or 0.875),
        interpolation="bicubic" if facts.get("interpolation") == "bicubic" else "bilinear",
    )


class FixedSame(nn.Conv2d):
    """A convolution with TensorFlow's "same" padding for one known input size: nothing to compute, exact to export."""

    def __init__(self, source: Any, size: tuple[int, int]) -> None:
        """Take over the weights of `source`, which sees maps of `size` (height, width)."""
        shape = (source.in_channels, source.out_channels, source.kernel_size, source.stride)
        super().__init__(*shape, dilation=source.dilation, groups=source.groups, bias=source.bias is not None)
        self.weight, self.bias = source.weight, source.bias
        total = [
            max((-(-length // stride) - 1) * stride + (kernel - 1) * dilation + 1 - length, 0)
            for length, stride, kernel, dilation in zip(
                size, source.stride, source.kernel_size, source.dilation, strict=True
            )
        ]
        self.edges = [total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2]

    def forward(self, input: Tensor) -> Tensor:
        """Pad, then convolve."""
        return super().forward(nn.functional.pad(input, self.edges))


def _fix_padding(body: nn.Module, contract: InputContract) -> None:
    """Replace padding that is computed in every forward pass by its value at the contract's input size."""
    sizes: dict[str, tuple[int, int]] = {}
    dynamic = {name: module for name, module in body.named_modules() if isinstance(module, Conv2dSame)}

    def note(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor]) -> None:
            sizes[name] = (inputs[0].shape[2], inputs[0].shape[3])

        return hook

    handles = [module.register_forward_pre_hook(note(name)) for name, module in dynamic.items()]
    if handles:
        with torch.inference_mode():
            body.eval()(torch.zeros(1, contract.channels, *contract.size))
    for handle in handles:
        handle.remove()
    for name, module in dynamic.items():
        body.set_submodule(name, FixedSame(module, sizes[name]))


def _architecture(body: Any) -> Architecture:
    """Describe a timm network: every one has forward_features and forward_head; most say how they group."""
    return Architecture(
        maps=_maps,
        pool=_pool,
        groups=groups_of(body, _group_names(body)),
        channels_last=getattr(body, "output_fmt", "NCHW") == "NHWC",
        prefix_tokens=int(getattr(body, "num_prefix_tokens", 0)),
        visible=_visible if isinstance(body, VisionTransformer) else None,
    )


def _maps(body: Any, pictures: Tensor) -> Tensor:
    """Run everything up to the last map."""
    return body.forward_features(pictures)


def _visible(body: Any, pictures: Tensor, places: Tensor) -> Tensor:
    """Run class and register tokens and the patches at `places` [N, K] alone, each with its position."""
    tokens = body._pos_embed(body.patch_embed(pictures))
    first = body.num_prefix_tokens
    kept = tokens[:, first:].gather(1, places[..., None].expand(-1, -1, tokens.shape[2]))
    tokens = body.norm_pre(torch.cat([tokens[:, :first], kept], 1))
    return body.norm(body.blocks(tokens))[:, first:]


def _pool(body: Any, features: Tensor) -> Tensor:
    """Run what turns the last map into the pooled vector."""
    return body.forward_head(features, pre_logits=True)


def _group_names(body: Any) -> dict[str, list[str]]:
    """Return group name -> parameter names, by timm's own grouping or else by the order of top-level modules."""
    if hasattr(body, "group_matcher"):
        grouped = group_parameters(body, body.group_matcher(coarse=True))
        sizes = {name: tensor.numel() for name, tensor in body.named_parameters()}
        named = [(_common_name(names, sizes), names) for _, names in sorted(grouped.items())]
        twice = {name for name, _ in named if sum(name == other for other, _ in named) > 1}
        return {
            f"{name} #{depth}" if name in twice else name: names for depth, (name, names) in enumerate(named)
        }
    by_child: dict[str, list[str]] = {}
    for name, _ in body.named_parameters():
        by_child.setdefault(name.split(".")[0], []).append(name)
    return by_child


def _common_name(names: Sequence[str], sizes: Mapping[str, int]) -> str:
    """Name a group after the module that holds most of its numbers (`blocks.6`), to two levels."""
    shares: dict[str, int] = {}
    for name in names:
        module = ".".join(name.split(".")[:-1][:2]) or name
        shares[module] = shares.get(module, 0) + sizes[name]
    return max(shares, key=lambda module: shares[module])
