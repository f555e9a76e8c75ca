"""Choosing the network where none is named: candidates are ranked, finalists race, the winner is what is trained."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headstart.core.errors import EncoderError
from headstart.core.registry import resolve
from headstart.core.settings import Auto, Source
from headstart.planning import Opened
from headstart.report.words import count
from headstart.result import Rung, Selection, Shortlisted
from headstart.select.layout import END_SECONDS, laid_out
from headstart.select.race import Budget, Halved, epochs_said, finalists, halve
from headstart.select.rounds import Finalist, frozen, stopped
from headstart.select.search import Method, Search
from headstart.train.runtime import Context, Event
from headstart.train.signals import stopping

if TYPE_CHECKING:
    from headstart.data import TableDataset
    from headstart.select.rank import Ranking


PAIRED = {
    "multilabel": "overlap of labels",
    "regression": "less absolute error",
    "tagging": "of texts with every entity right",
}
"""What finalists are compared by item for item, where that is not what they are scored by."""


def choose(
    dataset: TableDataset,
    source: Source,
    wish: Auto,
    *,
    method: Method,
    given: Mapping[str, Any],
    context: Context,
) -> Opened:
    """Return the plan for a dataset with the network that won, and how it was chosen.

    `given` are the user's settings by section. Interrupted on SIGTERM or SIGINT: what was trained is kept. PlanError
    where no candidate is there, EncoderError where none can be opened.
    """
    began = time.perf_counter()
    with stopping(context.command) as stop:

        def progress(event: Event) -> None:
            stop.check()
            context.progress(event)

        inner = replace(context, progress=progress, seed=given.get("seed", context.seed))
        search = Search(dataset, source, wish, method, given, inner)
        entries = search.candidates()
        search.check()
        if len(entries) == 1:
            why = f"{entries[0].name} is the only candidate whose weights are on this machine: nothing to rank or race"
            return search.unraced(entries[0], method, Selection(entries[0].name, (why,)))
        search.tell(f"{len(entries)} candidates are ranked")
        ranking = search.ranked(entries)
        if wish.download and search.fetched(ranking):
            ranking = search.ranked(entries)
        return _raced(search, ranking, began)


def foreseen(
    dataset: TableDataset,
    source: Source,
    wish: Auto,
    *,
    method: Method,
    given: Mapping[str, Any],
    context: Context,
) -> str:
    """Say which networks would be ranked and how they would race, without opening any; PlanError as `choose`."""
    search = Search(dataset, source, wish, method, given, context)
    entries = search.candidates()
    search.check()
    where = "here or on the hub" if wish.download else "on this machine"
    lines = [
        f"Network: to be chosen among {count(len(entries), 'candidate')} whose weights are {where}:",
        *(f"  {one.name}  {one.parameters_m:.1f} M parameters, {one.gmacs:.2f} GMACs" for one in entries),
    ]
    if len(entries) == 1:
        lines.append("There is nothing to rank or race: it is taken.")
    elif search.raceless:
        lines.append(f"Then: rank them by a probe on these data, and train the pick ({search.raceless}).")
    else:
        lines.append(
            f"Then: rank them by a probe on these data, let the best {min(wish.finalists, len(entries))} race by short "
            f"fine-tunes within {wish.minutes:g} minutes, and train the winner."
        )
    return "\n".join(lines)


def _raced(search: Search, ranking: Ranking, began: float) -> Opened:
    """Let the finalists of a ranking race and return the winner's plan."""
    rows = finalists(ranking, most=search.wish.finalists)
    if not rows:
        faults = "; ".join(f"{row.entry.name}: {row.note}" for row in ranking.rows)
        raise EncoderError(
            f"none of the {len(ranking.rows)} candidates can be used ({faults})",
            expected="a network whose weights can be loaded",
            fix="mend the entries named, or name a network with --encoder",
        )
    entry, ranked = rows[0].entry, _shortlisted(ranking)
    many = resolve("modality", ranking.modality).NOUN[1]
    first = f"{len(ranked):,} candidates were ranked on {ranking.n:,} {many}"
    why = search.standstill(rows)
    minutes = search.wish.minutes
    spent = time.perf_counter() - began + END_SECONDS
    if not why and spent >= 60 * minutes:
        why = (
            f"no race: {minutes:g} minutes are too short, ranking took them; it comes from the store next time, and "
            f"twice as long may do (--minutes {math.ceil(2 * spent / 60)}); the ranking's pick stays frozen"
        )
        return search.unraced(entry, "extract", Selection(entry.name, (first, *ranking.reasons, why), ranked))
    if why:
        reasons = (first, *ranking.reasons, why)
        return search.unraced(entry, search.method, Selection(entry.name, reasons, ranked))
    layout = laid_out(search, rows, ranked, began=began)
    if layout.epochs is None:
        reasons = (first, *ranking.reasons, *layout.notes)
        return search.unraced(entry, "extract", Selection(entry.name, reasons, layout.ranked))
    names = _listed([one.name for one in layout.finalists])
    said = (f"{first}; {names} raced over {epochs_said(layout.epochs)}", *layout.notes)
    for note in layout.notes:
        search.tell(note)
    search.tell(f"{names} race over {epochs_said(layout.epochs)}")
    done = halve(
        layout.finalists,
        epochs=layout.epochs,
        budget=Budget(60 * search.wish.minutes, layout.spent, END_SECONDS),
        group_of=dict(zip(search.dataset.ids, search.dataset.groups, strict=True)),
        seed=search.context.seed,
        tell=search.tell,
    )
    if done.winner is None:
        why = "none of them could be trained: the ranking's pick stays frozen"
        selection = Selection(entry.name, (*said, *done.notes, why), layout.ranked, tuple(done.rungs))
        return search.unraced(entry, "extract", selection)
    return _won(search, layout.finalists, done, said, layout.ranked)


