"""Each domain standardised by itself: the statistics of BatchNorm adapted to the domain, on features.

z = (f - mean_d) / deviation_d, column by column, d the domain of the item (Li et al. 2017, Revisiting batch
normalization for practical domain adaptation, arXiv 1603.04779). Takes away what a camera, scanner or the hour of the
day does to every picture alike. Where the classes occur in other shares it takes that away too, and harms, unless the
source items are weighted so that their classes have the shares of the target.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from headstart.core.types import Form
from headstart.methods.domain.ground import Ground, Labelled, joint, standard

LEAST_SHARE, MOST = 0.01, 20.0
"""A class that seems to be gone keeps this share; no item counts for more than so many."""


def standardise(source: Labelled, target: Tensor, *, form: Form, num_classes: int, seed: int) -> Ground:
    """Return the ground of source and target [m, D], each on its own standard."""
    own = (standard(source.features, source.weights), standard(target))
    return joint(source, target, standards=own, form=form, num_classes=num_classes, seed=seed)


def with_shares(source: Labelled, shares: Tensor) -> Labelled:
    """Return the source with weights by which its classes have these shares [C], n in all.

    A class that the source hardly has is not weighted up beyond MOST.
    """
    counts = torch.bincount(source.truth, minlength=len(shares)).float()
    wanted = (shares.float().clamp(min=LEAST_SHARE) * len(source) / counts.clamp(min=1)).clamp(max=MOST)
    weights = wanted[source.truth]
    return replace(source, weights=weights * len(source) / weights.sum())
