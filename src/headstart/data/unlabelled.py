"""Items to predict: files, folders of files, or arrays; no labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core.errors import DataError
from headstart.core.registry import resolve
from headstart.data.dataset import Input, TableDataset


def open_inputs(inputs: Sequence[Any], *, modality: str = "image") -> TableDataset:
    """List the items to predict, in order; a folder gives its pictures or texts (and those of its folders), sorted.

    For a network of texts, a string is a text unless it names a file or folder.

    DataError names a path that is not there, and where nothing is left to predict.
    """
    kind = resolve("modality", modality)
    references: list[Input] = []
    ids: list[str] = []
    for number, item in enumerate(inputs):
        if isinstance(item, np.ndarray):
            references.append(item)
            ids.append(f"array {number}")
        elif modality == "text" and (
            isinstance(item, tuple) or (isinstance(item, str) and not _is_path(item))
        ):
            references.append(item)
            ids.append(f"text {number}")
        else:
            found = _files(Path(item), kind)
            references += found
            ids += [str(path) for path in found]
    if not references:
        raise DataError(
            "nothing to predict", expected=f"{kind.NOUN[1]}, or folders that hold some", fix="check the paths"
        )
    empty = [""] * len(ids)
    return TableDataset(
        references, [None] * len(ids), ids, empty, list(empty), [None] * len(ids), (), modality=modality
    )


def _is_path(item: str) -> bool:
    """Tell whether a string names a file or folder, or can only be meant so."""
    looks_like_one = not any(letter.isspace() for letter in item) and (
        "/" in item or item.endswith((".txt", ".md"))
    )
    return looks_like_one or (len(item) < 250 and "\n" not in item and Path(item).exists())


def _files(path: Path, kind: Any) -> list[Path]:
    """Return a file, or the items below a folder."""
    if path.is_dir():
        return sorted(
            item for item in path.rglob("*") if item.suffix.lower() in kind.EXTENSIONS and item.is_file()
        )
    if not path.exists():
        raise DataError(
            f"{path} is not there",
            expected=f"a {kind.NOUN[0]} or a folder of {kind.NOUN[1]}",
            fix="correct the path",
        )
    return [path]
