"""Label budgets: stratified and nested, so that a larger one holds every item of a smaller one."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from headstart.proving.outcome import Budget
from headstart.train.runtime import draw

SHARES = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Shares of the labels outside the test split at which arms are scored."""


def budgets_of(
    strata: Sequence[str], num_validation: int, *, shares: Sequence[float] = SHARES
) -> tuple[Budget, ...]:
    """Return the budgets, smallest first, at least one training item a stratum and one to validate.

    `strata` [n] are those of the training items. Of budgets that would be equal the largest share is kept.
    """
    least, found = len(set(strata)), dict[tuple[int, int], Budget]()
    for share in sorted(shares):
        train = min(len(strata), max(least, 2, round(share * len(strata))))
        held_out = min(num_validation, max(1, round(share * num_validation)))
        found[train, held_out] = Budget(share, train, held_out)
    return tuple(found.values())


def nested(strata: Sequence[str], *, seed: int, stream: str) -> list[int]:
    """Return the order in which items join a budget: first one of each stratum, then all in proportion."""
    members: defaultdict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(strata):
        members[name].append(row)
    placed: list[tuple[bool, float, float, int]] = []
    for name, rows in sorted(members.items()):
        generator = draw(seed, stream, 0, name)
        ties = generator.random(len(rows))
        for place, row in enumerate(generator.permutation(rows).tolist()):
            placed.append((place > 0, (place + 0.5) / len(rows) if place else 0.0, float(ties[place]), row))
    return [row for *_, row in sorted(placed)]


def counted(names: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """Return how often each name occurs, the commonest first."""
    return tuple(Counter(names).most_common())
