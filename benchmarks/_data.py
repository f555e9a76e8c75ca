"""The pictures that every contender gets: the same files, labels and split, written down as one CSV file."""

from __future__ import annotations

import csv
import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

SHARES = {"test": 0.2, "validation": 0.15}
"""Share of the pictures of a class in each split; the rest trains."""


@dataclass(frozen=True, slots=True)
class Item:
    """One picture: absolute path, class name, what must not be split, and its split."""

    path: str
    label: str
    group: str
    split: str = "train"


@dataclass(frozen=True)
class Collection:
    """Pictures under one name."""

    name: str
    items: tuple[Item, ...]

    @property
    def labels(self) -> list[str]:
        """Class names, sorted."""
        return sorted({item.label for item in self.items})

    def of(self, split: str) -> list[Item]:
        """Return the pictures of a split, in order."""
        return [item for item in self.items if item.split == split]

    def write(self, path: Path) -> Path:
        """Write the CSV file that `read` takes and that headstart reads too."""
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, [field.name for field in fields(Item)])
            writer.writeheader()
            writer.writerows(asdict(item) for item in self.items)
        return path


def read(path: Path) -> Collection:
    """Read a collection from its CSV file."""
    with path.open(newline="", encoding="utf-8") as stream:
        return Collection(path.stem, tuple(Item(**row) for row in csv.DictReader(stream)))


def data_folder() -> Path:
    """Return the folder of benchmark data; HEADSTART_BENCH_DATA names it."""
    folder = Path(os.environ.get("HEADSTART_BENCH_DATA", "../shared/data")).resolve()
    if not (folder / "images").is_dir():
        raise SystemExit(f"no benchmark pictures under {folder}: set HEADSTART_BENCH_DATA to the folder that has images/")
    return folder


def brain_mri(*, per_class: int | None = None) -> Collection:
    """Tumour slices in 4 classes; both of the set's folders are pooled, because its test folder leaks."""
    root = data_folder() / "images" / "brain_mri"
    return _collect("brain_mri", [root / "Training", root / "Testing"], per_class)


def pacs(*, per_class: int | None = None) -> Collection:
    """Photographs and art paintings in 7 classes; `per_class` counts each domain apart."""
    root = data_folder() / "images" / "pacs"
    return _collect("pacs", [root / "photo", root / "art_painting"], per_class)


def _collect(name: str, folders: Sequence[Path], per_class: int | None) -> Collection:
    """Gather the pictures of class-per-folder trees and split them by group of equal content."""
    items: list[Item] = []
    for folder in sorted(path for root in folders for path in root.iterdir() if path.is_dir()):
        for path in sorted(folder.iterdir())[:per_class]:
            items.append(Item(str(path), folder.name, hashlib.sha256(path.read_bytes()).hexdigest()))
    return Collection(name, tuple(_split(items)))


def _split(items: Iterable[Item]) -> list[Item]:
    """Assign whole groups of each class to test, then to validation, until their shares are full."""
    classes: dict[str, dict[str, list[Item]]] = defaultdict(lambda: defaultdict(list))
    for item in items:
        classes[item.label][item.group].append(item)
    placed: list[Item] = []
    for groups in classes.values():
        total, done = sum(map(len, groups.values())), 0
        for group in sorted(groups):
            share = done / total
            split = "test" if share < SHARES["test"] else "validation" if share < sum(SHARES.values()) else "train"
            placed += [Item(item.path, item.label, item.group, split) for item in groups[group]]
            done += len(groups[group])
    return placed
