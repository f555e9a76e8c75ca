"""Splits are stratified, decided by the seed, and never go through groups or twins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from headstart.core.errors import DataError
from headstart.core.settings import Split
from headstart.core.types import SPLITS
from headstart.data import TableDataset, from_arrays
from headstart.data.splits import split


def table(
    targets: Sequence[object] | np.ndarray,
    groups: Sequence[object] | np.ndarray | None = None,
    splits: Sequence[str | None] | None = None,
) -> TableDataset:
    return from_arrays(np.zeros((len(targets), 2, 2), np.uint8), targets, groups=groups, splits=splits)


def test_each_class_is_shared_out_alike() -> None:
    names = split(table(["a"] * 100 + ["b"] * 40), Split(), seed=0)
    counts = Counter(zip(["a"] * 100 + ["b"] * 40, names, strict=True))
    assert [counts["a", name] for name in SPLITS] == [65, 15, 20]
    assert [counts["b", name] for name in SPLITS] == [26, 6, 8]


def test_the_seed_alone_decides() -> None:
    data = table(["a", "b"] * 50)
    assert split(data, Split(), seed=3) == split(data, Split(), seed=3)
    assert split(data, Split(), seed=3) != split(data, Split(), seed=4)


def test_groups_and_ties_stay_together() -> None:
    draw = np.random.default_rng(0)
    targets, groups = draw.integers(0, 3, 300), draw.integers(0, 60, 300)
    names = split(table(targets, groups), Split(), seed=1)
    assert len(set(zip(groups, names, strict=True))) == len(set(groups))
    shares = Counter(names)
    assert 0.1 < shares["validation"] / 300 < 0.2
    assert 0.15 < shares["test"] / 300 < 0.25
    ties = [(row, row + 1) for row in range(0, 300, 2)]
    names = split(table(targets), Split(), seed=1, ties=ties)
    assert all(names[one] == names[other] for one, other in ties)


def test_ties_join_groups() -> None:
    data = table(["a", "b"] * 20, groups=[row // 2 for row in range(40)])
    names = split(data, Split(), seed=0, ties=[(0, 5), (5, 39)])
    assert len({names[row] for row in (0, 1, 4, 5, 38, 39)}) == 1


def test_test_groups_are_not_only_the_small_ones() -> None:
    sizes = [20] * 20 + [2] * 20
    groups = [group for group, size in enumerate(sizes) for _ in range(size)]
    names = split(table([row % 2 for row in range(len(groups))], groups), Split(), seed=0)
    assert any(name == "test" and group < 20 for name, group in zip(names, groups, strict=True))


def test_given_splits_stay_and_missing_ones_are_cut_from_train() -> None:
    given = ["test"] * 20 + ["train"] * 80
    names = split(table(["a", "b"] * 50, splits=given), Split(), seed=0)
    assert names[:20] == ["test"] * 20
    assert Counter(names[20:]) == {"train": 68, "validation": 12}
    given = ["validation"] * 20 + ["train"] * 80
    assert Counter(split(table(["a", "b"] * 50, splits=given), Split(), seed=0)[20:]) == {
        "train": 64,
        "test": 16,
    }
    full = ["train", "train", "validation", "validation", "test", "test"]
    assert split(table(["a", "b"] * 3, splits=full), Split(), seed=0) == full


def test_given_splits_can_be_overruled() -> None:
    given = ["test"] * 50 + ["train"] * 50
    names = split(table(["a", "b"] * 50, splits=given), Split(respect=False), seed=0)
    assert Counter(names)["test"] == 20
    assert "test" in names[50:]


def test_small_classes_give_to_test_first() -> None:
    targets = ["one"] + ["two"] * 2 + ["three"] * 3 + ["many"] * 40
    where: dict[str, list[str]] = {}
    for target, name in zip(targets, split(table(targets), Split(), seed=0), strict=True):
        where.setdefault(target, []).append(name)
    assert where["one"] == ["train"]
    assert sorted(where["two"]) == ["test", "train"]
    assert sorted(where["three"]) == ["test", "train", "validation"]


def test_every_class_is_trained_on_even_if_groups_are_few() -> None:
    data = table(["a"] * 30 + ["b"] * 30 + ["c"] * 5, groups=[row // 10 for row in range(60)] + ["c"] * 5)
    names = split(data, Split(), seed=0)
    assert {target for target, name in zip(data.targets, names, strict=True) if name == "train"} == {
        "a",
        "b",
        "c",
    }


def test_what_cannot_be_split_is_refused() -> None:
    with pytest.raises(DataError, match="the validation split would be empty"):
        split(table(["a", "b", "c"]), Split(), seed=0)
    with pytest.raises(DataError, match="in 2 groups that must not be split"):
        split(table(["a", "b"] * 10, groups=[row % 2 for row in range(20)]), Split(), seed=0)
    with pytest.raises(DataError, match="only one class"):
        split(table(["a"] * 9), Split(), seed=0)
    with pytest.raises(DataError, match="no labelled item"):
        split(table([None] * 9), Split(), seed=0)
    with pytest.raises(DataError, match="leave nothing to train on"):
        split(table(["a", "b"] * 9), Split(validation=0.5, test=0.5), seed=0)
    with pytest.raises(DataError, match="the train split would be empty"):
        split(table(["a", "b"] * 9, splits=["test"] * 18), Split(), seed=0)
