"""From where data lie to a dataset: readers, splits, audit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headstart.core.errors import DataError
from headstart.core.settings import Source
from headstart.data.answers import with_answers
from headstart.data.arrays import from_arrays, from_memory, from_texts
from headstart.data.dataset import TableDataset, require_targets
from headstart.data.folders import open_folder
from headstart.data.tables import is_table, open_table, open_tables
from headstart.data.tagged import conll_files, is_conll, open_conll

LONGEST_PATH = 4096
"""Characters; what is longer is a text."""

__all__ = [
    "TableDataset",
    "from_arrays",
    "from_memory",
    "from_texts",
    "open_dataset",
    "require_targets",
    "title_of",
    "with_answers",
]


def open_dataset(source: Source, *, needs_label: bool = True) -> TableDataset:
    """Open a folder of class folders, a table or CoNLL files; DataError says what is missing and the fix.

    Labels in the tables `source.answers` go before those of the data. Without `needs_label` data may have none at all.
    """
    if not source.uri:
        raise DataError(
            "no data were given",
            expected="a folder, or a .csv, .tsv, .parquet, .jsonl or .conll file",
            fix="pass its path",
        )
    return with_answers(_opened(source, needs_label=needs_label and not source.answer_files), source)


def title_of(data: Any, otherwise: str) -> str:
    """Name data, or a model folder, by the last part of where they lie; data in memory, or ".", as `otherwise` says."""
    if not isinstance(data, (str, Path)) or len(str(data)) >= LONGEST_PATH:
        return otherwise
    path = Path(data)
    return (path.name if path.is_dir() else path.stem) or otherwise


def _opened(source: Source, *, needs_label: bool) -> TableDataset:
    """Open data by their kind."""
    path = Path(source.uri).expanduser()
    if path.is_dir():
        if conll_files(path):
            return open_conll(path)
        return open_tables(path, source, needs_label=needs_label) or open_folder(
            path, needs_label=needs_label
        )
    if is_conll(path):
        return open_conll(path)
    if is_table(path):
        return open_table(path, source, needs_label=needs_label)
    return open_folder(path, needs_label=needs_label)
