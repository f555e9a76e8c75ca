"""Arguments that several verbs share, and how their text is read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headstart.core.errors import PlanError

if TYPE_CHECKING:
    from headstart.core.machine import Machine

Store = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="Where results are kept.", rich_help_panel="Machine", show_default=False
    ),
]
Device = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps.", rich_help_panel="Machine"),
]
Threads = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, help="Processor threads; all cores by default.", rich_help_panel="Machine"
    ),
]
DATA = "Folder of class folders, or a .csv, .tsv, .parquet, .jsonl or .conll file (or a folder of train, dev, test)."
"""What data may be, for help texts."""

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout.", rich_help_panel="Output")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.", rich_help_panel="Output")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any setting, as often as needed: --set finetune.layer_decay=0.65. "
        "`headstart explain --schema` lists them.",
    ),
]
Encoder = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Pretrained network (`headstart models` lists them), or auto: the best here."
    ),
]
Minutes = Annotated[
    float | None,
    typer.Option(
        metavar="N", help="What --encoder auto may take in all; 5 where not given.", show_default=False
    ),
]
Download = Annotated[
    bool, typer.Option("--download", help="Let --encoder auto take networks from the hub too.")
]
Catalog = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Candidates of your own for --encoder auto.", show_default=False),
]
Method = Annotated[str | None, typer.Option(metavar="NAME", help="auto, extract, fewshot or finetune.")]
PlanFile = Annotated[
    Path | None,
    typer.Option("--plan", metavar="FILE", help="Run this plan (JSON) as it stands.", show_default=False),
]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse data in which the audit finds a fault.")]


def machine(*, store: Path | None, device: str | None, threads: int | None) -> Machine:
    """Return this machine's settings: what is given here goes before HEADSTART_* and the configuration file."""
    from headstart.core.machine import read_machine

    return read_machine(store=store, device=device, threads=threads)


def settings_of(pairs: Sequence[str] | None) -> dict[str, Any]:
    """Read KEY=VALUE texts; a value is JSON where it reads as such (3, 0.5, true, null, [1, 2]), else text."""
    values: dict[str, Any] = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise PlanError(
                f"--set {pair}",
                expected="KEY=VALUE, such as finetune.epochs=5",
                fix="put the setting's name before `=` and its value behind",
            )
        values[name.strip()] = _value(value.strip())
    return values


def wishes(section: str, **flags: float | bool | str | Path | None) -> list[str]:
    """Return flags that stand for settings of a section as KEY=VALUE texts; those that were not given are left out."""
    given = {name: value for name, value in flags.items() if value is not None and value is not False}
    return [f"{section}.{name}={json.dumps(value, default=str)}" for name, value in given.items()]


def _value(text: str) -> Any:
    """Read JSON, or else take the text as it is."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
