"""What a link of a chain begins with: the network and head of the link before, and the tasks learnt until then."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from headstart.core.errors import HeadstartError, PlanError
from headstart.core.hashing import plain
from headstart.core.lineage import Kept, Lineage, Link
from headstart.core.plan import Plan
from headstart.core.protocols import Encoder
from headstart.core.settings import FewShot, FineTune, Retention
from headstart.core.types import EncoderSpec, SplitName
from headstart.data import TableDataset
from headstart.model import Model, folder_behind, open_encoder, open_folder, read_facts
from headstart.pipeline.course import Course, Ledger
from headstart.pipeline.gathering import gather, parts_of
from headstart.pipeline.meter import Earlier, Probe, measured
from headstart.result import Result
from headstart.train.runtime import Context, draw


@dataclass(frozen=True)
class Origin:
    """What the link before ended with: its network and head, the names of the head's outputs, and the chain so far.

    `tasks` are the earlier ones that can be asked about, `lineage` what a folder says of its own plans.
    """

    name: str
    encoder: Encoder
    head: Any
    labels: tuple[str, ...]
    tasks: tuple[Earlier, ...]
    links: tuple[Link, ...]
    lineage: tuple[Mapping[str, Any], ...] = ()

    @property
    def learnt(self) -> dict[str, frozenset[str]]:
        """The hashes of the items that each earlier link has learnt from, by its name."""
        return {one.name: frozenset(one.training.item_hashes()) for one in self.tasks if one.training}


@dataclass(frozen=True)
class Step:
    """A finished link: its model folder, its plan and result (a folder of a network alone has neither), its data."""

    name: str
    folder: Path
    plan: Plan | None
    result: Result | None
    data: Callable[[], TableDataset]
    began: Path | None = None
    """The folder that the link itself began with; None: the pretrained weights of its plan."""
    is_folder: bool = False
    """It was named as a folder, not run here: what it says of its own chain counts."""


def require_guardable(plan: Plan) -> None:
    """Refuse guards and a floor where no fine-tuning is: they act in its loss, and on the way that weights went."""
    retention = plan.retention
    if retention and (retention.guards or retention.floor) and not isinstance(plan.method, FineTune):
        raise PlanError(
            f"retention.* set for the link '{name_of(plan)}', but its method is {plan.method.kind}",
            expected="the method finetune, which can be guarded",
            fix="set its method to finetune, or leave retention out",
        )


def require_origin(plan: Plan, origin: Origin | None) -> None:
    """Refuse to run a link without what it continues from, and what cannot serve it."""
    require_guardable(plan)
    if plan.earlier is not None and origin is None:
        raise PlanError(
            "a link of a chain was to run by itself",
            expected="what the link before ended with",
            fix="run it by `headstart.run`, `headstart.chain` or `headstart fit --plan`",
        )
    if origin is None:
        if plan.retention is not None:
            raise PlanError(
                "retention.* set, but the plan continues from no earlier link",
                expected="a chain: a start with data of its own, or a model folder",
                fix="leave retention out, or name a start (`headstart chain`)",
            )
        return
    require_same_input(plan, origin.encoder, origin.name)


def require_same_input(plan: Plan, encoder: Encoder, name: str) -> None:
    """Refuse a network other than the plan's, or one that reads its inputs in another way."""
    if plan.encoder.name != encoder.spec.name:
        raise PlanError(
            f"this link names the network {plan.encoder.name}, but the link '{name}' ended with {encoder.spec.name}",
            expected="one network through the whole chain",
            fix="name the encoder in the first link only",
        )
    wanted = open_contract(plan, encoder)
    if plain(wanted) != plain(encoder.spec.contract):
        raise PlanError(
            f"this link reads its inputs as {wanted}, the link '{name}' as {encoder.spec.contract}",
            expected="one input contract (size, channels, window, ...) through the whole chain",
            fix="set encoder.* in the first link only",
        )


def open_contract(plan: Plan, encoder: Encoder) -> Any:
    """Return how the plan's settings would have inputs read; what it leaves open is as the network has it."""
    contract, asked = encoder.spec.contract, plan.encoder
    wishes: dict[str, Any] = {
        "size": (asked.image_size, asked.image_size) if asked.image_size else None,
        "channels": asked.channels, "interpolation": asked.interpolation, "mean": asked.mean, "std": asked.std,
        "order": asked.order, "window": asked.window, "overlap": asked.overlap,
    }  # fmt: skip
    known = {name: value for name, value in wishes.items() if value is not None and hasattr(contract, name)}
    return replace(contract, **known)


def origin_of(steps: list[Step], retention: Retention | None, context: Context) -> Origin:
    """Open what the last of the finished links ended with, and the earlier tasks by their heads and data."""
    last = steps[-1]
    opened = open_folder(last.folder)
    items = (retention or Retention()).items
    tasks = tuple(earlier_task(step, context, items=items) for step in steps if step.plan)
    links = tuple(link for step in steps for link in links_of(step))
    labels = opened.task.labels if opened.task else ()
    first = steps[0]
    said = (
        tuple(open_folder(first.folder).facts.get("lineage", ()))
        if first.is_folder
        else inherited(first.plan)
    )
    return Origin(last.name, opened.encoder, opened.head, labels, tasks, links, said)


