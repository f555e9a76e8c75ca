"""Both domains standardised by what the source shows: where nothing, or the shares of the classes alone, differs."""

from __future__ import annotations

from torch import Tensor

from headstart.core.types import Form
from headstart.methods.domain.ground import Ground, Labelled, joint, standard


def as_is(source: Labelled, target: Tensor, *, form: Form, num_classes: int, seed: int) -> Ground:
    """Return the ground of source and target [m, D] on the source's standard (the target's own where it is gone)."""
    by_source = standard(source.features if len(source) else target)
    return joint(
        source, target, standards=(by_source, by_source), form=form, num_classes=num_classes, seed=seed
    )
