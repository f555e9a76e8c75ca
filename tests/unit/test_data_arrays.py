"""Arrays in memory become datasets, and their content alone decides the hashes."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.core.errors import DataError
from headstart.data import from_arrays

IMAGES = np.arange(4 * 6 * 6, dtype=np.uint8).reshape(4, 6, 6)


def test_arrays_with_numbers_for_targets() -> None:
    data = from_arrays(
        IMAGES, np.array([3, 10, 3, 10]), groups=["a", "a", None, "b"], splits=["train", "val", "TEST", None]
    )
    assert data.labels == ("3", "10")
    assert data.ids == ["0", "1", "2", "3"]
    assert data.groups == ["a", "a", "", "b"]
    assert data.splits == ["train", "validation", "test", None]
    assert data.root is None
    assert np.array_equal(data[1].input, IMAGES[1])


def test_missing_targets() -> None:
    data = from_arrays(
        list(IMAGES), [None, float("nan"), "x", float("inf")], ids=list("abcd"), domains=[1, 1, 2, 2]
    )
    assert data.targets == [None, None, "x", None]
    assert data.domains == ["1", "1", "2", "2"]


def test_hashes_are_of_type_shape_and_numbers() -> None:
    data = from_arrays(
        [IMAGES[0], IMAGES[0].copy(), IMAGES[0].astype(np.uint16), IMAGES[0].reshape(4, 9)], "abcd"
    )
    hashes = data.item_hashes()
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3
    assert hashes == [data.item_hash(row) for row in range(4)]
    assert len(data.fingerprint) == 64


def test_arguments_that_do_not_fit_are_named() -> None:
    with pytest.raises(DataError, match="groups has 1 values for 4 images"):
        from_arrays(IMAGES, "abcd", groups=["x"])
    with pytest.raises(DataError, match="two images have the id 'q'"):
        from_arrays(IMAGES, "abcd", ids=["q", "r", "q", "s"])
    with pytest.raises(DataError, match=r"splits\[1\] says the split 'tset'"):
        from_arrays(IMAGES, "abcd", splits=["test", "tset", None, None])
    with pytest.raises(DataError, match="no images"):
        from_arrays([], [])
