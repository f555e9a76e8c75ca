"""Content keys: the same meaning gives the same digest on every machine."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel

SCHEMA = 1
"""Version of the key recipe itself; part of every key."""


def plain(value: Any) -> Any:
    """Turn settings, dataclasses, mappings and sequences into JSON values, refusing everything else."""
    if isinstance(value, BaseModel):
        return plain(value.model_dump(mode="json"))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        mapping = cast("Mapping[Any, Any]", value)
        return {str(name): plain(item) for name, item in mapping.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in cast("list[Any]", value)]
    if isinstance(value, float):
        return value + 0.0  # -0.0 equals 0.0, so both must give one key
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no place in a key: use JSON values")


def canonical(value: Any) -> str:
    """Return `value` as JSON text that is equal if and only if the values are equal."""
    return json.dumps(
        plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def digest(*parts: Any) -> str:
    """Return the sha256 (64 hexadecimal digits) of the parts and of the key recipe's version."""
    return hashlib.sha256(canonical([SCHEMA, *parts]).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, read in constant memory."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
