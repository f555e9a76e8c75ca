"""How a plan runs: encode and audit in one pass, split, race heads, fine-tune, calibrate, score the test split once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core.errors import PlanError
from headstart.core.plan import Plan
from headstart.core.protocols import Encoder, Task
from headstart.core.registry import resolve
from headstart.core.settings import Extract, FewShot, FineTune
from headstart.core.types import Form
from headstart.data import TableDataset
from headstart.features.encode import encode
from headstart.model import Model, open_encoder
from headstart.pipeline.course import Course, Ledger
from headstart.pipeline.few import learn_few
from headstart.pipeline.heads import extract_heads
from headstart.pipeline.material import (
    Material,
    audited,
    material_of,
    refuse_findings,
    with_lost_case,
    with_suspects,
)
from headstart.pipeline.tuning import tune
from headstart.result import Predicted, Result
from headstart.train.runtime import Context


@dataclass(frozen=True)
class Outputs:
    """What a run made: the model, and how well it did on each test item (in the order of `rows("test")`)."""

    result: Result
    model: Model
    test_quality: np.ndarray
    material: Material


@dataclass
class Begun:
    """A run up to its heads: ready to be trained, or scored as it is; `course` says how the heads raced."""

    plan: Plan
    model: Model
    material: Material
    form: Form
    extraction: Extract
    ledger: Ledger
    course: Course


def execute(
    plan: Plan, dataset: TableDataset, context: Context, *, strict: bool, encoder: Encoder | None = None
) -> Outputs:
    """Run a plan on its data and return the result (without a folder yet) and the model.

    `encoder` is the plan's network where it is open already; its weights may be changed.
    """
    begun = begin(plan, dataset, context, strict=strict, encoder=encoder)
    begun.course = train(begun)
    with begun.ledger.stage("evaluate"):
        return _evaluated(begun)


def begin(
    plan: Plan, dataset: TableDataset, context: Context, *, strict: bool, encoder: Encoder | None = None
) -> Begun:
    """Encode and audit the items, split them and race heads over their features, as `execute` does before it trains."""
    ledger = Ledger(context)
    with ledger.stage("open"):
        encoder = encoder or open_encoder(plan.encoder, limits=plan.data.limits)
    _check_weights(plan, encoder)
    extraction, tuning = _links(plan)
    task, form, material = gather(plan, dataset, encoder, extraction, ledger, strict=strict)
    lineage = tuple(link.model_dump(mode="json") for link in plan.chain())
    model = Model(encoder, task, None, plan.encoder, lineage=lineage)
    course = Course()
    if not isinstance(tuning, FineTune) or plan.start is not None:
        with ledger.stage("heads"):
            race, suspects = extract_heads(model, material, extraction, form, context, ledger)
            course, material = Course(race), with_suspects(material, suspects)
    return Begun(plan, model, material, form, extraction, ledger, course)


def gather(
    plan: Plan,
    dataset: TableDataset,
    encoder: Encoder,
    extraction: Extract,
    ledger: Ledger,
    *,
    strict: bool,
) -> tuple[Task, Form, Material]:
    """Encode every item once, audit them and give each its split; return what is to be learnt and in which form."""
    if not plan.split.respect:
        dataset = dataset.with_splits([None] * len(dataset))
    task: Task = resolve("task", plan.task)(plan.labels)
    form = _form(task, encoder, extraction)
    with ledger.stage("encode"):
        whole = ledger.count(encode(dataset, encoder, form=form, context=ledger.context))
    with ledger.stage("audit"):
        found = with_lost_case(audited(dataset, whole, plan.data), encoder, task)
        refuse_findings(found.audit, strict=strict)
        return task, form, material_of(plan, dataset, whole, found, task)


def train(begun: Begun) -> Course:
    """Train the model of a run as its plan says, in place, and return how that went."""
    tuning, ledger = begun.plan.method, begun.ledger
    given = begun.model, begun.material
    if isinstance(tuning, FewShot):
        with ledger.stage("fewshot"):
            return learn_few(*given, tuning, begun.course.race, begun.form, ledger.context)
    if isinstance(tuning, FineTune):
        with ledger.stage("finetune"):
            race, form = begun.course.race, begun.form
            return tune(*given, tuning, race, form, ledger.context, extraction=begun.extraction)
    return begun.course


def outputs_for(begun: Begun, rows: Sequence[int]) -> Any:
    """Return the head's outputs for some of the run's items, from the features at hand if the network is unchanged."""
    model, material, ledger = begun.model, begun.material, begun.ledger
    is_extracted = (
        not begun.course.history or model.encoder.spec.weights_sha256 == begun.plan.encoder.weights_sha256
    )
    if is_extracted:
        return model.logits_of(material.part(rows), begun.form)
    return model.logits_of(
        ledger.count(model.encode(material.dataset.subset(rows), ledger.context)), model.head.form
    )


def _form(task: Task, encoder: Encoder, extraction: Extract) -> Form:
    """Return the form in which every item is encoded once: the task's own, or several depths beside it."""
    if task.form not in encoder.spec.width:
        raise PlanError(
            f"{encoder.spec.name} has no features of form '{task.form}', which {task.name} needs",
            expected=f"an encoder with that form; this one has {', '.join(encoder.spec.width)}",
            fix="choose another encoder (`headstart models` lists them)",
        )
    if task.form == "pooled" and extraction.depths and len(encoder.spec.depths) > 1:
        return "depths"
    return task.form


