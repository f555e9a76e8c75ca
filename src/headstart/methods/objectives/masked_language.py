"""Masked language modelling: hidden tokens of a text, predicted from those around them.

BERT (Devlin et al. 2019, arXiv 1810.04805), continued on the texts of a task (Gururangan et al. 2020, arXiv
2004.10964):  L = - 1/|M| sum over chosen tokens i of log p(x_i | the text with tokens hidden)

A seventh of the tokens is chosen; of these 80 % become the mask token, 10 % another token, 10 % stay. The decoder is
one dense layer with a norm; its output layer is the network's own input embedding (Press & Wolf 2017, arXiv
1608.05859).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from torch import Tensor, nn

from headstart.methods.objectives import Seen, Words
from headstart.methods.objectives._tokens import Output, seen_text, words_of
from headstart.modalities.hiding import IGNORED, hide_tokens

if TYPE_CHECKING:
    from headstart.core.settings import Pretrain

RATIO = 0.15


class MaskedLanguage(nn.Module):
    """Masked language modelling for any network of texts; implements Objective.

    Called with (inputs, generator=...) it gives its loss, for those who add it to another.
    """

    version: ClassVar[int] = 1
    views: int = 1

    def __init__(self, encoder: Words, settings: Pretrain) -> None:
        """Make the decoder; PlanError where the network reads no tokens."""
        super().__init__()
        self._words, self.ratio = words_of(encoder, "masked_language"), settings.mask_ratio or RATIO
        self.body, self.decoder = encoder.module, Output(self._words)

    def forward(self, inputs: Tensor, *, generator: np.random.Generator) -> Tensor:
        """Return the loss of one batch of texts."""
        return self.loss((inputs,), generator)

    def loss(self, inputs: Sequence[Tensor], generator: np.random.Generator) -> Tensor:
        """Return the mean cross-entropy of hidden tokens of texts, as their encoder batches them."""
        ids, targets = self._hidden(inputs[0], generator)
        chosen = targets != IGNORED
        if not bool(chosen.any()):
            return self.decoder.bias.sum() * 0.0  # Texts of special tokens alone: nothing to learn from.
        logits = self.decoder(self._words.states(ids)[chosen], self._words.embedding.weight)
        return nn.functional.cross_entropy(logits, targets[chosen])

    def show(self, inputs: Sequence[Tensor], generator: np.random.Generator) -> list[Seen]:
        """Return the words of texts, those hidden, and what was predicted for them."""
        ids, targets = self._hidden(inputs[0], generator)
        guesses = self.decoder(self._words.states(ids), self._words.embedding.weight).argmax(-1)
        rows = zip(ids, targets, guesses, strict=True)
        return [seen_text(self._words, *(part.tolist() for part in row)) for row in rows]

    def _hidden(self, batch: Tensor, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Draw what is hidden."""
        words = self._words
        return hide_tokens(
            words.windows(batch), ratio=self.ratio, mask_id=words.mask_id,
            vocabulary=words.embedding.num_embeddings, special=words.special_ids, generator=generator,
        )  # fmt: skip
