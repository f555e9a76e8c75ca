"""The pictures that every contender gets: the same files, labels and split, beside one CSV table.

The tumour set's own test folder leaks, so both folders are pooled and duplicates, exact and near, stay in one split.
"""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path

SOURCES = {
    "brain_mri": ("brain_mri/Training", "brain_mri/Testing"),
    "pacs": ("pacs/photo", "pacs/art_painting"),
}
"""Folders of class folders that are pooled into one set."""


@dataclass(frozen=True, slots=True)
class Item:
    """One picture: path relative to the table, class name, split."""

    path: str
    label: str
    split: str = ""


@dataclass(frozen=True)
class Collection:
    """Pictures under one root folder."""

    root: Path
    items: tuple[Item, ...]

    @cached_property
    def labels(self) -> list[str]:
        """Class names, sorted."""
        return sorted({item.label for item in self.items})

    def of(self, split: str) -> list[Item]:
        """Return the pictures of a split, in order."""
        return [item for item in self.items if item.split == split]

    def path(self, item: Item) -> Path:
        """Return where a picture lies."""
        return self.root / item.path

    def write(self, name: str) -> Path:
        """Write the table under the root; headstart reads it too."""
        table = self.root / name
        with table.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, [field.name for field in fields(Item)])
            writer.writeheader()
            writer.writerows(asdict(item) for item in self.items)
        return table


def read(table: Path | str) -> Collection:
    """Read a collection from its table."""
    table = Path(table)
    with table.open(newline="", encoding="utf-8") as stream:
        return Collection(table.parent, tuple(Item(**row) for row in csv.DictReader(stream)))


def stage(name: str, folder: Path, *, per_class: int | None = None) -> Path:
    """Copy a set (the first `per_class` files of every class folder) under `folder`, split it, return its table."""
    root = folder / name
    items: list[Item] = []
    for place in SOURCES[name]:
        for source in sorted(path for path in (data_folder() / "images" / place).iterdir() if path.is_dir()):
            target = root / "pictures" / place.replace("/", "-") / source.name
            target.mkdir(parents=True)
            for path in sorted(source.iterdir())[:per_class]:
                shutil.copy(path, target)
                items.append(Item((target / path.name).relative_to(root).as_posix(), source.name))
    return _split(Collection(root, tuple(items))).write("table.csv")


def subset(table: Path, count: int) -> Path:
    """Write a table of about `count` pictures, the same share of every class and split, and return it."""
    collection = read(table)
    ordered = sorted(collection.items, key=lambda item: (item.label, item.split, item.path))
    kept = [ordered[index * len(ordered) // count] for index in range(min(count, len(ordered)))]
    return Collection(collection.root, tuple(kept)).write(f"subset-{count}.csv")


def repeated(table: Path, times: int) -> Path:
    """Copy a set's files `times` times, each copy distinct in its bytes, and return the table of all."""
    collection = read(table)
    folder = collection.root / f"x{times}"
    folder.mkdir()
    items: list[Item] = []
    for number, item in enumerate(collection.items):
        content = collection.path(item).read_bytes()
        for copy in range(times):
            # Bytes after the end-of-image marker change the content's hash, not the picture.
            target = folder / f"{number}-{copy}{Path(item.path).suffix}"
            target.write_bytes(content + f"copy {copy}".encode())
            items.append(Item(f"{folder.name}/{target.name}", item.label, item.split))
    return Collection(collection.root, tuple(items)).write(f"x{times}.csv")


def data_folder() -> Path:
    """Return the folder of benchmark data; HEADSTART_BENCH_DATA names it."""
    folder = Path(os.environ.get("HEADSTART_BENCH_DATA", "../shared/data")).resolve()
    if not (folder / "images").is_dir():
        raise SystemExit(
            f"no benchmark pictures under {folder}: set HEADSTART_BENCH_DATA to the folder with images/"
        )
    return folder


def _split(collection: Collection) -> Collection:
    """Assign splits by headstart's own audit and grouped split, so that no duplicate crosses one."""
    from headstart.core.settings import Source, Split
    from headstart.data import open_dataset
    from headstart.data.audit import audit, inspect
    from headstart.data.splits import split

    source = Source(uri=str(collection.write("unsplit.csv")), path_column="path", label_column="label")
    dataset = open_dataset(source)
    facts, failures = inspect(dataset, settings=source, threads=len(os.sched_getaffinity(0)))
    outcome = audit(dataset, facts, failures, settings=source)
    kept = dataset.subset(outcome.keep)
    splits = split(kept, Split(), seed=0, ties=outcome.ties)
    return Collection(collection.root, tuple(_items(kept.ids, kept.targets, splits)))


def _items(paths: Iterable[str], labels: Iterable[str | None], splits: Iterable[str]) -> Iterable[Item]:
    """Join parallel columns."""
    return (Item(path, str(label), split) for path, label, split in zip(paths, labels, splits, strict=True))