def earlier_task(
    step: Step, context: Context, *, items: int | None, split: SplitName = "validation"
) -> Earlier:
    """Return a link's task with its items, each in the split that it had then, and the outputs of its own network.

    At most `items` of the `split` are scored again.
    """
    assert step.plan is not None, "it knows a task"
    opened = open_folder(step.folder)
    assert opened.task is not None, "it knows a task"
    earlier = Earlier(step.name, step.plan.key, opened.task, opened.head)
    if step.is_folder and step.plan.earlier is not None:
        return replace(
            earlier, why_not="the network that it began with is not at hand, so its split is not known"
        )
    try:
        data = step.data()
        began = open_folder(step.began).encoder if step.began else open_encoder(step.plan.encoder)
        extraction, _ = parts_of(step.plan)
        inner = replace(context, seed=step.plan.seed)
        _, _, material = gather(step.plan, data, began, extraction, Ledger(inner), strict=False)
    except HeadstartError as error:
        return replace(earlier, why_not=error.given)
    rows = material.rows(split)
    if items is not None and len(rows) > items:
        chosen = draw(step.plan.seed, "retention", 0, 0).choice(len(rows), items, replace=False)
        rows = [rows[int(place)] for place in np.sort(chosen)]
    known = replace(
        earlier,
        training=material.dataset.subset(material.rows("train")),
        validation=material.dataset.subset(rows),
        is_seen=split != "test" and extraction_saw(step.plan),
    )
    return replace(known, outputs=Probe(opened.encoder, known, context).outputs())


def extraction_saw(plan: Plan) -> bool:
    """Tell whether a plan's head may have been fitted on the validation items too."""
    extraction, tuning = parts_of(plan)
    return isinstance(tuning, FewShot) or extraction.use_validation


def links_of(step: Step) -> tuple[Link, ...]:
    """Return a finished step as links of the chain: a folder may be the end of one itself."""
    if step.result is None:
        facts = open_folder(step.folder).facts
        entries = [_told(entry, facts) for entry in facts.get("lineage", ())]
        return tuple(entries) or (_told({}, facts),)
    lineage = step.result.lineage
    spec = open_folder(step.folder).encoder.spec
    own = lineage.links[-1] if lineage else link_of(step.result, spec, known=())
    is_first = step.is_folder or step.result.plan.earlier is None
    before = lineage.links[:-1] if lineage and is_first else ()
    return (*before, replace(own, name=step.name))


def _told(entry: Mapping[str, Any], facts: Mapping[str, Any]) -> Link:
    """Return an entry of a folder's lineage as a link: a pretraining without labels, or a plan."""
    network, licence = facts["encoder"]["name"], str(facts.get("licence", ""))
    if "split" in entry:
        plan = Plan.model_validate(dict(entry))
        return Link(
            name_of(plan), plan.key, Path(plan.data.uri).name, plan.fingerprint, plan.task, plan.method.kind,
            network, licence, plan.data.licence, len(plan.labels), 0, 1.0, None,
        )  # fmt: skip
    data = str(entry.get("data", ""))
    return Link(
        Path(data).stem or network, "", data, str(entry.get("data_fingerprint", "")), "",
        " ".join(["pretrain", *([str(entry["objective"])] if entry.get("objective") else [])]),
        network, str(entry.get("licence", licence)), entry.get("data_licence"), 0, 0, 1.0, None,
    )  # fmt: skip


def inherited(plan: Plan | None) -> tuple[Mapping[str, Any], ...]:
    """Return what the model folder whose network a plan starts from says of its own plans; nothing without one."""
    folder = folder_behind(plan.encoder) if plan else None
    return tuple(read_facts(folder).get("lineage", ())) if folder else ()


def lineage_behind(result: Result, spec: EncoderSpec) -> Lineage | None:
    """Tell where a network comes from that a plan took out of a model folder; None where it took it from none.

    The tasks of that folder are no links of a chain: nothing is scored again.
    """
    folder = folder_behind(result.plan.encoder)
    if folder is None:
        return None
    facts = read_facts(folder)
    before = tuple(_told(entry, facts) for entry in facts.get("lineage", ())) or (_told({}, facts),)
    return Lineage((*before, link_of(result, spec, known=())))


def seen_inputs(plan: Plan, lineage: Lineage | None) -> tuple[str, ...]:
    """Say where a network was pretrained on the very items of a plan, those that it is tested on among them."""
    links = lineage.links if lineage else ()
    if not any(not link.task and link.fingerprint == plan.fingerprint for link in links):
        return ()
    return (
        "the network was pretrained on these items without their labels, the test items among them: on items that are "
        "new to it the scores may be a little lower",
    )


def link_of(result: Result, spec: EncoderSpec, *, known: tuple[str, ...], name: str = "") -> Link:
    """Return a result as a link."""
    plan = result.plan
    return Link(
        name or name_of(plan), plan.key, Path(plan.data.uri).name, plan.fingerprint, plan.task, plan.method.kind,
        plan.encoder.name, spec.licence, plan.data.licence, len(plan.labels),
        len(set(plan.labels).intersection(known)), result.receipt.transferred, result.evaluation.primary,
    )  # fmt: skip


def name_of(plan: Plan) -> str:
    """Return what a link is called: its own name, or else that of its data."""
    return plan.name or Path(plan.data.uri).stem or "arrays"


def unused(name: str, taken: Sequence[str]) -> str:
    """Return a name that no other has."""
    number, found = 2, name
    while found in taken:
        found, number = f"{name} {number}", number + 1
    return found


def lineage_of(result: Result, model: Model, origin: Origin, course: Course, context: Context) -> Lineage:
    """Score the earlier tasks again on the network as it is now, and tell the chain to here."""
    plan = result.plan
    retention = plan.retention or Retention()
    kept: tuple[Kept, ...] = measured(model.encoder, origin.tasks, context, seed=plan.seed)
    taken = [link.name for link in origin.links]
    link = link_of(result, model.encoder.spec, known=origin.labels, name=unused(name_of(plan), taken))
    guards = tuple(cast("Mapping[str, Any]", retention.guards))
    return Lineage((*origin.links, link), kept, guards, retention.floor, course.alpha, course.way)
