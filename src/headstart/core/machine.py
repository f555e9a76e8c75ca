"""What belongs to this machine and to no plan or key: store folder, device, threads."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from pydantic import Field

from headstart.core.errors import PlanError
from headstart.core.settings import Settings, parse


class Machine(Settings):
    """Where results are kept and what computes them."""

    store: Path
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    threads: int = Field(ge=1)


def read_machine(
    *, store: Path | None = None, device: str | None = None, threads: int | None = None
) -> Machine:
    """Return this machine's settings: what is given here, else HEADSTART_STORE, _DEVICE and _THREADS, else the
    configuration file, else the defaults. A PlanError names a value that cannot be.
    """
    given = {"store": store, "device": device, "threads": threads}
    values = {
        "store": _base("XDG_CACHE_HOME", ".cache") / "headstart",
        "threads": available_threads(),
        **_configured(),
        **{name: text for name in given if (text := os.environ.get(f"HEADSTART_{name.upper()}"))},
        **{name: value for name, value in given.items() if value is not None},
    }
    machine = parse(Machine, values, what="the machine's settings (flags, HEADSTART_*, config.toml)")
    return machine.model_copy(update={"store": machine.store.expanduser()})


def available_threads() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def config_file() -> Path:
    """Return where the configuration file lies or would lie."""
    return _base("XDG_CONFIG_HOME", ".config") / "headstart" / "config.toml"


def _configured() -> dict[str, Any]:
    """Read the configuration file, if there is one."""
    path = config_file()
    if not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PlanError(
            f"the configuration file {path} cannot be read ({error})",
            expected="TOML with the keys store, device and threads",
            fix="correct or delete it",
        ) from None


def _base(variable: str, folder: str) -> Path:
    """Return the folder that an XDG variable names, or its default below the home folder."""
    named = os.environ.get(variable)
    return Path(named) if named else Path.home() / folder
