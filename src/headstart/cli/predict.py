"""`headstart predict`: what a model says of new items, one row an item."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headstart.cli import _options as options
from headstart.cli._end import ends_cleanly
from headstart.cli._progress import progress
from headstart.cli._rows import WRITERS, Format

if TYPE_CHECKING:
    from headstart.core.types import Prediction

STDIN = "-"


@ends_cleanly
def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model folder that `headstart fit` made.")],
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUTS...",
            help="Files, folders of files, tables (.csv, .tsv, .parquet, .jsonl), texts in quotes, "
            "or - for one text (or path) a line of the standard input.",
        ),
    ],
    format: Annotated[Format, typer.Option("--format", "-f", help="How rows are written.")] = Format.JSONL,
    abstain: Annotated[
        float | None,
        typer.Option(
            metavar="RATE",
            min=0,
            max=1,
            help="Leave the label empty where the model is too unsure to keep its error rate under RATE "
            "(split-conformal).",
        ),
    ] = None,
    settings: options.Set = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write here instead of stdout.")
    ] = None,
    store: options.Store = None,
    device: options.Device = None,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
) -> None:
    """Predict every input with the model of MODEL: classes, labels, numbers with intervals, or marked words."""
    from headstart import api

    machine = options.machine(store=store, device=device, threads=threads)
    write = WRITERS[format]
    with progress(quiet=quiet) as show:
        # Whole before the first row is written: bars and rows must not share a terminal.
        rows = list(
            api.predict(
                model,
                _given(inputs),
                abstain=abstain,
                settings=options.settings_of(settings),
                machine=machine,
                progress=show,
            )
        )
    if output is None:
        write(rows, sys.stdout)
    else:
        _write_file(output, rows, format)


def _given(inputs: Sequence[str]) -> list[Any]:
    """Return paths where arguments name files, the lines of the standard input for `-`, and texts as they are."""
    from headstart.data.unlabelled import names_file

    given: list[Any] = []
    for item in inputs:
        if item == STDIN:
            given += [line for line in map(str.strip, sys.stdin) if line]
        else:
            given.append(Path(item) if names_file(item) else item)
    return given


def _write_file(path: Path, rows: Sequence[Prediction], format: Format) -> None:
    """Write the rows to a file, whole or not at all."""
    from headstart.store import atomic_write, explained

    text = io.StringIO(newline="")
    WRITERS[format](rows, text)
    with explained(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, text.getvalue().encode("utf-8", "replace"))
