"""A CSV, TSV or Parquet table with a path and a label column, and perhaps split, group and domain columns."""

from __future__ import annotations

import csv
import io
import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from headstart.core.errors import DataError, nearest
from headstart.core.settings import Source
from headstart.core.types import Finding, SplitName
from headstart.data.dataset import TableDataset, explain_items, sorted_labels
from headstart.data.folders import SPLIT_NAMES
from headstart.data.jsonl import read_jsonl
from headstart.data.tagged import tagged_rows
from headstart.modalities import text

GUESSES: dict[str, tuple[str, ...]] = {
    "path": (
        "path",
        "file",
        "filename",
        "file_name",
        "filepath",
        "file_path",
        "image",
        "image_path",
        "img",
        "img_path",
    ),
    "text": (
        "text",
        "sentence",
        "review",
        "content",
        "body",
        "message",
        "comment",
        "tweet",
        "document",
        "title",
    ),
    "label": (
        *("label", "class", "target", "category", "class_name", "label_name", "diagnosis", "y"),
        *("sentiment", "topic", "intent"),
    ),
    "split": ("split", "subset", "fold_name", "partition"),
    "group": (
        "group",
        "patient",
        "patient_id",
        "subject",
        "subject_id",
        "group_id",
        "lesion_id",
        "scene",
        "speaker",
    ),
    "domain": ("domain", "site", "source", "scanner", "hospital"),
}
"""Column names, in lower case, by which a role is known when the settings name none; the first that is there."""

TABLE_EXTENSIONS = (".csv", ".tsv", ".parquet", ".jsonl", ".gz")

MOST_FLOAT_CLASSES = 20
"""More different numbers that are not whole are no classes."""

_MISSING = {"", "nan", "none", "null", "na", "n/a", "<na>", "inf", "-inf", "infinity", "-infinity"}


def as_label(value: object) -> str | None:
    """Return a label, group or domain as text; None for what means missing (None, NaN, an infinity, empty text)."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a column of whole numbers with a hole in it is read as floats
    label = str(value).strip()
    return None if label.lower() in _MISSING else label


def as_split(value: object, place: str) -> SplitName | None:
    """Return the split that a value means, None where it is missing; DataError says the place of an unknown one."""
    name = as_label(value)
    if name is None:
        return None
    if name.lower() not in SPLIT_NAMES:
        raise DataError(
            f"{place} says the split '{name}'{nearest(name, SPLIT_NAMES)}",
            expected=f"one of {', '.join(SPLIT_NAMES)} (any case), or nothing",
            fix="correct the value, or choose another column with --set data.split_column=...",
        )
    return SPLIT_NAMES[name.lower()]


def open_table(path: Path, source: Source) -> TableDataset:
    """Read a table; paths are relative to its folder. Row numbers in messages count the header as row 1."""
    columns = _read_rows(path)
    if tagged := tagged_rows(path, columns, source):
        return tagged
    chosen, notes = _choose(path, columns, source)
    values = {role: columns[name] for role, name in chosen.items()}
    if "path" in values:
        ids, inputs = _paths(path, values["path"])
        modality = "text" if all(item.suffix.lower() in text.EXTENSIONS for item in inputs) else "image"
    else:
        inputs = ["" if value is None or value != value else str(value) for value in values["text"]]
        ids, modality = [f"row {row}" for row in range(2, len(inputs) + 2)], "text"
    targets, said = _classes(path, values["label"])
    blank: list[object] = [None] * len(ids)
    splits: list[SplitName | None] = [
        as_split(value, f"{path.name} row {row}")
        for row, value in enumerate(values.get("split", blank), start=2)
    ]
    return TableDataset(
        inputs=inputs,
        targets=targets,
        ids=ids,
        domains=[as_label(value) or "" for value in values.get("domain", blank)],
        groups=[as_label(value) or "" for value in values.get("group", blank)],
        splits=splits,
        labels=sorted_labels(targets),
        root=path.parent,
        modality=modality,
        notes=(*notes, *said),
    )


def _classes(path: Path, values: Sequence[object]) -> tuple[list[str | None], tuple[Finding, ...]]:
    """Return a label column as class names; whole numbers written as floats lose their point, others are refused."""
    labels = [as_label(value) for value in values]
    numbers = [_as_float(label) for label in labels if label is not None]
    floats = [number for number in numbers if number is not None]
    written = any("." in label for label in labels if label)
    if not written or len(floats) < len(numbers) or not floats:
        return labels, ()
    if all(number.is_integer() for number in floats):
        message = "the labels are whole numbers written with a point (1.0): taken as the classes 1, 2, ..."
        note = Finding("labels-as-floats", "info", message)
        return [None if label is None else str(int(float(label))) for label in labels], (note,)
    distinct = len(set(floats))
    if distinct > MOST_FLOAT_CLASSES:
        raise DataError(
            f"{path}: the label column holds {distinct} different numbers such as {floats[0]:g}",
            expected="classes",
            fix="put the numbers into ranges with names (low, middle, high), or name another column: "
            "--set data.label_column=NAME",
        )
    return labels, ()


def _as_float(label: str) -> float | None:
    """Return a label as a number, None where it is none."""
    try:
        return float(label)
    except ValueError:
        return None


def _read_rows(path: Path) -> dict[str, Sequence[object]]:
    """Read a table of any kind as columns."""
    ending = path.suffix.lower()
    if ending == ".parquet":
        return _read_parquet(path)
    return (
        read_jsonl(path)
        if ending == ".jsonl" or path.name.lower().endswith(".jsonl.gz")
        else _read_text(path)
    )


def _read_text(path: Path) -> dict[str, Sequence[object]]:
    """Read a CSV or TSV as columns, in UTF-8, UTF-16, or the encoding that its bytes suggest (with a warning)."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(
            f"{path} does not exist", expected="a table", fix="check the path for spelling"
        ) from None
    whole, encoding = text.decoded(content, str(path))
    if "utf" not in encoding:
        warnings.warn(
            f"{path} is not UTF-8: read as {encoding} (save it as 'CSV UTF-8' to be sure)", stacklevel=2
        )
    # Only line ends end a line: texts may hold other separators (U+2028, a form feed).
    lines = list(io.StringIO(whole, newline=""))
    first = lines[0] if lines else ""
    separator = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=first.count)
    before = csv.field_size_limit(max(csv.field_size_limit(), len(whole) + 1))
    try:
        rows = list(csv.reader(lines, delimiter=separator))
    finally:
        csv.field_size_limit(before)
    return _as_columns(path, rows)


