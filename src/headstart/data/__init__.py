"""From where data lie to a dataset: readers, splits, audit."""

from __future__ import annotations

from pathlib import Path

from headstart.core.errors import DataError
from headstart.core.settings import Source
from headstart.data.arrays import from_arrays
from headstart.data.dataset import TableDataset, require_classes
from headstart.data.folders import open_folder
from headstart.data.tables import TABLE_EXTENSIONS, open_table

__all__ = ["TableDataset", "from_arrays", "open_dataset", "require_classes"]


def open_dataset(source: Source) -> TableDataset:
    """Open a folder of class folders or a table; DataError says what is missing and how to put it right."""
    if not source.uri:
        raise DataError(
            "no data were given", expected="a folder, or a .csv, .tsv or .parquet file", fix="pass its path"
        )
    path = Path(source.uri).expanduser()
    if path.suffix.lower() in TABLE_EXTENSIONS and not path.is_dir():
        return open_table(path, source)
    return open_folder(path)
