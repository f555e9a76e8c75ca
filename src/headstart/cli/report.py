"""`headstart report`: where a model's report is, and what it says."""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import Annotated

import typer

from headstart.cli import _options as options
from headstart.cli._end import ends_cleanly
from headstart.core.errors import ModelFolderError


@ends_cleanly
def report(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model folder that `headstart fit` made.")],
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    json: options.Json = False,
) -> None:
    """Print the path of the report of MODEL, or its numbers with --json."""
    page = _file(model, "report.html")
    if json:
        print(json_text.dumps(json_text.loads(_file(model, "report.json").read_text("utf-8")), indent=2))
        return
    print(page.resolve())
    if open_it:
        import webbrowser

        webbrowser.open(page.resolve().as_uri())


def _file(folder: Path, name: str) -> Path:
    """Return a file of a model folder, which must be there."""
    path = folder / name
    if not path.is_file():
        raise ModelFolderError(
            f"{folder} holds no {name}",
            expected="a model folder that `headstart fit` finished",
            fix="name the folder that `headstart fit` printed behind `model`",
        )
    return path
