"""Embedding and recurrent layers with the regularisation of AWD-LSTM (Merity et al. 2018, arXiv 1708.02182)."""

from __future__ import annotations

import warnings
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from headstart.core.settings import Settings
from headstart.encoders._stack import LayerStack

Cell = Literal["lstm", "gru"]
_TENSORS = 4
"""Input and hidden weights and their biases, for each direction."""


class Architecture(Settings):
    """What a recurrent network is made of; kept as `config.json` beside its weights."""

    cell: Cell = "lstm"
    bidirectional: bool = False
    embedding: int = Field(default=128, ge=1)
    """Numbers a token."""
    widths: tuple[int, ...] = Field(default=(128,), min_length=1)
    """Numbers that each layer gives a token, both directions together."""
    embedding_dropout: float = Field(default=0.05, ge=0, lt=1)
    """Share of the vocabulary's words that a step does without."""
    input_dropout: float = Field(default=0.3, ge=0, lt=1)
    hidden_dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of the numbers that a text does without, the same ones at every token (variational dropout)."""
    weight_dropout: float = Field(default=0.3, ge=0, lt=1)
    """Share of the hidden-to-hidden weights that a step does without (DropConnect)."""
    before: tuple[str, ...] = ()
    """Tokens at the start of each window."""
    window: int | None = Field(default=None, ge=8)
    """Tokens a window."""

    @model_validator(mode="after")
    def _even(self) -> Architecture:
        """Refuse a width that two directions cannot share."""
        if self.bidirectional and any(width % 2 for width in self.widths):
            raise ValueError(f"widths {self.widths} of two directions must be even")
        return self


class Embedding(nn.Module):
    """Token vectors; in training some words and some numbers are dropped."""

    def __init__(self, vocabulary: int, width: int, *, words: float, numbers: float) -> None:
        """Make vectors for `vocabulary` tokens; `words` and `numbers` are dropout rates."""
        super().__init__()
        self.vectors = nn.Embedding(vocabulary, width)
        self.words, self.numbers = words, numbers

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids [N, T] to vectors [N, T, D]."""
        vectors = self.vectors(ids)
        if self.training and self.words:
            # A dropped word is dropped everywhere in the batch, as if its row of the embedding were zero.
            kept = torch.empty(self.vectors.num_embeddings, 1, device=ids.device).bernoulli_(1 - self.words)
            vectors = vectors * nn.functional.embedding(ids, kept) / (1 - self.words)
        return locked_dropout(vectors, self.numbers, training=self.training)


class RecurrentLayer(nn.Module):
    """One LSTM or GRU layer over the real tokens of each text, in one direction or both."""

    def __init__(
        self, cell: Cell, inputs: int, width: int, *, bidirectional: bool, weights: float, numbers: float
    ) -> None:
        """Make a layer [N, T, inputs] -> [N, T, width]; `weights` and `numbers` are dropout rates."""
        super().__init__()
        make = nn.LSTM if cell == "lstm" else nn.GRU
        self.rnn = make(inputs, width // (1 + bidirectional), bidirectional=bidirectional, batch_first=True)
        self.weights, self.numbers = weights, numbers
        for name, tensor in self.rnn.named_parameters():
            if name.startswith("weight_hh"):
                for gate in tensor.detach().split(self.rnn.hidden_size):
                    nn.init.orthogonal_(gate)
            elif name.startswith("weight_ih"):
                nn.init.xavier_uniform_(tensor)
            else:
                nn.init.zeros_(tensor)
            if name.startswith("bias_ih") and cell == "lstm":
                # An open forget gate (Jozefowicz et al. 2015).
                nn.init.ones_(tensor.detach()[self.rnn.hidden_size : 2 * self.rnn.hidden_size])

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map states to states; tokens outside `mask`, which lie behind a text's own, change none of its states."""
        weights = self._weights()
        if not self.rnn.bidirectional or mask is None:
            out = self._run(states, weights)
        else:
            # The backward direction begins at each text's own end. (Packed sequences do the same, but train three
            # times slower on a processor.)
            turned = turning(mask)[..., None]
            half = len(weights) // 2
            back = self._run(states.gather(1, turned.expand_as(states)), weights[half:])
            back = back.gather(1, turned.expand_as(back))
            out = torch.cat([self._run(states, weights[:half]), back], 2)
        # Torch gives the steps first; sums over them should have the same bits as behind a cut.
        return locked_dropout(out.contiguous(), self.numbers, training=self.training)

    def _run(self, states: Tensor, weights: list[Tensor]) -> Tensor:
        """Run one direction or both, as there are weights for, over [N, T, D]."""
        directions = len(weights) // _TENSORS
        start = states.new_zeros(directions, states.shape[0], self.rnn.hidden_size)
        # The last flags: only for cuDNN, that a backward pass may follow; directions; the texts come first.
        flags = (True, 1, 0.0, self.training or torch.is_grad_enabled(), directions == 2, True)
        with warnings.catch_warnings():
            # cuDNN copies weights that do not lie in one piece, as dropped ones, and says so.
            warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous")
            if isinstance(self.rnn, nn.LSTM):
                return torch.lstm(states, (start, start), weights, *flags)[0]
            return torch.gru(states, start, weights, *flags)[0]

    def _weights(self) -> list[Tensor]:
        """Return the layer's weights in torch's order; in training some hidden-to-hidden weights are zero."""
        return [
            nn.functional.dropout(tensor, self.weights, self.training)
            if name.startswith("weight_hh") and self.weights
            else tensor
            for name, tensor in self.rnn.named_parameters()
        ]


def turning(mask: Tensor) -> Tensor:
    """Return the places [N, T] that turn each text round and leave the padding behind it; twice is as before."""
    place = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    return torch.where(mask, mask.sum(1, keepdim=True) - 1 - place, place)


def locked_dropout(states: Tensor, rate: float, *, training: bool) -> Tensor:
    """Drop numbers of [N, T, D], the same ones at all tokens of a text (Gal & Ghahramani 2016, arXiv 1512.05287)."""
    if not training or not rate:
        return states
    kept = states.new_empty(states.shape[0], 1, states.shape[2]).bernoulli_(1 - rate)
    return states * kept / (1 - rate)


def build(architecture: Architecture, vocabulary: int) -> LayerStack:
    """Make an untrained network for `vocabulary` tokens, its numbers drawn from torch's generator."""
    embedding = Embedding(
        vocabulary,
        architecture.embedding,
        words=architecture.embedding_dropout,
        numbers=architecture.input_dropout,
    )
    nn.init.normal_(embedding.vectors.weight, std=0.1)
    layers: list[nn.Module] = []
    inputs = architecture.embedding
    for width in architecture.widths:
        layers.append(
            RecurrentLayer(
                architecture.cell,
                inputs,
                width,
                bidirectional=architecture.bidirectional,
                weights=architecture.weight_dropout,
                numbers=architecture.hidden_dropout,
            )
        )
        inputs = width
    return LayerStack(embedding, layers)
