"""The shift meter: does the target differ from the source, in the shares of its classes, in its looks, or in both?

A domain classifier is asked to tell source from target items by their features. Its cross-validated area under the ROC
curve is 0.5 where nothing differs and 1 where everything does. Asked again after the source was drawn anew with the
class shares that EM finds in the target, it falls back to 0.5 where these shares were all that differed. Between two
halves of the source it says what chance alone would give.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from headstart.methods.domain.prior import LEAST, em_shares

Kind = Literal["none", "label", "appearance", "both", "mixed"]
FOLDS = 4
MOST = 1000
"""Items of a domain that the classifier sees."""
FIRMNESS = 0.1
"""Penalty of the classifier, as a share of the total variance: firm, or any two small sets could be told apart."""
APART = 0.95
"""From this area on, with the shares of the classes made equal, the domains look different throughout."""
ALIKE = 0.1
"""What lies no more than this above chance looks alike."""
OTHER_SHARES = 0.1
"""Total variation between the shares of the classes from which on they are other ones, unless chance gives as much."""
BY_CHANCE, DRAWS = 0.95, 400
"""Quantile, and draws, of the total variation between two samples of the same shares."""
SWALLOWED = 0.72
"""From this total variation on, under another appearance, nothing tells true shares from a head that is misled."""
IMPLIES: dict[Kind, str] = {
    "none": "the target looks like the source: the model can be used as it is",
    "label": "the classes occur in other shares, each looking as before: answers are corrected for the shares",
    "appearance": "the whole target looks different: the domains are aligned, unless the shares of the classes may "
    "have changed too; then the head trains itself on as it is",
    "both": "the target looks different, and the model sees quite other shares of the classes in it: only labels can "
    "tell whether it is right about these, so nothing is changed without some",
    "mixed": "some items or classes look different, not the whole: aligning the domains would harm, so the head trains "
    "itself on as it is",
}


@dataclass(frozen=True)
class Shift:
    """What was measured between source and target; areas are under the ROC curve of a domain classifier.

    `area` as they are, `area_reweighted` with the class shares of the source made those of the target, `area_chance`
    between halves of the source, none below 0.5; `gap` the mean difference of the columns' means in deviations of the
    source; `source_shares`, `shares` [C] of the classes, `share_distance` their total variation (0 to 1), and
    `share_chance` what so few items reach by chance alone (19 times in 20 they stay below).
    """

    kind: Kind
    area: float
    area_reweighted: float
    area_chance: float
    gap: float
    source_shares: np.ndarray
    shares: np.ndarray
    share_distance: float
    share_chance: float
    num_source: int
    num_target: int

    @property
    def implies(self) -> str:
        """Say what the kind of shift means for the model."""
        return IMPLIES[self.kind]


def measure_shift(
    source: np.ndarray,
    truth: np.ndarray,
    target: np.ndarray,
    said: np.ndarray,
    *,
    groups: Sequence[str] = (),
    seed: int = 0,
) -> Shift:
    """Measure the shift between source features [n, D] of class ids `truth` [n] and target features [m, D].

    `said` [m, C] are the model's calibrated probabilities for the target; items of one of the `groups` [n] stay in one
    fold.
    """
    deviation = source.std(0)
    scale = 1 / np.maximum(deviation, 0.5 * np.median(deviation) + 1e-12)
    ours, theirs = (source - source.mean(0)) * scale, (target - source.mean(0)) * scale
    num_classes = said.shape[1]
    source_shares = np.bincount(truth, minlength=num_classes) / len(truth)
    shares = em_shares(said.astype(np.float64), source_shares)
    weights = (shares / np.maximum(source_shares, LEAST))[truth]
    names = np.unique(list(groups) or np.arange(len(truth)).astype(str), return_inverse=True)[1]
    draw = np.random.default_rng(seed)
    area = domain_area(ours, theirs, names, draw)
    reweighted = domain_area(ours, theirs, names, draw, weights=weights)
    half = draw.permutation(names.max() + 1)[names] % 2 == 0
    chance = (
        domain_area(ours[half], ours[~half], names[half], draw) if min(half.sum(), (~half).sum()) > 1 else 0.5
    )
    distance = float(np.abs(shares - source_shares).sum() / 2)
    share_chance = _distance_by_chance(source_shares, (len(source), len(target)), draw)
    return Shift(
        _kind(reweighted, chance, distance, share_chance),
        area,
        reweighted,
        chance,
        float(np.abs(theirs.mean(0)).mean()),
        source_shares,
        shares,
        distance,
        share_chance,
        len(source),
        len(target),
    )


def _distance_by_chance(shares: np.ndarray, counts: tuple[int, int], draw: np.random.Generator) -> float:
    """Return the total variation that two samples of so many items of the same shares [C] seldom exceed."""
    first, second = (draw.multinomial(count, shares, DRAWS) / count for count in counts)
    return float(np.quantile(np.abs(first - second).sum(1) / 2, BY_CHANCE))


def _kind(reweighted: float, chance: float, distance: float, share_chance: float) -> Kind:
    """Name the kind of shift."""
    if reweighted >= APART:
        return "both" if distance >= SWALLOWED else "appearance"
    if reweighted - chance > ALIKE:
        return "mixed"
    return "label" if distance > max(OTHER_SHARES, share_chance) else "none"


def domain_area(
    source: np.ndarray,
    target: np.ndarray,
    names: np.ndarray,
    draw: np.random.Generator,
    *,
    weights: np.ndarray | None = None,
) -> float:
    """Return the cross-validated area under the curve (0.5 at least) of a ridge classifier of the domain.

    It sees as many items of each; items of one name, and an item that was drawn several times, share a fold.
    """
    count = min(len(source), len(target), MOST)
    chances = None if weights is None else weights / weights.sum()
    chosen = draw.choice(len(source), count, replace=weights is not None, p=chances)
    others = draw.choice(len(target), count, replace=False)
    fold = np.concatenate(
        [draw.integers(0, FOLDS, int(names.max()) + 1)[names[chosen]], draw.permutation(count) % FOLDS]
    )
    points = np.concatenate([source[chosen], target[others]]).astype(np.float64)
    is_target = np.repeat([0.0, 1.0], count)
    scores = np.zeros(2 * count)
    for part in range(FOLDS):
        seen = fold != part
        if not seen.any() or seen.all():
            continue
        scores[~seen] = ridge(points[seen], is_target[seen], points[~seen])
    return max(0.5, _roc(scores, is_target == 1))  # Less than chance says no more than chance.


def ridge(points: np.ndarray, goal: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return what ridge regression of a goal [n] on points [n, D] says of others [k, D], by the smaller system."""
    centre = points.mean(0)
    centred = points - centre
    gram = centred @ centred.T
    penalty = FIRMNESS * max(float(gram.trace()) / len(points), 1e-12) * len(points)
    weights = np.linalg.solve(gram + penalty * np.eye(len(points)), goal - goal.mean())
    return (others - centre) @ (centred.T @ weights) + goal.mean()


def _roc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Return the area under the ROC curve, ties counting half."""
    values, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    num_positive = int(positive.sum())
    num_negative = len(scores) - num_positive
    if not len(values) or not num_positive or not num_negative:
        return 0.5
    return float(
        (ranks[places][positive].sum() - num_positive * (num_positive + 1) / 2)
        / (num_positive * num_negative)
    )
