"""The next items worth labelling: from the middle of what is not covered yet, later those that the head is unsure of.

Which of the two gains more turns with the number of labels (Hacohen et al., 2022): with few, a head does not know what
it does not know.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

MOST_CLUSTERS = 500
"""More clusters than that are too small to tell anything by (Hacohen et al., 2022)."""
EXACT_CLUSTERS = 50
"""More clusters than that are found on small batches (likewise)."""
TRIES = 10
"""Starts of the search for few clusters, of which the tightest counts: a bad one would leave out whole classes."""
FACTOR = 5
"""Of so many times as many unsure items as wanted, those at the centres of clusters are taken (Zhdanov, 2019)."""


@dataclass(frozen=True, slots=True)
class Pick:
    """A row that was chosen, and of how many items like it: its cluster's."""

    row: int
    size: int


def covering(
    points: np.ndarray, labelled: list[int], others: list[int], *, count: int, seed: int
) -> list[Pick]:
    """Return `count` of the rows `others`, one from each of the largest clusters with least labelled items.

    As TypiClust (Hacohen, Dekel and Weinshall, 2022, arXiv 2202.02794): `points` [n, D] of length one are divided into
    as many clusters as there will be labelled items; those without a label come first, the largest of them before the
    others. Of a cluster the item nearest to its centre is taken (Yuan, Lin and Boyd-Graber, 2020, arXiv 2010.09535):
    the densest place, which TypiClust takes, is often one phrase said again and again.
    """
    rows = np.array([*labelled, *others])
    is_open = np.arange(len(rows)) >= len(labelled)
    distance = _distances(points[rows], min(len(labelled) + count, MOST_CLUSTERS), seed)
    cluster = distance.argmin(1)
    num_clusters = distance.shape[1]
    sizes = np.bincount(cluster, minlength=num_clusters)
    held = np.bincount(cluster[~is_open], minlength=num_clusters)
    order = np.argsort(distance[np.arange(len(rows)), cluster], kind="stable")
    nearest: list[list[int]] = [[] for _ in range(num_clusters)]
    for place in order[is_open[order]]:
        nearest[cluster[place]].append(int(place))
    chosen: list[Pick] = []
    while len(chosen) < min(count, len(others)):
        left = [number for number, places in enumerate(nearest) if places]
        best = min(left, key=lambda number: (held[number], -sizes[number], number))
        chosen.append(Pick(int(rows[nearest[best].pop(0)]), int(sizes[best])))
        held[best] += 1
    return chosen


def unsure(points: np.ndarray, others: list[int], doubt: np.ndarray, *, count: int, seed: int) -> list[Pick]:
    """Return `count` of the rows `others`: those of most `doubt` [len(others)], dense and unlike one another.

    Diverse mini-batches (Zhdanov, 2019, arXiv 1901.05954): FACTOR times as many items of most doubt are divided into
    `count` clusters, each item weighing as much as its doubt, and the item nearest to each centre is taken.
    """
    order = np.argsort(-doubt, kind="stable")[: FACTOR * count]
    rows = np.array(others)[order]
    count = min(count, len(rows))
    if count == 0:
        return []
    distance = _distances(points[rows], min(count, MOST_CLUSTERS), seed, weights=doubt[order] + 1e-6)
    num_clusters = distance.shape[1]
    sizes = np.bincount(distance.argmin(1), minlength=num_clusters)
    left = np.ones(len(rows), bool)
    chosen: list[tuple[float, Pick]] = []
    for turn in range(count):
        number = turn % num_clusters
        place = int(np.where(left, distance[:, number], np.inf).argmin())
        left[place] = False
        chosen.append((float(doubt[order][place]), Pick(int(rows[place]), int(sizes[number]))))
    return [pick for _, pick in sorted(chosen, key=lambda pair: (-pair[0], pair[1].row))]


def margin(probabilities: np.ndarray) -> np.ndarray:
    """Return how little the most probable class leads [n], 0 (sure) to 1 (a tie) (Scheffer et al., 2001)."""
    if probabilities.shape[1] < 2:
        return np.zeros(len(probabilities))
    top = np.sort(probabilities, axis=1)
    return 1 - (top[:, -1] - top[:, -2])


def label_doubt(probabilities: np.ndarray) -> np.ndarray:
    """Return how close to one half the probabilities of an item's labels are on average [n], 0 (sure) to 1."""
    return (1 - np.abs(2 * probabilities - 1)).mean(1)


def _distances(points: np.ndarray, count: int, seed: int, *, weights: np.ndarray | None = None) -> np.ndarray:
    """Return each point's distance to the centres of up to `count` clusters [n, K], found by k-means."""
    from sklearn.cluster import KMeans, MiniBatchKMeans

    count = min(count, len(np.unique(points, axis=0)))
    is_exact = count <= EXACT_CLUSTERS or weights is not None
    kind: Any = KMeans if is_exact else MiniBatchKMeans
    tries = TRIES if count <= EXACT_CLUSTERS else 1
    return kind(count, n_init=tries, random_state=seed).fit(points, sample_weight=weights).transform(points)
