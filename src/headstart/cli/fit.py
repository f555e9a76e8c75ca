"""`headstart fit`: from data to a proven, saved model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headstart.cli import _options as options
from headstart.cli._end import ends_cleanly
from headstart.cli._plan import chosen_plan, explain_plan
from headstart.cli._progress import progress
from headstart.cli._show import print_json, print_lines, result_lines

if TYPE_CHECKING:
    from headstart.result import Result


@ends_cleanly
def fit(
    data: Annotated[
        str | None,
        typer.Argument(metavar="DATA", help=options.DATA),
    ] = None,
    encoder: options.Encoder = None,
    method: options.Method = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Where the model folder goes.")
    ] = None,
    plan_file: options.PlanFile = None,
    minutes: options.Minutes = None,
    download: options.Download = False,
    catalog: options.Catalog = None,
    settings: options.Set = None,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Also train the same network from scratch, to show the gain.")
    ] = False,
    strict: options.Strict = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run, and stop.")] = False,
    store: options.Store = None,
    device: options.Device = None,
    threads: options.Threads = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Fit a model to DATA: audit, encode or fine-tune, score on a test split, save, report."""
    from headstart import api

    machine = options.machine(store=store, device=device, threads=threads)
    settings = [
        *(settings or ()),
        *options.wishes("auto", minutes=minutes, download=download, catalog=catalog),
    ]
    arguments: dict[str, Any] = {
        "plan_file": plan_file,
        "encoder": encoder,
        "method": method,
        "settings": settings,
    }
    if dry_run:
        explain_plan(data, **arguments, machine=machine, json=json)
        return
    with progress(quiet=quiet) as show:
        chosen = chosen_plan(data, **arguments, machine=machine, show=show)
        result = api.run(
            chosen, output=output, baseline=baseline, strict=strict, machine=machine, progress=show
        )
    _print(result, json=json, quiet=quiet)


def _print(result: Result, *, json: bool, quiet: bool) -> None:
    """Print the result as asked for."""
    if json:
        from headstart.report import to_json

        print_json(to_json(result))
    elif not quiet:
        print_lines(result_lines(result, result.folder / "report.html"))
