"""`headstart cache`: what the store keeps, and making room."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.cli import _options as options
from headstart.cli._end import ends_cleanly
from headstart.cli._show import print_json, print_table
from headstart.core.errors import PlanError, StoreError

if TYPE_CHECKING:
    from headstart.store import Entry, Store

cache = typer.Typer(
    help="Look after the store of results that later runs use again.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@cache.command()
@ends_cleanly
def ls(store: options.Store = None, json: options.Json = False) -> None:
    """List what the store keeps, the longest unused first."""
    opened = _open(store)
    entries = sorted(opened.entries(), key=lambda entry: entry.used)
    if json:
        print_json({"folder": str(opened.root), "entries": [_plain(entry) for entry in entries]})
        return
    if entries:
        rows = [(entry.bucket, entry.key[:12], size_text(entry.size), _time(entry.used)) for entry in entries]
        print_table("bucket", "key", "size", "last used", rows=rows)
    print(f"{len(entries)} entries, {size_text(sum(entry.size for entry in entries))} in {opened.root}")


@cache.command()
@ends_cleanly
def gc(
    max_size: Annotated[
        str, typer.Option("--max-size", metavar="SIZE", help="Keep at most this: 500M, 20G, 0 for nothing.")
    ] = "20G",
    store: options.Store = None,
    json: options.Json = False,
) -> None:
    """Drop what was unused for longest, and what killed runs left behind."""
    dropped = _open(store).collect(max_bytes=size_of(max_size))
    if json:
        print_json({"dropped": [_plain(entry) for entry in dropped]})
    else:
        print(f"{len(dropped)} entries dropped, {size_text(sum(entry.size for entry in dropped))} freed")


@cache.command()
@ends_cleanly
def verify(store: options.Store = None, json: options.Json = False) -> None:
    """Check every entry against its checksums; fails where one is corrupt (the next run makes it anew)."""
    opened = _open(store)
    corrupt = opened.verify()
    if json:
        print_json({"corrupt": [{**_plain(entry), "fault": fault} for entry, fault in corrupt]})
    elif not corrupt:
        print(f"{sum(1 for _ in opened.entries())} entries, all sound")
    if corrupt:
        named = "; ".join(f"{entry.bucket}/{entry.key[:12]}: {fault}" for entry, fault in corrupt)
        raise StoreError(
            f"{len(corrupt)} corrupt entries ({named})",
            expected="entries as they were written",
            fix="nothing to do: the next run drops them with a warning and makes them anew",
        )


def size_of(text: str) -> int:
    """Read a size in bytes: 500M, 20G, 1.5T, 0."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip().upper())
    if match is None:
        raise PlanError(f"--max-size {text}", expected="a number and K, M, G or T", fix="--max-size 20G")
    return int(float(match[1]) * _UNITS[match[2]])


def size_text(size: int) -> str:
    """Write a size in bytes as a person reads it."""
    value, unit = float(size), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def _open(folder: options.Store) -> Store:
    """Open the store that the arguments and this machine's settings name."""
    from headstart.store import Store

    return Store(options.machine(store=folder, device=None, threads=None).store)


def _plain(entry: Entry) -> dict[str, object]:
    """Return an entry as JSON values."""
    return {
        "bucket": entry.bucket,
        "key": entry.key,
        "folder": str(entry.folder),
        "bytes": entry.size,
        "last_used": datetime.fromtimestamp(entry.used).astimezone().isoformat(timespec="seconds"),
    }


def _time(seconds: float) -> str:
    """Write a time as a person reads it."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")
