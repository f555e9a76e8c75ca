"""Folds for cross-validation: stratified by class, decided by the seed, groups kept together."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np


def assign_folds(targets: Sequence[int], groups: Sequence[str], *, folds: int, seed: int) -> np.ndarray:
    """Return the fold 0..folds-1 of each item [n]; items of one non-empty group share theirs.

    Fewer folds are used where the smallest class has fewer groups than folds (never fewer than two).
    """
    names = [group or f"\0{index}" for index, group in enumerate(groups)]
    members: defaultdict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(names):
        members[name].append(index)
    holders = Counter(target for rows in members.values() for target in {targets[row] for row in rows})
    folds = max(2, min(folds, min(holders.values())))
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
