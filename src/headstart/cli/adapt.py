"""`headstart adapt`: fit a model to the world where it is used, without labels of that."""

from __future__ import annotations

from json import loads
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.cli import _options as options
from headstart.cli._end import ends_cleanly
from headstart.cli._progress import progress
from headstart.cli._show import print_json, print_lines, print_table

if TYPE_CHECKING:
    from headstart.adaptation.outcome import Adaptation


@ends_cleanly
def adapt(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model folder that `headstart fit` made.")],
    target: Annotated[
        str,
        typer.Option(metavar="DATA", help="Unlabelled items: a folder or a table; labels there are ignored."),
    ],
    source: Annotated[
        str | None,
        typer.Option(
            metavar="DATA", help="What MODEL was trained on, where it was moved.", show_default=False
        ),
    ] = None,
    labels: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="A filled table of id and label of some target items.", show_default=False
        ),
    ] = None,
    ask: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, max=100, help="Write a table of N items whose labels would help to choose."
        ),
    ] = 0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="Where the adapted model goes."),
    ] = None,
    settings: options.Set = None,
    store: options.Store = None,
    device: options.Device = None,
    threads: options.Threads = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Adapt MODEL to unlabelled items of another domain: the shift is measured, many ways race, nothing is one."""
    from headstart import api
    from headstart.adaptation.asking import questions_beside, refuse_filled, write_questions
    from headstart.adaptation.run import default_output
    from headstart.data import title_of

    folder = output or default_output(model, title_of(target, "target"))
    ask_file = questions_beside(folder) if ask else None
    if ask_file is not None:
        refuse_filled(ask_file)
    given = options.settings_of(settings)
    if labels:
        given["data.answers"] = [str(path) for path in labels]
    machine = options.machine(store=store, device=device, threads=threads)
    with progress(quiet=quiet) as show:
        found = api.adapt(
            model, target, source=source, output=folder, settings=given, machine=machine, progress=show,
        )  # fmt: skip
    if ask_file is not None:
        write_questions(found.asked[:ask], ask_file)
    if json:
        print_json(loads(found.to_json()))
    elif not quiet:
        _print(found, ask_file)


def _print(found: Adaptation, ask_file: Path | None) -> None:
    """Print the candidates, the shift, and what was chosen and why."""
    from headstart.adaptation.outcome import shift_lines
    from headstart.adaptation.page import PAGE

    votes = tuple(dict.fromkeys(name for row in found.tried for name in row.votes))
    rows = [
        (
            f"{'* ' if row.name == found.chosen else '  '}{row.name}", f"{row.changed:.1%}",
            *(f"{row.votes[name]:.2f}" if name in row.votes else "" for name in votes),
            *([f"{row.labelled[0]} : {row.labelled[1]}" if row.labelled else ""] if found.num_labels else []),
            row.objection,
        )
        for row in found.tried
    ]  # fmt: skip
    print_table(
        "way", "changes", *votes, *(["labels won : lost"] if found.num_labels else []), "spoken against", rows=rows
    )  # fmt: skip
    print()
    estimate = found.estimate
    print_lines([
        *shift_lines(found.shifted),
        ("chosen", "\n".join([found.chosen, *found.reasons])),
        ("changes", f"{found.changed:.1%} of the answers"),
        ("accuracy", f"at most about {estimate.value:.0%} ({estimate.low:.0%} to {estimate.high:.0%})" if estimate
         else f"not estimated: {found.why_no_estimate}"),
        *(("note", note) for note in found.notes),
        ("model", str(found.folder)),
        ("page", str(found.folder / PAGE)),
        *([("ask", f"{ask_file}\nfill in its labels and add --labels {ask_file}")] if ask_file
          else []),
    ])  # fmt: skip
