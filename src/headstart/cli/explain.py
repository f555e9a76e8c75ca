"""`headstart explain`: what would run, in plain words, before any work is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from headstart.cli import _options as options
from headstart.cli._end import ends_cleanly
from headstart.cli._plan import explain_plan
from headstart.cli._show import print_json

if TYPE_CHECKING:
    from headstart.core.machine import Machine


@ends_cleanly
def explain(
    data: Annotated[
        str | None,
        typer.Argument(metavar="DATA", help=options.DATA),
    ] = None,
    encoder: options.Encoder = None,
    method: options.Method = None,
    plan_file: options.PlanFile = None,
    minutes: options.Minutes = None,
    download: options.Download = False,
    catalog: options.Catalog = None,
    settings: options.Set = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of every setting.")] = False,
    store: options.Store = None,
    device: options.Device = None,
    threads: options.Threads = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the plan itself, for `headstart fit --plan`.")
    ] = False,
) -> None:
    """Say what `headstart fit` (or `chain`, of CHAIN.yaml) would do with DATA, and how long it should take."""
    if schema:
        print_json(_schema())
        return
    machine = options.machine(store=store, device=device, threads=threads)
    if data is not None and data.lower().endswith((".yaml", ".yml")):
        _explain_chain(data, machine, json=json)
        return
    settings = [
        *(settings or ()),
        *options.wishes("auto", minutes=minutes, download=download, catalog=catalog),
    ]
    explain_plan(
        data,
        plan_file=plan_file,
        encoder=encoder,
        method=method,
        settings=settings,
        machine=machine,
        json=json,
    )


def _explain_chain(path: str, machine: Machine, *, json: bool) -> None:
    """Print what a chain would do, in plain words or as the plan of its last link, which holds the others."""
    from headstart import api

    if json:
        print_json(api.open_chain(path, machine=machine)[-1].opened.plan.model_dump(mode="json"))
    else:
        print(api.explain_chain(path, machine=machine))


def _schema() -> dict[str, Any]:
    """Return the schema of a plan, and beside it those of settings that other verbs take."""
    from headstart.core.plan import Plan
    from headstart.core.settings import Auto, Prove, Rank

    whole = Plan.model_json_schema()
    whole["$defs"] |= {kind.__name__: kind.model_json_schema() for kind in (Auto, Rank, Prove)}
    return whole
