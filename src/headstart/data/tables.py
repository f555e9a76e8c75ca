"""CSV, TSV, Parquet and JSON lines, plain or gzipped: paths or texts with labels, splits, groups and domains."""

from __future__ import annotations

import csv
import gzip
import io
import os
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from headstart.core.errors import DataError
from headstart.core.settings import Source
from headstart.core.types import Finding
from headstart.data.columns import Chosen, Columns, choose, membership
from headstart.data.dataset import TableDataset, explain_items
from headstart.data.folders import split_of
from headstart.data.jsonl import parse_lines
from headstart.data.paths import table_paths
from headstart.data.tagged import tagged_rows
from headstart.data.targets import Targets, read_label_columns, read_targets
from headstart.modalities import encodings, text

TABLE_EXTENSIONS = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")
"""File name endings of tables, each but .parquet also with .gz behind it."""


def is_table(path: Path) -> bool:
    """Tell whether a path names a table, by its ending."""
    return _ending(path) in TABLE_EXTENSIONS


def open_table(path: Path, source: Source, *, needs_label: bool = True) -> TableDataset:
    """Read a table; paths are relative to its folder. Row numbers in messages count the header as row 1.

    Without `needs_label` it may have no column of labels.
    """
    columns, notes = read_table(path)
    first = first_row(path)
    ids = [f"row {row + first}" for row in range(_height(columns))]
    return _dataset(path, columns, source, notes, ids, needs_label=needs_label)


def open_tables(folder: Path, source: Source, *, needs_label: bool = True) -> TableDataset | None:
    """Read the tables of a folder that are named train, dev (or validation) and test; None where there are no such.

    Each table is the split of its name, unless the settings name a split column. DataError where columns differ.
    """
    files = {
        path: split_of(path.name) for path in sorted(folder.iterdir()) if path.is_file() and is_table(path)
    }
    files = {path: split for path, split in files.items() if split is not None}
    if "train" not in files.values():
        return None
    parts = {path: read_table(path) for path in files}
    first = next(iter(parts))
    names = list(parts[first][0])
    for path, (columns, _) in parts.items():
        if set(columns) != set(names):
            raise DataError(
                f"{path.name} has the columns {explain_items(list(columns))}",
                expected=f"those of {first.name}: {explain_items(names)}",
                fix="name the columns alike, or move the table elsewhere",
            )
    columns = {name: [cell for part, _ in parts.values() for cell in part[name]] for name in names}
    ids = [
        f"{path.name} row {row + first_row(path)}"
        for path, (part, _) in parts.items()
        for row in range(_height(part))
    ]
    notes = tuple(note for _, some in parts.values() for note in some)
    if source.split_column is None:
        columns["split"] = [files[path] for path, (part, _) in parts.items() for _ in range(_height(part))]
        said = ", ".join(f"{path.name} = {split}" for path, split in files.items())
        notes = (
            *notes,
            Finding("splits-from-files", "info", f"splits taken from the names of files: {said}"),
        )
        source = source.model_copy(update={"split_column": "split"})
    return _dataset(folder / first.name, columns, source, notes, ids, needs_label=needs_label)


def read_table(path: Path) -> tuple[dict[str, Sequence[object]], tuple[Finding, ...]]:
    """Read a table of any kind as columns, with a note where its encoding was guessed."""
    if _ending(path) == ".parquet":
        return _read_parquet(path), ()
    _require_file(path)
    raw = encodings.content(path)
    if path.suffix.lower() == ".gz":
        raw = _unpacked(path, raw)
    whole, encoding = encodings.decoded(raw, str(path))
    message = f"{path.name} is not UTF-8: read as {encoding}"
    guessed = Finding("encoding-guessed", "warning", message, "save it as UTF-8 to be sure")
    notes = () if encoding.startswith("utf") else (guessed,)
    if _ending(path) in (".jsonl", ".ndjson"):
        return parse_lines(path, whole), notes
    return _parse_text(path, whole), notes


def first_row(path: Path) -> int:
    """Return the number of a table's first row in messages: lines of JSON have no header above them."""
    return 1 if _ending(path) in (".jsonl", ".ndjson") else 2


