"""`headstart rank`: which pretrained network should transfer best to some data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.cli import _options as options
from headstart.cli._end import ends_cleanly
from headstart.cli._progress import progress
from headstart.cli._show import print_json, print_lines, print_table

if TYPE_CHECKING:
    from headstart.select.rank import Ranked, Ranking

COLUMNS = (
    "network", "expected", "frozen", "kNN", "prior", "LogME", "H-score", "encode", "fine-tune", "latency", "size",
    "licence",
)  # fmt: skip


@ends_cleanly
def rank(
    data: Annotated[str, typer.Argument(metavar="DATA", help=options.DATA)],
    candidates: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Only these networks; `headstart models` lists them."),
    ] = None,
    catalog: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Candidates of your own.", show_default=False)
    ] = None,
    licence: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only networks of this licence.")
    ] = None,
    max_parameters: Annotated[
        float | None, typer.Option(metavar="M", help="At most so many million parameters.")
    ] = None,
    max_gmacs: Annotated[
        float | None, typer.Option(metavar="G", help="At most so many GMACs an item.")
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Only networks whose weights are on this machine.")
    ] = False,
    sample: Annotated[
        int | None, typer.Option(metavar="N", min=10, help="Probe on at most so many items (1000).")
    ] = None,
    top: Annotated[int, typer.Option(metavar="K", min=1, help="Show the best so many.")] = 10,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="PAGE", help="Write a page (HTML) with a picture too."),
    ] = None,
    settings: options.Set = None,
    store: options.Store = None,
    device: options.Device = None,
    threads: options.Threads = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Rank pretrained networks for DATA: what each should reach, frozen and fine-tuned, and what it takes here."""
    from headstart import api

    limits = options.wishes(
        "rank", sample=sample, catalog=catalog, licence=licence, max_parameters_m=max_parameters,
        max_gmacs=max_gmacs, offline=offline,
    )  # fmt: skip
    with progress(quiet=quiet) as show:
        ranking = api.rank(
            data, candidates=_names(candidates), settings=options.settings_of([*(settings or ()), *limits]),
            machine=options.machine(store=store, device=device, threads=threads), progress=show,
        )  # fmt: skip
    if output:
        from headstart.data import title_of
        from headstart.select.page import render

        render(ranking, title=title_of(data, "data"), path=output)
    if json:
        from headstart.core.hashing import plain

        print_json(plain(ranking))
    elif not quiet:
        _print(ranking, top, output)


def _names(text: str | None) -> list[str] | None:
    """Read names divided by commas."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _print(ranking: Ranking, top: int, output: Path | None) -> None:
    """Print the table, the pick and all that were probed in it, and why the pick is the pick."""
    shown = ranking.shown(top)
    print_table(*COLUMNS, rows=[_cells(row) for row in shown])
    hidden = len(ranking.rows) - len(shown)
    print()
    print_lines([
        ("pick", ranking.pick),
        ("why", "\n".join(ranking.reasons)),
        *(("note", note) for note in ranking.notes),
        *([("more", f"{hidden} below these were not probed (--top {len(ranking.rows)} shows them)")] if hidden else []),
        *([("page", str(output))] if output else []),
    ])  # fmt: skip


def _cells(row: Ranked) -> tuple[str, ...]:
    """Return a row of the table."""
    from headstart.report.words import duration

    return (
        row.entry.name, _expected(row), _frozen(row), _number(row.knn), f"{row.prior:+.2f}", _number(row.logme),
        _number(row.h_score), duration(row.encode_seconds), duration(row.finetune_seconds),
        f"{row.latency_ms:.3g} ms", f"{row.entry.parameters_m:.3g} M", row.entry.licence,
    )  # fmt: skip


def _expected(row: Ranked) -> str:
    """Write what a candidate should reach, with its interval where there is one."""
    known = row.fine_tuned
    return f"{row.score:.3f} [{known.low:.3f}, {known.high:.3f}]" if known else f"{row.score:.3f}"


def _frozen(row: Ranked) -> str:
    """Write the probe with half the width of its interval, or why there is none."""
    from headstart.select.reasons import ABSENT

    if row.frozen:
        return f"{row.frozen.value:.3f} ± {row.frozen.value - row.frozen.low:.3f}"
    return "weights not here" if row.note.startswith(ABSENT) else "failed"


def _number(value: float | None) -> str:
    """Write a number that may be missing."""
    return "-" if value is None else f"{value:.3f}"
