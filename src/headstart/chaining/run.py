"""A chain is run: link by link, each from the store where it is there, and at its end every task by its test items."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from headstart.chaining.plans import Planned
from headstart.core.errors import PlanError
from headstart.core.hashing import digest
from headstart.core.lineage import Kept, Lineage
from headstart.core.plan import Plan, Saved
from headstart.core.types import Score
from headstart.model import open_folder
from headstart.pipeline.meter import measured
from headstart.pipeline.origin import earlier_task, name_of
from headstart.result import Result
from headstart.runs import VERSION as RUN_VERSION
from headstart.runs import finished, steps_of, stored
from headstart.store import atomic_write
from headstart.train.runtime import Context, Event

VERSION = 1
"""Version of the table of test scores at the end of a chain."""
BUCKET = "chains-v1"
SUMMARY = "chain.json"


@dataclass(frozen=True)
class Chained:
    """A finished chain: the results of its links by name, the last of which is what it was for.

    `tested` are the earlier tasks on their test items: by their own network then, and by the last one now.
    """

    results: Mapping[str, Result]
    tested: tuple[Kept, ...]
    folder: Path

    @property
    def last(self) -> Result:
        """The result that the chain was for."""
        return list(self.results.values())[-1]

    @property
    def lineage(self) -> Lineage | None:
        """What the last link says of the chain."""
        return self.last.lineage

    def to_json(self) -> dict[str, Any]:
        """Return scores and transfer graph as JSON values."""
        links = {
            name: {"folder": result.folder.name, "plan": result.plan.key, "score": asdict(result.evaluation.primary),
                   "notes": list(result.notes), "lineage": asdict(result.lineage) if result.lineage else None}
            for name, result in self.results.items()
        }  # fmt: skip
        return {"format": 1, "links": links, "tested": [asdict(row) for row in self.tested]}


def run(
    links: Sequence[Planned], context: Context, *, output: Path, compare: bool = False, strict: bool = False
) -> Chained:
    """Run every link, write a model folder each below `output`, and score the earlier tasks on their test items, once.

    With `compare` each later link is also run without the chain, to tell what the chain gave it.
    """
    _require_names(links)
    results: dict[str, Result] = {}
    gains: dict[str, Score] = {}
    for place, link in enumerate(links):
        plan = link.opened.plan
        is_there = stored(plan, context) is not None
        said = "comes from the store" if is_there else "runs"
        context.progress(Event("chain", message=f"link {place + 1} of {len(links)}: {link.name} {said}"))
        result = finished(
            link.opened, replace(context, seed=plan.seed), output=output / link.name, baseline=False, strict=strict,
            gains=dict(gains) if compare else None,
        )  # fmt: skip
        if compare and result.baseline is not None:
            gains[plan.key] = result.baseline.difference
        results[link.name] = result
    chained = Chained(results, on_test_items(links[-1], context, strict=strict), output)
    text = json.dumps(chained.to_json(), indent=1, ensure_ascii=False)
    atomic_write(output / SUMMARY, text.encode())
    return chained


def on_test_items(last: Planned, context: Context, *, strict: bool = False) -> tuple[Kept, ...]:
    """Return the earlier tasks on their test items, once for a finished chain: the store keeps the table."""
    plan = last.opened.plan
    if plan.earlier is None:
        return ()
    names = [name_of(link) for link in plan.links() if isinstance(link, Plan)]
    key = digest("chain tested", VERSION, RUN_VERSION, plan.key, names)

    def write(folder: Path) -> None:
        inner = replace(context, seed=plan.seed)
        own = stored(plan, context)
        assert own is not None, "the chain has run"
        steps = [step for step in steps_of(last.opened, inner, strict=strict) if step.plan]
        tasks = [earlier_task(step, inner, items=None, split="test") for step in steps]
        rows = measured(open_folder(own).encoder, tasks, inner, seed=plan.seed)
        text = json.dumps([asdict(row) for row in rows], ensure_ascii=False)
        (folder / SUMMARY).write_text(text, encoding="utf-8")

    folder, _ = context.store.get_or(BUCKET, key, write)
    rows = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    return Lineage.from_json(
        {"links": [], "kept": rows, "guards": [], "floor": None, "alpha": None, "way": []}
    ).kept


def said(links: Sequence[Planned], context: Context) -> list[str]:
    """Say in plain words what each link does, what it starts from, and which of them come from the store."""
    lines: list[str] = []
    names: dict[str, str] = {}
    for place, link in enumerate(links):
        plan = link.opened.plan
        names[plan.key] = link.name
        start = plan.earlier
        origin = f"the pretrained weights of {plan.encoder.name}"
        if isinstance(start, Saved):
            origin = f"the model folder {start.folder}"
        elif isinstance(start, Plan):
            origin = f"what '{names.get(start.key, start.key[:12])}' ends with"
        there = stored(plan, context) is not None
        status = "from the store, in seconds" if there else "runs"
        items = f"{len(link.opened.dataset)} items"
        classes = f", {len(plan.labels)} classes" if plan.labels else ""
        lines.append(
            f"Link {place + 1}, '{link.name}' ({status}): {plan.method.kind} on {items}{classes}, from {origin}."
        )
        lines += [f"  {text}" for text in _details(plan, start)]
    return lines


def _details(plan: Plan, start: Plan | Saved | None) -> list[str]:
    """Say which classes a link knows already, and how it keeps what was learnt."""
    lines: list[str] = []
    if isinstance(start, Plan) and plan.labels:
        known = [label for label in plan.labels if label in start.labels]
        named = f": {', '.join(known[:6])}{', ...' if len(known) > 6 else ''}" if known else ""
        lines.append(f"Classes known by name: {len(known)} of {len(plan.labels)}{named}.")
    if start is not None:
        retention = plan.retention
        guards = ", ".join(retention.guards) if retention else ""
        floor = f"at least {retention.floor:.0%} of earlier scores" if retention and retention.floor else ""
        how = " and ".join(part for part in (guards, floor) if part) or "nothing; forgetting is measured only"
        lines.append(f"Kept by: {how}.")
    return lines


def _require_names(links: Sequence[Planned]) -> None:
    """Refuse a chain without links."""
    if not links:
        raise PlanError("a chain without links", expected="at least one", fix="add links")
