"""Learning without forgetting: on the new items, the earlier heads go on answering as they did at the start.

Li & Hoiem 2016, "Learning without forgetting" (ECCV, arXiv 1606.09282); no earlier item is needed.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from headstart.core.settings import Retention
from headstart.train.batches import Batch
from headstart.train.guard import Part, Past, Term
from headstart.train.weights import state_digest

WEIGHT = 1.0
"""The paper's balance of old and new."""


class Lwf:
    """The term weight * sum over earlier heads h of T^2 KL(softmax(h(f0) / T) || softmax(h(f) / T)).

    f0 are the features of the network at its start and f those of now, of the same inputs; the heads rest. Of heads
    for several labels each label is a softmax of two; of a number the squared difference in units of its spread.
    """

    def __init__(self, past: Sequence[Past], settings: Retention, weight: float | None) -> None:
        """Take the heads of all earlier tasks."""
        self.past, self.temperature = list(past), settings.temperature
        self.weight = WEIGHT if weight is None else weight

    @property
    def identity(self) -> Any:
        """What decides the term."""
        heads = [[one.name, state_digest(one.head)] for one in self.past]
        return {"lwf": self.weight, "temperature": self.temperature, "heads": heads}

    def term(self, part: Part) -> Term:
        """Keep a copy of the start that answers for the past."""
        teacher = copy.deepcopy(part.body).eval().requires_grad_(False)
        heads = [
            (copy.deepcopy(one.head).to(part.context.device).eval().requires_grad_(False), one.task.link)
            for one in self.past
        ]

        def distilled(inputs: Tensor, features: Tensor, batch: Batch) -> Tensor:
            del batch
            with torch.no_grad():
                before = teacher(inputs)
            apart = [distance(head(before), head(features), link, self.temperature) for head, link in heads]
            return self.weight * sum(apart, features.new_zeros(()).float())

        return distilled


def distance(before: Tensor, now: Tensor, link: str, temperature: float) -> Tensor:
    """Return how far outputs now [..., C] are from those before, as a mean over items or words."""
    if link == "identity":
        return (now - before).square().mean() / (before.var(unbiased=False) + 1e-6)
    if link == "sigmoid":
        # A label and its absence are two classes.
        before, now = (torch.stack([rows, torch.zeros_like(rows)], -1) for rows in (before, now))
    old = (before.float() / temperature).log_softmax(-1).flatten(0, -2)
    new = (now.float() / temperature).log_softmax(-1).flatten(0, -2)
    return temperature**2 * torch.nn.functional.kl_div(new, old, log_target=True, reduction="batchmean")
