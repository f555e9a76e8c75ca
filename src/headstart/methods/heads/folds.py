"""Folds for cross-validation: stratified by class, decided by the seed, groups kept together."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from headstart.methods.heads.rows import Link

RANGES = 10
"""Equally filled ranges of numbers that folds keep in proportion."""


def folds_of(
    targets: np.ndarray,
    groups: Sequence[str],
    items: np.ndarray | None,
    *,
    link: Link,
    folds: int,
    seed: int,
) -> np.ndarray:
    """Return the fold of each row [n], which rows of one group or of one item (`items` [n], rising) share.

    In proportion are classes, ranges of numbers, and the rarest label of an item or rarest class among its rows.
    """
    if link == "softmax" and items is None:
        return assign_folds(targets.tolist(), groups, folds=folds, seed=seed)
    if items is None:
        strata = _rarest_label(targets) if link == "sigmoid" else _range(targets)
        return assign_folds(strata.tolist(), groups, folds=folds, seed=seed, strict=False)
    _, starts, item = np.unique(items, return_index=True, return_inverse=True)
    rarity = np.argsort(np.argsort(np.bincount(targets), kind="stable"))
    strata = np.minimum.reduceat(rarity[targets], starts)
    names = [groups[int(start)] for start in starts]
    return assign_folds(strata.tolist(), names, folds=folds, seed=seed, strict=False)[item]


def _rarest_label(shares: np.ndarray) -> np.ndarray:
    """Return the rarest label of each item [n]; one more than the last where it has none."""
    order = np.argsort(shares.sum(0), kind="stable")
    held = shares[:, order] > 0.5
    return np.where(held.any(1), order[held.argmax(1)], shares.shape[1])


def _range(values: np.ndarray) -> np.ndarray:
    """Return in which equally filled range each number lies [n]."""
    edges = np.unique(np.quantile(values, np.arange(1, RANGES) / RANGES))
    return np.searchsorted(edges, values, "right")


def assign_folds(
    targets: Sequence[int], groups: Sequence[str], *, folds: int, seed: int, strict: bool = True
) -> np.ndarray:
    """Return the fold 0..folds-1 of each item [n]; items of one non-empty group share theirs.

    Fewer folds are used where there are fewer groups than folds or, with `strict`, where the smallest class has fewer
    (never fewer than two).
    """
    names = [group or f"\0{index}" for index, group in enumerate(groups)]
    members: defaultdict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(names):
        members[name].append(index)
    holders = Counter(target for rows in members.values() for target in {targets[row] for row in rows})
    folds = max(2, min(folds, min(holders.values()) if strict else len(members)))
    order = list(members.values())
    np.random.default_rng(seed).shuffle(order)
    order.sort(key=len, reverse=True)
    count = np.zeros((folds, max(targets) + 1))
    fold_of = np.zeros(len(targets), dtype=np.int64)
    for rows in order:
        classes = [targets[row] for row in rows]
        # The fold that has least of these classes; among equals, the smallest.
        load = count[:, classes].sum(1) + count.sum(1) / (count.sum() + 1)
        chosen = int(load.argmin())
        fold_of[rows] = chosen
        np.add.at(count[chosen], classes, 1)
    return fold_of
