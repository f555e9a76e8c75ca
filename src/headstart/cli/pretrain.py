"""`headstart pretrain`: a network learns from data without labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.cli import _options as options
from headstart.cli._end import ends_cleanly
from headstart.cli._progress import progress
from headstart.cli._show import print_json, print_lines

if TYPE_CHECKING:
    from headstart.pretraining import Outcome

SHOWN = 5
"""Items that cannot be read and that the terminal names; the page holds more."""


@ends_cleanly
def pretrain(
    data: Annotated[str, typer.Argument(metavar="DATA", help=f"{options.DATA} No label is looked at.")],
    encoder: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Network to start from (`headstart models` lists them), or a folder."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Passes over the data (20).", show_default=False)
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="simmim, mae, spark, lejepa, masked_language, causal_language or auto.",
            show_default=False,
        ),
    ] = None,
    pilot: Annotated[
        bool, typer.Option("--pilot", help="Run a twentieth and say, by labels, whether the rest is worth it.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER",
            help="Where the network goes; pretrained/NAME by default, pretrained/NAME-pilot with --pilot."),
    ] = None,
    settings: options.Set = None,
    store: options.Store = None,
    device: options.Device = None,
    threads: options.Threads = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:  # fmt: skip
    """Pretrain a network on DATA without labels: a part of each input is hidden, and predicted from the rest."""
    from headstart import api

    asked = options.wishes("pretrain", epochs=epochs, objective=objective)
    with progress(quiet=quiet) as show:
        found = api.pretrain(
            data, encoder=encoder, output=output, pilot=pilot,
            settings=options.settings_of([*(settings or ()), *asked]),
            machine=options.machine(store=store, device=device, threads=threads), progress=show,
        )  # fmt: skip
    if json:
        from json import loads

        print_json({**loads(found.to_json()), "folder": str(found.folder)})
    elif not quiet:
        print_lines(_lines(found))


def _lines(found: Outcome) -> list[tuple[str, str]]:
    """Say what was learnt and where it lies."""
    from headstart.pretraining.saved import PAGE

    folder, last = found.folder or Path(), found.history[-1]
    left_out = [f"{name}: {why}" for name, why in list(found.left_out.items())[:SHOWN]]
    neighbours = (
        [("neighbours", f"{found.start_neighbours:.1%} -> {last['neighbours']:.1%} of one label")]
        if found.start_neighbours is not None and "neighbours" in last
        else []
    )
    return [
        ("items", f"{found.num_trained} learnt from, {found.num_held_out} held out"),
        ("objective", f"{found.objective}, {len(found.history)} epochs, {found.seconds:.0f} s"
         + (", from the store" if found.is_hit else "")),
        ("loss", f"{found.start_loss:.4g} -> {last['validation_loss']:.4g} on held-out items"),
        ("rank", f"{found.start_rank:.1f} -> {last['rank']:.1f} of the features"),
        *neighbours,
        *([("verdict", found.verdict.said())] if found.verdict else []),
        *([("left out", "\n".join([f"{len(found.left_out)} cannot be read", *left_out]))] if left_out else []),
        *(("note", note) for note in found.notes),
        ("network", str(folder)),
        ("page", str(folder / PAGE)),
    ]  # fmt: skip
