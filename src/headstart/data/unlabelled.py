"""Items to predict: files, folders of files, or arrays; no labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from headstart.core.errors import DataError
from headstart.data.dataset import TableDataset
from headstart.modalities.image import EXTENSIONS


def open_inputs(inputs: Sequence[str | Path | np.ndarray]) -> TableDataset:
    """List the items to predict, in order; a folder gives its pictures (and those of its folders), sorted.

    DataError names a path that is not there, and where nothing is left to predict.
    """
    references: list[Path | np.ndarray] = []
    ids: list[str] = []
    for number, item in enumerate(inputs):
        found = [item] if isinstance(item, np.ndarray) else _files(Path(item))
        references += found
        ids += [f"array {number}"] if isinstance(item, np.ndarray) else [str(path) for path in found]
    if not references:
        raise DataError(
            "nothing to predict", expected="pictures, or folders that hold some", fix="check the paths"
        )
    empty = [""] * len(ids)
    return TableDataset(references, [None] * len(ids), ids, empty, list(empty), [None] * len(ids), ())


def _files(path: Path) -> list[Path]:
    """Return a file, or the pictures below a folder."""
    if path.is_dir():
        return sorted(
            item for item in path.rglob("*") if item.suffix.lower() in EXTENSIONS and item.is_file()
        )
    if not path.exists():
        raise DataError(
            f"{path} is not there", expected="a picture or a folder of pictures", fix="correct the path"
        )
    return [path]
