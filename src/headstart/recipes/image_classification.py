"""Which method suits so many pictures on such a machine, by what was measured (docs/benchmarks.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from headstart.core.settings import Extract, FineTune

FEW = 100
"""With fewer training items, cached augmented views gain more than the seconds they cost."""
VIEWS_OF_FEW = 4
MANY, FOLDS_OF_MANY = 1000, 3
"""With more training items, three folds rank heads as well as five."""
ENOUGH_TO_TUNE = 500
"""With fewer training items, fine-tuning seldom beats heads on features of several depths."""


@dataclass(frozen=True)
class Facts:
    """What a recipe needs to know: labelled items, classes, and whether a GPU computes."""

    num_items: int
    num_classes: int
    has_gpu: bool


def propose(
    facts: Facts, method: Literal["auto", "extract", "finetune"]
) -> tuple[Extract | FineTune, Extract | None]:
    """Return (method, the extraction that it starts from).

    `auto` extracts on a processor, and fine-tunes on a GPU where there is enough to learn from.
    """
    views = VIEWS_OF_FEW if facts.num_items < FEW else 1
    folds = FOLDS_OF_MANY if facts.num_items > MANY else 5
    extraction = Extract(views=views, folds=folds)
    tunes = method == "finetune" or (method == "auto" and facts.has_gpu and facts.num_items >= ENOUGH_TO_TUNE)
    if not tunes:
        return extraction, None
    return FineTune(), extraction.model_copy(update={"use_validation": False})
