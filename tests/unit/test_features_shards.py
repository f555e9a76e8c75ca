"""Rows by item hash: appended, found again, never lost by a kill, dropped with a warning when corrupt."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest

from headstart.features.shards import Shards
from headstart.store import Store

BUCKET, KEY = "features-v1", "k" * 64


def names(*numbers: int) -> list[str]:
    """Return item hashes."""
    return [hashlib.sha256(str(number).encode()).hexdigest() for number in numbers]


def rows(*numbers: int) -> np.ndarray:
    """Return one row of three numbers an item."""
    return np.array([[number, number / 7, -number] for number in numbers], dtype=np.float32)


def shards(store: Store) -> Shards:
    return Shards(store, BUCKET, KEY)


def test_rows_come_back_in_the_order_asked_for_and_from_every_shard(store: Store) -> None:
    written = shards(store)
    written.append(names(0, 1, 2), {"features": rows(0, 1, 2)})
    written.append(names(3, 4), {"features": rows(3, 4)})
    for found in (written, shards(store)):
        assert len(found) == 5
        assert np.array_equal(found.gather(names(4, 0, 3, 0), "features"), rows(4, 0, 3, 0))
        assert np.array_equal(found.row(names(1)[0], "features"), rows(1)[0])


def test_an_item_is_known_by_its_hash_alone(store: Store) -> None:
    shards(store).append(names(0), {"features": rows(0)})
    assert names(0)[0] in shards(store)
    assert names(1)[0] not in shards(store)
    with pytest.raises(KeyError):
        shards(store).gather(names(1), "features")


def test_another_key_sees_nothing_of_them(store: Store) -> None:
    shards(store).append(names(0), {"features": rows(0)})
    assert len(Shards(store, BUCKET, "k" * 39 + "x" * 25)) == 0
    assert len(Shards(store, "activations-v1", KEY)) == 0


def test_nothing_to_append_writes_nothing(store: Store) -> None:
    shards(store).append([], {})
    assert list(store.entries()) == []


def test_the_first_of_two_rows_for_one_item_stays(store: Store) -> None:
    shards(store).append(names(0, 1), {"features": rows(0, 1)})
    shards(store).append(names(1, 2), {"features": rows(1, 2)})
    assert np.array_equal(shards(store).gather(names(0, 1, 2), "features"), rows(0, 1, 2))


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_shard_is_dropped_with_a_warning_and_the_others_stay(store: Store, damage: str) -> None:
    shards(store).append(names(0), {"features": rows(0)})
    before = set(store.root.rglob("features.npy"))
    shards(store).append(names(1), {"features": rows(1)})
    (second,) = set(store.root.rglob("features.npy")) - before
    content = bytearray(second.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
        second.write_bytes(content)
    elif damage == "cut":
        second.write_bytes(content[:-4])
    else:
        second.unlink()
    with pytest.warns(UserWarning, match="is corrupt"):
        found = shards(store)
    assert names(0)[0] in found and names(1)[0] not in found
    found.append(names(1), {"features": rows(1)})
    assert np.array_equal(shards(store).gather(names(0, 1), "features"), rows(0, 1))


def test_rows_are_read_only_maps_and_gathered_ones_are_not(store: Store) -> None:
    shards(store).append(names(0), {"features": rows(0)})
    found = shards(store)
    with pytest.raises(ValueError, match="read-only"):
        found.row(names(0)[0], "features")[0] = 1
    found.gather(names(0), "features")[0] = 1
    assert np.array_equal(shards(store).gather(names(0), "features"), rows(0))


def test_objects_are_never_written_or_read(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        shards(store).append(names(0), {"features": np.array([{"a": 1}])})
    assert list(store.entries()) == []
    assert list(store.root.rglob(".tmp-*")) == []

    def write(folder: Path) -> None:
        np.save(folder / "items.npy", np.array(names(0), dtype="S64"))
        (folder / "features.npy").write_bytes(pickle.dumps([1]))

    store.put(BUCKET, f"{KEY[:40]}-x", write)
    with pytest.raises(ValueError, match="pickled"):
        shards(store)
