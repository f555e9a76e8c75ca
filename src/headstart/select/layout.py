"""How a race is laid out: who is in it, over which schedule, by what these networks should take here.

What depends on the clock is kept in the store, so that a race that was interrupted goes on, and the same race again
comes from there.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.core.errors import EncoderError, TrainingError
from headstart.core.plan import Plan
from headstart.core.settings import FineTune, parse
from headstart.planning import pace
from headstart.report.words import duration
from headstart.result import Shortlisted
from headstart.select.race import LEAST_EPOCHS, MARGIN, Budget, expected_seconds, longest
from headstart.select.rank import num_trained
from headstart.select.rounds import Costs, Finalist, length, lengthened
from headstart.select.timing import VALIDATED

if TYPE_CHECKING:
    from headstart.core.protocols import Encoder
    from headstart.core.settings import Auto, Source
    from headstart.select.rank import Ranked
    from headstart.select.search import Search

BUCKET, _FILE = "races-v1", "race.json"
ROUND_SECONDS = 3.0
"""What a round takes beside training and looking at the validation items."""
END_SECONDS = 15.0
"""What the heads of the winner, its scores and its report take."""


@dataclass(frozen=True)
class Layout:
    """Who races over how many epochs (None: there is no race), seconds spent before, the ranking, what to say."""

    finalists: tuple[Finalist, ...]
    epochs: int | None
    spent: float
    ranked: tuple[Shortlisted, ...]
    notes: tuple[str, ...]


def laid_out(
    search: Search, rows: Sequence[Ranked], ranked: Sequence[Shortlisted], *, began: float
) -> Layout:
    """Return the race of these finalists, from the store where it is there; `began` is when the choice did."""
    networks, store = search.networks(rows), search.context.store
    key = search.race_key(rows, networks)
    folder = store.get(BUCKET, key)
    if folder:
        values = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    else:
        values = {**_layout(search, rows, began), "ranked": [asdict(row) for row in ranked]}
        if values["epochs"]:  # With the ranking in the store, there may be time for a race the next time.
            store.put(BUCKET, key, lambda folder: _write(values, folder))
    return Layout(
        tuple(_finalist(search, one, networks[one["name"]]) for one in values["finalists"]),
        values["epochs"],
        values["spent"],
        tuple(Shortlisted(**row) for row in values["ranked"]),
        tuple(values["notes"]),
    )


def _write(values: Mapping[str, Any], folder: Path) -> None:
    """Write a layout into a folder."""
    (folder / _FILE).write_text(json.dumps(values, indent=1, ensure_ascii=False), encoding="utf-8")


def _layout(search: Search, rows: Sequence[Ranked], began: float) -> dict[str, Any]:
    """Lay a race out: plan and time each finalist, leave out the dearest until a schedule fits what time is left."""
    notes: list[str] = []
    racing = [one for row in rows if (one := _entered(search, row, notes))]
    budget = Budget(60 * search.wish.minutes, time.perf_counter() - began, END_SECONDS)
    most = max((length(one.plan) for one in racing), default=1)
    epochs = longest(racing, most_epochs=most, budget=budget) if len(racing) > 1 else None
    while len(racing) > 1 and epochs is None and sum(one.trains for one in racing) > 1:
        dearest = max((one for one in racing if one.trains), key=lambda one: one.seconds(0, most))
        if dearest.plan.start is None:
            break  # Untrained, it has nothing to compete with.
        dearest.trains = False
        epochs = longest(racing, most_epochs=most, budget=budget)
    if epochs is None:
        notes.append(_too_small(search.wish, racing, budget, min(most, LEAST_EPOCHS)))
    notes += [
        f"{one.name} competes frozen: its training would take too long"
        for one in racing
        if epochs and not one.trains
    ]
    entered = [
        {
            "name": one.name,
            "plan": lengthened(one.plan, epochs or most).model_dump(mode="json"),
            "costs": asdict(one.costs),
            "trains": one.trains,
        }
        for one in racing
    ]
    return {"epochs": epochs, "spent": budget.spent, "finalists": entered, "notes": notes}


def _entered(search: Search, row: Ranked, notes: list[str]) -> Finalist | None:
    """Plan and time one finalist; None, with a note, where it cannot be."""
    method = search.method if isinstance(search.method, FineTune) else "finetune"
    search.tell(f"{row.entry.name} is timed")
    try:
        opened = search.opened(row.entry, method)
        assert opened.encoder is not None, "it was opened to be planned"
        items = round(VALIDATED * num_trained(search.dataset, search.split))
        own = pace(opened.plan, search.dataset, opened.encoder, search.context, items=items)
    except (EncoderError, TrainingError) as error:
        notes.append(f"{row.entry.name} does not race: {error.given}")
        return None
    scoring = ROUND_SECONDS + opened.plan.split.validation * row.encode_seconds
    costs = Costs(row.extract_seconds + own.once, own.epoch, scoring, row.finetune_seconds)
    return Finalist(row.entry.name, opened.plan, costs, search.dataset, search.context)


def _too_small(wish: Auto, racing: Sequence[Finalist], budget: Budget, epochs: int) -> str:
    """Say that there is no race, why, and what time would do."""
    if len(racing) < 2:
        return "no race: fewer than two finalists can be trained; the ranking's pick stays frozen"
    for one in racing:
        one.trains = True
    cheapest = sorted(racing, key=lambda one: one.seconds(0, epochs))[:2]
    needed = budget.spent + MARGIN * expected_seconds(cheapest, epochs) + budget.end
    return (
        f"no race: {wish.minutes:g} minutes are too short, {cheapest[0].name} and {cheapest[1].name} alone take about "
        f"{duration(needed)} with the ranking (--minutes {math.ceil(needed / 60)}); the ranking's pick stays frozen"
    )


def _finalist(search: Search, values: Mapping[str, Any], network: Encoder | str) -> Finalist:
    """Read a finalist that was laid out; where the data lie now is what counts."""
    plan, costs = parse(Plan, values["plan"], what="the plan of a race"), Costs(**values["costs"])
    encoder = None if isinstance(network, str) else network
    at = _at(plan, search.source)
    return Finalist(
        values["name"], at, costs, search.dataset, search.context, encoder, trains=values["trains"]
    )


def _at(plan: Plan, source: Source) -> Plan:
    """Return a plan, and those that it continues, with its data where they are now."""
    start = _at(plan.extraction, source) if plan.extraction else None
    return plan.model_copy(update={"data": source, "start": start})
