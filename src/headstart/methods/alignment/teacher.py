"""A teacher whose weights are the average of the student's over steps (Tarvainen & Valpola 2017, arXiv 1703.01780).

    theta'_t = a theta'_{t-1} + (1 - a) theta_t,   a = min(decay, 1 - 1 / (t + 1))

BatchNorm's running statistics are averaged as well: a teacher with the student's weights of yesterday and statistics of
today is neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from headstart.train.optim import ParameterGroup
from headstart.train.weights import moving_tensors


class Teacher(nn.Module):
    """Averages of a network's moving tensors; they are buffers, so that checkpoints hold them."""

    def __init__(self, network: nn.Module, groups: Sequence[ParameterGroup], decay: float) -> None:
        """Start as a copy of the network, of which `groups` train."""
        super().__init__()
        self.decay = decay
        self.names = tuple(moving_tensors(network, groups))
        for number, tensor in enumerate(moving_tensors(network, groups).values()):
            self.register_buffer(f"average{number}", tensor.detach().clone())

    def averages(self) -> Mapping[str, Tensor]:
        """Return the averages by the names of the network's tensors."""
        return {name: getattr(self, f"average{number}") for number, name in enumerate(self.names)}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move towards the network as it is before `step` (from 0); whole numbers are taken as they are."""
        decay = min(self.decay, 1 - 1 / (step + 1))
        now = dict([*network.named_parameters(), *network.named_buffers()])
        for name, average in self.averages().items():
            if average.is_floating_point():
                average.lerp_(now[name], 1 - decay)
            else:
                average.copy_(now[name])

    @torch.no_grad()
    def answer(self, network: nn.Module, inputs: Tensor) -> Any:
        """Return what the network would give with the averaged tensors, in eval mode."""
        with resting(network):
            return functional_call(network, dict(self.averages()), (inputs,))


@contextmanager
def resting(module: nn.Module) -> Iterator[None]:
    """Put a module into eval mode inside the block, and each part back into its own mode afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
