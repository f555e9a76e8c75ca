"""What a look at a shift and an adaptation come to, as values that the page, the JSON and the terminal say."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

from pydantic import TypeAdapter

from headstart.adaptation.shift import Kind, Shift
from headstart.adaptation.views import Estimate, View

Point = tuple[float, float]
WARNED, WARNED_APART = 0.15, 0.6
"""Share of the target unlike every class from which on a warning is given, and where the whole target looks different:
there, 0.38 and 0.53 of paintings were unlike the classes of photographs although these were all that there are."""
LEAST_UNLIKE = 0.1
"""Share that the target must surpass beyond chance for that: twice what is expected where nothing is new."""
MOSTLY_APART = 0.85
"""Area under the ROC curve, with equal shares of the classes, from which on that holds."""


@dataclass(frozen=True)
class Typical:
    """Ids of the items that are most typical of each side, the surest first."""

    source: tuple[str, ...] = ()
    target: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measured:
    """A shift as numbers, as `headstart.adaptation.shift.Shift` has them, and what the kind implies in plain words."""

    kind: Kind
    implies: str
    area: float
    area_reweighted: float
    area_chance: float
    gap: float
    source_shares: tuple[float, ...]
    shares: tuple[float, ...]
    share_distance: float
    num_source: int
    num_target: int
    share_chance: float = 0.0

    @classmethod
    def of(cls, shift: Shift) -> Measured:
        """Return a shift as plain numbers."""
        values = {name: getattr(shift, name) for name in cls.__dataclass_fields__}
        shares = {name: tuple(map(float, values[name])) for name in ("source_shares", "shares")}
        return cls(**{**values, **shares})


@dataclass(frozen=True)
class Sketch:
    """Both sides' items in two dimensions; `answers` are the class ids that the model gives the target's."""

    source: tuple[Point, ...]
    target: tuple[Point, ...]
    answers: tuple[int, ...]


@dataclass(frozen=True)
class Shifted:
    """What was found of a shift: `measured` is None where it could not be measured, which `notes` explain.

    `unlike` is the share of the `num_unseen` target items, those that are none of the source's own, that is unlike
    every class of the source; 0.05 are expected by chance.
    """

    title: str
    modality: str
    encoder: str
    labels: tuple[str, ...]
    num_source: int
    num_target: int
    measured: Measured | None
    classes: tuple[View, ...]
    domains: tuple[View, ...]
    typical: Typical
    unlike: float | None
    before: Sketch
    notes: tuple[str, ...]
    unreadable: tuple[tuple[str, str], ...]
    num_unseen: int = 0

    @property
    def has_moved(self) -> bool:
        """Whether the looks of the target, or of a part of it, are known to differ from the source's."""
        return self.measured is not None and self.measured.kind in ("appearance", "both", "mixed")

    @property
    def has_unknown(self) -> bool:
        """Whether so much of the target is unlike every class, chance aside, that it may hold unknown ones."""
        if self.unlike is None or not self.num_unseen:
            return False
        is_apart = self.measured is not None and self.measured.area_reweighted >= MOSTLY_APART
        error = math.sqrt(self.unlike * (1 - self.unlike) / self.num_unseen)
        surely = self.unlike - NormalDist().inv_cdf(0.95) * error
        return self.unlike >= (WARNED_APART if is_apart else WARNED) and surely >= LEAST_UNLIKE

    def to_json(self) -> str:
        """Return everything as JSON text."""
        return json.dumps({"format": 1, **asdict(self)}, indent=1, ensure_ascii=False)


@dataclass(frozen=True)
class Tried:
    """A candidate: why it could not be chosen (empty: it could), its votes, and how many answers it changes (0 to 1).

    `labelled` is how many of the labelled items it alone got right, and doing nothing alone.
    """

    name: str
    family: str
    objection: str
    votes: Mapping[str, float]
    changed: float
    seconds: float
    labelled: tuple[int, int] | None = None
    note: str = ""


@dataclass(frozen=True)
class ClassChange:
    """How often a class is: in the source (None: it is gone), in the model's answers before, and after."""

    name: str
    source: float | None
    before: float
    after: float


@dataclass(frozen=True)
class Asked:
    """An item of the target whose label would tell the candidates apart, why, and what the model says of it now.

    `text` is the item itself where it is one.
    """

    id: str
    why: str
    likely: str
    text: str = ""


@dataclass(frozen=True)
class Adaptation:
    """An adaptation: the shift, who was tried, who was chosen and why; `folder` holds the adapted model.

    `estimate` is None where the assumptions behind it fail, which `why_no_estimate` says.
    """

    shifted: Shifted
    chosen: str
    family: str
    reasons: tuple[str, ...]
    tried: tuple[Tried, ...]
    changes: tuple[ClassChange, ...]
    after: Sketch
    changed: float
    num_labels: int
    estimate: Estimate | None
    why_no_estimate: str
    asked: tuple[Asked, ...]
    notes: tuple[str, ...]
    folder: Path = field(default=Path(), compare=False)

    def to_json(self) -> str:
        """Return everything but places as JSON text."""
        kept = asdict(replace(self, folder=Path()))
        del kept["folder"]
        return json.dumps({"format": 1, **kept}, indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Adaptation:
        """Read what `to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        values.pop("format")
        return TypeAdapter(cls).validate_python(values)


def shift_lines(found: Shifted) -> list[tuple[str, str]]:
    """Say a shift in plain words, as (what, words)."""
    lines: list[tuple[str, str]] = []
    shift = found.measured
    if shift is not None:
        lines += [
            ("shift", f"{KIND_NAMES[shift.kind]}: {shift.implies}"),
            ("apart", f"{shift.area:.2f} (0.5: alike, 1: different throughout); "
             f"{shift.area_reweighted:.2f} with equal shares of the classes, {shift.area_chance:.2f} by chance"),
            ("gap", f"feature means lie {shift.gap:.2f} deviations apart on average"),
            ("shares", f"the classes' shares differ by {100 * shift.share_distance:.0f} points (total variation; "
             f"{100 * shift.share_chance:.0f} may come by chance)"),
        ]  # fmt: skip
    if found.has_unknown:
        lines.append(("warning", unlike_words(found)))
    return [*lines, *(("note", note) for note in found.notes)]


KIND_NAMES = {
    "none": "no shift",
    "label": "label shift",
    "appearance": "appearance shift",
    "both": "appearance and label shift",
    "mixed": "a mixed shift",
}


def unlike_words(found: Shifted) -> str:
    """Say how much of the target is unlike every class."""
    assert found.unlike is not None, "it is only said where it is known"
    return (
        f"{100 * found.unlike:.0f}% of the target lie further from every class than 95% of unseen source items do: "
        "it may hold classes that the source does not know, which no way of adapting can name"
    )
