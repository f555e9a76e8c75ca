"""How a model is fine-tuned from its extracted head, and the better of both kept."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import numpy as np

from headstart.core.errors import TrainingError
from headstart.core.protocols import Task
from headstart.core.settings import Extract, FineTune
from headstart.core.types import Form, Target
from headstart.methods.finetune import finetune
from headstart.model import Model
from headstart.pipeline.course import Course
from headstart.pipeline.heads import calibrate, race_heads
from headstart.pipeline.material import Material
from headstart.result import Candidate
from headstart.train.runtime import Context

GIVEN_UP = "fine-tuning was given up, the extracted head is kept: "
"""How a note begins that tells of a training that failed."""
LINEAR: tuple[Literal["logistic", "ridge"], ...] = ("logistic", "ridge")
"""Heads that fine-tuning can begin from."""


def tune(
    model: Model,
    material: Material,
    settings: FineTune,
    race: tuple[Candidate, ...],
    form: Form,
    context: Context,
    *,
    extraction: Extract,
) -> Course:
    """Fine-tune from a linear head on final features; keep the better of it and the extracted model on validation."""
    held_out = material.rows("validation")
    training = material.dataset.subset(material.rows("train"))
    validation = material.dataset.subset(held_out)
    targets = material.targets(held_out)
    before = {name: tensor.clone() for name, tensor in model.encoder.module.state_dict().items()}
    extracted = model.head
    extracted_outputs = model.logits_of(material.part(held_out), form) if race else None
    if not race:
        model.head = _new_head(model)
    elif not _can_start(model, race, extraction):
        model.head = _starting_head(model, material, form, context)
    else:
        model.head = copy.deepcopy(extracted)
    rows: list[Candidate] = []
    outputs, history, notes = extracted_outputs, (), ()
    try:
        done = finetune(model, training=training, validation=validation, settings=settings, context=context)
    except TrainingError as error:
        if not race:
            raise
        notes = (f"{GIVEN_UP}{error.given}; {error.fix}",)
    else:
        model.head = model.head.cpu().eval()
        outputs = model.logits_of(model.encode(validation, context), model.head.form)
        history, notes = done.history, done.notes
        seconds = sum(row["seconds"] for row in history)
        title = "fine-tuned" if done.kept == "finetuned" else "linear head that fine-tuning began from"
        rows = [_contender(title, model.task, outputs, targets, seconds)]
    if extracted_outputs is not None:
        name = next(candidate.name for candidate in race if candidate.chosen)
        rows.append(_contender(name, model.task, extracted_outputs, targets, 0.0))
    best = max(rows, key=lambda row: (row.score, -row.log_loss))
    if extracted_outputs is not None and best is rows[-1]:
        model.head, outputs = extracted, extracted_outputs
        model.encoder.module.load_state_dict(before)
    assert outputs is not None, "either was trained"
    calibrate(model, outputs, targets)
    return Course(tuple(replace(row, chosen=row is best) for row in rows), tuple(history), tuple(notes))


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


def _new_head(model: Model) -> Any:
    """Return an untrained head."""
    return model.task.build_head(model.encoder.spec.width[model.task.form])


def _contender(name: str, task: Task, outputs: Any, targets: Sequence[Target], seconds: float) -> Candidate:
    """Return a contender scored on the validation items."""
    found, count = task.score(outputs, targets), len(targets)
    quality = found["quality"]
    share = min(max(quality, 0.0), 1.0)
    error = math.sqrt(max(share * (1 - share), 0.25 / count) / count)
    return Candidate(name, quality, error, found["loss"], seconds)
