"""Bootstrap intervals of any measure that is a function of item weights, over all items and by domain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from headstart.core.types import Score
from headstart.evaluation.metrics import draw_weights, wilson
from headstart.evaluation.scores import DomainRow, score_of

Measure = Callable[[np.ndarray, np.ndarray], Mapping[str, np.ndarray]]
"""From item weights [n, R] and the indices [n] of those items to values [R] of each metric, NaN where undefined."""

BOUNDED = {
    "exact_match",
    "macro_f1",
    "micro_f1",
    "span_f1",
    "span_precision",
    "span_recall",
    "token_accuracy",
}
"""Shares: where one is 0 or 1 every resample is the same, and Wilson's interval over the blocks shows the doubt."""


def measured(
    measure: Measure, chosen: np.ndarray, blocks: np.ndarray, *, resamples: int, seed: int
) -> tuple[Score, ...]:
    """Return each metric that the items `chosen` [n] define, with its 95 % percentile bootstrap interval.

    `blocks` [n] are drawn again as wholes; an interval is widened to hold the value itself.
    """
    n = len(chosen)
    values = measure(np.ones((n, 1)), chosen)
    chunks = [measure(weights, chosen) for weights in draw_weights(blocks, resamples, seed)]
    return tuple(
        _score(name, float(value[0]), np.concatenate([chunk[name] for chunk in chunks]), blocks)
        for name, value in values.items()
        if not np.isnan(value[0])
    )


def by_domain(
    measure: Measure, blocks: np.ndarray, domains: Sequence[str] | None, *, resamples: int, seed: int
) -> tuple[DomainRow, ...]:
    """Measure each domain by itself; none where the data name fewer than two."""
    names = sorted(set(domains or ()))
    if len(names) < 2:
        return ()
    rows: list[DomainRow] = []
    for name in names:
        chosen = np.flatnonzero(np.asarray(domains, dtype=object) == name)
        own = np.unique(blocks[chosen], return_inverse=True)[1]
        rows.append(DomainRow(name, measured(measure, chosen, own, resamples=resamples, seed=seed)))
    return tuple(rows)


def _score(name: str, value: float, drawn: np.ndarray, blocks: np.ndarray) -> Score:
    """Return a metric with the interval of its resamples."""
    found = score_of(name, value, drawn, len(blocks))
    if name not in BOUNDED or value not in (0.0, 1.0):
        return found
    count = int(blocks.max()) + 1
    low, high = wilson(round(value * count), count)
    return replace(found, low=low, high=high)


def doubt_notes(scores: Sequence[Score], num_groups: int) -> list[str]:
    """Say how items were drawn again, and where Wilson's interval stands in for the bootstrap's."""
    notes: list[str] = []
    if num_groups:
        notes.append(
            f"intervals draw whole groups ({num_groups}) again: items of one group are not independent"
        )
    edge = [score.name for score in scores if score.name in BOUNDED and score.value in (0.0, 1.0)]
    if edge:
        named = ", ".join(name.replace("_", " ") for name in edge)
        notes.append(f"every resample is the same for {named}: Wilson's interval shows the doubt left")
    return notes
