"""Each domain standardised by itself: the statistics of BatchNorm adapted to the domain, on features.

z = (f - mean_d) / deviation_d, column by column, d the domain of the item (Li et al. 2017, Revisiting batch
normalization for practical domain adaptation, arXiv 1603.04779). Takes away what a camera, scanner or the hour of the
day does to every picture alike. Where the classes occur in other shares it takes that away too, and harms.
"""

from __future__ import annotations

from torch import Tensor

from headstart.core.types import Form
from headstart.methods.domain.ground import Ground, Labelled, joint, standard


def standardise(source: Labelled, target: Tensor, *, form: Form, num_classes: int, seed: int) -> Ground:
    """Return the ground of source and target [m, D], each on its own standard."""
    own = (standard(source.features), standard(target))
    return joint(source, target, standards=own, form=form, num_classes=num_classes, seed=seed)
