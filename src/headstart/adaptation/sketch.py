"""Both sides' features in two dimensions, before and after: along what tells the source's classes apart."""

from __future__ import annotations

import numpy as np

from headstart.adaptation.candidates import Candidate
from headstart.adaptation.outcome import Point, Sketch
from headstart.adaptation.sides import Side
from headstart.heads import LinearHead

SHOWN = 600
"""Items of a side that are drawn at most."""


def sketch(source: Side | None, target: Side, candidate: Candidate, *, seed: int = 0) -> Sketch:
    """Return where items lie as the candidate's head sees them: each side by the means and deviations it is seen by.

    The first two axes are those along which the class means of the source differ most, less what varies inside the
    classes (a shrunken linear discriminant analysis); without the source, those along which the target varies most.
    """
    features = target.features if candidate.features is None else candidate.features
    theirs = _seen(features, candidate, own=source is None)
    ours = None
    if source is not None:
        mean, deviation = source.features.mean(0), source.features.std(0)
        scale = 1 / np.maximum(deviation, 0.5 * np.median(deviation) + 1e-12)
        ours = (source.features - mean) * scale
        if not _has_own_standard(candidate):
            theirs = (features - mean) * scale
    if candidate.family == "trained" and candidate.features is not None:
        ours, theirs = None, _standard(features)  # The source's features by the new network are not at hand.
    axes = _axes(ours, source.targets if source is not None and ours is not None else None, theirs)
    draw = np.random.default_rng(seed)
    rows = np.sort(draw.permutation(len(theirs))[:SHOWN])
    answers = candidate.target.argmax(1)[rows]
    first: tuple[Point, ...] = ()
    if ours is not None:
        first = _points(ours[np.sort(draw.permutation(len(ours))[:SHOWN])] @ axes)
    return Sketch(first, _points(theirs[rows] @ axes), tuple(int(one) for one in answers))


def _has_own_standard(candidate: Candidate) -> bool:
    """Tell whether the candidate's head standardises the target otherwise than the source: both meet in the middle."""
    return candidate.name.startswith(("standardised", "recoloured"))


def _seen(features: np.ndarray, candidate: Candidate, *, own: bool) -> np.ndarray:
    """Return the target's features as a linear head of its own standard sees them."""
    head = candidate.model.head
    if not own and _has_own_standard(candidate) and isinstance(head, LinearHead):
        return (features - head.mean.numpy()) * head.scale.numpy()
    return _standard(features)


def _standard(features: np.ndarray) -> np.ndarray:
    """Standardise features by themselves."""
    deviation = features.std(0)
    return (features - features.mean(0)) / np.maximum(deviation, 0.5 * np.median(deviation) + 1e-12)


def _axes(ours: np.ndarray | None, truth: np.ndarray | None, theirs: np.ndarray) -> np.ndarray:
    """Return two axes [D, 2] of length one; zeros where features have one column or none varies."""
    points = theirs if ours is None else ours
    centred = points - points.mean(0)
    if ours is not None and truth is not None and len(np.unique(truth)) > 1:
        kinds = np.unique(truth)
        means = np.stack([points[truth == number].mean(0) for number in kinds])
        within = np.sqrt(
            np.mean([points[truth == number].var(0) for number in kinds], axis=0) + 0.25
        )  # Shrunken, as a class may have few items.
        between = (means - points.mean(0)) / within**2
        _, strengths, axes = np.linalg.svd(between, full_matrices=False)
        found = axes[strengths > 1e-6 * max(float(strengths[0]), 1e-12)][:2]
        if len(found) == 1:  # Two classes differ along one axis: the other is what varies most beside it.
            rest = centred - np.outer(centred @ found[0], found[0])
            found = np.stack([found[0], np.linalg.svd(rest[:2000], full_matrices=False)[2][0]])
        return found.T
    axes = np.linalg.svd(centred[:2000], full_matrices=False)[2][:2]
    return np.pad(axes, ((0, 2 - len(axes)), (0, 0))).T


def _points(rows: np.ndarray) -> tuple[Point, ...]:
    """Return rows [n, 2] as points."""
    return tuple((round(float(x), 3), round(float(y), 3)) for x, y in rows)
