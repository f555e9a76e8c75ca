"""Paths in a table: each inside the table's own folder, there, and named once."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from headstart.core.errors import DataError
from headstart.data.dataset import explain_items
from headstart.data.targets import as_label


def table_paths(
    table: Path, values: Sequence[object], place: Callable[[int], str]
) -> tuple[list[str], list[Path]]:
    """Return ids and full paths; empty, doubled or outlying paths are refused with their rows (`place` names one)."""
    root = os.path.abspath(table.parent)
    ids: list[str] = []
    rows: dict[str, str] = {}
    for number, value in enumerate(values):
        row = place(number)
        given = as_label(value)
        if given is None:
            raise DataError(
                f"{row} has no path",
                expected="the path of a file",
                fix="fill it in or delete the row",
            )
        name = os.path.relpath(os.path.normpath(os.path.join(root, given.replace("\\", "/"))), root).replace(
            os.sep, "/"
        )
        if name == ".." or name.startswith("../"):
            raise DataError(
                f"{row}: {given} lies outside {root}",
                expected="paths inside the table's own folder",
                fix="move the table to the folder above all of its files, or correct the path",
            )
        if name in rows:
            raise DataError(
                f"{rows[name]} and {row} both name {given}",
                expected="one row a file",
                fix="delete one of the rows",
            )
        rows[name] = row
        ids.append(name)
    inputs = [Path(root, name) for name in ids]
    _require_files(table, root, inputs, place)
    return ids, inputs


def _require_files(table: Path, root: str, inputs: list[Path], place: Callable[[int], str]) -> None:
    """Refuse rows whose file is missing, and links that lead out of the table's folder."""
    real_root = os.path.realpath(root)
    folders = {os.path.dirname(path) for path in inputs}
    listed = {folder: _names(folder) for folder in folders}
    missing = [
        f"{place(row)}: {path.name}"
        for row, path in enumerate(inputs)
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
