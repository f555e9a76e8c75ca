"""Replay: some items of the earlier tasks are learnt again in every step, each by its own head.

Robins 1995, "Catastrophic forgetting, rehearsal and pseudorehearsal" (Connection Science 7); with few items a task,
Chaudhry et al. 2019, "On tiny episodic memories in continual learning" (arXiv 1902.10486).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from headstart.core.settings import Retention
from headstart.features.feed import as_floats
from headstart.train.batches import Batch
from headstart.train.guard import Part, Past, Term
from headstart.train.runtime import draw

WEIGHT = 1.0
"""An earlier item counts as a new one."""


class Replay:
    """The term weight * mean over earlier tasks of their own loss on a few of their items, drawn from (seed, step).

    The earlier heads rest, so that a score then and now differ by the network alone.
    """

    def __init__(self, past: Sequence[Past], settings: Retention, weight: float | None) -> None:
        """Take the tasks whose items are at hand."""
        self.past = [one for one in past if one.training is not None]
        self.count = settings.replay
        self.weight = WEIGHT if weight is None else weight

    @property
    def identity(self) -> Any:
        """What decides the term."""
        named = [[one.name, one.training.fingerprint] for one in self.past if one.training is not None]
        return {"replay": self.weight, "count": self.count, "past": named}

    def term(self, part: Part) -> Term:
        """Open the earlier items as the new ones are opened."""
        context = part.context
        feeds = [part.feed(one.training) for one in self.past if one.training is not None]
        heads = [one.head.to(context.device).eval().requires_grad_(False) for one in self.past]

        def rehearsed(inputs: Tensor, features: Tensor, batch: Batch) -> Tensor:
            del inputs
            losses: list[Tensor] = []
            for one, head, opened in zip(self.past, heads, feeds, strict=True):
                assert one.training is not None, "its items are at hand"
                drawn = draw(context.seed, f"replay {one.name}", batch.step, batch.start)
                chosen = np.sort(
                    drawn.choice(len(one.training), min(self.count, len(one.training)), replace=False)
                )
                entering = as_floats(opened(chosen, batch.step).to(context.device))
                truth = one.task.collate([one.training[int(index)].target for index in chosen])
                losses.append(one.task.loss(head(part.body(entering)), truth.to(context.device)))
            return self.weight * sum(losses, features.new_zeros(()).float()) / max(1, len(losses))

        return rehearsed
