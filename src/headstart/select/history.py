"""Recorded runs: what networks came to, frozen and fine-tuned, on data sets; shipped are runs of our own."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headstart.select.catalog import Entry


USUAL_SIDE = 224
"""Pixels a side, or tokens, that GMACs are compared at."""


@dataclass(frozen=True, slots=True)
class Run:
    """A network on a data set: its cross-validated frozen quality and its fine-tuned one on items never seen.

    `frozen_error` is the standard error of the former's difference to those of other networks on the same items, and
    `fine_tuned_error` that of the latter over training runs that differ in their seed; NaN stands for what was not
    measured.
    """

    model: str
    data: str
    fine_tuned: float
    frozen: float = math.nan
    frozen_error: float = 0.0
    n_train: int = 0
    n_test: int = 0
    fine_tuned_error: float = 0.0


@dataclass(frozen=True, slots=True)
class Traits:
    """What is known of a network without running it; the ImageNet score is NaN where none is reported.

    GMACs are those of an item of the usual size (USUAL_SIDE), so that networks compare whatever size they run at.
    """

    parameters_m: float
    gmacs: float
    imagenet: float = math.nan
    pretraining: str = ""

    @classmethod
    def of(cls, entry: Entry) -> Traits:
        """Take them from the catalog."""
        power = 2 if entry.modality == "image" else 1
        gmacs = entry.gmacs * (USUAL_SIDE / entry.input_side) ** power
        return cls(entry.parameters_m, gmacs, entry.scores.get("imagenet", math.nan), entry.pretraining)


@dataclass(frozen=True, slots=True)
class History:
    """Runs, and the traits of the networks that ran, by name."""

    runs: tuple[Run, ...] = ()
    traits: Mapping[str, Traits] = field(default_factory=dict[str, Traits])

    @property
    def num_sets(self) -> int:
        """Data sets that runs were recorded on."""
        return len({run.data for run in self.runs})

    def without(self, data: str) -> History:
        """Return what is left without one data set."""
        return History(tuple(run for run in self.runs if run.data != data), self.traits)


def shipped(modality: str, task: str) -> History:
    """Return the runs of our own for a kind of input and task; none where none were made."""
    text = files("headstart.select").joinpath("facts/history.json").read_text(encoding="utf-8")
    return read(json.loads(text), modality, task)


def read(values: Mapping[str, Any], modality: str, task: str) -> History:
    """Read the runs for a kind of input and task from a file's values: its `networks` and its `runs` by column."""
    columns: list[str] = values["columns"]
    rows = [dict(zip(columns, row, strict=True)) for row in values["runs"]]
    runs = tuple(
        Run(**{name: value for name, value in row.items() if name not in ("modality", "task")})
        for row in rows
        if (row["modality"], row["task"]) == (modality, task)
    )
    ran = {run.model for run in runs}
    traits = {name: Traits(**values["networks"][name]) for name in sorted(ran)}
    return History(runs, traits)
