"""The texts of the few-shot benchmark: a few labels a class, unlabelled texts and a test set, as one CSV table."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from benchmarks._data import data_folder

TEST_ROWS = {"cr": 753, "ag_news": 1500}
"""Held out by a fixed seed where the set comes as one file; SST-5 has a test file of its own."""
MAX_UNLABELLED = 2000


@dataclass(frozen=True, slots=True)
class Text:
    """One text: its number in the set, label, and split (train, unlabelled or test)."""

    number: str
    text: str
    label: str
    split: str


def few(name: str, *, per_class: int, seed: int, unlabelled: int = MAX_UNLABELLED) -> list[Text]:
    """Draw labelled texts of each class and unlabelled ones by the seed; the test texts are the same for every seed."""
    pool, test = _pools(name)
    draws = np.random.default_rng(seed)
    labels = np.array([item.label for item in pool])
    chosen = np.concatenate(
        [
            draws.choice(np.flatnonzero(labels == label), per_class, replace=False)
            for label in np.unique(labels)
        ]
    )
    others = np.setdiff1d(np.arange(len(pool)), chosen)
    others = draws.choice(others, min(unlabelled, len(others)), replace=False)
    parts = [(pool[row], "train") for row in chosen] + [(pool[row], "unlabelled") for row in others]
    parts += [(item, "test") for item in test]
    return [Text(item.number, item.text, item.label, split) for item, split in parts]


def write(texts: list[Text], path: Path) -> Path:
    """Write a table and return its path."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(Text)])
        writer.writeheader()
        writer.writerows(asdict(item) for item in texts)
    return path


def read(path: Path | str) -> list[Text]:
    """Read a table."""
    with Path(path).open(newline="", encoding="utf-8") as stream:
        return [Text(**row) for row in csv.DictReader(stream)]


def _pools(name: str) -> tuple[list[Text], list[Text]]:
    """Return (training pool, test texts) of a set."""
    folder = data_folder() / "text"
    if name not in TEST_ROWS:
        return _rows(folder / name / "train.csv", "train"), _rows(folder / name / "test.csv", "test")
    (path,) = (folder / name).glob("all*.csv")
    rows = _rows(path, path.stem)
    order = np.random.default_rng(0).permutation(len(rows))
    count = TEST_ROWS[name]
    return [rows[row] for row in sorted(order[count:])], [rows[row] for row in sorted(order[:count])]


def _rows(path: Path, part: str) -> list[Text]:
    """Read a file of texts and labels, without the few that are empty."""
    with path.open(newline="", encoding="utf-8") as stream:
        return [
            Text(f"{part}-{number}", row["text"], row["label"], "")
            for number, row in enumerate(csv.DictReader(stream))
            if row["text"].strip()
        ]
