"""What objectives over texts share: the output layer that is the input embedding, and words to look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from headstart.core.errors import PlanError
from headstart.methods.objectives import Network, Seen, Words
from headstart.modalities.hiding import IGNORED, PADDING


class Output(nn.Module):
    """States [n, D] to logits [n, V]: a dense layer to the width of the embedding, a norm, the embedding itself."""

    def __init__(self, words: Words) -> None:
        """Make the layers; the dense one begins as the identity where widths agree, so that what is learnt stays."""
        super().__init__()
        inputs, outputs = words.spec.width["sequence"], words.embedding.embedding_dim
        self.dense, self.norm = nn.Linear(inputs, outputs), nn.LayerNorm(outputs)
        self.bias = nn.Parameter(torch.zeros(words.embedding.num_embeddings))
        if inputs == outputs:
            with torch.no_grad():
                self.dense.weight.copy_(torch.eye(outputs))
                self.dense.bias.zero_()

    def forward(self, states: Tensor, embedding: Tensor) -> Tensor:
        """Return the logits of all tokens for the `embedding` [V, E]."""
        return nn.functional.linear(self.norm(nn.functional.gelu(self.dense(states))), embedding, self.bias)


def words_of(encoder: Network, objective: str) -> Words:
    """Return a network of texts; PlanError for any other."""
    if encoder.spec.modality != "text":
        raise PlanError(
            f"the objective {objective} was asked of {encoder.spec.name}, a network for {encoder.spec.modality}",
            expected="a network for texts",
            fix="leave pretrain.objective out, or choose another encoder",
        )
    return cast("Words", encoder)


def seen_text(words: Words, ids: Sequence[int], targets: Sequence[int], guesses: Sequence[int]) -> Seen:
    """Return a text to look at: its tokens, those to be predicted, and the guesses."""
    places = [place for place, token in enumerate(ids) if token != PADDING]
    chosen = [place for place in places if targets[place] != IGNORED]
    names = [
        words.token_name(targets[place] if targets[place] != IGNORED else ids[place]) for place in places
    ]
    return Seen(
        words=tuple(names),
        truth=tuple((place, words.token_name(targets[place])) for place in chosen),
        guesses=tuple((place, words.token_name(guesses[place])) for place in chosen),
    )
