"""`headstart labels`: which labels are likely wrong, and which items to label next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.cli import _options as options
from headstart.cli._end import ends_cleanly
from headstart.cli._progress import progress
from headstart.cli._show import print_json, print_lines

if TYPE_CHECKING:
    from headstart.labelling import LabelReport

SHOWN = 5
"""Items of each kind that the terminal names; the page and the tables hold more."""


@ends_cleanly
def labels(
    data: Annotated[str, typer.Argument(metavar="DATA", help=f"{options.DATA} Labels may be missing.")],
    next: Annotated[int, typer.Option(metavar="N", min=0, help="How many items to propose next.")] = 30,
    answers: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="A filled table of id and label, whose labels go first; as often as needed.",
            show_default=False,
        ),
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(metavar="NAME", help="Pretrained network (`headstart models` lists them).")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Where page and tables go.")
    ] = None,
    settings: options.Set = None,
    store: options.Store = None,
    device: options.Device = None,
    threads: options.Threads = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Look through the labels of DATA: which are likely wrong, and which items to label next."""
    from headstart import api

    given = options.settings_of(settings)
    if answers:
        given["data.answers"] = [str(path) for path in answers]
    machine = options.machine(store=store, device=device, threads=threads)
    with progress(quiet=quiet) as show:
        found = api.labels(
            data, next=next, encoder=encoder, output=output, settings=given, machine=machine, progress=show
        )
    if json:
        from headstart.labelling.output import to_json

        print_json(to_json(found))
    elif not quiet:
        print_lines(_lines(found))


def _lines(found: LabelReport) -> list[tuple[str, str]]:
    """Say what was found and where it lies."""
    from headstart.data.answers import written
    from headstart.labelling.output import NEXT, PAGE, WRONG, named

    folder = found.folder or Path()
    unit = "{:.1f} deviations off" if found.task == "regression" else "{:.0%}"
    wrong = [
        f"{written(item.id)}: {named(item.given)} -> {named(item.suggested)} ({unit.format(item.probability)})"
        for item in found.wrong[:SHOWN]
    ]
    following = [f"{written(item.id)}: {item.why}" for item in found.next[:SHOWN]]
    way = f", by {found.way}" if found.way else ""
    quality = f"{found.quality:.3f} ± {found.standard_error:.3f} on items not seen" if found.head else ""
    return [
        ("items", f"{found.num_labelled} with a label, {found.num_unlabelled} without"),
        *([("head", f"{found.head}: {quality}")] if quality else []),
        *(
            [("wrong", "\n".join([f"{len(found.wrong)} labels are likely wrong", *wrong]))]
            if found.has_looked
            else []
        ),
        ("next", "\n".join([f"{len(found.next)} items to label next{way}", *following])),
        *(("note", note) for note in found.notes),
        *(("data", written(finding.message)) for finding in found.findings),
        ("tables", f"{folder / WRONG}\n{folder / NEXT}"),
        ("page", str(folder / PAGE)),
    ]
