"""`headstart evaluate`: how good a saved model is on labelled data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headstart.cli import _options as options
from headstart.cli._end import ends_cleanly
from headstart.cli._progress import progress
from headstart.cli._show import print_json, print_lines, score_lines


@ends_cleanly
def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model folder that `headstart fit` made.")],
    data: Annotated[str, typer.Argument(metavar="DATA", help=options.DATA)],
    settings: options.Set = None,
    store: options.Store = None,
    device: options.Device = None,
    threads: options.Threads = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Score the model of MODEL on every item of DATA, each metric with its bootstrap interval."""
    from headstart import api

    machine = options.machine(store=store, device=device, threads=threads)
    with progress(quiet=quiet) as show:
        evaluation = api.evaluate(
            model, data, settings=options.settings_of(settings), machine=machine, progress=show
        )
    if json:
        print_json(evaluation.to_json())
    elif not quiet:
        print_lines([*score_lines(evaluation), *(("note", note) for note in evaluation.notes)])
