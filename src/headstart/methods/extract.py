"""Feature extraction: a frozen network, cached features, the best of several cheap heads by cross-validation."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Protocol

import numpy as np
import torch
from torch import nn

from headstart.core.errors import PlanError, TrainingError
from headstart.core.settings import Extract
from headstart.core.types import Form
from headstart.methods.heads import knn, logistic, prototype, ridge
from headstart.methods.heads.folds import folds_of
from headstart.methods.heads.rows import Link, Rows, Variant
from headstart.methods.heads.space import principal_space
from headstart.result import Candidate
from headstart.train.runtime import Context, Event

VERSION = 1
"""Version of the heads' numbers; bump when they move."""
SOLVERS: Mapping[str, ModuleType] = {
    "prototype": prototype,
    "knn": knn,
    "ridge": ridge,
    "logistic": logistic,
}
"""Cheapest first; each has `LINKS`, what it can fit, and `variants(rows)`."""
FORM_NAMES: Mapping[str, str] = {
    "pooled": "final features",
    "depths": "several depths",
    "layers": "mean of all layers",
    "sequence": "word features",
}
MAX_RACED = 10_000
"""Items that race heads; the winner is fitted on all."""
MAX_REMEMBERED = 20_000
"""kNN carries its training items, so it races only up to this many."""


class RaceTask(Protocol):
    """What a race asks of a task."""

    @property
    def link(self) -> Link:
        """What turns outputs into answers."""
        ...

    @property
    def labels(self) -> Sequence[str]:
        """Names of the outputs; empty for a number."""
        ...

    def measure(
        self, outputs: np.ndarray, targets: np.ndarray, items: np.ndarray | None = None
    ) -> tuple[float, float, float]:
        """Return quality, its standard error and the loss of outputs [n, C] for encoded targets of rows [n].

        Where rows are the words of texts, `items` [n] says of which, rising.
        """
        ...


@dataclass(frozen=True)
class Extracted:
    """The race, the head that won it, and its outputs [n, C] for the rows `held_out` [n], not seen at that time."""

    head: nn.Module
    race: tuple[Candidate, ...]
    held_out: np.ndarray
    held_out_logits: np.ndarray


@dataclass(frozen=True)
class _Data:
    """What races: targets [n, ...], the fold [n] and the item [n] of each row, and its features by form and view."""

    features: Mapping[Form, Sequence[np.ndarray]]
    targets: np.ndarray
    fold: np.ndarray
    items: np.ndarray | None
    task: RaceTask

    def rows(self, form: Form, chosen: np.ndarray) -> Rows:
        """Standardise and rotate the chosen rows' views, and repeat targets and folds for each view."""
        views = self.features[form]
        stacked = torch.from_numpy(np.concatenate([view[chosen] for view in views]))
        if not torch.isfinite(stacked).all():
            raise TrainingError(
                f"the network gives values that are not finite ({form} features)",
                expected="finite features for every item",
                fix="check the weights and the input contract (mean, std) of this encoder",
            )
        targets = torch.from_numpy(self.targets[chosen])
        if self.task.link == "identity":
            targets = targets[:, None]
        return Rows(
            principal_space(stacked, form),
            targets.repeat(len(views), *[1] * (targets.dim() - 1)),
            torch.from_numpy(self.fold[chosen]).repeat(len(views)),
            len(self.task.labels) or 1,
            len(chosen),
            self.task.link,
        )


def extract(
    features: Mapping[Form, Sequence[np.ndarray]],
    targets: np.ndarray,
    groups: Sequence[str],
    *,
    task: RaceTask,
    settings: Extract,
    context: Context,
    items: np.ndarray | None = None,
) -> Extracted:
    """Race heads on cached features and return the best, fitted on all rows.

    `features[form]` holds one array [n, D] a view, the first of the inputs themselves; `targets` are what the task
    encodes (class ids [n], shares [n, C] or numbers [n]) and `groups` [n] what must not be split. The highest
    cross-validated quality wins, the loss breaks ties. Where rows are the words of texts, `items` [n] says of which
    text, rising: texts stay whole in folds, and quality is that of whole texts.
    """
    fold = folds_of(targets, groups, items, link=task.link, folds=settings.folds, seed=context.seed)
    data = _Data(features, targets, fold, items, task)
    raced = _raced(len(targets), context.seed, items)
    rows: dict[Form, Rows] = {}
    entries: list[_Entry] = []
    stages = _solvers(settings, task.link, len(targets))
    for done, name in enumerate(stages):
        # The dearest solver runs where the cheaper ones found most.
        chosen = (max(entries, key=_rank).form,) if name == "logistic" and entries else tuple(features)
        for form in chosen:
            context.progress(Event("heads", done, len(stages), f"{name} on {FORM_NAMES[form]}"))
            if form not in rows:
                rows[form] = data.rows(form, raced)
            entries += _entries(SOLVERS[name], rows[form], data, raced)
    context.progress(Event("heads", len(stages), len(stages)))
    best = max(entries, key=_rank)
    complete = len(raced) == len(targets)
    head = best.variant.fit(rows[best.form] if complete else data.rows(best.form, np.arange(len(targets))))
    race = tuple(replace(entry.candidate, chosen=entry is best) for entry in entries)
    return Extracted(head, race, raced, best.variant.logits.numpy())


def _solvers(settings: Extract, link: Link, count: int) -> list[str]:
    """Return the solvers that race: those asked for that can fit this link and remember this many rows."""
    able = [name for name, solver in SOLVERS.items() if link in solver.LINKS]
    chosen = [name for name in able if name in settings.heads and (name != "knn" or count <= MAX_REMEMBERED)]
    if not chosen:
        raise PlanError(
            f"none of the heads {', '.join(settings.heads)} suits this task and {count} rows",
            expected=f"one of {', '.join(able)} (knn up to {MAX_REMEMBERED} rows)",
            fix="leave extract.heads out",
        )
    return chosen


@dataclass(frozen=True)
class _Entry:
    """A variant in the race with its score."""

    candidate: Candidate
    variant: Variant
    form: Form


def _rank(entry: _Entry) -> tuple[float, float]:
    """Order entries: quality, then loss."""
    return entry.candidate.score, -entry.candidate.log_loss


def _entries(solver: ModuleType, rows: Rows, data: _Data, raced: np.ndarray) -> list[_Entry]:
    """Run a solver and score its variants."""
    form, started = rows.space.form, time.perf_counter()
    variants = solver.variants(rows)
    seconds = (time.perf_counter() - started) / len(variants)
    targets, items = data.targets[raced], None if data.items is None else data.items[raced]
    entries: list[_Entry] = []
    for variant in variants:
        quality, error, loss = data.task.measure(variant.logits.numpy(), targets, items)
        name = f"{variant.name} ({FORM_NAMES[form]})"
        entries.append(_Entry(Candidate(name, quality, error, loss, seconds), variant, form))
    return entries


def _raced(count: int, seed: int, items: np.ndarray | None) -> np.ndarray:
    """Return the rows that race: all, or those of a seeded sample of about MAX_RACED; the words of a text together."""
    if count <= MAX_RACED:
        return np.arange(count)
    draws = np.random.default_rng(seed)
    if items is None:
        return np.sort(draws.choice(count, MAX_RACED, replace=False))
    num_items = int(items[-1]) + 1
    wanted = max(2, num_items * MAX_RACED // count)
    return np.flatnonzero(np.isin(items, draws.choice(num_items, wanted, replace=False)))
