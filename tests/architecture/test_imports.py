"""Imports point down, and starting up costs next to nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "timm", "onnxruntime", "numpy", "matplotlib", "PIL", "pyarrow", "sklearn")


def run(*command: str) -> str:
    """Run a command in the project's folder and return what it printed; it must succeed."""
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def processor_seconds(code: str) -> float:
    """Return the least processor time of three runs of Python code."""

    def once() -> float:
        before = os.times()
        run(sys.executable, "-c", code)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    return min(once() for _ in range(3))


def loaded_after(code: str) -> list[str]:
    """Return which heavy libraries are loaded once Python code has run."""
    check = f"import sys; print(*[name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    result = subprocess.run(
        [sys.executable, "-c", f"{code}\n{check}"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return result.stderr.split()


HELP = """
import headstart.cli
try:
    headstart.cli.main(["--help"])
except SystemExit as end:
    assert end.code == 0
"""


def test_the_import_contracts_hold():
    run(str(Path(sys.executable).with_name("lint-imports")), "--no-cache")


@pytest.mark.parametrize("code", ["import headstart", "import headstart.core.plan", HELP])
def test_starting_up_loads_no_heavy_library(code: str):
    assert loaded_after(code) == []


def test_importing_headstart_takes_less_than_a_third_of_a_second():
    assert processor_seconds("import headstart") - processor_seconds("pass") < 0.3


def test_asking_for_help_takes_less_than_0_6_seconds():
    assert processor_seconds(HELP) - processor_seconds("pass") < 0.6
