"""Labels of the target that a person gives: which items to ask for, the table to fill in, and reading it back."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headstart.adaptation.candidates import Candidate
from headstart.adaptation.choose import Labels
from headstart.adaptation.outcome import Asked
from headstart.adaptation.sides import Side
from headstart.core.errors import DataError, StoreError
from headstart.core.settings import Source
from headstart.data import TableDataset, with_answers
from headstart.data.answers import ID, LABEL, written
from headstart.data.dataset import explain_items
from headstart.data.tables import read_table
from headstart.data.targets import as_label
from headstart.modalities.text import read
from headstart.report.texts import LONGEST
from headstart.store import atomic_write, explained

MOST_ASKED = 100
"""Items that an adaptation names as worth a label."""


def given_labels(dataset: TableDataset, files: Sequence[Path]) -> dict[str, str]:
    """Return the labels that tables of id and label give to items of a masked target, by id.

    DataError names an id that is no item of it.
    """
    source = Source(answers=tuple(map(str, files)), task="classification")
    answered = with_answers(dataset, source)
    return {
        name: str(label)
        for name, label in zip(answered.ids, answered.targets, strict=True)
        if label is not None
    }


def labels_of(given: dict[str, str], target: Side, names: Sequence[str]) -> tuple[Labels | None, list[str]]:
    """Return given labels as rows and class ids, and what must be said of those that no candidate can name.

    DataError where none of them is a class of the model.
    """
    place = {name: number for number, name in enumerate(names)}
    row_of = {name: row for row, name in enumerate(target.dataset.ids)}
    known = sorted(
        (row_of[one], place[label]) for one, label in given.items() if label in place and one in row_of
    )
    unknown = sorted({label for label in given.values() if label not in place})
    if given and not known:
        raise DataError(
            f"none of the {len(given)} labels given is a class of the model ({explain_items(unknown) or 'unreadable'})",
            expected=f"its classes: {explain_items(list(names))}",
            fix="write the labels as the model's classes are called",
        )
    notes = (
        [f"labels that the model has no class for are left out: {explain_items(unknown)}"] if unknown else []
    )
    if not known:
        return None, notes
    rows, truth = (np.array(part, np.int64) for part in zip(*known, strict=True))
    return Labels(rows, truth), notes


def worth_asking(
    candidates: Sequence[Candidate], target: Side, clusters: np.ndarray, *, count: int = MOST_ASKED
) -> tuple[Asked, ...]:
    """Return up to `count` items on which the candidates disagree most, spread over clusters of the target.

    Those on which all agree tell none of them apart, and are asked for last, the least sure first.
    """
    said = np.stack([one.probabilities for one in candidates])
    answers, names = said.argmax(2), candidates[0].model.task.labels
    shares = np.stack([(answers == number).mean(0) for number in range(said.shape[2])], axis=1)
    doubt = 1 - shares.max(1)
    order = np.lexsort((said.mean(0).max(1), -doubt))
    rank = np.zeros(len(order), np.int64)
    seen: dict[int, int] = {}
    for row in order:  # The n-th of its cluster waits for the n-th of all others.
        cluster = int(clusters[row])
        rank[row] = seen[cluster] = seen.get(cluster, -1) + 1
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    chosen = np.lexsort((place, rank, doubt <= 0))[:count]
    chosen = sorted((int(row) for row in chosen), key=lambda row: int(place[row]))
    return tuple(
        Asked(target.dataset.ids[row], _why(shares[row], names), str(names[answers[0, row]]))
        for row in chosen
    )


def _why(shares: np.ndarray, names: Sequence[str]) -> str:
    """Say how the candidates divide over an item."""
    found = [number for number in np.argsort(-shares, kind="stable") if shares[number] > 0]
    if len(found) == 1:
        return "all ways of adapting agree, but none is sure"
    return " or ".join(f"{names[number]} ({100 * shares[number]:.0f}% of the ways)" for number in found[:3])


def questions_beside(folder: Path) -> Path:
    """Return where the questions about an adaptation that goes to a folder are written."""
    named = folder if folder.name.strip(".") else folder.resolve()
    return named.with_name(f"{named.name}-ask.csv")


def refuse_filled(path: Path) -> None:
    """Refuse to write over a table in which a person has begun to fill in labels (StoreError)."""
    if not path.is_file() or path.read_bytes().count(b"\n") < 2:
        return
    columns, _ = read_table(path)
    if any(as_label(cell) is not None for cell in columns.get(LABEL, ())):
        raise StoreError(
            f"{path} has labels filled in, which would be lost",
            expected="a table that is not filled in yet, or none",
            fix=f"give it back with --labels {path}, or rename it to ask anew",
        )


def write_questions(asked: Sequence[Asked], path: Path) -> Path:
    """Write a table of items with a column to fill in, texts themselves beside their ids."""
    texts = any(item.text for item in asked)
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow([ID, LABEL, "likely", "why", *(["text"] if texts else [])])
    for item in asked:
        table.writerow([written(item.id), "", item.likely, item.why, *([item.text] if texts else [])])
    with explained(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, text.getvalue().encode("utf-8", "replace"))
    return path


def _text(raw: Any) -> str:
    """Return a text as it is read, words joined by spaces."""
    found = read(raw)
    return (found if isinstance(found, str) else " ".join(found))[:LONGEST]
