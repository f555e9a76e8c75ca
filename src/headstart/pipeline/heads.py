"""How heads race over the features of a run's items, and how the winner is calibrated."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch

from headstart.core.protocols import Encoder, Task
from headstart.core.settings import Extract
from headstart.core.types import Form, Target
from headstart.evaluation import likely_wrong
from headstart.features.encode import Encoded, Rows, encode
from headstart.methods.extract import extract
from headstart.model import Model
from headstart.pipeline.carried import CARRIED, Carried
from headstart.pipeline.course import Ledger
from headstart.pipeline.material import Material
from headstart.result import Candidate
from headstart.train.runtime import Context

POOLED_TOO = 600
"""With more training items, several depths beat the final features alone, so these do not race."""


def extract_heads(
    model: Model,
    material: Material,
    settings: Extract,
    form: Form,
    context: Context,
    ledger: Ledger,
    *,
    carried: Carried | None = None,
) -> tuple[tuple[Candidate, ...], list[int]]:
    """Race heads and leave the best in the model, calibrated; return the race and the items with suspect labels.

    A head that was `carried` over from an earlier link races too where it knows every class.
    """
    rows = material.rows("train", "validation") if settings.use_validation else material.rows("train")
    views = [material.part(rows).features]
    part = material.dataset.subset(rows)
    views += [
        ledger.count(encode(part, model.encoder, form=form, context=context, view=view)).features
        for view in range(1, settings.views)
    ]
    targets = material.targets(rows)
    groups = [material.groups[row] for row in rows]
    done = race_heads(model, racing_forms(model.encoder, form, views), targets, groups, settings, context)
    held_out = [targets[index] for index in done.held_out]
    if carried and not carried.fresh:
        done = _beside_carried(
            model, done, carried, material.part([rows[i] for i in done.held_out]), held_out, form
        )
    model.head = done.head.eval()
    calibrate(model, done.held_out_outputs, held_out)
    wrong = _suspects(model, done.held_out_outputs, held_out)
    return done.race, [rows[index] for index in done.held_out[wrong]]


def _beside_carried(
    model: Model, done: _Race, carried: Carried, part: Encoded, targets: Sequence[Target], form: Form
) -> _Race:
    """Let the head of the earlier link, which has seen none of these items, race with the winner."""
    started = time.perf_counter()
    model.head = carried.head
    outputs = model.logits_of(part, form)
    row = contender(CARRIED, model.task, outputs, targets, time.perf_counter() - started)
    best = next(one for one in done.race if one.chosen)
    if (row.score, -row.log_loss) <= (best.score, -best.log_loss):
        return replace(done, race=(*done.race, row))
    beaten = tuple(replace(one, chosen=False) for one in done.race)
    return _Race(carried.head, (*beaten, replace(row, chosen=True)), done.held_out, outputs)


def contender(name: str, task: Task, outputs: Any, targets: Sequence[Target], seconds: float) -> Candidate:
    """Return a contender scored on items that it has not seen."""
    found, count = task.score(outputs, targets), len(targets)
    quality = found["quality"]
    share = min(max(quality, 0.0), 1.0)
    error = math.sqrt(max(share * (1 - share), 0.25 / count) / count)
    return Candidate(name, quality, error, found["loss"], seconds)


def racing_forms(encoder: Encoder, form: Form, views: Sequence[Rows]) -> dict[Form, list[Rows]]:
    """Return the forms of features that race, each with its views."""
    if form != "depths":
        return {form: list(views)}
    spec = encoder.spec
    wide: Form = "layers" if "layers" in spec.width else "depths"
    racing: list[Form] = ["pooled", wide]
    if wide == "depths" and len(views[0]) >= POOLED_TOO:
        racing = [wide]
    return {name: [cast("np.ndarray", view)[:, spec.columns(name)] for view in views] for name in racing}


@dataclass(frozen=True)
class _Race:
    """What a race of heads gave: the winner and its outputs for items that it had not seen at that time."""

    head: Any
    race: tuple[Candidate, ...]
    held_out: np.ndarray
    held_out_outputs: Any


def race_heads(
    model: Model,
    features: Mapping[Form, Sequence[Rows]],
    targets: Sequence[Target],
    groups: Sequence[str],
    settings: Extract,
    context: Context,
) -> _Race:
    """Race heads on items, or on the words of items."""
    task = model.task
    if task.form != "sequence":
        vectors: dict[Form, list[np.ndarray]]
        vectors = {name: [np.asarray(view) for view in views] for name, views in features.items()}
        done = extract(vectors, task.encode(targets), groups, task=task, settings=settings, context=context)
        return _Race(done.head, done.race, done.held_out, done.held_out_logits)
    flat: dict[Form, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {
        name: [task.flatten(cast("list[np.ndarray]", view), targets) for view in views]
        for name, views in features.items()
    }
    _, ids, item = next(iter(flat.values()))[0]
    words: dict[Form, list[np.ndarray]] = {name: [view[0] for view in views] for name, views in flat.items()}
    done = extract(
        words,
        ids,
        [groups[int(index)] for index in item],
        task=task,
        settings=settings,
        context=context,
        items=item,
    )
    # The words of each text together again.
    texts, starts = np.unique(item[done.held_out], return_index=True)
    return _Race(done.head, done.race, texts, np.split(done.held_out_logits, starts[1:]))


def _suspects(model: Model, outputs: Any, targets: Sequence[Target]) -> np.ndarray:
    """Return the places of items whose class is likely wrong; other targets are not looked at."""
    if model.task.link != "softmax" or model.task.form == "sequence":
        return np.zeros(0, np.int64)
    return likely_wrong(model.probabilities(outputs), model.task.encode(targets))


def calibrate(model: Model, outputs: Any, targets: Sequence[Target]) -> None:
    """Fit the temperature on held-out outputs and keep them, with their targets, for abstaining and intervals."""
    model.temperature = model.task.fit_temperature(outputs, targets)
    rows = outputs if isinstance(outputs, np.ndarray) else np.concatenate(outputs)
    model.calibration = {
        "logits": torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float32)),
        "targets": torch.from_numpy(np.ascontiguousarray(model.task.encode(targets))),
    }
