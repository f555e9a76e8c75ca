"""Tiny untrained networks for tests and trials; they obey the same contract as the real ones."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from headstart.core.settings import Pretrained
from headstart.core.types import LIMITS, EncoderSpec, InputContract, Limits
from headstart.encoders._network import Architecture, ImageEncoder, groups_of
from headstart.encoders._weights import fill, origins, read_weights
from headstart.encoders.module import average_map

_SEED = 20  # Their "pretrained" weights: the same numbers on every machine.


def open_tiny_cnn(settings: Pretrained, *, limits: Limits = LIMITS) -> ImageEncoder:
    """Open a convolutional network with BatchNorm and dropout: 4 groups, 32 px, 2,000 parameters."""
    return _open(_convolutions(settings.channels), settings, limits)


def open_tiny_transformer(settings: Pretrained, *, limits: Limits = LIMITS) -> ImageEncoder:
    """Open a patch transformer with a class token and position embedding: 4 groups, 32 px."""
    return _open(TinyTransformer(settings.channels, settings.image_size or 32), settings, limits)


class Block(nn.Module):
    """Self-attention with one head and a two-layer network, each normalised before and added after."""

    def __init__(self, width: int) -> None:
        """Make the layers."""
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix = nn.Linear(width, 3 * width)
        self.network = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(0.1), nn.Linear(2 * width, width)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens [N, T, D] to tokens."""
        query, key, value = self.mix(self.norm1(tokens)).chunk(3, -1)
        tokens = tokens + nn.functional.scaled_dot_product_attention(query, key, value)
        return tokens + self.network(self.norm2(tokens))


class TinyTransformer(nn.Module):
    """Patches of 8 px, two blocks of width 24, tokens out [N, T, 24]."""

    def __init__(self, channels: int, size: int) -> None:
        """Make the layers for square pictures of `size` pixels."""
        super().__init__()
        self.patches = nn.Conv2d(channels, 24, 8, 8)
        self.class_token = nn.Parameter(torch.zeros(1, 1, 24))
        self.positions = nn.Parameter(torch.randn(1, 1 + (size // 8) ** 2, 24) * 0.02)
        self.blocks = nn.Sequential(Block(24), Block(24))
        self.norm = nn.LayerNorm(24)

    def forward(self, pictures: Tensor) -> Tensor:
        """Encode normalised pictures [N, C, H, W] into tokens, the class token first."""
        return self.norm(self.blocks(self._embedded(pictures)))

    def visible(self, pictures: Tensor, places: Tensor) -> Tensor:
        """Encode the class token and the patches at `places` [N, K] alone; return the patches' tokens [N, K, 24]."""
        tokens = self._embedded(pictures)
        kept = tokens[:, 1:].gather(1, places[..., None].expand(-1, -1, tokens.shape[2]))
        return self.norm(self.blocks(torch.cat([tokens[:, :1], kept], 1)))[:, 1:]

    def _embedded(self, pictures: Tensor) -> Tensor:
        """Return class token and patches with their positions."""
        patches = self.patches(pictures).flatten(2).transpose(1, 2)
        return torch.cat([self.class_token.expand(patches.shape[0], -1, -1), patches], 1) + self.positions


def _convolutions(channels: int) -> nn.Module:
    """Return stem and three stages of convolution, BatchNorm, ReLU; the last with dropout."""

    def stage(inputs: int, outputs: int, stride: int, *more: nn.Module) -> nn.Sequential:
        convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(), *more)

    return nn.Sequential(
        stage(channels, 8, 2), stage(8, 12, 2), stage(12, 16, 2), stage(16, 24, 1, nn.Dropout(0.1))
    )


def _open(body: nn.Module, settings: Pretrained, limits: Limits) -> ImageEncoder:
    """Fill a tiny body with its seeded numbers, or from a file, and wrap it."""
    _seeded(body, _SEED if settings.weights == "pretrained" else _SEED + 1)
    if settings.weights == "random":
        receipt = origins(body, source="random numbers")
    elif settings.weights == "pretrained":
        receipt = origins(body, source=f"seed {_SEED}", taken=set(body.state_dict()))
    else:
        receipt = fill(body, read_weights(settings.weights), source=settings.weights)
    size = settings.image_size or 32
    statistics = (0.5,) * settings.channels
    contract = InputContract((size, size), statistics, statistics, settings.channels, 1.0, "bilinear")
    spec = EncoderSpec(settings.name, "image", {}, contract, "", licence="Apache-2.0", source=receipt.source)
    is_transformer = isinstance(body, TinyTransformer)
    pool = _pool if is_transformer else average_map
    architecture = Architecture(
        _run, pool, groups_of(body, _groups(body)), prefix_tokens=int(is_transformer),
        visible=_visible if is_transformer else None,
    )  # fmt: skip
    return ImageEncoder(body, architecture, spec=spec, receipt=receipt, limits=limits)


def _run(body: nn.Module, pictures: Tensor) -> Tensor:
    """Run the body."""
    return body(pictures)


def _visible(body: nn.Module, pictures: Tensor, places: Tensor) -> Tensor:
    """Run a part of the patches."""
    return cast("TinyTransformer", body).visible(pictures, places)


def _pool(body: nn.Module, tokens: Tensor) -> Tensor:  # noqa: ARG001 - part of Architecture.pool
    """Take the class token and the mean of the patches' tokens."""
    return torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], 1)


def _groups(body: nn.Module) -> dict[str, list[str]]:
    """Group parameters by layer, shallow to deep."""
    named: dict[str, list[str]] = {}
    for name, _ in body.named_parameters():
        first, second = name.split(".")[:2] if "." in name else (name, "")
        if first == "blocks" or first == "norm":
            group = f"{first}.{second}" if first == "blocks" else first
        else:
            group = "embedding" if isinstance(body, TinyTransformer) else f"stage{first}"
        named.setdefault(group, []).append(name)
    return named


def _seeded(body: nn.Module, seed: int) -> None:
    """Give every parameter numbers drawn from `seed`, whatever was drawn before."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in body.named_parameters():
            if name.endswith("bias"):
                tensor.zero_()
            elif tensor.dim() > 1:
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * tensor[0].numel() ** -0.5)
