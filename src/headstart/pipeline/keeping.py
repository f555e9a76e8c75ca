"""How fine-tuning keeps what earlier links learnt: guards in its loss, and the way back to its start to a floor."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from headstart.core.errors import PlanError
from headstart.core.lineage import Way
from headstart.core.registry import resolve
from headstart.core.settings import FineTune, Retention
from headstart.core.types import Form
from headstart.methods.retention.interpolation import Point, between, largest
from headstart.model import Model
from headstart.pipeline.meter import Earlier, Probe, share_kept
from headstart.train.guard import Guard, Guards, Past
from headstart.train.runtime import Context, Event

if TYPE_CHECKING:
    from headstart.data import TableDataset
    from headstart.pipeline.origin import Origin

NEED_ITEMS = ("ewc", "replay")
"""Guards that look at items of the earlier tasks."""


@dataclass(frozen=True)
class Start:
    """Weights of network and head before they train."""

    network: Mapping[str, Tensor]
    head: Mapping[str, Tensor]


@dataclass(frozen=True)
class Held:
    """How far from start to end the weights were left, what was looked at on the way, and what to say."""

    alpha: float | None = None
    way: tuple[Way, ...] = ()
    notes: tuple[str, ...] = ()


def guard_of(
    origin: Origin | None, retention: Retention | None, form: Form
) -> tuple[Guard | None, tuple[str, ...]]:
    """Return the guards that a plan asks for and what there is to say; PlanError where they could keep nothing.

    Guards see features of the `form` that is trained: heads that need another are left to the floor.
    """
    if retention is None:
        return None, ()
    every = origin.tasks if origin else ()
    tasks = tuple(one for one in every if one.head.form == form)
    wanted = [name for name in NEED_ITEMS if name in retention.guards]
    if wanted and not any(one.training for one in tasks):
        raise _nothing_kept(f"retention.guards = {', '.join(wanted)}", "items here", every, form)
    if "lwf" in retention.guards and not tasks:
        raise _nothing_kept("retention.guards = lwf", "a head for what is trained", every, form)
    if retention.floor is not None and not any(one.validation for one in every):
        raise _nothing_kept(f"retention.floor = {retention.floor:g}", "validation items here", every, form)
    # Named by content, as what they draw must not depend on where data lie.
    past = [Past(one.key, one.task, copy.deepcopy(one.head), one.training) for one in tasks]
    members = [resolve("guard", name)(past, retention, weight) for name, weight in retention.guards.items()]
    left = [one.name for one in every if one not in tasks] if members else []
    said = f"not guarded, as the head needs other features than those that are trained: {', '.join(left)}"
    return Guards(members) if members else None, (said,) if left else ()


def _nothing_kept(asked: str, needed: str, tasks: tuple[Earlier, ...], form: Form) -> PlanError:
    """Return the error for a wish that no earlier task can serve."""
    named = [
        (
            one.name,
            one.why_not or (f"its head needs {one.head.form} features" if one.head.form != form else ""),
        )
        for one in tasks
    ]
    reasons = "; ".join(f"{name}: {why}" for name, why in named if why)
    return PlanError(
        f"{asked}, but no earlier task has {needed}" + (f" ({reasons})" if reasons else ""),
        expected="an earlier link with labelled data where its plan says, and a head over final features",
        fix="put the data back, set extract.depths=false in that link, or leave the setting out",
    )


def hold(
    model: Model,
    start: Start,
    trained: tuple[TableDataset, FineTune],
    origin: Origin | None,
    retention: Retention | None,
    context: Context,
) -> Held:
    """Take the weights back towards their start as far as the floor asks, and leave them there."""
    if origin is None or retention is None or retention.floor is None:
        return Held()
    validation, settings = trained
    encoder, head = model.encoder, model.head
    depth = 0 if settings.train_last is None else len(encoder.layer_groups()) - settings.train_last
    probes = {one.name: Probe(encoder, one, context, depth=depth) for one in origin.tasks if one.validation}
    new = Probe(encoder, Earlier("", "", model.task, head, None, validation), context, depth=depth)
    ends = tuple(
        {name: part.clone() for name, part in one.state_dict().items()} for one in (encoder.module, head)
    )

    def look(alpha: float) -> Point:
        encoder.module.load_state_dict(between(start.network, ends[0], alpha))
        head.load_state_dict(between(start.head, ends[1], alpha))
        kept = {name: share_kept(probe.earlier, probe.outputs()) for name, probe in probes.items()}
        quality = model.task.score(new.outputs(), new.earlier.targets)["quality"]
        context.progress(
            Event("retention", message=f"alpha {alpha:.2f}", values={"quality": quality, **kept})
        )
        return Point(alpha, quality, kept)

    point, seen = largest(look, floor=retention.floor, points=retention.points)
    way = tuple(Way(one.alpha, one.quality, dict(one.kept)) for one in seen)
    return Held(point.alpha, way, (_said(point, seen[0], retention.floor),))


def _said(point: Point, start: Point, floor: float) -> str:
    """Say where the weights were left, what is kept there, and what was lost before."""
    kept = ", ".join(f"{name} {share:.0%}" for name, share in point.kept.items())
    lost = [name for name, share in start.kept.items() if share < floor]
    before = f"; {', '.join(lost)} lay below it before this link began, and lost no more" if lost else ""
    place = f"weights lie at {point.alpha:.0%} of the way from start to end"
    return f"retention floor {floor:.0%}: {place} (kept: {kept}){before}"
