"""Feature extraction: a frozen network, cached features, the best of several cheap heads by cross-validation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from headstart.core.errors import TrainingError
from headstart.core.settings import Extract
from headstart.core.types import Form
from headstart.methods.heads import knn, logistic, prototype, ridge
from headstart.methods.heads.folds import assign_folds
from headstart.methods.heads.rows import Rows, Variant
from headstart.methods.heads.space import principal_space
from headstart.result import Candidate
from headstart.train.runtime import Context, Event

VERSION = 1
"""Version of the heads' numbers; bump when they move."""
SOLVERS: Mapping[str, Callable[[Rows], list[Variant]]] = {
    "prototype": prototype.variants,
    "knn": knn.variants,
    "ridge": ridge.variants,
    "logistic": logistic.variants,
}
"""Cheapest first."""
FORM_NAMES: Mapping[str, str] = {"pooled": "final features", "depths": "several depths"}
MAX_RACED = 10_000
"""Items that race heads; the winner is fitted on all."""
MAX_REMEMBERED = 20_000
"""kNN carries its training items, so it races only up to this many."""


@dataclass(frozen=True)
class Extracted:
    """The race, the head that won it, and its logits [n, C] for the items `held_out` [n], not seen at that time."""

    head: nn.Module
    race: tuple[Candidate, ...]
    held_out: np.ndarray
    held_out_logits: np.ndarray


def extract(
    features: Mapping[Form, Sequence[np.ndarray]],
    targets: np.ndarray,
    groups: Sequence[str],
    *,
    num_classes: int,
    settings: Extract,
    context: Context,
) -> Extracted:
    """Race heads on cached features and return the best, fitted on all items.

    `features[form]` holds one array [n, D] a view, the first of the pictures themselves; `targets` [n] are class
    ids and `groups` [n] what must not be split. The highest cross-validated accuracy wins, log-loss breaks ties.
    """
    folds = assign_folds(targets.tolist(), groups, folds=settings.folds, seed=context.seed)
    raced = _raced(len(targets), context.seed)
    rows: dict[Form, Rows] = {}
    entries: list[_Entry] = []
    stages: list[tuple[str, tuple[Form, ...]]] = [
        (name, tuple(features)) for name in SOLVERS if name in settings.heads
    ]
    for done, (name, forms) in enumerate(stages):
        # The dearest solver runs where the cheaper ones found most.
        chosen = (max(entries, key=_rank).form,) if name == "logistic" and entries else forms
        for form in chosen:
            context.progress(Event("heads", done, len(stages), f"{name} on {FORM_NAMES[form]}"))
            if form not in rows:
                rows[form] = _rows(features[form], targets, folds, num_classes, form, raced)
            if name != "knn" or len(targets) <= MAX_REMEMBERED:
                entries += _entries(SOLVERS[name], rows[form], form)
    context.progress(Event("heads", len(stages), len(stages)))
    best = max(entries, key=_rank)
    variant, form = best.variant, best.form
    complete = len(raced) == len(targets)
    head = variant.fit() if complete else _refit(variant, features[form], targets, folds, num_classes, form)
    race = tuple(replace(entry.candidate, chosen=entry is best) for entry in entries)
    return Extracted(head, race, raced, variant.logits.numpy())


@dataclass(frozen=True)
class _Entry:
    """A variant in the race with its score."""

    candidate: Candidate
    variant: Variant
    form: Form


def _rank(entry: _Entry) -> tuple[float, float]:
    """Order entries: accuracy, then log-loss."""
    return entry.candidate.score, -entry.candidate.log_loss


def _entries(solver: Callable[[Rows], list[Variant]], rows: Rows, form: Form) -> list[_Entry]:
    """Run a solver and score its variants."""
    started = time.perf_counter()
    variants = solver(rows)
    seconds = (time.perf_counter() - started) / len(variants)
    truth = rows.targets[: rows.num_scored]
    return [_Entry(_candidate(variant, form, truth, seconds), variant, form) for variant in variants]


def _raced(count: int, seed: int) -> np.ndarray:
    """Return the indices that race: all, or a seeded sample of MAX_RACED."""
    if count <= MAX_RACED:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, MAX_RACED, replace=False))


def _rows(
    views: Sequence[np.ndarray],
    targets: np.ndarray,
    folds: np.ndarray,
    num_classes: int,
    form: Form,
    chosen: np.ndarray,
) -> Rows:
    """Standardise and rotate the chosen items' views, and repeat targets and folds for each view."""
    stacked = torch.from_numpy(np.concatenate([view[chosen] for view in views]))
    if not torch.isfinite(stacked).all():
        raise TrainingError(
            f"the network gives values that are not finite ({form} features)",
            expected="finite features for every picture",
            fix="check the weights and the input contract (mean, std) of this encoder",
        )
    return Rows(
        principal_space(stacked, form),
        torch.from_numpy(targets[chosen]).repeat(len(views)),
        torch.from_numpy(folds[chosen]).repeat(len(views)),
        num_classes,
        len(chosen),
    )


def _candidate(variant: Variant, form: Form, truth: Tensor, seconds: float) -> Candidate:
    """Score a variant's held-out logits."""
    accuracy = float((variant.logits.argmax(1) == truth).double().mean())
    error = math.sqrt(max(accuracy * (1 - accuracy), 0.25 / len(truth)) / len(truth))
    loss = float(nn.functional.cross_entropy(variant.logits.double(), truth))
    return Candidate(f"{variant.name} ({FORM_NAMES[form]})", accuracy, error, loss, seconds)


def _refit(
    winner: Variant,
    views: Sequence[np.ndarray],
    targets: np.ndarray,
    folds: np.ndarray,
    num_classes: int,
    form: Form,
) -> nn.Module:
    """Fit the winner of a sampled race on every item."""
    rows = _rows(views, targets, folds, num_classes, form, np.arange(len(targets)))
    solver = SOLVERS[winner.name.split(",")[0]]
    return next(variant for variant in solver(rows) if variant.name == winner.name).fit()
