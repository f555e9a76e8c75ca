"""How a model with few labels a class is found: frozen heads first, then what unlabelled items and tuning add."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np

from headstart.core.settings import FewShot
from headstart.core.types import Form
from headstart.methods.fewshot import Few, fewshot
from headstart.model import Model
from headstart.pipeline.course import Course
from headstart.pipeline.heads import calibrate
from headstart.pipeline.material import Material
from headstart.result import Candidate
from headstart.train.runtime import Context, draw


def learn_few(
    model: Model,
    material: Material,
    settings: FewShot,
    race: tuple[Candidate, ...],
    form: Form,
    context: Context,
) -> Course:
    """Race refined class means and a tuned body against the extracted head in the model; leave the winner there."""
    rows = material.rows("train", "validation")
    targets = material.targets(rows)
    few = Few(
        material.dataset.subset(rows),
        model.task.encode(targets),
        [material.groups[row] for row in rows],
        cast("np.ndarray", material.part(rows).features),
        cast("np.ndarray", material.part(_unlabelled(material, settings, context)).features),
        form,
    )
    best = next(candidate for candidate in race if candidate.chosen)
    done = fewshot(model.encoder, few, best=best, task=model.task, settings=settings, context=context)
    if done.kept == "heads":
        return Course((*race, *done.race), (), done.notes)
    assert done.head is not None, "the winner was fitted"
    assert done.held_out is not None, "and cross-validated"
    model.head = done.head.cpu().eval()
    calibrate(model, done.held_out, targets)
    beaten = tuple(replace(candidate, chosen=False) for candidate in race)
    return Course((*beaten, *done.race), done.history, done.notes)


def _unlabelled(material: Material, settings: FewShot, context: Context) -> list[int]:
    """Return the training items without a label, a seeded sample of them where there are many."""
    dataset = material.dataset
    rows = [
        row
        for row, (name, target) in enumerate(zip(dataset.splits, dataset.targets, strict=True))
        if name in ("train", "validation") and target is None
    ]
    if len(rows) <= settings.unlabelled:
        return rows
    chosen = draw(context.seed, "unlabelled", 0, len(rows)).choice(
        len(rows), settings.unlabelled, replace=False
    )
    return [rows[int(index)] for index in np.sort(chosen)]
