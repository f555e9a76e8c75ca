"""Items to predict: files, folders of files, tables, arrays or texts; no labels are needed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core.errors import DataError
from headstart.core.registry import resolve
from headstart.core.settings import Source
from headstart.data.columns import choose
from headstart.data.dataset import Input, TableDataset
from headstart.data.paths import table_paths
from headstart.data.tables import first_row, is_table, read_table, texts_of
from headstart.data.tagged import WORDS, is_conll, open_conll

_Found = tuple[list[str], list[Input]]
"""Ids and inputs."""


def open_inputs(
    inputs: Sequence[Any], *, modality: str = "image", source: Source | None = None
) -> TableDataset:
    """List the items to predict, in order; a folder gives its pictures or texts (and those of its folders), sorted.

    For a network of texts a string is a text (with a warning where a file is called so), for others a path; a `Path`
    is a path to all. The rows of a table are its texts or paths, by the columns of `source` or by their names.
    DataError names a path that is not there, and where nothing is left to predict.
    """
    kind = resolve("modality", modality)
    references: list[Input] = []
    ids: list[str] = []
    for number, item in enumerate(inputs):
        names, found = _found(item, number, modality, source or Source())
        ids += names
        references += found
    if not references:
        raise DataError(
            "nothing to predict", expected=f"{kind.NOUN[1]}, or folders that hold some", fix="check the paths"
        )
    empty = [""] * len(ids)
    return TableDataset(
        references, [None] * len(ids), ids, empty, list(empty), [None] * len(ids), (), modality=modality
    )


def names_file(item: str) -> bool:
    """Tell whether a string names a file or folder rather than being a text.

    A text may be the name of something that lies here by chance, so only what ends as files do is looked for; a single
    word that ends so is meant as a file even where there is none.
    """
    path = Path(item) if len(item) < 4096 and "\n" not in item and "\0" not in item else None
    if path is None or not item.strip():
        return False
    if "/" in item and not item.isspace() and _is_folder(path):
        return True
    is_called_so = (
        path.suffix.lower() in resolve("modality", "text").EXTENSIONS or is_table(path) or is_conll(path)
    )
    return is_called_so and (len(item.split()) == 1 or path.is_file())


def _found(item: Any, number: int, modality: str, source: Source) -> _Found:
    """Return the items that one input stands for."""
    if isinstance(item, np.ndarray):
        return [f"array {number}"], [item]
    if modality == "text" and (item is None or item != item or isinstance(item, (tuple, list))):
        return [f"text {number}"], [_words(item)]
    if modality == "text" and isinstance(item, str):
        if names_file(item) and _exists(Path(item)):
            warnings.warn(f"'{item}' is taken for a text: pass Path('{item}') to read the file", stacklevel=4)
        return [f"text {number}"], [item]
    path, kind = Path(item), resolve("modality", modality)
    if _is_folder(path):
        files = sorted(
            file for file in path.rglob("*") if file.suffix.lower() in kind.EXTENSIONS and file.is_file()
        )
        return [str(file) for file in files], list(files)
    if not _exists(path):
        raise DataError(
            f"{path} is not there",
            expected=f"a {kind.NOUN[0]}, a folder of {kind.NOUN[1]}, or a table",
            fix="correct the path",
        )
    if modality == "text" and is_conll(path):
        tagged = open_conll(path)
        return tagged.ids, list(tagged.inputs)
    return _rows(path, modality, source) if is_table(path) else ([str(path)], [path])


def _rows(path: Path, modality: str, source: Source) -> _Found:
    """Return the texts, or the paths, of a table."""
    columns, _ = read_table(path)
    first = first_row(path)
    count = len(next(iter(columns.values())))
    ids = [f"{path.name} row {row}" for row in range(first, first + count)]
    words = next((name for name in WORDS if name in columns), None)
    if modality == "text" and words and isinstance(columns[words][0], (list, tuple)):
        return ids, [_words(row) for row in columns[words]]
    roles = choose(path, columns, source, needs_label=False).roles
    if modality == "text" and "text" in roles:
        return ids, list(texts_of(columns, roles["text"]))
    if "path" not in roles:
        nouns = resolve("modality", modality).NOUN[1]
        raise DataError(
            f"{path} has no column of paths",
            expected=f"a column with the paths of {nouns}",
            fix="name the column path, or --set data.path_column=NAME",
        )
    _, files = table_paths(path, columns[roles["path"]], lambda row: ids[row])
    return ids, list(files)


def _words(row: object) -> tuple[str, ...]:
    """Return the words of a row; none where it has none (it is left out when it is opened)."""
    return tuple(map(str, row)) if isinstance(row, (list, tuple)) else ()


def _is_folder(path: Path) -> bool:
    """Tell whether a path is a folder; what can be no path is none."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _exists(path: Path) -> bool:
    """Tell whether something lies at a path; what can be no path is not there."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
