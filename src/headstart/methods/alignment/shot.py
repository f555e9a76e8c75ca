"""SHOT: the source's classifier rests, and target features learn to suit it (Liang et al. 2020, arXiv 2002.08546).

    L = mean_i H(P_i) - H(mean_i P_i) + 0.3 mean_i CE(y_i, g_i),   P = softmax(g)

over the target alone: sure of each row, diverse over all, and true to pseudo labels y. These are refreshed before each
epoch from all features f [n, D] as u = [f; 1] / |[f; 1]|: centroids c_k = sum_i P_ik u_i / sum_i P_ik, y_i = nearest
centroid by cosine among the classes that are predicted at all, then once more with y in place of P.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from headstart.core.settings import Adapt
from headstart.methods.alignment import Needs, Rows, Sizes, entropy

PSEUDO = 0.3
"""Weight of the pseudo labels."""


class Shot(nn.Module):
    """Information maximisation and centroid pseudo labels, without source data."""

    needs: ClassVar[Needs] = Needs(sweep=True, resting_head=True)
    weight: ClassVar[float] = 1.0
    labels: Tensor

    def __init__(self, sizes: Sizes, settings: Adapt) -> None:
        """Make room for a pseudo label an item."""
        super().__init__()
        self.register_buffer("labels", torch.zeros(sizes.num_items, dtype=torch.int64))

    def refresh(self, features: Tensor, outputs: Tensor) -> None:
        """Take the pseudo labels of all items from their features [n, D] and outputs [n, C]."""
        self.labels.copy_(centroid_labels(features, outputs.softmax(1)))

    def forward(self, source: Rows, target: Rows, *, progress: float) -> Tensor:
        """Return the loss of the target's rows."""
        assert target.items is not None, "rows say which items they are"
        shares = target.outputs.softmax(1)
        known = nn.functional.cross_entropy(target.outputs, self.labels[target.items])
        return entropy(shares).mean() - entropy(shares.mean(0)) + PSEUDO * known


def centroid_labels(features: Tensor, shares: Tensor) -> Tensor:
    """Return the class [n] of the nearest centroid in two rounds, from features [n, D] and probabilities [n, C]."""
    unit = nn.functional.normalize(torch.cat([features, torch.ones_like(features[:, :1])], 1), dim=1)
    present = shares.argmax(1).bincount(minlength=shares.shape[1]) > 0
    labels = shares.argmax(1)
    for _ in range(2):
        centroids = (shares.T @ unit) / shares.sum(0).clamp(min=1e-8)[:, None]
        cosine = unit @ nn.functional.normalize(centroids, dim=1).T
        labels = cosine.masked_fill(~present, -torch.inf).argmax(1)
        shares = nn.functional.one_hot(labels, shares.shape[1]).to(shares)
    return labels
