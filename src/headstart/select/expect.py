"""What fine-tuning should come to: prior and probe combined, what training adds, and an interval from recorded runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from headstart.select.history import History, Run, Traits
from headstart.select.prior import Posterior, Prior, combine, discrepancy_of, prior, scale_of

FEWEST_SETS = 4
"""Data sets that runs must be recorded on before anything is said of fine-tuned quality."""
CONFIDENCE = 0.9
"""Of every interval here."""
USUAL_SPREAD = 0.05
"""Standard deviation of frozen qualities over networks before any run is recorded."""
FAR = 4
"""Recorded runs say nothing of so many times more, or fewer, training items than theirs."""
RIDGE = 0.2
"""Shrinks what training adds towards nothing: as much as runs would whose squared gaps to 1 sum up to this."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """An expected quality with its 90 % interval, and the number of items that it was measured on."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Expected:
    """The fine-tuned quality that each network [M] should reach, and the prior and posterior that it comes from."""

    quality: np.ndarray
    known: Prior
    posterior: Posterior


@dataclass(frozen=True, slots=True)
class Reach:
    """How far fine-tuned qualities lay below and above what was expected, in units of `_unit`, over recorded runs."""

    below: float
    above: float
    num_runs: int
    num_sets: int
    items: tuple[int, int] = (0, 0)
    """The fewest and the most training items of a recorded run."""

    def covers(self, n_train: int) -> bool:
        """Tell whether so many training items are near enough to those of the runs for these to say anything."""
        return self.items[0] <= FAR * n_train and n_train <= FAR * self.items[1]

    def around(self, value: float, n: int) -> Estimate:
        """Return an expected quality with its interval."""
        unit = float(_unit(np.array(value)))
        low = value + self.below * unit
        return Estimate(value, min(value, max(0.0, low)), min(1.0, value + self.above * unit), n)


def expected(
    traits: Mapping[str, Traits], quality: np.ndarray, error: np.ndarray, *, history: History
) -> Expected:
    """Return what each network that `traits` names should come to, in its order.

    `quality` [M] is the probe's (NaN: not probed), `error` [M] the standard error of its difference to the others. What
    the prior moves is moved in units of the probe's own spread. Where nothing was probed, the recorded runs' mean
    stands for the level, or without any 0: the order is what counts then.
    """
    every = {**history.traits, **traits}
    places = [list(every).index(name) for name in traits]
    known = prior(every, history.runs).at(places)
    discrepancy, spread = discrepancy_of(history.traits, history.runs), spread_of(history)
    posterior = combine(known, quality, error, discrepancy=discrepancy, spread=spread)
    probed = np.isfinite(quality)
    if probed.any():
        scale = scale_of(known, quality, error, discrepancy=discrepancy, spread=spread)
        shrunk = np.nanmean(quality) + scale * (posterior.mean - known.mean[probed].mean())
        top = min(float(shrunk[probed].max()), float(np.nanmax(quality)))
    else:
        runs = [run.frozen for run in history.runs if math.isfinite(run.frozen)]
        top = float(np.mean(runs)) if runs else 0.0
        shrunk = top + spread * posterior.mean
    frozen = _saturated(shrunk, top)
    return Expected(frozen + gain_of(history) * (1 - frozen), known, posterior)


def _saturated(quality: np.ndarray, top: float) -> np.ndarray:
    """Return qualities [M], of which those beyond `top`, the best that was measured, near 1 and never reach it."""
    gap = max(1 - top, 0.0)
    beyond = np.maximum(quality - top, 0.0)
    return np.minimum(quality, top) + gap * (1 - np.exp(-beyond / max(gap, 1e-9)))


def spread_of(history: History) -> float:
    """Return the usual standard deviation of frozen qualities over networks on a data set."""
    by_set: dict[str, list[float]] = {}
    for run in history.runs:
        if math.isfinite(run.frozen):
            by_set.setdefault(run.data, []).append(run.frozen)
    spreads = [float(np.std(row)) for row in by_set.values() if len(row) > 1]
    return math.sqrt((sum(one**2 for one in spreads) + USUAL_SPREAD**2) / (len(spreads) + 1))


def gain_of(history: History) -> float:
    """Return the share of a frozen quality's gap to 1 that fine-tuning closed in recorded runs, by ridge regression.

    0 without any runs.
    """
    runs = [run for run in history.runs if math.isfinite(run.frozen)]
    gap = np.array([1 - run.frozen for run in runs])
    added = np.array([run.fine_tuned - run.frozen for run in runs])
    return float(gap @ added / (gap @ gap + RIDGE))


def residuals(history: History) -> list[tuple[Run, float]]:
    """Return each recorded run with what it came to, beside what the other data sets' runs let expect of it."""
    found: list[tuple[Run, float]] = []
    for name in sorted({run.data for run in history.runs}):
        here = [run for run in history.runs if run.data == name and math.isfinite(run.frozen)]
        if not here:
            continue
        traits = {run.model: history.traits[run.model] for run in here}
        quality, error = (
            np.array([getattr(run, part) for run in here]) for part in ("frozen", "frozen_error")
        )
        others = history.without(name)
        values = expected(traits, quality, error, history=others).quality
        found += list(zip(here, values.tolist(), strict=True))
    return found


def reach_of(history: History) -> Reach | None:
    """Return how far off expectations were on data sets left out (split-conformal, Vovk et al. 2005).

    None where fewer than FEWEST_SETS data sets, or too few runs for the confidence, are recorded.
    """
    found = residuals(history)
    values = np.array([value for _, value in found])
    off = np.sort((np.array([run.fine_tuned for run, _ in found]) - values) / _unit(values))
    place = (len(off) + 1) * (1 - CONFIDENCE) / 2
    num_sets = len({run.data for run, _ in found})
    if num_sets < FEWEST_SETS or place < 1:
        return None
    # Between two runs where the place lies between: whole places promise more than was asked for.
    below, above = np.interp([place - 1, len(off) - place], np.arange(len(off)), off)
    items = [run.n_train for run, _ in found]
    return Reach(float(below), float(above), len(off), num_sets, (min(items), max(items)))


def _unit(values: np.ndarray) -> np.ndarray:
    """Return the deviation of one answer with this chance of being right: what qualities near 1 vary less by."""
    return np.sqrt(np.maximum(values * (1 - values), 0.01))
