"""L2-SP: weights are drawn to where they started instead of to zero.

Li, Grandvalet & Davoine 2018, "Explicit inductive bias for transfer learning with convolutional networks" (ICML, arXiv
1802.01483).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from headstart.core.settings import Retention
from headstart.train.batches import Batch
from headstart.train.guard import Part, Past, Term
from headstart.train.weights import copies

WEIGHT = 0.1
"""The paper's alpha is chosen among 0.1, 0.01 and less; the steps of fine-tuning are small, so the largest."""


class L2Sp:
    """The term weight / 2 * sum_i (w_i - w0_i)^2 over the network's parameters that train, w0 being their start."""

    def __init__(self, past: Sequence[Past], settings: Retention, weight: float | None) -> None:
        """Need no item of earlier tasks."""
        del past, settings
        self.weight = WEIGHT if weight is None else weight

    @property
    def identity(self) -> Any:
        """What decides the term."""
        return {"l2_sp": self.weight}

    def term(self, part: Part) -> Term:
        """Keep the start and return the distance to it."""
        start = copies(part.parameters)

        def distance(inputs: Tensor, features: Tensor, batch: Batch) -> Tensor:
            del inputs, batch
            squares = [(now - start[name]).square().sum() for name, now in part.parameters.items()]
            return self.weight / 2 * sum(squares, features.new_zeros(()).float())

        return distance
