"""`headstart chain`: task after task, each beginning with what the one before learnt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.cli import _options as options
from headstart.cli._end import ends_cleanly
from headstart.cli._progress import progress
from headstart.cli._show import print_json, print_lines, print_table

if TYPE_CHECKING:
    from headstart.chaining.run import Chained


@ends_cleanly
def chain(
    file: Annotated[
        Path, typer.Argument(metavar="CHAIN.yaml", help="The links: data, name, from, settings, ... of each.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Where the model folders go, one a link; chains/NAME by default.",
        ),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also run each link without the chain, to show what it gives.")
    ] = False,
    strict: options.Strict = False,
    store: options.Store = None,
    device: options.Device = None,
    threads: options.Threads = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Run a chain of tasks: each begins with what the one before learnt; what is forgotten is measured."""
    from headstart import api

    with progress(quiet=quiet) as show:
        chained = api.chain(
            file, output=output, compare=compare, strict=strict,
            machine=options.machine(store=store, device=device, threads=threads), progress=show,
        )  # fmt: skip
    if json:
        print_json(chained.to_json())
    elif not quiet:
        _print(chained)


def _print(chained: Chained) -> None:
    """Print each link's test score, what was kept of the tasks before it, and where the models lie."""
    from headstart.chaining.tables import link_rows, tested_rows

    print_table("link", "score", "gain", "kept of earlier tasks (validation)", rows=link_rows(chained))
    if chained.tested:
        print()
        print_table("earlier task, test items", "then", "now", "change", rows=tested_rows(chained))
    print()
    notes = [f"{name}: {note}" for name, result in chained.results.items() for note in result.notes]
    restricted = chained.lineage.restricted if chained.lineage else ()
    print_lines([
        *(("note", note) for note in notes),
        *(("licence", f"no commercial use: {one}") for one in restricted),
        ("model", str(chained.last.folder)),
        ("report", str(chained.last.folder / "report.html")),
    ])  # fmt: skip
