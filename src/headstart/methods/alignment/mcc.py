"""MCC: predictions on the target that do not confuse classes (Jin et al. 2020, arXiv 1912.03699).

    P = softmax(g / T) [B, C],   w_i = B (1 + exp(-H(P_i))) / sum_j (1 + exp(-H(P_j)))  (detached),
    M = P^T diag(w) P [C, C],   M~ = M with rows of sum 1,   L = (sum M~ - trace M~) / C

Only the target's outputs g [B, C] enter. The matrix needs several rows a class: where there are more classes than rows
in a batch, outputs of earlier batches (without gradient) are remembered and count with the batch's own.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from headstart.core.settings import Adapt
from headstart.methods.alignment import Needs, Rows, Sizes, entropy

ROWS = 4
"""Rows a class that the memory holds."""


class Mcc(nn.Module):
    """The minimum class confusion loss."""

    needs: ClassVar[Needs] = Needs()
    weight: ClassVar[float] = 1.0
    memory: Tensor
    filled: Tensor

    def __init__(self, sizes: Sizes, settings: Adapt) -> None:
        """Make room for earlier outputs where a batch is too small for the classes."""
        super().__init__()
        self.temperature = settings.temperature
        room = ROWS * sizes.num_classes if sizes.num_classes > sizes.batch_size else 0
        self.register_buffer("memory", torch.zeros(room, sizes.num_classes))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    def forward(self, source: Rows, target: Rows, *, progress: float) -> Tensor:
        """Return the confusion of the target's outputs."""
        if not len(self.memory):
            return confusion(target.outputs, self.temperature)
        outputs = target.outputs.float()
        together = torch.cat([outputs, self.memory[: int(self.filled)]])
        if torch.is_grad_enabled():  # Not while a loss is only looked at.
            self.memory.copy_(torch.cat([outputs.detach(), self.memory])[: len(self.memory)])
            self.filled.add_(len(outputs)).clamp_(max=len(self.memory))
        return confusion(together, self.temperature)


def confusion(outputs: Tensor, temperature: float) -> Tensor:
    """Return the mean share of other classes in the class correlations of logits [B, C]."""
    shares = (outputs.float() / temperature).softmax(1)
    certainty = 1 + (-entropy(shares.detach())).exp()
    weights = certainty / certainty.mean()
    matrix = (shares * weights[:, None]).T @ shares
    even = matrix / matrix.sum(1, keepdim=True)
    return (even.sum() - even.trace()) / shares.shape[1]
