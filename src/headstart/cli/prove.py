"""`headstart prove`: what transfer gains on some data, beside training from scratch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.cli import _options as options
from headstart.cli._end import ends_cleanly
from headstart.cli._progress import progress
from headstart.cli._show import print_json, print_lines, print_table

if TYPE_CHECKING:
    from headstart.proving.outcome import Proof


@ends_cleanly
def prove(
    data: Annotated[str, typer.Argument(metavar="DATA", help=options.DATA)],
    encoder: Annotated[
        str | None, typer.Option(metavar="NAME", help="Pretrained network (`headstart models` lists them).")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(metavar="M", help="What all of it may take (15).", show_default=False)
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(metavar="N", help="How often each arm is trained (5).", show_default=False)
    ] = None,
    target: Annotated[
        float | None,
        typer.Option(
            metavar="Q", help="A score; the time and the labels it takes are told (0.9).", show_default=False
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Where page and JSON go; proofs/NAME by default."
        ),
    ] = None,
    settings: options.Set = None,
    store: options.Store = None,
    device: options.Device = None,
    threads: options.Threads = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Prove what transfer gains on DATA: frozen and fine-tuned beside training from scratch, at an equal cost."""
    from headstart import api
    from headstart.data import title_of

    folder = output or Path("proofs") / title_of(data, "data")
    asked = options.wishes("prove", minutes=minutes, seeds=seeds, target=target)
    with progress(quiet=quiet) as show:
        proof = api.prove(
            data, encoder=encoder, output=folder, settings=options.settings_of([*(settings or ()), *asked]),
            machine=options.machine(store=store, device=device, threads=threads), progress=show,
        )  # fmt: skip
    if json:
        from json import loads

        print_json(loads(proof.to_json()))
    elif not quiet:
        _print(proof, folder)


def _print(proof: Proof, folder: Path) -> None:
    """Print the verdict, the arms, their differences, and what else there is to say."""
    from headstart.proving.page import PAGE
    from headstart.proving.said import arm_rows, difference_lines, growth_lines, reached_lines
    from headstart.proving.schedule import minutes as enough

    print_table(*arm_rows(proof)[0], rows=[tuple(row) for row in arm_rows(proof)[1:]])
    print()
    print_lines([
        ("verdict", f"{proof.verdict}: {proof.reason}"),
        ("differences", "\n".join(difference_lines(proof)) or "none"),
        ("time", "\n".join(reached_lines(proof)) or "nothing was trained"),
        ("labels", "\n".join(growth_lines(proof)) or "too few budgets"),
        *(("negative", line) for line in proof.negative),
        *(("cause", f"{'likely' if one.is_likely else 'no'}: {one.name}: {one.measured}"
           + (f"; change {one.change}" if one.is_likely else "")) for one in proof.causes),
        *(("cut", line) for line in proof.cuts),
        *([("least", f"--minutes {enough(60 * least)} would cut nothing")] if (least := proof.least_minutes) else []),
        *(("note", note) for note in proof.notes),
        ("page", str(folder / PAGE)),
    ])  # fmt: skip
