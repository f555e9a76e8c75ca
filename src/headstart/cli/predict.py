"""`headstart predict`: labels with calibrated probabilities, one row a file."""

from __future__ import annotations

import csv
import io
import json as json_text
import sys
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from headstart.cli import _options as options
from headstart.cli._end import ends_cleanly
from headstart.cli._progress import progress

if TYPE_CHECKING:
    from headstart.core.types import LabelPrediction


class Format(StrEnum):
    """How rows are written."""

    JSONL = "jsonl"
    CSV = "csv"


@ends_cleanly
def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model folder that `headstart fit` made.")],
    paths: Annotated[list[Path], typer.Argument(metavar="PATHS...", help="Files, or folders of files.")],
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
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write here instead of stdout.")
    ] = None,
    store: options.Store = None,
    device: options.Device = None,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
) -> None:
    """Predict the label of every file with the model of MODEL."""
    from headstart import api

    machine = options.machine(store=store, device=device, threads=threads)
    write = _WRITERS[format]
    with progress(quiet=quiet) as show:
        rows = api.predict(model, paths, abstain=abstain, machine=machine, progress=show)
        if output is None and not sys.stdout.isatty():
            write(rows, sys.stdout)
            return
        # Bars and rows must not share a terminal, and a file appears only when it is whole.
        rows = list(rows)
    if output is None:
        write(rows, sys.stdout)
    else:
        _write_file(output, rows, write)


def _write_file(path: Path, rows: Iterable[LabelPrediction], write: Write) -> None:
    """Write the rows to a file, whole or not at all."""
    from headstart.store import atomic_write, explained

    text = io.StringIO(newline="")
    write(rows, text)
    with explained(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, text.getvalue().encode())


def _write_jsonl(rows: Iterable[LabelPrediction], stream: TextIO) -> None:
    """Write one JSON object a row."""
    for row in rows:
        values = {
            "id": row.id,
            "label": row.label,
            "probability": row.probability,
            "probabilities": dict(row.probabilities),
        }
        stream.write(json_text.dumps(values, ensure_ascii=False) + "\n")


def _write_csv(rows: Iterable[LabelPrediction], stream: TextIO) -> None:
    """Write a table: id, label (empty where the model abstains), probability, then one column a class."""
    table = csv.writer(stream, lineterminator="\n")
    for number, row in enumerate(rows):
        if number == 0:
            table.writerow(["id", "label", "probability", *(f"p({label})" for label in row.probabilities)])
        table.writerow([row.id, row.label or "", row.probability, *row.probabilities.values()])


Write = Callable[["Iterable[LabelPrediction]", TextIO], None]
_WRITERS: dict[Format, Write] = {Format.JSONL: _write_jsonl, Format.CSV: _write_csv}
