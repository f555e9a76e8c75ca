"""Elastic weight consolidation: a weight is held the more, the more the earlier tasks' answers depend on it.

Kirkpatrick et al. 2017, "Overcoming catastrophic forgetting in neural networks" (PNAS 114, arXiv 1612.00796).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstart.core.settings import Retention
from headstart.features.feed import as_floats
from headstart.train.batches import Batch
from headstart.train.guard import Part, Past, Term
from headstart.train.runtime import Context, draw, exactly
from headstart.train.weights import copies

WEIGHT = 1000.0
"""The paper takes 400 for permuted digits. Not tuned on chains of our own."""


class Ewc:
    """The term weight / 2 * sum_i F_i (w_i - w0_i)^2 with w0 the start and F the diagonal of the Fisher information.

    F_i is the mean over items of the earlier tasks of the squared gradient of their log-likelihood, the answer drawn
    from the model's own probabilities (of numbers and several labels: the true one), and summed over tasks.
    """

    def __init__(self, past: Sequence[Past], settings: Retention, weight: float | None) -> None:
        """Take the tasks whose items are at hand."""
        self.past = [one for one in past if one.training is not None]
        self.samples = settings.samples
        self.weight = WEIGHT if weight is None else weight

    @property
    def identity(self) -> Any:
        """What decides the term."""
        return {"ewc": self.weight, "samples": self.samples, "past": _named(self.past)}

    def term(self, part: Part) -> Term:
        """Find what matters and return the weighted distance to the start."""
        start = copies(part.parameters)
        matters = {name: torch.zeros_like(tensor) for name, tensor in start.items()}
        for one in self.past:
            for name, square in fisher(part, one, samples=self.samples).items():
                matters[name] += square

        def distance(inputs: Tensor, features: Tensor, batch: Batch) -> Tensor:
            del inputs, batch
            squares = [
                (matters[name] * (now - start[name]).square()).sum() for name, now in part.parameters.items()
            ]
            return self.weight / 2 * sum(squares, features.new_zeros(()).float())

        return distance


def fisher(part: Part, past: Past, *, samples: int) -> dict[str, Tensor]:
    """Return the diagonal Fisher information of a task's answers, over some of its items, by parameter of `part`."""
    training, context = past.training, part.context
    assert training is not None, "its items are at hand"
    order = draw(context.seed, f"fisher {past.name}", 0, 0).permutation(len(training))[:samples]
    opened, head = part.exact(training), past.head.to(context.device).eval()
    parameters = list(part.parameters.values())
    found = {name: torch.zeros_like(tensor) for name, tensor in part.parameters.items()}
    modes = [(module, module.training) for module in part.body.modules()]
    asked = [(parameter, parameter.requires_grad) for parameter in part.body.parameters()]
    part.body.eval()
    for parameter in parameters:
        parameter.requires_grad_(True)

    def gradients(index: int) -> Sequence[Tensor | None]:
        outputs = head(part.body(as_floats(opened(np.array([index]), 0).to(context.device))))
        truth = past.task.collate([training[index].target]).to(context.device)
        answer = _answered(outputs, truth, past, context, index)
        return torch.autograd.grad(past.task.loss(outputs, answer), parameters, allow_unused=True)

    try:
        for index in order.tolist():
            slopes = exactly(context.device, partial(gradients, index))
            for name, gradient in zip(found, slopes, strict=True):
                if gradient is not None:
                    found[name] += gradient.detach().square() / len(order)
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, was in asked:
            parameter.requires_grad_(was)
    return found


def _answered(outputs: Tensor, truth: Tensor, past: Past, context: Context, index: int) -> Tensor:
    """Draw an answer from a softmax (of each word that counts); of other links the truth stands in."""
    if past.task.link != "softmax" or truth.is_floating_point():
        return truth
    shares = outputs.detach().softmax(-1).cpu().double().numpy()
    point = draw(context.seed, f"answer {past.name}", 0, index).random((*shares.shape[:-1], 1))
    drawn = torch.from_numpy((shares.cumsum(-1) < point).sum(-1).clip(max=shares.shape[-1] - 1))
    return torch.where(truth >= 0, drawn.to(truth), truth)


def _named(past: Sequence[Past]) -> list[Any]:
    """Return names and items of tasks."""
    return [[one.name, one.training.fingerprint] for one in past if one.training is not None]
