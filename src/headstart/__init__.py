"""headstart: bring data; it picks, adapts, proves and ships a pretrained network."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headstart.api import (
        adapt,
        audit,
        chain,
        evaluate,
        explain,
        fit,
        labels,
        load,
        plan,
        predict,
        pretrain,
        prove,
        rank,
        run,
        shift,
    )
    from headstart.core.errors import HeadstartError
    from headstart.core.machine import Machine
    from headstart.core.plan import Plan
    from headstart.core.settings import Extract, FineTune, Pretrained, Source, Split
    from headstart.data import TableDataset, from_arrays, from_texts
    from headstart.encoders.module import from_module
    from headstart.model import Model
    from headstart.result import Result

_HOMES = {
    "Extract": "headstart.core.settings",
    "FineTune": "headstart.core.settings",
    "HeadstartError": "headstart.core.errors",
    "Machine": "headstart.core.machine",
    "Model": "headstart.model",
    "Plan": "headstart.core.plan",
    "Pretrained": "headstart.core.settings",
    "Result": "headstart.result",
    "Source": "headstart.core.settings",
    "Split": "headstart.core.settings",
    "TableDataset": "headstart.data",
    "adapt": "headstart.api",
    "audit": "headstart.api",
    "chain": "headstart.api",
    "evaluate": "headstart.api",
    "explain": "headstart.api",
    "fit": "headstart.api",
    "from_arrays": "headstart.data",
    "from_texts": "headstart.data",
    "from_module": "headstart.encoders.module",
    "labels": "headstart.api",
    "load": "headstart.api",
    "plan": "headstart.api",
    "predict": "headstart.api",
    "pretrain": "headstart.api",
    "prove": "headstart.api",
    "rank": "headstart.api",
    "run": "headstart.api",
    "shift": "headstart.api",
}

__all__ = [
    "Extract",
    "FineTune",
    "HeadstartError",
    "Machine",
    "Model",
    "Plan",
    "Pretrained",
    "Result",
    "Source",
    "Split",
    "TableDataset",
    "adapt",
    "audit",
    "chain",
    "evaluate",
    "explain",
    "fit",
    "from_arrays",
    "from_module",
    "from_texts",
    "labels",
    "load",
    "plan",
    "predict",
    "pretrain",
    "prove",
    "rank",
    "run",
    "shift",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for; `import headstart` itself stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'headstart' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return __all__
