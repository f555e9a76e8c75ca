"""What every verb does with what it is given: data of any kind, settings, the machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.core.errors import PlanError
from headstart.core.machine import Machine
from headstart.core.settings import (
    Auto,
    Source,
    parse,
)
from headstart.data import TableDataset, from_memory, open_dataset, require_targets, with_answers
from headstart.planning import sections
from headstart.store import Store
from headstart.train.runtime import Context, Event, choose_device

if TYPE_CHECKING:
    pass

Data = str | Path | TableDataset | tuple[Sequence[Any], Sequence[Any]]
"""A folder, a table file, an opened dataset, or (pictures or texts, targets) in memory."""
Progress = Callable[[Event], None]
AUTO = "auto"
"""The encoder's name where the network shall be chosen."""


def context_of(machine: Machine, seed: int, progress: Progress) -> Context:
    """Return what a run on this machine needs; PlanError for a seed that is none."""
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise PlanError(f"the seed is {seed!r}", expected="a whole number from 0", fix="--set seed=0")
    return Context(
        Store(machine.store),
        choose_device(machine.device),
        machine.threads,
        seed,
        progress,
        workers=machine.threads,
    )


def wish_of(values: Mapping[str, Any], encoder: str | None) -> Auto:
    """Return how a network is to be chosen; PlanError where one is named beside."""
    if values and encoder != AUTO:
        raise PlanError(
            f"{', '.join(f'auto.{name}' for name in values)} set, but not --encoder auto",
            expected="limits of the choice together with --encoder auto",
            fix="add --encoder auto, or leave them out",
        )
    return parse(Auto, values, what="--set auto.*")


def refuse_left(given: Mapping[str, Any], *, expected: str) -> None:
    """Refuse settings that a verb has no use for."""
    if given:
        raise PlanError(
            f"{', '.join(given)} set, which plays no part here", expected=expected, fix="leave it out"
        )


def labelled(data: Data, settings: Mapping[str, Any]) -> tuple[Source, TableDataset]:
    """Open data that something can be learnt from."""
    source = parse(Source, {"uri": uri_of(data), **settings}, what="--set data.*")
    dataset = opened_data(data, source)
    require_targets(dataset, source=source.uri)
    return source, dataset


def opened_data(data: Data, source: Source, *, needs_label: bool = True) -> TableDataset:
    """Open data of any kind; without `needs_label` they may have none."""
    if not isinstance(data, (TableDataset, tuple)):
        return open_dataset(source, needs_label=needs_label)
    made = data if isinstance(data, TableDataset) else from_memory(data[0], data[1], task=source.task)
    return with_answers(made, source)


def uri_of(data: Data) -> str:
    """Return where data lie; empty for data in memory."""
    return str(data) if isinstance(data, (str, Path)) else ""


def source_of(data: Data, settings: Mapping[str, Any] | None) -> Source:
    """Return where data lie and how they are read."""
    given = sections(settings or {}).get("data", {})
    return parse(Source, {"uri": uri_of(data), **given}, what="--set data.*")


def folder_of_model(source: Any) -> Path | None:
    """Return the model folder that a source names; None where it is data."""
    from headstart.model import FACTS

    return Path(source) if isinstance(source, (str, Path)) and (Path(source) / FACTS).is_file() else None
