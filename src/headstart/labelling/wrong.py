"""Labels that are likely wrong: confident learning on what heads say of items that they had not seen.

Northcutt, Jiang and Chuang (2021), arXiv 1911.00068, by the library cleanlab: it estimates how many labels are wrong
from how often a class is confidently taken for another, and the items whose own label is least probable are named.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, cast

import numpy as np

from headstart.core.errors import PlanError
from headstart.core.protocols import Task
from headstart.core.types import Target
from headstart.labelling.found import WrongLabel

FAR = 3.5
"""Robust standard deviations beyond which a number is unlike what its item looks like (Iglewicz and Hoaglin, 1993)."""
_PER_MEDIAN, _PER_MEAN = 1.4826, 1.2533
"""A normal distribution's standard deviation in median, and in mean, absolute deviations."""


def require_library() -> None:
    """Refuse at once where the libraries of this verb are not installed (PlanError)."""
    absent = [name for name in ("cleanlab", "sklearn") if find_spec(name) is None]
    if absent:
        raise PlanError(
            f"{' and '.join(absent)} not installed",
            expected="cleanlab and scikit-learn, which find wrong labels and choose the next ones",
            fix="pip install 'headstart[labels]'",
        )


def wrong_labels(task: Task, ids: list[str], targets: list[Target], held_out: np.ndarray) -> list[WrongLabel]:
    """Return the items whose target is likely wrong, the surest first.

    `held_out` are calibrated probabilities [n, C] of items that their head had not seen, or numbers [n].
    """
    if task.link == "identity":
        return _far_numbers(ids, targets, held_out)
    truth = task.encode(targets)
    if task.link == "sigmoid":
        return _wrong_sets(task, ids, targets, truth > 0.5, held_out)
    rows = np.arange(len(ids))
    best, given = held_out.argmax(1), held_out[rows, truth]
    order = [row for row in suspects(truth, held_out) if best[row] != truth[row]]
    return [
        WrongLabel(
            ids[row], targets[row], task.labels[best[row]], float(held_out[row].max()), float(given[row])
        )
        for row in order
    ]


def suspects(truth: np.ndarray, probabilities: np.ndarray) -> list[int]:
    """Return the rows whose class id is likely wrong, the least probable label first (Northcutt et al., 2021).

    `truth` [n] and held-out `probabilities` [n, C]. Of several ways to name as many items as confident learning counts
    wrong, taking those whose own label is least probable found the most planted errors (`benchmarks labels`).
    """
    from cleanlab.filter import find_label_issues

    found: Any = find_label_issues(
        truth,
        probabilities,
        filter_by="low_self_confidence",
        return_indices_ranked_by="self_confidence",
        n_jobs=1,
    )
    return [int(row) for row in found]


def _wrong_sets(
    task: Task, ids: list[str], targets: list[Target], truth: np.ndarray, held_out: np.ndarray
) -> list[WrongLabel]:
    """Look at each label by itself; an item's labels are as doubtful as the worst of them."""
    flips: dict[int, list[int]] = {}
    for column in range(truth.shape[1]):
        yes = held_out[:, column]
        if truth[:, column].any() and not truth[:, column].all():
            ids_of = truth[:, column].astype(np.int64)
            for row in suspects(ids_of, np.stack([1 - yes, yes], 1)):
                if (yes[row] > 0.5) != truth[row, column]:
                    flips.setdefault(row, []).append(column)
    found: list[WrongLabel] = []
    for row, columns in flips.items():
        said = truth[row].copy()
        said[columns] = ~said[columns]
        doubt = float(np.where(truth[row], held_out[row], 1 - held_out[row])[columns].min())
        suggested = tuple(name for name, has in zip(task.labels, said, strict=True) if has)
        found.append(
            WrongLabel(ids[row], cast("Target", task.truth(targets[row])), suggested, 1 - doubt, doubt)
        )
    return sorted(found, key=lambda item: (-item.probability, item.id))


def _far_numbers(ids: list[str], targets: list[Target], predicted: np.ndarray) -> list[WrongLabel]:
    """Return the numbers that lie far from what heads predict, the furthest first; not each need be wrong."""
    numbers = np.array([cast("float", target) for target in targets], np.float64)
    residual = numbers - predicted
    centred = np.abs(residual - np.median(residual))
    # Where most numbers are met almost exactly, the median says nothing of the others.
    deviation = max(_PER_MEDIAN * float(np.median(centred)), _PER_MEAN * float(centred.mean()))
    if deviation <= 0:
        return []
    far = centred / deviation
    return [
        WrongLabel(ids[row], targets[row], float(predicted[row]), float(far[row]), None)
        for row in np.argsort(-far, kind="stable")
        if far[row] > FAR
    ]
