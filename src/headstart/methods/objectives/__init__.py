"""Objectives of self-supervised pretraining: what is hidden of an input, and how well it is predicted.

An objective is a module made of an encoder's network (`body`) and what is thrown away after pretraining (`decoder`). It
is handed inputs as the encoder batches them and knows neither data, task nor the library that a network came from. One
file and one paper each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from torch import Tensor, nn

if TYPE_CHECKING:
    from headstart.core.settings import Pretrain
    from headstart.core.types import EncoderSpec, Features, Form


class Network(Protocol):
    """What an objective asks of an encoder; more of it by the attributes below, where the network has them."""

    @property
    def spec(self) -> EncoderSpec:
        """Its input contract and widths."""
        ...

    @property
    def module(self) -> nn.Module:
        """The network itself."""
        ...

    def __call__(self, inputs: Tensor, form: Form) -> Features:
        """Encode a batch."""
        ...

    def network(self, form: Form) -> nn.Module:
        """Return the module that turns a batch into a form's value."""
        ...


class Patches(Network, Protocol):
    """A network of patches that can go without some of them."""

    @property
    def visible(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        """(pictures [N, C, H, W], places [N, K]) to tokens [N, K, D]; None where it needs all patches."""
        ...


class Words(Network, Protocol):
    """A network of texts, token by token."""

    @property
    def embedding(self) -> nn.Embedding:
        """The vectors of its tokens."""
        ...

    @property
    def mask_id(self) -> int:
        """The token that stands for a hidden one."""
        ...

    @property
    def special_ids(self) -> tuple[int, ...]:
        """Tokens that nobody wrote."""
        ...

    def token_name(self, token: int) -> str:
        """Return how a token is written."""
        ...

    def windows(self, batch: Tensor) -> Tensor:
        """Return a batch's windows as token ids [M, T], padded with -1."""
        ...

    def states(self, ids: Tensor) -> Tensor:
        """Return the last hidden states [M, T, D] of windows."""
        ...


@dataclass(frozen=True)
class Seen:
    """One item for a person to look at: pictures uint8 [H, W, C], or the words of a text.

    Of a text, `truth` and `guesses` are by the place of the hidden token among `words`.
    """

    original: np.ndarray | None = None
    hidden: np.ndarray | None = None
    predicted: np.ndarray | None = None
    words: tuple[str, ...] = ()
    truth: tuple[tuple[int, str], ...] = ()
    guesses: tuple[tuple[int, str], ...] = ()


class Objective(Protocol):
    """A module made by `Name(encoder, settings)`; random numbers of its decoder are drawn from torch, seeded before."""

    body: nn.Module
    decoder: nn.Module
    version: ClassVar[int]
    views: int
    """Views of an item that it compares; 1: it hides a part of a single one."""

    def __init__(self, encoder: Any, settings: Pretrain) -> None:
        """Make it; PlanError where the network cannot serve it."""
        ...

    def loss(self, inputs: Sequence[Tensor], generator: np.random.Generator) -> Tensor:
        """Return the mean loss of a batch, one tensor a view; what is hidden is drawn from `generator`."""
        ...

    def show(self, inputs: Sequence[Tensor], generator: np.random.Generator) -> list[Seen]:
        """Return each item as it is, what was left of it, and what was predicted; nothing where nothing is hidden."""
        ...
