"""`headstart shift`: how a target differs from what a model knows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headstart.cli import _options as options
from headstart.cli._end import ends_cleanly
from headstart.cli._progress import progress
from headstart.cli._show import print_json, print_lines


@ends_cleanly
def shift(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="Model folder that `headstart fit` made, or labelled data."),
    ],
    target: Annotated[
        str,
        typer.Argument(metavar="TARGET", help="Unlabelled items: a folder or a table; labels are ignored."),
    ],
    encoder: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Pretrained network, where SOURCE is data.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Where page and JSON go; shifts/NAME by default."
        ),
    ] = None,
    settings: options.Set = None,
    store: options.Store = None,
    device: options.Device = None,
    threads: options.Threads = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure how TARGET differs from SOURCE: not at all, in the shares of its classes, in its looks, or in both."""
    from headstart import api
    from headstart.data import title_of

    folder = output or Path("shifts") / f"{title_of(source, 'source')}-{title_of(target, 'target')}"
    machine = options.machine(store=store, device=device, threads=threads)
    with progress(quiet=quiet) as show:
        found = api.shift(
            source, target, encoder=encoder, output=folder, settings=options.settings_of(settings),
            machine=machine, progress=show,
        )  # fmt: skip
    if json:
        from json import loads

        print_json(loads(found.to_json()))
    elif not quiet:
        from headstart.adaptation.outcome import shift_lines
        from headstart.adaptation.page import SHIFT_PAGE

        print_lines([*shift_lines(found), ("page", str(folder / SHIFT_PAGE))])
