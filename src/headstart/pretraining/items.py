"""Which items of some data can be learnt from: those that can be read, outside the test split, not all the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.core.errors import DataError
from headstart.core.registry import resolve
from headstart.core.settings import Source
from headstart.data import TableDataset
from headstart.data.audit import inspect

LEAST = 4


@dataclass(frozen=True)
class Usable:
    """The items that are learnt from, why others were left out, by id, and what is to be said of them."""

    dataset: TableDataset
    left_out: dict[str, str]
    notes: tuple[str, ...]


def usable(dataset: TableDataset, source: Source, *, threads: int) -> Usable:
    """Open every item once; leave out what cannot be read and the test split.

    DataError where fewer than four items are left, or where all are the same.
    """
    nouns = resolve("modality", dataset.modality).NOUN
    _, failures = inspect(dataset, settings=source, threads=threads)
    test = {row for row, split in enumerate(dataset.splits) if split == "test"}
    kept = [row for row in range(len(dataset)) if row not in failures and row not in test]
    left_out = {dataset.ids[row]: reason for row, reason in failures.items()}
    if len(kept) < LEAST:
        first = f", such as {next(iter(left_out.values()))}" if left_out else ""
        raise DataError(
            f"{len(kept)} {nouns[1]} to pretrain on ({len(left_out)} cannot be read{first})",
            expected=f"at least {LEAST} that can be read and are not for testing, better thousands",
            fix="check the files, or name another folder",
        )
    hashes = {dataset.item_hash(row) for row in kept}
    if len(hashes) == 1:
        raise DataError(
            f"all {len(kept)} {nouns[1]} are identical",
            expected=f"{nouns[1]} that differ: from one and the same, nothing can be learnt",
            fix="check how the data were copied or exported",
        )
    notes: list[str] = []
    if len(hashes) < len(kept) / 2:
        notes.append(f"only {len(hashes):,} of {len(kept):,} {nouns[1]} differ; the rest are copies")
    if test:
        notes.append(f"{len(test):,} {nouns[1]} of the test split were not learnt from")
    return Usable(dataset.subset(kept), left_out, tuple(notes))


def class_ids(dataset: TableDataset) -> np.ndarray | None:
    """Return class ids [n], -1 where there is no label; None where the targets are no classes."""
    if dataset.task != "classification" or len(dataset.labels) < 2:
        return None
    number = {label: place for place, label in enumerate(dataset.labels)}
    return np.array([-1 if target is None else number[str(target)] for target in dataset.targets])
