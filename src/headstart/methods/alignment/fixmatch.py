"""FixMatch: what the teacher is sure of in a weakly varied input must hold when it is varied strongly.

Sohn et al. 2020, arXiv 2001.07685, with the averaged teacher of Tarvainen & Valpola 2017, arXiv 1703.01780:

    L = 1/N sum_i 1[max softmax(g'_i) >= threshold] CE(argmax g'_i, g_i)

over target rows, with the teacher's outputs g' [N, C] for the weak and ours g [N, C] for the strong version.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from headstart.core.settings import Adapt
from headstart.methods.alignment import Needs, Rows, Sizes


class FixMatch(nn.Module):
    """Cross-entropy of strong views against the teacher's sure labels."""

    # A classifier that was fitted to the source alone is too sure of what it sees; a new one is not.
    needs: ClassVar[Needs] = Needs(features=True, teacher=True, strong=True)
    weight: ClassVar[float] = 1.0

    def __init__(self, sizes: Sizes, settings: Adapt) -> None:
        """Take the threshold."""
        super().__init__()
        self.threshold = settings.confidence

    def forward(self, source: Rows, target: Rows, *, progress: float) -> Tensor:
        """Return the loss; 0 where the teacher is sure of nothing."""
        assert target.teacher is not None, "the teacher was asked for"
        assert target.strong is not None, "strong views were asked for"
        certainty, labels = target.teacher.softmax(1).max(1)
        losses = nn.functional.cross_entropy(target.strong, labels, reduction="none")
        return (losses * (certainty >= self.threshold)).mean()
