"""From where data lie to a dataset: readers, splits, audit."""

from __future__ import annotations

from pathlib import Path

from headstart.core.errors import DataError
from headstart.core.settings import Source
from headstart.data.arrays import from_arrays, from_memory, from_texts
from headstart.data.dataset import TableDataset, require_targets
from headstart.data.folders import open_folder
from headstart.data.tables import is_table, open_table, open_tables
from headstart.data.tagged import conll_files, is_conll, open_conll

__all__ = ["TableDataset", "from_arrays", "from_memory", "from_texts", "open_dataset", "require_targets"]


def open_dataset(source: Source) -> TableDataset:
    """Open a folder of class folders, a table or CoNLL files; DataError says what is missing and the fix."""
    if not source.uri:
        raise DataError(
            "no data were given",
            expected="a folder, or a .csv, .tsv, .parquet, .jsonl or .conll file",
            fix="pass its path",
        )
    path = Path(source.uri).expanduser()
    if path.is_dir():
        if conll_files(path):
            return open_conll(path)
        return open_tables(path, source) or open_folder(path)
    if is_conll(path):
        return open_conll(path)
    return open_table(path, source) if is_table(path) else open_folder(path)