def _as_columns(path: Path, rows: list[list[str]]) -> dict[str, Sequence[object]]:
    """Turn rows, header first, into columns; blank lines at the end are dropped, ragged rows refused."""
    while rows and not any(rows[-1]):
        rows.pop()
    if len(rows) < 2:
        raise DataError(
            f"{path} has {'a header but no rows' if rows else 'no text'}",
            expected="a header and one row an item",
            fix="add rows",
        )
    header = [name.strip() for name in rows[0]]
    if len(set(header)) < len(header):
        double = next(name for place, name in enumerate(header) if name in header[:place])
        raise DataError(
            f"{path} has two columns '{double}'", expected="column names that differ", fix="rename one"
        )
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise DataError(
                f"{path.name} row {number} has {len(row)} values",
                expected=f"{len(header)}, as the header has",
                fix="quote values that hold the separator or a line break",
            )
    return dict(zip(header, zip(*rows[1:], strict=True), strict=True))


def _read_parquet(path: Path) -> dict[str, Sequence[object]]:
    """Read a Parquet file's columns."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table
    except ModuleNotFoundError:
        raise DataError(
            f"{path} needs pyarrow, which is not installed",
            expected="the extra that reads Parquet",
            fix="pip install 'headstart[parquet]'",
        ) from None
    if not path.is_file():
        raise DataError(f"{path} does not exist", expected="a table", fix="check the path for spelling")
    try:
        table = read_table(path)
    except (ArrowException, OSError) as error:
        raise DataError(
            f"{path} cannot be read: {error}", expected="a Parquet file", fix="write the file anew"
        ) from error
    if table.num_rows == 0:
        raise DataError(f"{path} has no rows", expected="one row an item", fix="add rows")
    return {name: table.column(name).to_pylist() for name in table.column_names}


def _choose(
    path: Path, columns: dict[str, Sequence[object]], source: Source
) -> tuple[dict[str, str], tuple[Finding, ...]]:
    """Return the column of each role, as set or as guessed, and notes of the guesses."""
    asked = {role: getattr(source, f"{role}_column") for role in GUESSES}
    chosen: dict[str, str] = {}
    guessed: list[str] = []
    for role, name in asked.items():
        if name is not None:
            chosen[role] = _require(path, columns, role, name)
    known = {name.lower(): name for name in reversed(columns) if name not in chosen.values()}
    for role, names in GUESSES.items():
        found = next((known[name] for name in names if name in known), None)
        if role not in chosen and found is not None:
            chosen[role] = found
            guessed.append(f"{role} = '{found}'")
    if source.text_column is not None or "path" not in chosen:
        chosen.pop("path", None)
        if "text" not in chosen:
            raise _no_column(path, columns, "path", "no column that looks like the path or the text")
    else:
        chosen.pop("text", None)
    guessed = [note for note in guessed if note.partition(" ")[0] in chosen]
    if "label" not in chosen:
        raise _no_column(path, columns, "label", "no column that looks like the label")
    if not guessed:
        return chosen, ()
    return chosen, (
        Finding("columns-guessed", "info", f"columns taken by their names: {', '.join(guessed)}"),
    )


def _require(path: Path, columns: dict[str, Sequence[object]], role: str, name: str) -> str:
    """Return a column's name if the table has it."""
    if name not in columns:
        raise _no_column(path, columns, role, f"no column '{name}'{nearest(name, columns)}")
    return name


