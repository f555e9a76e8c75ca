"""What a proof comes to, as values that the page, the JSON and the terminal say."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

from pydantic import TypeAdapter

from headstart.core.types import Score

Verdict = Literal["worth it", "not worth it", "undecided"]


@dataclass(frozen=True)
class Budget:
    """A label budget: the share of the labels outside the test split, and how many of them train and validate."""

    share: float
    num_train: int
    num_validation: int

    @property
    def n(self) -> int:
        """Labels in all."""
        return self.num_train + self.num_validation


@dataclass(frozen=True)
class Lap:
    """Where training stood: seconds since it began, and the quality on validation items."""

    seconds: float
    quality: float


@dataclass(frozen=True)
class Scored:
    """One arm with one seed on one budget: its score on the test items, and what it was judged by before.

    `validation` is the quality on items that were not trained on, which may decide; the test `score` decides nothing.
    `heads_seconds` is the part of `seconds` in which heads raced. `is_tuned`: the network's own weights were changed.
    """

    arm: str
    seed: int
    budget: Budget
    score: float
    validation: float
    chosen: str
    seconds: float
    heads_seconds: float
    epochs: int
    laps: tuple[Lap, ...] = ()
    is_tuned: bool = False
    suspects: int = 0
    """Training labels that are likely wrong (confident learning), of the items on which heads raced."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Point:
    """The scores of an arm on one budget: their mean, and the least and the greatest of the seeds."""

    budget: Budget
    scores: tuple[float, ...]
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ArmFound:
    """An arm: its scores over budgets (the largest last), and over time on the largest.

    `seconds` is what one run on all labels takes, its share of encoding the items included; `validation` is the mean
    quality on items not trained on. `course` is the mean over seeds; `kept` says what was kept how often.
    """

    name: str
    title: str
    is_transfer: bool
    points: tuple[Point, ...]
    seconds: float
    validation: float
    epochs: int
    course: tuple[Lap, ...]
    kept: tuple[tuple[str, int], ...]

    @property
    def final(self) -> Point:
        """The scores on all labels."""
        return self.points[-1]


@dataclass(frozen=True)
class Difference:
    """How much better one arm answers the same test items than another on a budget, over items and seeds."""

    arm: str
    against: str
    budget: Budget
    num_seeds: int
    score: Score


@dataclass(frozen=True)
class Reached:
    """When an arm first reaches a score on validation items, on all labels; None: never within its time."""

    arm: str
    target: float
    seconds: float | None


@dataclass(frozen=True)
class Growth:
    """The power law of an arm's error over labels, a + b n^-c, and about how many labels a score takes.

    `labels`, `low`, `high` are None where that cannot be told; `words` says so, and why.
    """

    arm: str
    target: float
    floor: float
    factor: float
    power: float
    labels: float | None
    low: float | None
    high: float | None
    words: str


@dataclass(frozen=True)
class Cause:
    """A possible cause of a negative transfer: what was measured, whether that explains it, and what to change."""

    name: str
    is_likely: bool
    measured: str
    change: str


@dataclass(frozen=True)
class Proof:
    """What was proven of a network on some data; `verdict` rests on `deciding`, in the units of single items."""

    title: str
    task: str
    modality: str
    encoder: str
    quality: str
    num_items: int
    num_test: int
    num_seeds: int
    minutes: float
    seconds: float
    verdict: Verdict
    reason: str
    arms: tuple[ArmFound, ...]
    differences: tuple[Difference, ...]
    deciding: Difference | None
    reached: tuple[Reached, ...]
    growth: tuple[Growth, ...]
    negative: tuple[str, ...]
    causes: tuple[Cause, ...]
    cuts: tuple[str, ...]
    notes: tuple[str, ...]
    least_minutes: float | None = None
    """Minutes in which nothing would have been cut; None where nothing was."""

    def arm(self, name: str) -> ArmFound | None:
        """Return an arm by its name; None where it was cut."""
        return next((arm for arm in self.arms if arm.name == name), None)

    def to_json(self) -> str:
        """Return everything as JSON text."""
        return json.dumps({"format": 1, **asdict(self)}, indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Proof:
        """Read what `to_json` wrote."""
        values = json.loads(text)
        values.pop("format")
        return TypeAdapter(cls).validate_python(values)
