"""What every test stands on: its own store and configuration, no hub, one thread, steady properties."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from headstart.store import Store

# Read when torch is loaded: the order of a sum over threads is not the same twice.
os.environ["OMP_NUM_THREADS"] = "1"

settings.register_profile("headstart", deadline=None, max_examples=50)
settings.load_profile("headstart")


@pytest.fixture(autouse=True)
def own_machine(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the person's own store, configuration and hub out of the test; return the test's home folder."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HEADSTART_STORE", str(home / "store"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return home


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return an empty store."""
    return Store(tmp_path / "store")
