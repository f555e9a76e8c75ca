"""JSON lines, one object an item, plain or gzipped."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headstart.core.errors import DataError
from headstart.modalities import text


def read_jsonl(path: Path) -> dict[str, Sequence[object]]:
    """Return the keys of all objects as columns, None where an object lacks one; DataError names a bad line."""
    if not path.is_file():
        raise DataError(f"{path} does not exist", expected="a table", fix="check the path for spelling")
    content = path.read_bytes()
    try:
        whole = gzip.decompress(content) if path.suffix.lower() == ".gz" else content
    except (OSError, EOFError) as error:
        raise DataError(
            f"{path} cannot be read: {error}", expected="a gzip file", fix="write it anew"
        ) from None
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(text.decoded(whole, str(path))[0].split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise _bad(path, number, f"is not JSON ({error})") from None
        if not isinstance(row, dict):
            raise _bad(path, number, f"holds a {type(row).__name__}")
        rows.append(row)
    if not rows:
        raise DataError(f"{path} has no rows", expected="one object a line", fix="add rows")
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _bad(path: Path, number: int, what: str) -> DataError:
    """Return the error for a line."""
    return DataError(
        f"{path.name} line {number} {what}",
        expected='one object a line, such as {"text": "...", "label": "..."}',
        fix="correct or delete the line",
    )
