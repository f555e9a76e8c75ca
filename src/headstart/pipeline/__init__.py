"""How a plan runs: encode and audit in one pass, split, race heads, fine-tune, calibrate, score the test split once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core.errors import PlanError
from headstart.core.plan import Plan
from headstart.core.protocols import Encoder
from headstart.core.settings import Extract, FewShot, FineTune
from headstart.core.types import Form
from headstart.data import TableDataset
from headstart.model import Model, open_encoder
from headstart.pipeline.carried import Carried, carry
from headstart.pipeline.course import Course, Ledger
from headstart.pipeline.few import learn_few
from headstart.pipeline.gathering import gather, parts_of
from headstart.pipeline.heads import extract_heads
from headstart.pipeline.material import Material, with_learnt, with_suspects
from headstart.pipeline.origin import (
    Origin,
    inherited,
    lineage_behind,
    lineage_of,
    require_origin,
    seen_inputs,
)
from headstart.pipeline.tuning import Ground, tune
from headstart.result import Predicted, Result
from headstart.train.runtime import Context

__all__ = ["Begun", "Course", "Outputs", "begin", "execute", "gather", "outputs_for", "train"]


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
    origin: Origin | None = None
    carried: Carried | None = None
    weights_sha256: str | None = None
    """Of the network that the features at hand were made with; None: the plan's."""


def execute(
    plan: Plan,
    dataset: TableDataset,
    context: Context,
    *,
    strict: bool,
    encoder: Encoder | None = None,
    origin: Origin | None = None,
) -> Outputs:
    """Run a plan on its data and return the result (without a folder yet) and the model.

    `encoder` is the plan's network where it is open already; its weights may be changed. `origin` is what an earlier
    link of a chain ended with, where the plan continues one.
    """
    begun = begin(plan, dataset, context, strict=strict, encoder=encoder, origin=origin)
    begun.course = train(begun)
    with begun.ledger.stage("evaluate"):
        outputs = _evaluated(begun)
    if origin is None:
        lineage = lineage_behind(outputs.result, begun.model.encoder.spec)
        notes = (*outputs.result.notes, *seen_inputs(plan, lineage))
        return replace(outputs, result=replace(outputs.result, lineage=lineage, notes=notes))
    with begun.ledger.stage("retention"):
        lineage = lineage_of(outputs.result, begun.model, origin, begun.course, context)
    return replace(outputs, result=replace(outputs.result, lineage=lineage, cost=begun.ledger.cost()))


def begin(
    plan: Plan,
    dataset: TableDataset,
    context: Context,
    *,
    strict: bool,
    encoder: Encoder | None = None,
    origin: Origin | None = None,
) -> Begun:
    """Encode and audit the items, split them and race heads over their features, as `execute` does before it trains."""
    ledger = Ledger(context)
    require_origin(plan, origin)
    with ledger.stage("open"):
        encoder = origin.encoder if origin else encoder or open_encoder(plan.encoder, limits=plan.data.limits)
    if origin is None:
        _check_weights(plan, encoder)
    extraction, tuning = parts_of(plan)
    task, form, material = gather(plan, dataset, encoder, extraction, ledger, strict=strict)
    if origin:
        material = with_learnt(material, origin.learnt)
    lineage = tuple(link.model_dump(mode="json") for link in plan.chain())
    before = origin.lineage if origin else inherited(plan)
    model = Model(encoder, task, None, plan.encoder, lineage=(*before, *lineage))
    carried = carry(origin.head, origin.labels, task, encoder) if origin else None
    course = Course()
    if not isinstance(tuning, FineTune) or plan.extraction is not None:
        with ledger.stage("heads"):
            race, suspects = extract_heads(
                model, material, extraction, form, context, ledger, carried=carried
            )
            course, material = Course(race), with_suspects(material, suspects)
    return Begun(
        plan, model, material, form, extraction, ledger, course, origin, carried, encoder.spec.weights_sha256
    )


def train(begun: Begun) -> Course:
    """Train the model of a run as its plan says, in place, and return how that went."""
    tuning, ledger = begun.plan.method, begun.ledger
    given = begun.model, begun.material
    if isinstance(tuning, FewShot):
        with ledger.stage("fewshot"):
            return learn_few(*given, tuning, begun.course.race, begun.form, ledger.context)
    if isinstance(tuning, FineTune):
        with ledger.stage("finetune"):
            ground = Ground(
                begun.course.race,
                begun.form,
                begun.extraction,
                begun.origin,
                begun.carried,
                begun.plan.retention,
            )
            return tune(*given, tuning, ground, ledger.context)
    if begun.carried:
        return replace(begun.course, notes=(*begun.course.notes, begun.carried.said))
    return begun.course


def outputs_for(begun: Begun, rows: Sequence[int]) -> Any:
    """Return the head's outputs for some of the run's items, from the features at hand if the network is unchanged."""
    model, material, ledger = begun.model, begun.material, begun.ledger
    before = begun.weights_sha256 or begun.plan.encoder.weights_sha256
    is_extracted = not begun.course.history or model.encoder.spec.weights_sha256 == before
    if is_extracted:
        return model.logits_of(material.part(rows), begun.form)
    return model.logits_of(
        ledger.count(model.encode(material.dataset.subset(rows), ledger.context)), model.head.form
    )


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
    receipt = model.encoder.receipt
    if begun.origin:
        receipt = replace(receipt, source=f"the link '{begun.origin.name}' of the chain")
    result = Result(
        plan=plan, folder=Path(), evaluation=evaluation, audit=material.audit, receipt=receipt,
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
