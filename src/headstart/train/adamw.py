"""AdamW over groups with their own rates; its state is plain tensors by parameter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

BETAS = (0.9, 0.999)
EPSILON = 1e-8
_lists: Any = torch  # Its stubs do not list the operations on lists of tensors.


@dataclass
class Row:
    """Parameters that share a learning rate (`base`, times the schedule's factor: `rate`) and a weight decay."""

    parameters: Sequence[nn.Parameter]
    base: float
    weight_decay: float
    rate: float


class AdamW:
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101), the same bits as torch.optim.AdamW.

    torch's own imports the whole compiler when it is made: 5 seconds of processor time, more than many a run takes.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        """Start without state; a parameter gets its own with its first gradient."""
        self.rows = tuple(rows)
        self.state: dict[nn.Parameter, dict[str, Tensor]] = {}

    def scale_rates(self, factor: float) -> None:
        """Set every learning rate to `factor` times its base."""
        for row in self.rows:
            row.rate = row.base * factor

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for row in self.rows:
            for parameter in row.parameters:
                parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter that has a gradient."""
        for row in self.rows:
            moved = [parameter for parameter in row.parameters if parameter.grad is not None]
            if moved:
                self._move(moved, row)

    def _move(self, parameters: list[nn.Parameter], row: Row) -> None:
        """Move some parameters of a row, all at a time."""
        states = [self.state.get(parameter) or self._begin(parameter) for parameter in parameters]
        for state in states:
            state["step"] += 1
        steps = [int(state["step"]) for state in states]
        gradients = [parameter.grad for parameter in parameters]
        averages = [state["average"] for state in states]
        squares = [state["square"] for state in states]
        if row.weight_decay:
            _lists._foreach_mul_(parameters, 1 - row.rate * row.weight_decay)
        _lists._foreach_lerp_(averages, gradients, 1 - BETAS[0])
        _lists._foreach_mul_(squares, BETAS[1])
        _lists._foreach_addcmul_(squares, gradients, gradients, 1 - BETAS[1])
        scales = _lists._foreach_sqrt(squares)
        _lists._foreach_div_(scales, [math.sqrt(1 - BETAS[1] ** step) for step in steps])
        _lists._foreach_add_(scales, EPSILON)
        sizes = [-(row.rate / (1 - BETAS[0] ** step)) for step in steps]
        _lists._foreach_addcdiv_(parameters, averages, scales, sizes)

    def _begin(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """Give a parameter its state."""
        state = {
            "step": torch.zeros((), dtype=torch.int64),
            "average": torch.zeros_like(parameter),
            "square": torch.zeros_like(parameter),
        }
        self.state[parameter] = state
        return state
