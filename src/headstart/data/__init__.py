"""From where data lie to a dataset: readers, splits, audit."""

from __future__ import annotations

from pathlib import Path

from headstart.core.errors import DataError
from headstart.core.settings import Source
from headstart.data.arrays import from_arrays, from_texts
from headstart.data.dataset import TableDataset, require_classes
from headstart.data.folders import open_folder
from headstart.data.tables import TABLE_EXTENSIONS, open_table
from headstart.data.tagged import CONLL_EXTENSIONS, open_conll

__all__ = ["TableDataset", "from_arrays", "from_texts", "open_dataset", "require_classes"]


def open_dataset(source: Source) -> TableDataset:
    """Open a folder of class folders, a table or CoNLL files; DataError says what is missing and the fix."""
    if not source.uri:
        raise DataError(
            "no data were given",
            expected="a folder, or a .csv, .tsv, .parquet, .jsonl or .conll file",
            fix="pass its path",
        )
    path = Path(source.uri).expanduser()
    if _is_conll(path):
        return open_conll(path)
    if path.suffix.lower() in TABLE_EXTENSIONS and not path.is_dir():
        return open_table(path, source)
    return open_folder(path)


def _is_conll(path: Path) -> bool:
    """Tell a CoNLL file, or a folder that holds some."""
    if path.is_dir():
        return any(item.suffix.lower() in CONLL_EXTENSIONS for item in path.iterdir())
    return path.suffix.lower() in CONLL_EXTENSIONS and path.is_file()
