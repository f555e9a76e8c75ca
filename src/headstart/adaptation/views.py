"""Closer looks at a shift: class by class, domain by domain, the items most typical of each side, and what is new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.adaptation.shift import MOST, domain_area, ridge
from headstart.adaptation.sides import FEW, Side

AXES = 64
"""Axes of the source in which distances to classes are taken."""
TYPICAL = 8
"""Items of each side that are shown."""
KNOWN = 0.95
"""Share of unseen source items that counts as like a class: what lies further off than that is unlike all of them."""


@dataclass(frozen=True)
class View:
    """A part of a shift: source items of a class (or all) against target items said to be of it (or of a domain).

    `area` is under the ROC curve of a domain classifier, `gap` the mean difference of the columns' means in source
    deviations; both None where either side has fewer items than can be told apart.
    """

    name: str
    num_source: int
    num_target: int
    area: float | None
    gap: float | None


@dataclass(frozen=True)
class Points:
    """Both sides' features as standard numbers of the source: what every view looks at."""

    source: np.ndarray
    target: np.ndarray


def points_of(source: Side, target: Side) -> Points:
    """Standardise both sides by the source's means and deviations; nearly dead columns are not stretched."""
    mean, deviation = source.features.mean(0), source.features.std(0)
    scale = 1 / np.maximum(deviation, 0.5 * np.median(deviation) + 1e-12)
    return Points((source.features - mean) * scale, (target.features - mean) * scale)


def class_views(
    points: Points, truth: np.ndarray, answers: np.ndarray, labels: Sequence[str], *, seed: int = 0
) -> tuple[View, ...]:
    """Return for each class its source items against the target items that the model calls so (`answers` [m])."""
    return tuple(
        _view(name, points.source[truth == number], points.target[answers == number], seed=seed)
        for number, name in enumerate(labels)
    )


def domain_views(points: Points, target: Side, *, seed: int = 0) -> tuple[View, ...]:
    """Return for each domain of the target, where its data name several, all of the source against it."""
    domains = np.array(target.dataset.domains)
    names = sorted(set(target.dataset.domains))
    if len(names) < 2:
        return ()
    return tuple(
        _view(name or "(none)", points.source, points.target[domains == name], seed=seed) for name in names
    )


def _view(name: str, source: np.ndarray, target: np.ndarray, *, seed: int) -> View:
    """Measure a part."""
    if min(len(source), len(target)) < FEW:
        return View(name, len(source), len(target), None, None)
    draw = np.random.default_rng(seed)
    area = domain_area(source, target, np.arange(len(source)), draw)
    gap = float(np.abs(target.mean(0) - source.mean(0)).mean())
    return View(name, len(source), len(target), area, gap)


def typical(points: Points, *, seed: int = 0) -> tuple[list[int], list[int]]:
    """Return the rows most typical of the source and of the target: those that a domain classifier is surest of."""
    draw = np.random.default_rng(seed)
    parts = (points.source, points.target)
    chosen = [draw.permutation(len(part))[:MOST] for part in parts]
    seen = np.concatenate([part[rows] for part, rows in zip(parts, chosen, strict=True)]).astype(np.float64)
    goal = np.repeat([0.0, 1.0], [len(rows) for rows in chosen])
    source, target = (ridge(seen, goal, part.astype(np.float64)) for part in parts)
    return (
        [int(row) for row in np.argsort(source, kind="stable")[:TYPICAL]],
        [int(row) for row in np.argsort(-target, kind="stable")[:TYPICAL]],
    )