def _links(plan: Plan) -> tuple[Extract, FewShot | FineTune | None]:
    """Return the extraction and what follows it in a plan (a lone fine-tuning encodes too, for the audit)."""
    if isinstance(plan.method, Extract):
        return plan.method, None
    alone = Extract() if isinstance(plan.method, FewShot) else Extract(depths=False)
    start = plan.start.method if plan.start else alone
    if not isinstance(start, Extract):
        raise PlanError(
            f"a fine-tuning that starts from '{start.kind}'",
            expected="a start by extraction, or none",
            fix="set plan.start to a plan whose method is extract, or to null",
        )
    return start, plan.method


def _check_weights(plan: Plan, encoder: Encoder) -> None:
    """Refuse weights that are not those the plan was made with."""
    expected, given = plan.encoder.weights_sha256, encoder.spec.weights_sha256
    if expected and expected != given:
        raise PlanError(
            f"the weights of {plan.encoder.name} have sha256 {given[:12]}...",
            expected=f"{expected[:12]}..., as when the plan was made",
            fix="install the same weights, or make the plan anew",
        )


def _evaluated(begun: Begun) -> Outputs:
    """Score the test items, once, with the model that was chosen without them."""
    plan, model, material, course = begun.plan, begun.model, begun.material, begun.course
    rows, task = material.rows("test"), model.task
    test, targets = material.dataset.subset(rows), material.targets(rows)
    outputs = outputs_for(begun, rows)
    probabilities = model.probabilities(outputs)
    evaluation = task.evaluate(
        probabilities, targets, domains=test.domains if any(test.domains) else None, groups=_named(test.groups),
        seed=plan.seed,
    )  # fmt: skip
    columns = (test.ids, targets, task.answers(probabilities), task.certainty(probabilities), test.inputs)
    predictions = tuple(
        Predicted(name, task.truth(target), answer, float(certainty), _path(raw))
        for name, target, answer, certainty, raw in zip(*columns, strict=True)
    )
    result = Result(
        plan=plan, folder=Path(), evaluation=evaluation, audit=material.audit, receipt=model.encoder.receipt,
        race=course.race, history=course.history, cost=begun.ledger.cost(), predictions=predictions, notes=course.notes,
        modality=model.encoder.spec.modality,
    )  # fmt: skip
    return Outputs(result, model, task.item_quality(probabilities, targets), material)


def _named(groups: Sequence[str]) -> Sequence[str] | None:
    """Return groups where there are any; an item without one is a group of its own."""
    if not any(groups):
        return None
    return [group or f"#{row}" for row, group in enumerate(groups)]


def _path(raw: Any) -> Path | None:
    """Return the path of an item that has one."""
    return raw if isinstance(raw, Path) else None
