"""Balanced self-training of the head: what it is surest of in each class teaches it the rest.

Rounds r = 1..4: of the items that the head puts in a class, the surest 20, 40, 60 and 80 % keep that class as their
label, and the head is fitted anew on the source and these (class-balanced self-training, Zou et al. 2018, arXiv
1810.07911). Taking a share of each class, not every item above a threshold, keeps easy classes from swallowing others.
"""

from __future__ import annotations

import torch
from torch import Tensor

from headstart.methods.domain.ground import Ground

SHARES = (0.2, 0.4, 0.6, 0.8)
SOURCE_WEIGHT = 0.3
"""Of a source item beside a target item."""


def self_train(
    ground: Ground,
    said: Tensor,
    *,
    penalty: float,
    begin: Tensor | None = None,
    shares: tuple[float, ...] = SHARES,
) -> Tensor:
    """Return the map [r + 1, C] that self-training ends with, from first probabilities `said` [m, C] of the target."""
    weight = begin
    for share in shares:
        labels = said.argmax(1)
        weight = ground.fit(
            labels, surest(said, share), penalty=penalty, source_weight=SOURCE_WEIGHT, begin=weight
        )
        said = ground.outputs(weight).softmax(1)
    assert weight is not None, "there is a round"
    return weight


def surest(said: Tensor, share: float) -> Tensor:
    """Return which items [m] are among the surest `share` of those put in the same class, at least one of each."""
    certainty, labels = said.max(1)
    taken = torch.zeros(len(said), dtype=torch.bool)
    for label in labels.unique():
        (here,) = torch.where(labels == label)
        count = max(1, round(share * len(here)))
        taken[here[certainty[here].argsort(descending=True, stable=True)[:count]]] = True
    return taken