def unlike_every_class(
    points: Points, truth: np.ndarray, *, own_mean: bool, unseen: np.ndarray | None = None, seed: int = 0
) -> float | None:
    """Return the share of target items further from every class than 19 of 20 unseen source items are from theirs.

    Of the target only the rows `unseen` count, where they are given: items of the source are no unseen ones.

    Distances are by Mahalanobis to class means, which half of the source gives and the other half calibrates. Where the
    whole target looks different (`own_mean`) it is standardised by itself first, or everything would be far. None where
    there are too few items.
    """
    order = np.random.default_rng(seed).permutation(len(truth))
    half = np.zeros(len(truth), bool)
    half[order[: len(order) // 2]] = True
    known = np.intersect1d(truth[half], truth[~half])
    counted = np.arange(len(points.target)) if unseen is None else unseen
    if len(known) < 2 or len(truth) < 10 * len(known) or len(counted) < FEW:
        return None
    is_own = half & np.isin(truth, known)
    target = points.target
    if own_mean:
        target = (target - target.mean(0)) / np.maximum(target.std(0), 0.5 * np.median(target.std(0)) + 1e-12)
    space = _within(points.source[is_own], truth[is_own])
    limit = np.quantile(space.nearest(points.source[~half & np.isin(truth, known)]), KNOWN)
    return float((space.nearest(target[counted]) > limit).mean())


@dataclass(frozen=True)
class _Within:
    """Class means [K, r] in axes [D, r] that are stretched such that classes vary by one along each."""

    axes: np.ndarray
    means: np.ndarray

    def nearest(self, points: np.ndarray) -> np.ndarray:
        """Return the squared distance [n] of each point [n, D] to the nearest mean, by Mahalanobis."""
        placed = points @ self.axes
        cross = placed @ self.means.T
        return ((placed**2).sum(1)[:, None] - 2 * cross + (self.means**2).sum(1)).min(1)


def _within(points: np.ndarray, truth: np.ndarray) -> _Within:
    """Return the space of distances to class means, over the axes along which points vary most.

    The covariance inside the classes is shrunk towards its mean variance, as some hundred points cannot tell it (Lee
    et al. 2018, arXiv 1807.03888, use such distances to tell what is out of distribution).
    """
    centred = (points - points.mean(0))[:MOST]
    axes = np.linalg.svd(centred, full_matrices=False)[2][:AXES].T
    placed = points @ axes
    kinds, place = np.unique(truth, return_inverse=True)
    means = np.stack([placed[place == number].mean(0) for number in range(len(kinds))])
    covariance = np.cov((placed - means[place]).T).reshape(axes.shape[1], -1)
    size = float(covariance.trace()) / len(covariance)
    share = min(1.0, len(covariance) / len(points))
    values, vectors = np.linalg.eigh(
        (1 - share) * covariance + (share * size + 1e-9) * np.eye(len(covariance))
    )
    stretched = vectors / np.sqrt(np.maximum(values, 1e-9))
    return _Within(axes @ stretched, means @ stretched)


@dataclass(frozen=True)
class Estimate:
    """An estimated target accuracy, an upper bound in practice, with a 95 % band (all 0 to 1)."""

    value: float
    low: float
    high: float


def estimated_accuracy(
    known: np.ndarray, truth: np.ndarray, said: np.ndarray, *, seed: int = 0, draws: int = 400
) -> Estimate | None:
    """Estimate the accuracy on the target by average thresholded confidence (Garg et al. 2022, arXiv 2201.04234).

    `known` [k, C] are probabilities for held-out source items of class ids `truth` [k], `said` [m, C] those for the
    target. The confidence above which as many held-out items lie as are right is found, and the share of target items
    above it returned. For the band the held-out items are drawn anew, and both shares from what so many items allow
    them to be (Jeffreys): all right of a few is no certainty. None where fewer than 20 items are held out.
    """
    if len(truth) < 20 or not len(said):
        return None
    right, ours, theirs = known.argmax(1) == truth, known.max(1), said.max(1)
    draw = np.random.default_rng(seed)

    def above(held: np.ndarray, accuracy: float) -> int:
        return int((theirs >= np.quantile(ours[held], 1 - accuracy, method="lower")).sum())

    def likely(count: int, total: int) -> float:
        return float(draw.beta(count + 0.5, total - count + 0.5))

    found = [
        likely(
            above(draw.integers(0, len(truth), len(truth)), likely(int(right.sum()), len(truth))), len(said)
        )
        for _ in range(draws)
    ]
    low, high = np.quantile(found, (0.025, 0.975))
    value = above(np.arange(len(truth)), float(right.mean())) / len(said)
    return Estimate(value, min(value, float(low)), max(value, float(high)))