def texts_of(columns: Columns, name: str) -> list[str]:
    """Return a column as texts, missing ones empty."""
    return [_as_text(value, name) for value in columns[name]]


def _dataset(
    path: Path,
    columns: Columns,
    source: Source,
    notes: tuple[Finding, ...],
    ids: list[str],
    *,
    needs_label: bool,
) -> TableDataset:
    """Make the dataset of a table's columns; `ids` name its rows."""
    place = partial(_place, path.name, ids)
    if tagged := tagged_rows(path, columns, source, ids):
        return tagged
    chosen = choose(path, columns, source, needs_label=needs_label)
    if "path" in chosen.roles:
        names, inputs = table_paths(path, columns[chosen.roles["path"]], place)
        modality = "text" if all(item.suffix.lower() in text.EXTENSIONS for item in inputs) else "image"
    else:
        names, inputs, modality = ids, texts_of(columns, chosen.roles["text"]), "text"
    targets = _targets(columns, chosen, source, place)
    domains, groups, splits = membership(columns, chosen.roles, len(ids), place)
    return TableDataset(
        inputs=inputs,
        targets=targets.values,
        ids=names,
        domains=domains,
        groups=groups,
        splits=splits,
        labels=targets.labels,
        root=path.parent,
        modality=modality,
        task=targets.task,
        notes=(*notes, *chosen.notes, *targets.notes),
    )


def _targets(columns: Columns, chosen: Chosen, source: Source, place: partial[str]) -> Targets:
    """Read the label column, or several; where there is none, no row has a target."""
    if chosen.labels:
        return read_label_columns({name: columns[name] for name in chosen.labels}, place=place)
    if "label" not in chosen.roles:
        return Targets([None] * _height(columns), source.task or "classification")
    return read_targets(columns[chosen.roles["label"]], task=source.task, place=place)


def _place(name: str, ids: Sequence[str], row: int) -> str:
    """Say where a row is."""
    return ids[row] if name in ids[row] else f"{name} {ids[row]}"


def _ending(path: Path) -> str:
    """Return a file's ending in lower case, without .gz."""
    name = path.name.lower().removesuffix(".gz")
    return os.path.splitext(name)[1]


def _height(columns: Columns) -> int:
    """Return the number of rows."""
    return len(next(iter(columns.values())))


def _as_text(value: object, name: str) -> str:
    """Return a cell as a text, empty where it is missing."""
    if value is None or value != value:
        return ""
    return (
        encodings.decoded(value, f"a cell of the column '{name}'")[0]
        if isinstance(value, bytes)
        else str(value)
    )


def _require_file(path: Path) -> None:
    """Refuse a path where no file is."""
    if not path.is_file():
        raise DataError(f"{path} does not exist", expected="a table", fix="check the path for spelling")


def _unpacked(path: Path, raw: bytes) -> bytes:
    """Return what a gzip file holds."""
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read: {error}", expected="a gzip file", fix="write it anew"
        ) from None


def _parse_text(path: Path, whole: str) -> dict[str, Sequence[object]]:
    """Read a CSV or TSV as columns."""
    # Only line ends end a line: texts may hold other separators (U+2028, a form feed).
    lines = io.StringIO(whole, newline="")
    first = next(lines, "")
    separator = "\t" if _ending(path) == ".tsv" else max(",;\t|", key=first.count)
    lines.seek(0)
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
        from pyarrow.parquet import read_table as read
    except ModuleNotFoundError:
        raise DataError(
            f"{path} needs pyarrow, which is not installed",
            expected="the extra that reads Parquet",
            fix="pip install 'headstart[parquet]'",
        ) from None
    _require_file(path)
    try:
        table = read(path)
    except (ArrowException, OSError) as error:
        raise DataError(
            f"{path} cannot be read: {error}", expected="a Parquet file", fix="write the file anew"
        ) from error
    if table.num_rows == 0:
        raise DataError(f"{path} has no rows", expected="one row an item", fix="add rows")
    return {name: table.column(name).to_pylist() for name in table.column_names}
