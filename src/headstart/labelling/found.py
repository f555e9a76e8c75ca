"""What looking through the labels of some data came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from headstart.core.types import Finding, Target

Way = Literal["coverage", "uncertainty", ""]
"""How the next items were chosen; empty where there were none to choose."""


@dataclass(frozen=True, slots=True)
class WrongLabel:
    """An item whose label is likely wrong; probabilities (0 to 1) are those of a head that had not seen the item.

    For a number to predict, `suggested` is the prediction, `p_given` is None, and `probability` says how far off the
    number is, in robust standard deviations.
    """

    id: str
    given: Target
    suggested: Target
    probability: float
    p_given: float | None


@dataclass(frozen=True, slots=True)
class NextLabel:
    """An item worth labelling next, why, and what a head trained on the labels so far would say (None: none could)."""

    id: str
    why: str
    likely: Target | None = None
    probability: float | None = None


@dataclass(frozen=True)
class LabelReport:
    """Likely wrong labels, the surest first, and the next items worth labelling, the most useful first.

    `num_labelled` and `num_unlabelled` count readable items; `folder` holds the page and the tables once they are
    written, `inputs` what the page shows of the items.
    """

    task: str
    modality: str
    encoder: str
    labels: tuple[str, ...]
    num_labelled: int
    num_unlabelled: int
    has_looked: bool
    """Whether there were labels enough to look for wrong ones."""
    wrong: tuple[WrongLabel, ...]
    next: tuple[NextLabel, ...]
    way: Way
    head: str
    quality: float | None
    standard_error: float | None
    notes: tuple[str, ...]
    findings: tuple[Finding, ...]
    num_encoded: int
    num_stored: int
    inputs: Mapping[str, Any] = field(default_factory=dict, repr=False)
    folder: Path | None = None
