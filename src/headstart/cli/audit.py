"""`headstart audit`: what is wrong with the data, before anything is trained on them."""

from __future__ import annotations

from typing import Annotated

import typer

from headstart.cli import _options as options
from headstart.cli._end import ends_cleanly
from headstart.cli._progress import progress
from headstart.cli._show import audit_lines, print_json, print_lines


@ends_cleanly
def audit(
    data: Annotated[str, typer.Argument(metavar="DATA", help=options.DATA)],
    settings: options.Set = None,
    strict: options.Strict = False,
    store: options.Store = None,
    threads: options.Threads = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Look for unreadable files, duplicates, leaks between splits, small classes and more."""
    from headstart import api
    from headstart.core.hashing import plain

    machine = options.machine(store=store, device=None, threads=threads)
    with progress(quiet=quiet) as show:
        found = api.audit(
            data, settings=options.settings_of(settings), strict=strict, machine=machine, progress=show
        )
    if json:
        print_json(plain(found))
    elif not quiet:
        print_lines(audit_lines(found))
