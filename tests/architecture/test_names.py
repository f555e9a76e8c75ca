"""What the outside may rely on changes only on purpose: public names and the flags of the command line.

After a change on purpose, run `UPDATE_SNAPSHOTS=1 .venv/bin/python -m pytest tests/architecture/test_names.py`.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import headstart
from headstart.cli._app import app

SNAPSHOTS = Path(__file__).parent / "snapshots"


def check_snapshot(name: str, lines: list[str]) -> None:
    """Compare lines with the ones kept, or keep them where that is asked for."""
    path = SNAPSHOTS / name
    text = "\n".join(lines) + "\n"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def flags(command: Any, path: str) -> Iterator[str]:
    """Yield every verb with its arguments and options, one a line."""
    for parameter in command.params:
        yield f"{path} {' '.join([*parameter.opts, *parameter.secondary_opts])}"
    for name, child in getattr(command, "commands", {}).items():
        yield from flags(child, f"{path} {name}")


def test_the_public_names_are_sorted_and_as_agreed():
    assert list(headstart.__all__) == sorted(headstart.__all__)
    check_snapshot("public_names.txt", list(headstart.__all__))


def test_nothing_private_can_be_seen():
    assert set(dir(headstart)) >= set(headstart.__all__)


@pytest.mark.parametrize("name", headstart.__all__)
def test_every_public_name_exists_and_says_what_it_is(name: str):
    thing = getattr(headstart, name)
    if inspect.isclass(thing) or inspect.isroutine(thing) or inspect.ismodule(thing):
        assert (thing.__doc__ or "").strip(), f"headstart.{name} has no docstring"
        assert not str(thing.__doc__).startswith(f"{name}("), f"headstart.{name} has a generated docstring"


def test_no_module_hides_a_verb_of_the_same_name():
    import headstart.api
    import headstart.cli

    for name in headstart.__all__:
        assert not inspect.ismodule(getattr(headstart, name)), f"headstart.{name} is a module, not the verb"


def test_the_flags_of_the_command_line_are_as_agreed():
    check_snapshot("cli_flags.txt", list(flags(typer.main.get_command(app), "headstart")))
