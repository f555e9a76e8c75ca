"""Rows of arrays keyed by item hash, in the store: appended in shards, never changed, memory-mapped to read.

A shard is one entry of the store, so it appears whole or not at all, carries its checksums, and a corrupt one is
dropped with a warning and its rows are made anew. Runs at the same time write different shards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from headstart.core.hashing import digest
from headstart.store import Store

_ITEMS, _SHAPES = "items", "-shapes"


class Shards:
    """The rows under one key of a bucket."""

    def __init__(self, store: Store, bucket: str, key: str) -> None:
        """Open and verify every shard that is there."""
        self._store, self._bucket, self._prefix = store, bucket, key[:40]
        self._arrays: list[dict[str, np.ndarray]] = []
        self._rows: dict[str, tuple[int, int]] = {}
        self._edges: dict[tuple[int, str], np.ndarray] = {}
        for folder in sorted(store.folder(bucket, self._prefix).parent.glob(f"{self._prefix}-*")):
            if (sound := store.get(bucket, folder.name)) is not None:
                self._open(sound)

    def __contains__(self, item: str) -> bool:
        """Tell whether there is a row for this item hash."""
        return item in self._rows

    def __len__(self) -> int:
        """Return the number of items that have a row."""
        return len(self._rows)

    def append(self, hashes: Sequence[str], arrays: Mapping[str, np.ndarray | Sequence[np.ndarray]]) -> None:
        """Add one shard: row i of every array belongs to hashes[i]; rows in a list may differ in shape."""
        if not hashes:
            return

        def write(folder: Path) -> None:
            np.save(folder / f"{_ITEMS}.npy", np.array(hashes, dtype="S64"))
            for name, rows in arrays.items():
                if not isinstance(rows, np.ndarray):
                    shapes = np.array([row.shape for row in rows], dtype=np.int64)
                    np.save(folder / f"{name}{_SHAPES}.npy", shapes)
                    rows = np.concatenate([row.reshape(-1) for row in rows])
                np.save(folder / f"{name}.npy", np.ascontiguousarray(rows), allow_pickle=False)

        self._open(self._store.put(self._bucket, f"{self._prefix}-{digest(list(hashes))[:20]}", write))

    def row(self, item: str, name: str) -> np.ndarray:
        """Return one item's row of an array (memory-mapped, read-only)."""
        shard, row = self._rows[item]
        arrays = self._arrays[shard]
        if (shapes := arrays.get(f"{name}{_SHAPES}")) is None:
            return arrays[name][row]
        ends = self._ends(shard, name)
        return arrays[name][ends[row] : ends[row + 1]].reshape(shapes[row])

    def gather(self, hashes: Sequence[str], name: str) -> np.ndarray:
        """Return the rows of these items, in this order, as one array in memory; KeyError for an unknown item."""
        places = [self._rows[item] for item in hashes]
        first = self._arrays[places[0][0]][name]
        out = np.empty((len(places), *first.shape[1:]), first.dtype)
        shard_of = np.array([shard for shard, _ in places])
        row_of = np.array([row for _, row in places])
        for shard in np.unique(shard_of):
            here = np.flatnonzero(shard_of == shard)
            order = here[np.argsort(row_of[here], kind="stable")]
            out[order] = self._arrays[shard][name][row_of[order]]
        return out

    def _ends(self, shard: int, name: str) -> np.ndarray:
        """Return where each row of a shard of differing shapes begins, and where the last ends."""
        place = (shard, name)
        if place not in self._edges:
            sizes = self._arrays[shard][f"{name}{_SHAPES}"].prod(1)
            self._edges[place] = np.concatenate([[0], np.cumsum(sizes)])
        return self._edges[place]

    def _open(self, folder: Path) -> None:
        """Map a shard's arrays and index its items."""
        arrays = {
            path.stem: np.load(path, mmap_mode="r", allow_pickle=False) for path in folder.glob("*.npy")
        }
        shard = len(self._arrays)
        self._arrays.append(arrays)
        for row, item in enumerate(arrays.pop(_ITEMS)):
            self._rows.setdefault(bytes(item).decode(), (shard, row))
