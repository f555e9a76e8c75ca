"""JSON lines, one object an item."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headstart.core.errors import DataError


def parse_lines(path: Path, whole: str) -> dict[str, Sequence[object]]:
    """Return all keys of objects as columns, None where an object lacks one; DataError names a bad line of `path`."""
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(whole.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
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
