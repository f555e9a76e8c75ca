"""Rows that are written to a file as they come, so that a run that was cut goes on, on this machine or another."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Kept:
    """Rows by name."""

    path: Path
    rows: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Kept:
        """Read the rows of an earlier run."""
        path.parent.mkdir(parents=True, exist_ok=True)
        return cls(path, json.loads(path.read_text()) if path.is_file() else {})

    def get(self, name: str, make: Callable[[], Any]) -> Any:
        """Return a row, making it where it is not there yet."""
        if name not in self.rows:
            self.rows[name] = make()
            staged = self.path.with_suffix(".part")
            staged.write_text(json.dumps(self.rows, indent=1))
            staged.replace(self.path)
            print(f"  {name}: {self.rows[name]}", flush=True)
        return self.rows[name]
