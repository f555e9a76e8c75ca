"""The machine's settings: flags before the environment before the file before the defaults."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart.core.errors import PlanError
from headstart.core.machine import config_file, read_machine


@pytest.fixture
def config(own_machine: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the configuration file's path, its folder made, the environment empty."""
    for name in ("STORE", "DEVICE", "THREADS"):
        monkeypatch.delenv(f"HEADSTART_{name}", raising=False)
    path = config_file()
    path.parent.mkdir(parents=True)
    assert own_machine in path.parents
    return path


def test_there_is_a_default_for_everything(config: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    machine = read_machine()
    assert machine.store == Path("/somewhere/headstart")
    assert machine.device == "auto"
    assert machine.threads >= 1


def test_flags_go_before_the_environment_before_the_file(config: Path, monkeypatch: pytest.MonkeyPatch):
    config.write_text('store = "/file"\ndevice = "cpu"\nthreads = 3\n')
    monkeypatch.setenv("HEADSTART_STORE", "/environment")
    monkeypatch.setenv("HEADSTART_THREADS", "2")
    machine = read_machine(threads=1)
    assert (machine.store, machine.device, machine.threads) == (Path("/environment"), "cpu", 1)


def test_a_store_below_the_home_folder_is_found(config: Path):
    config.write_text('store = "~/results"\n')
    assert read_machine().store == Path.home() / "results"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stroe = '/x'", r"stroe: unknown key \(did you mean 'store'\?\)"),
        ("threads = 0", "threads: Input should be greater than or equal to 1"),
        ("threads = ", "cannot be read"),
    ],
)
def test_a_wrong_configuration_is_refused(config: Path, text: str, said: str):
    config.write_text(text)
    with pytest.raises(PlanError, match=said):
        read_machine()
