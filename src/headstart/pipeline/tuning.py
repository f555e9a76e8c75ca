"""How a model is fine-tuned from its extracted head, and the better of both kept."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np

from headstart.core.errors import TrainingError
from headstart.core.settings import Extract, FineTune, Retention
from headstart.core.types import Form
from headstart.methods.finetune import finetune
from headstart.model import Model
from headstart.pipeline.carried import Carried
from headstart.pipeline.course import Course
from headstart.pipeline.heads import calibrate, contender, race_heads
from headstart.pipeline.keeping import Held, Start, guard_of, hold
from headstart.pipeline.material import Material
from headstart.pipeline.origin import Origin
from headstart.result import Candidate
from headstart.train.runtime import Context

GIVEN_UP = "fine-tuning was given up, the extracted head is kept: "
"""How a note begins that tells of a training that failed."""
LINEAR: tuple[Literal["logistic", "ridge"], ...] = ("logistic", "ridge")
"""Heads that fine-tuning can begin from."""


@dataclass(frozen=True)
class Ground:
    """What fine-tuning stands on: the race of heads on features of a form, and what an earlier link left."""

    race: tuple[Candidate, ...]
    form: Form
    extraction: Extract
    origin: Origin | None = None
    carried: Carried | None = None
    retention: Retention | None = None


def tune(model: Model, material: Material, settings: FineTune, ground: Ground, context: Context) -> Course:
    """Fine-tune from a linear head on final features; keep the better of it and the extracted model on validation."""
    held_out = material.rows("validation")
    training = material.dataset.subset(material.rows("train"))
    validation = material.dataset.subset(held_out)
    targets = material.targets(held_out)
    before = {name: tensor.clone() for name, tensor in model.encoder.module.state_dict().items()}
    extracted, race = model.head, ground.race
    extracted_outputs = model.logits_of(material.part(held_out), ground.form) if race else None
    model.head, begun_with = _beginning(model, material, ground, context)
    start = Start(before, copy.deepcopy(model.head.state_dict()))
    rows: list[Candidate] = []
    outputs, history, notes = extracted_outputs, (), begun_with
    held = Held()
    try:
        guard, unguarded = guard_of(ground.origin, ground.retention, model.head.form)
        notes = (*notes, *unguarded)
        done = finetune(
            model, training=training, validation=validation, settings=settings, context=context, guard=guard
        )
    except TrainingError as error:
        if not race:
            raise
        notes = (*notes, f"{GIVEN_UP}{error.given}; {error.fix}")
    else:
        model.head = model.head.cpu().eval()
        if done.kept == "finetuned":
            held = hold(model, start, (validation, settings), ground.origin, ground.retention, context)
        outputs = model.logits_of(model.encode(validation, context), model.head.form)
        history, notes = done.history, (*notes, *done.notes)
        seconds = sum(row["seconds"] for row in history)
        is_tuned = done.kept == "finetuned" and held.alpha != 0
        title = "fine-tuned" if is_tuned else "linear head that fine-tuning began from"
        rows = [contender(title, model.task, outputs, targets, seconds)]
    if extracted_outputs is not None:
        name = next(candidate.name for candidate in race if candidate.chosen)
        rows.append(contender(name, model.task, extracted_outputs, targets, 0.0))
    best = max(rows, key=lambda row: (row.score, -row.log_loss))
    if extracted_outputs is not None and best is rows[-1]:
        model.head, outputs = extracted, extracted_outputs
        model.encoder.module.load_state_dict(before)
        held = Held()
    assert outputs is not None, "either was trained"
    calibrate(model, outputs, targets)
    chosen = tuple(replace(row, chosen=row is best) for row in rows)
    return Course(chosen, tuple(history), (*notes, *held.notes), held.alpha, held.way)


def _beginning(
    model: Model, material: Material, ground: Ground, context: Context
) -> tuple[Any, tuple[str, ...]]:
    """Return the head that training begins from and what there is to say of it.

    A head of the earlier link, by the names of its classes, takes the place of a fitted one that validates worse.
    """
    fitted = None
    if ground.race:
        is_ready = _can_start(model, ground.race, ground.extraction)
        fitted = (
            copy.deepcopy(model.head) if is_ready else _starting_head(model, material, ground.form, context)
        )
    carried = ground.carried
    if carried is None or carried.head.form != model.task.form:
        return fitted or _new_head(model, material), ()
    own = copy.deepcopy(carried.head)
    if fitted is None:
        return own, (carried.said,)
    rows = material.rows("validation")
    scores: list[tuple[float, float]] = []
    for head in (own, fitted):
        model.head = head
        found = model.task.score(model.logits_of(material.part(rows), ground.form), material.targets(rows))
        scores.append((found["quality"], -found["loss"]))
    words = f"{carried.said}; on validation {scores[0][0]:.3f}, a head fitted anew {scores[1][0]:.3f}"
    if scores[0] > scores[1]:
        return own, (f"{words}: training began from the first",)
    return fitted, (f"{words}: training began from the second",)


def _can_start(model: Model, race: tuple[Candidate, ...], extraction: Extract) -> bool:
    """Tell whether the extracted head is what fine-tuning would begin from: linear, over final features, and fitted
    without the validation items.
    """
    winner = next(candidate.name for candidate in race if candidate.chosen)
    is_linear = model.head.form == model.task.form and winner.startswith(LINEAR)
    return is_linear and not extraction.use_validation


def _starting_head(model: Model, material: Material, form: Form, context: Context) -> Any:
    """Return the best linear head on the final features of the training items: what fine-tuning begins from."""
    own = model.task.form
    rows = material.rows("train")
    features = material.part(rows).features
    if form == "depths":
        features = cast("np.ndarray", features)[:, model.encoder.spec.columns(own)]
    groups = [material.groups[row] for row in rows]
    linear = Extract(heads=LINEAR)
    return race_heads(model, {own: [features]}, material.targets(rows), groups, linear, context).head


def _new_head(model: Model, material: Material) -> Any:
    """Return an untrained head."""
    targets = material.targets(material.rows("train"))
    return model.task.build_head(model.encoder.spec.width[model.task.form], targets)