def _no_column(path: Path, columns: dict[str, Sequence[object]], role: str, what: str) -> DataError:
    """Return the error for a missing column."""
    return DataError(
        f"{path} has {what}",
        expected=f"a {role} column; the header (row 1) has {explain_items(list(columns), most=20)}",
        fix=f"--set data.{role}_column=NAME",
    )


def _paths(table: Path, values: Sequence[object]) -> tuple[list[str], list[Path]]:
    """Return ids and full paths; empty, doubled or outlying paths are refused with their rows."""
    root = os.path.abspath(table.parent)
    ids: list[str] = []
    rows: dict[str, int] = {}
    for row, value in enumerate(values, start=2):
        given = as_label(value)
        if given is None:
            raise DataError(
                f"{table.name} row {row} has no path",
                expected="the path of a file",
                fix="fill it in or delete the row",
            )
        name = os.path.relpath(os.path.normpath(os.path.join(root, given.replace("\\", "/"))), root).replace(
            os.sep, "/"
        )
        if name == ".." or name.startswith("../"):
            raise DataError(
                f"{table.name} row {row}: {given} lies outside {root}",
                expected="paths inside the table's own folder",
                fix="move the table to the folder above all of its files, or correct the path",
            )
        if name in rows:
            raise DataError(
                f"{table.name} rows {rows[name]} and {row} both name {given}",
                expected="one row a file",
                fix="delete one of the rows",
            )
        rows[name] = row
        ids.append(name)
    inputs = [Path(root, name) for name in ids]
    _require_files(table, root, inputs)
    return ids, inputs


def _require_files(table: Path, root: str, inputs: list[Path]) -> None:
    """Refuse rows whose file is missing, and links that lead out of the table's folder."""
    real_root = os.path.realpath(root)
    folders = {os.path.dirname(path) for path in inputs}
    listed = {folder: _names(folder) for folder in folders}
    missing = [
        f"row {row}: {path.name}"
        for row, path in enumerate(inputs, start=2)
        if path.name not in listed[os.path.dirname(path)]
    ]
    if missing:
        raise DataError(
            f"{table} names {len(missing)} files that do not exist ({explain_items(missing)})",
            expected=f"paths relative to {root}",
            fix="correct the paths, or move the table to the folder that they are relative to",
        )
    strays = [folder for folder in folders if not _is_inside(os.path.realpath(folder), real_root)]
    links = [
        path for path in inputs if path.is_symlink() and not _is_inside(os.path.realpath(path), real_root)
    ]
    if strays or links:
        raise DataError(
            f"{table}: {(strays or links)[0]} is a link that leads outside {root}",
            expected="files inside the table's own folder",
            fix="copy the files there",
        )


def _names(folder: str) -> set[str]:
    """Return the names in a folder, none if there is no such folder."""
    return set(os.listdir(folder)) if os.path.isdir(folder) else set()


def _is_inside(path: str, root: str) -> bool:
    """Tell whether a resolved path is the root or lies below it."""
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)
