"""Masked consistency: the context that is left must suffice for what the teacher sees in the whole input.

MIC (Hoyer et al. 2023, arXiv 2212.01322):  L = 1/N sum_i q_i CE(argmax g'_i, g_i),   q_i = max softmax(g'_i)

over target rows, with the teacher's outputs g' [N, C] for whole inputs and ours g [N, C] for partly hidden ones. It
goes with any other terms. How inputs are hidden is the modality's affair: the caller hands that in.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from headstart.core.settings import Adapt
from headstart.methods.alignment import Needs, Rows, Sizes


class MaskedConsistency(nn.Module):
    """Cross-entropy of hidden inputs against the teacher's labels, weighted by its certainty."""

    needs: ClassVar[Needs] = Needs(teacher=True, hidden=True)
    weight: ClassVar[float] = 1.0

    def __init__(self, sizes: Sizes, settings: Adapt) -> None:
        """Make it; it keeps nothing."""
        super().__init__()

    def forward(self, source: Rows, target: Rows, *, progress: float) -> Tensor:
        """Return the loss."""
        assert target.teacher is not None, "the teacher was asked for"
        assert target.hidden is not None, "hidden inputs were asked for"
        certainty, labels = target.teacher.softmax(1).max(1)
        return (nn.functional.cross_entropy(target.hidden, labels, reduction="none") * certainty).mean()