def _won(
    search: Search,
    racing: Sequence[Finalist],
    done: Halved,
    said: tuple[str, ...],
    ranked: tuple[Shortlisted, ...],
) -> Opened:
    """Return the plan of the winner as far as it was trained, or of its frozen self where that is better."""
    assert done.winner is not None, "somebody won"
    winner = next(one for one in racing if one.name == done.winner.network)
    is_tuned = done.winner.is_tuned
    plan = stopped(winner.plan, done.winner.epochs) if is_tuned else frozen(winner.plan)
    for one in racing:
        if one is not winner or not is_tuned:
            one.drop_checkpoints()
    reasons = (
        *said,
        *done.notes,
        *_why(done, search.dataset.task, {one.name: one.cost for one in racing}, trains=winner.trains),
    )
    for reason in reasons[len(said) + len(done.notes) :]:
        search.tell(reason)
    selection = Selection(winner.name, reasons, ranked, tuple(done.rungs))
    return Opened(plan, search.dataset, None, selection)


def _why(done: Halved, task: str, costs: Mapping[str, float], *, trains: bool) -> list[str]:
    """Say why the winner won, what would nearly do, and what becomes of it."""
    assert done.winner is not None, "somebody won"
    name, lines = done.winner.network, list[str]()
    last = {row.network: row for row in done.rungs if row.network != name}
    for row in last.values():
        if row.behind is not None:
            at = f"after {epochs_said(row.epochs)}" if row.epochs else "as it is, frozen"
            lines.append(f"{name} over {row.network} {at}: {_apart(row, task)}")
    near = [
        row.network
        for row in last.values()
        if row.behind is not None and row.behind.low <= 0 and costs[row.network] < costs[name]
    ]
    if near:
        lines.append(f"{_listed(near)} would be cheaper to use, and is not proven to be worse")
    if not done.winner.is_tuned and trains:
        lines.append(f"{name} stays frozen: fine-tuning did not make it better on validation")
    elif not done.winner.is_tuned:
        lines.append(f"{name} stays frozen, and so beat those that were trained")
    return lines


def _apart(row: Rung, task: str) -> str:
    """Say a paired difference with its interval."""
    assert row.behind is not None, "it does not lead"
    gap = row.behind
    proven = "proven" if gap.low > 0 else "not proven"
    measure = f" {PAIRED[task]}" if task in PAIRED else ""
    return (
        f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]{measure} on {gap.n} validation items, {proven}"
    )


def _shortlisted(ranking: Ranking) -> tuple[Shortlisted, ...]:
    """Return a ranking's rows, rounded so that the last digits of a processor do not matter."""
    rows: list[Shortlisted] = []
    for row in ranking.rows:
        known = row.fine_tuned
        low, high = (round(known.low, 4), round(known.high, 4)) if known else (None, None)
        rows.append(Shortlisted(row.entry.name, round(row.score, 4), low, high, row.note))
    return tuple(rows)


def _listed(names: Sequence[str]) -> str:
    """Join names as a sentence does."""
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
