"""Causal language modelling: each token predicted from those before it.

ULMFiT (Howard & Ruder 2018, arXiv 1801.06146) pretrains a recurrent network so, on general texts or on the task's own:
L = - 1/T sum over t of log p(x_t | x_1 ... x_(t-1))

The output layer is the network's own input embedding (Press & Wolf 2017, arXiv 1608.05859).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from headstart.core.errors import PlanError
from headstart.core.types import TextContract
from headstart.methods.objectives import Seen, Words
from headstart.methods.objectives._tokens import Output, seen_text, words_of
from headstart.modalities.hiding import IGNORED, PADDING

if TYPE_CHECKING:
    from headstart.core.settings import Pretrain

SHOWN_EVERY = 4
"""Of a text that is shown, every so many words are compared with their prediction."""


class CausalLanguage(nn.Module):
    """Next tokens for networks that read in one direction; implements Objective."""

    version: ClassVar[int] = 1
    views: int = 1

    def __init__(self, encoder: Words, settings: Pretrain) -> None:
        """Make the decoder; PlanError where the network sees what it should predict."""
        super().__init__()
        self._words = words_of(encoder, "causal_language")
        contract = encoder.spec.contract
        if not isinstance(contract, TextContract) or not contract.is_causal:
            raise PlanError(
                f"the objective causal_language was asked of {encoder.spec.name}, which reads both ways",
                expected="a network that sees no word before it comes (recurrent:lstm, GPT-2 and its kin)",
                fix="leave pretrain.objective out, or --set pretrain.objective=masked_language",
            )
        if settings.mask_ratio is not None:
            raise PlanError(
                f"pretrain.mask_ratio is {settings.mask_ratio:g}, but causal_language hides nothing",
                expected="no mask ratio: every word is predicted from those before it",
                fix="leave it out",
            )
        self.body, self.decoder = encoder.module, Output(self._words)

    def loss(self, inputs: Sequence[Tensor], generator: np.random.Generator) -> Tensor:
        """Return the mean cross-entropy of each token given those before it; nothing is drawn."""
        ids = self._words.windows(inputs[0])
        targets = next_tokens(ids, self._words.special_ids)
        chosen = targets != IGNORED
        if not bool(chosen.any()):
            return self.decoder.bias.sum() * 0.0  # Texts of one word: nothing follows.
        logits = self.decoder(self._words.states(ids)[chosen], self._words.embedding.weight)
        return nn.functional.cross_entropy(logits, targets[chosen])

    def show(self, inputs: Sequence[Tensor], generator: np.random.Generator) -> list[Seen]:
        """Return the words of texts, and what was expected in the place of some of them."""
        ids = self._words.windows(inputs[0])
        targets = next_tokens(ids, self._words.special_ids)
        found = self.decoder(self._words.states(ids), self._words.embedding.weight).argmax(-1)
        targets, guesses = targets.roll(1, 1), found.roll(1, 1)
        targets[:, 0] = IGNORED
        places = torch.arange(targets.shape[1], device=targets.device)
        targets = targets.masked_fill(places % SHOWN_EVERY != SHOWN_EVERY - 1, IGNORED)
        rows = zip(ids, targets, guesses, strict=True)
        return [seen_text(self._words, *(part.tolist() for part in row)) for row in rows]


def next_tokens(ids: Tensor, special: Sequence[int]) -> Tensor:
    """Return what follows each token of [M, T]; IGNORED at the end and where a special token follows."""
    following = torch.full_like(ids, IGNORED)
    following[:, :-1] = ids[:, 1:]
    nothing = (following == PADDING) | (ids == PADDING)
    for token in special:
        nothing |= following == token
    return following.masked_fill(nothing, IGNORED)
