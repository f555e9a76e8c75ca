"""The result as JSON: the same numbers as the page."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from headstart.core.hashing import plain
from headstart.report.floors import floor_of
from headstart.report.words import cautions, settings_of, verdict

if TYPE_CHECKING:
    from headstart.core.types import Receipt
    from headstart.result import Baseline, Result

_PACKAGES = ("headstart", "torch", "timm", "transformers", "tokenizers", "onnxruntime", "numpy", "pillow")


def to_json(result: Result) -> dict[str, Any]:
    """Return everything that the report says as JSON values, without pictures or texts."""
    floor = floor_of(result)
    return {
        "format": 2,
        "modality": result.modality,
        "task": result.evaluation.task,
        "verdict": verdict(result),
        "cautions": cautions(result),
        "evaluation": result.evaluation.to_json(),
        "floor": {"name": floor.name, "score": result.evaluation.primary.name, "value": floor.value}
        if floor
        else None,
        "baseline": _baseline(result.baseline) if result.baseline else None,
        "audit": plain(result.audit),
        "receipt": _receipt(result.receipt),
        "selection": plain(result.selection),
        "lineage": plain(result.lineage),
        "race": plain(result.race),
        "history": plain(result.history),
        "cost": plain(result.cost),
        "predictions": [_without_path(asdict(item)) for item in result.predictions],
        "plan": settings_of(result),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python, headstart and the libraries that decide its numbers."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _baseline(baseline: Baseline) -> dict[str, Any]:
    """Return a baseline as JSON values."""
    return {
        "name": baseline.name,
        "seconds": baseline.seconds,
        "evaluation": baseline.evaluation.to_json(),
        "difference": plain(baseline.difference),
    }


def _receipt(receipt: Receipt) -> dict[str, Any]:
    """Return a receipt with its share transferred."""
    return {"transferred": receipt.transferred, **plain(receipt)}


def _without_path(values: dict[str, Any]) -> dict[str, Any]:
    """Leave out where an item lies on this machine; its id says which one it is."""
    return {name: value for name, value in values.items() if name != "path"}
