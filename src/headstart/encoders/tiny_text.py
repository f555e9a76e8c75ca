"""Tiny untrained networks for texts, for tests and trials; they obey the same contract as the real ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import torch
from torch import Tensor, nn

from headstart.core.settings import Pretrained
from headstart.core.types import LIMITS, EncoderSpec, Limits, Receipt, TextContract
from headstart.encoders._recurrent_network import Architecture, build
from headstart.encoders._stack import LayerStack, Stack
from headstart.encoders._text import TextEncoder
from headstart.encoders._vocabulary import UNKNOWN, PlainTokenizer
from headstart.encoders._weights import fill, origins, read_weights

WIDTH, WINDOW, OVERLAP = 24, 64, 8
_SEED = 20  # Their "pretrained" weights: the same numbers on every machine.


def open_tiny_gru(settings: Pretrained, *, limits: Limits = LIMITS) -> TextEncoder:
    """Open a GRU over bytes: 2 layer groups, windows of 64 bytes, 10,000 parameters."""
    architecture = Architecture(cell="gru", embedding=WIDTH, widths=(WIDTH,))

    def make() -> LayerStack:
        return build(architecture, len(_alphabet()) + 1)

    return _open(make, settings, limits, is_recurrent=True)


def open_tiny_text_transformer(settings: Pretrained, *, limits: Limits = LIMITS) -> TextEncoder:
    """Open a transformer over bytes: embedding and two blocks, windows of 64 bytes, 15,000 parameters."""

    def make() -> LayerStack:
        return LayerStack(_Embedding(len(_alphabet()) + 1), [_Block(), _Block()])

    return _open(make, settings, limits, is_recurrent=False)


class _Embedding(nn.Module):
    """Token and position vectors."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, WIDTH), nn.Embedding(WINDOW, WIDTH)

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids [N, T] to vectors [N, T, D]."""
        return self.tokens(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))


class _Block(nn.Module):
    """Self-attention with one head and a two-layer network, each normalised before and added after."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mix = nn.Linear(WIDTH, 3 * WIDTH)
        self.network = nn.Sequential(
            nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Dropout(0.1), nn.Linear(2 * WIDTH, WIDTH)
        )

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map states [N, T, D] to states; no token looks at those outside `mask`."""
        query, key, value = self.mix(self.norm1(states)).chunk(3, -1)
        seen = None if mask is None else mask[:, None, :]
        states = states + nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        return states + self.network(self.norm2(states))


def _open(
    make: Callable[[], LayerStack], settings: Pretrained, limits: Limits, *, is_recurrent: bool
) -> TextEncoder:
    """Make a network, fill it from its seed or a file, and wrap it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED if settings.weights == "pretrained" else _SEED + 1)
        module = make()
    receipt = _receipt(module, settings)
    vocabulary = _vocabulary()
    overlap = OVERLAP if settings.overlap is None else settings.overlap
    contract = TextContract(
        WINDOW, overlap, hashlib.sha256(vocabulary).hexdigest(), "concat" if is_recurrent else "mean",
        is_causal=is_recurrent,
    )  # fmt: skip
    width = 3 * WIDTH if is_recurrent else WIDTH
    depths = (("embedding", width),) if is_recurrent else ()
    body = Stack(module, width=width, state_width=WIDTH, depths=depths)
    spec = EncoderSpec(settings.name, "text", {}, contract, "", licence="Apache-2.0", source=receipt.source)
    return TextEncoder(
        body, PlainTokenizer(vocabulary), spec=spec, receipt=receipt, files={}, has_layers=not is_recurrent,
        limits=limits,
    )  # fmt: skip


def _receipt(module: nn.Module, settings: Pretrained) -> Receipt:
    """Fill a network from a file where one is named; say where its numbers came from."""
    if settings.weights == "random":
        return origins(module, source="random numbers")
    if settings.weights == "pretrained":
        return origins(module, source=f"seed {_SEED}", taken=set(module.state_dict()))
    return fill(module, read_weights(settings.weights), source=settings.weights)


def _vocabulary() -> bytes:
    """Return a tokenizer.json whose tokens are the 256 bytes."""
    ids = {sign: number for number, sign in enumerate([UNKNOWN, *_alphabet()])}
    split = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "unk_token": UNKNOWN, "vocab": ids, "merges": []}
    return json.dumps({"version": "1.0", "added_tokens": [], "pre_tokenizer": split, "model": model}).encode()


def _alphabet() -> list[str]:
    """Return the signs by which tokenizers writes the 256 bytes: themselves where they can be printed, else others."""
    shown = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(byte) for byte in shown] + [chr(0x100 + place) for place in range(256 - len(shown))]
