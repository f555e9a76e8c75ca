"""Labels that a person filled in beside the data: a table of ids and labels, laid over what the data say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from headstart.core.errors import DataError, nearest
from headstart.core.settings import Source
from headstart.core.types import Finding, Target
from headstart.data.dataset import TableDataset, explain_items, sorted_labels
from headstart.data.tables import first_row, read_table
from headstart.data.targets import as_label, read_targets

ID, LABEL = "id", "label"
"""The columns that matter; others are left alone, and so are rows whose label is blank."""


def written(name: str) -> str:
    """Return an id as a file in UTF-8 holds it: bytes of a file name that are no text become question marks."""
    return name.encode("utf-8", "replace").decode("utf-8")


def with_answers(dataset: TableDataset, source: Source) -> TableDataset:
    """Return the data with the labels of the tables `source.answers` in the place of their own, the last one first.

    Several labels of an item are divided by `|`; `[]` says that it has none. DataError names an id that the data do
    not have, or that has two labels.
    """
    for file in source.answer_files:
        dataset = _answered(dataset, Path(file).expanduser(), source.task)
    return dataset


def _answered(dataset: TableDataset, path: Path, task: str | None) -> TableDataset:
    """Lay one table over the data."""
    columns, notes = read_table(path)
    ids, cells = (_column(path, columns, name) for name in (ID, LABEL))
    filled = [row for row, cell in enumerate(cells) if as_label(cell) is not None]
    first = first_row(path)
    places = [f"{path.name} row {row + first}" for row in filled]
    if dataset.task == "tagging":
        raise DataError(
            f"{path} answers data of tagged words", expected="one label an item", fix="tag the words"
        )
    known = dataset.task if any(target is not None for target in dataset.targets) else task
    read = read_targets([cells[row] for row in filled], task=known, place=places.__getitem__)
    rows = _rows(dataset, path, [str(ids[row]) for row in filled], places)
    targets = _laid_over(dataset.targets, rows, read.values, places)
    found = Finding("answers", "info", f"{len(filled)} labels are taken from {path.name}")
    blank = len(cells) - len(filled)
    left = (
        (Finding("answers-blank", "info", f"{blank} rows of {path.name} have no label yet"),) if blank else ()
    )
    return replace(
        dataset,
        targets=targets,
        labels=() if read.task == "regression" else sorted_labels(targets),
        task=read.task,
        notes=(*dataset.notes, *notes, *read.notes, found, *left),
    )


def _column(path: Path, columns: Mapping[str, Sequence[object]], name: str) -> Sequence[object]:
    """Return a column that must be there."""
    if name not in columns:
        raise DataError(
            f"{path} has no column '{name}' (it has {explain_items(list(columns))})",
            expected=f"the columns {ID} and {LABEL}, as `headstart labels` writes them",
            fix="rename the column",
        )
    return columns[name]


def _rows(dataset: TableDataset, path: Path, ids: Sequence[str], places: Sequence[str]) -> list[int]:
    """Return the row of the data that each id names."""
    row_of: dict[str, int] = {}
    double: set[str] = set()
    for row, name in enumerate(map(written, dataset.ids)):
        if row_of.setdefault(name, row) != row:
            double.add(name)
    for name, place in zip(ids, places, strict=True):
        if name not in row_of or name in double:
            many = name in double
            raise DataError(
                f"{place} names '{name}', {'which is the id of several items' if many else 'which is no item'}"
                f"{'' if many else nearest(name, row_of)}",
                expected=f"ids of the data that {path.name} was made for",
                fix="rename the items so that they differ" if many else "give the data that it was made for",
            )
    return [row_of[name] for name in ids]


def _laid_over(
    targets: Sequence[Target | None],
    rows: Sequence[int],
    answers: Sequence[Target | None],
    places: Sequence[str],
) -> list[Target | None]:
    """Return the targets with the answers in their rows; two different ones for one item are refused."""
    laid = list(targets)
    given: dict[int, tuple[Target | None, str]] = {}
    for row, answer, place in zip(rows, answers, places, strict=True):
        before, other = given.setdefault(row, (answer, place))
        if before != answer:
            raise DataError(
                f"{other} and {place} give one item the labels {before!r} and {answer!r}",
                expected="one label an item",
                fix="delete one of the rows",
            )
        laid[row] = answer
    return laid
