"""Train, validation and test: stratified by class, decided by the seed, never through a group or a pair of twins."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from headstart.core.errors import DataError
from headstart.core.registry import resolve
from headstart.core.settings import Split
from headstart.core.types import SplitName, Target
from headstart.data.dataset import TableDataset, require_targets

_Counts = dict[Target | None, int]
"""Items of each class; None counts the unlabelled ones."""


def split(
    dataset: TableDataset, settings: Split, *, seed: int, ties: Sequence[tuple[int, int]] = ()
) -> list[SplitName]:
    """Return each item's split; items of one group and tied items (duplicates) always land together.

    Splits that the data bring stay as they are (unless `settings.respect` is false); a missing validation or test
    split is cut from the training items and those of no split. A class of two (groups of) items gives one to test,
    a class of three or more at least one to each split, as far as groups allow. Items without a label go where those
    go that they are joined to, else to train. DataError where a split would be empty.
    """
    if dataset.task == "classification":
        require_targets(dataset)
    given: list[SplitName | None] = list(dataset.splits) if settings.respect else [None] * len(dataset)
    shares: dict[SplitName, float] = {"test": settings.test, "validation": settings.validation}
    shares = {name: share for name, share in shares.items() if name not in given}
    if sum(shares.values()) >= 1:
        raise DataError(
            f"validation {settings.validation:g} and test {settings.test:g} leave nothing to train on",
            expected="shares whose sum is below 1",
            fix="--set split.validation=0.15 --set split.test=0.2",
        )
    pool = [row for row, name in enumerate(given) if name in (None, "train")]
    units = _units(dataset, pool, ties)
    chosen = _assign(dataset, units, shares, np.random.default_rng(seed))
    for unit, name in zip(units, chosen, strict=True):
        for row in unit:
            given[row] = name
    splits: list[SplitName] = [name or "train" for name in given]
    _require_all(dataset, splits, units)
    return splits


def _units(dataset: TableDataset, pool: Sequence[int], ties: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Join the pool's items that share a group or are tied; return the joined rows, in order of their first."""
    parent = {row: row for row in pool}

    def root(row: int) -> int:
        """Follow the links to the item that stands for the unit, shortening them on the way."""
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    first: dict[str, int] = {}
    links = [(first.setdefault(dataset.groups[row], row), row) for row in pool if dataset.groups[row]]
    for one, other in [*links, *ties]:
        if one in parent and other in parent:
            low, high = sorted((root(one), root(other)))
            parent[high] = low
    units: defaultdict[int, list[int]] = defaultdict(list)
    for row in pool:
        units[root(row)].append(row)
    return list(units.values())


def _assign(
    dataset: TableDataset,
    units: list[list[int]],
    shares: Mapping[SplitName, float],
    draw: np.random.Generator,
) -> list[SplitName]:
    """Choose a split for each unit: large units first, each where the classes still need it most."""
    counts: list[_Counts] = [dict(Counter(dataset.targets[row] for row in unit)) for unit in units]
    left = _quotas(counts, shares)
    quotas = {name: dict(classes) for name, classes in left.items()}
    chosen: list[SplitName] = ["train"] * len(units)
    order = draw.permutation(len(units)).tolist()
    joined = sorted((unit for unit in order if len(units[unit]) > 1), key=lambda unit: -len(units[unit]))
    for unit in joined:
        chosen[unit] = min(left, key=lambda name: _cost(counts[unit], left[name], quotas[name]))
        for label, count in counts[unit].items():
            left[chosen[unit]][label] -= count
    for unit in order:
        if len(units[unit]) == 1:
            label = dataset.targets[units[unit][0]]
            found: list[SplitName] = [name for name in shares if left[name][label] > 0]
            chosen[unit] = found[0] if found else "train"
            left[chosen[unit]][label] -= 1
    _return_lost_classes(units, counts, chosen)
    for name in shares:
        if not any(
            split == name and set(count) != {None} for split, count in zip(chosen, counts, strict=True)
        ):
            _fill(name, units, counts, chosen)
    return chosen


def _quotas(counts: list[_Counts], shares: Mapping[SplitName, float]) -> dict[SplitName, _Counts]:
    """Return how many items of each class each split should get; test before validation where items are few."""
    items: Counter[Target | None] = Counter()
    holders: Counter[Target | None] = Counter()
    for count in counts:
        items.update(count)
        holders.update(dict.fromkeys(count, 1))
    names: tuple[SplitName, ...] = (*shares, "train")
    quotas: dict[SplitName, _Counts] = {name: {} for name in names}
    for label, total in items.items():
        rest = total
        for needed, (name, share) in enumerate(shares.items(), start=2):
            # Items without a label are no use to a score.
            is_shared = label is not None and holders[label] >= needed
            quotas[name][label] = min(rest, max(1, round(total * share))) if is_shared else 0
            rest -= quotas[name][label]
        quotas["train"][label] = rest
    return quotas


def _cost(unit: _Counts, left: _Counts, quota: _Counts) -> float:
    """Return by how much a unit moves a split away from its quotas (squared, relative to them); negative is better."""
    total = 0.0
    for label, count in unit.items():
        if label is None:
            continue
        wanted = max(quota[label], 0.25)  # a split that wants none of a class pays eight times over
        total += count * (count - 2 * left[label]) / wanted
    return total


def _return_lost_classes(units: list[list[int]], counts: list[_Counts], chosen: list[SplitName]) -> None:
    """Move the smallest unit of a class that groups kept out of training back there."""
    trained = {
        label for count, name in zip(counts, chosen, strict=True) if name == "train" for label in count
    }
    for label in {label for count in counts for label in count} - trained:
        smallest = min(
            (unit for unit, count in enumerate(counts) if label in count), key=lambda unit: len(units[unit])
        )
        chosen[smallest] = "train"


def _fill(name: SplitName, units: list[list[int]], counts: list[_Counts], chosen: list[SplitName]) -> None:
    """Give an empty split the smallest training unit whose classes stay in training without it, if there is one."""
    holders = Counter(
        label for count, split in zip(counts, chosen, strict=True) if split == "train" for label in count
    )
    spare = [
        unit
        for unit, count in enumerate(counts)
        if chosen[unit] == "train"
        and set(count) != {None}
        and all(holders[label] > 1 for label in count if label is not None)
    ]
    if spare:
        chosen[min(spare, key=lambda unit: len(units[unit]))] = name


def _require_all(dataset: TableDataset, splits: list[SplitName], units: list[list[int]]) -> None:
    """Refuse a split without labelled items, and items that are all copies of one another."""
    if len(units) == 1 and len(dataset) > 2 and not any(dataset.groups):
        nouns = resolve("modality", dataset.modality).NOUN[1]
        raise DataError(
            f"all {len(dataset)} {nouns} are the same, or nearly so",
            expected=f"{nouns} that differ",
            fix=f"check which column holds the {nouns}, and delete copies",
        )
    for name in ("train", "validation", "test"):
        if any(
            split == name and target is not None
            for split, target in zip(splits, dataset.targets, strict=True)
        ):
            continue
        largest = max(Counter(target for target in dataset.targets if target is not None).values())
        raise DataError(
            f"the {name} split would be empty: {len(dataset)} items of {len(dataset.labels)} classes, "
            f"at most {largest} in a class, in {len(units)} groups that must not be split",
            expected="at least 3 items (or groups of items) in the larger classes",
            fix="add items, or give the data a split column with all three splits",
        )
