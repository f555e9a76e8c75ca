"""The shift between two sides, looked at in full: the meter, the views, typical items, a sketch, what is new."""

from __future__ import annotations

import numpy as np

from headstart.adaptation.candidates import NOTHING, Candidate
from headstart.adaptation.outcome import Measured, Shifted, Sketch, Typical
from headstart.adaptation.shift import SWALLOWED, Kind, measure_shift
from headstart.adaptation.sides import (
    FEW,
    Origin,
    Side,
    encode_target,
    origin_of,
    require_classes,
    said_of,
    unseen,
)
from headstart.adaptation.sketch import sketch
from headstart.adaptation.views import class_views, domain_views, points_of, typical, unlike_every_class
from headstart.data import TableDataset
from headstart.methods.domain.prior import em_shares
from headstart.model import Model
from headstart.pipeline import execute
from headstart.planning import Opened
from headstart.train.runtime import Context


def look(origin: Origin, target: Side, model: Model, *, title: str, seed: int = 0) -> Shifted:
    """Look at the shift from a model's source to a target; what cannot be measured is left open and said."""
    outputs = outputs_of(model, target.features)
    nothing = Candidate(NOTHING, "nothing", model, outputs)
    source = origin.side
    notes = said_of(origin, target)
    common = {
        "title": title, "modality": model.encoder.spec.modality, "encoder": model.encoder.spec.name,
        "labels": tuple(model.task.labels), "num_target": len(target),
        "num_source": len(source) if source is not None else 0, "unreadable": target.unreadable,
        "before": sketch(source, target, nothing, seed=seed) if len(target) > 1 else Sketch((), (), ()),
    }  # fmt: skip
    if source is None or source.targets is None or min(len(source), len(target)) < FEW:
        return Shifted(
            measured=None,
            classes=(),
            domains=(),
            typical=Typical(),
            unlike=None,
            notes=tuple(notes),
            **common,
        )
    shift = measure_shift(
        source.features,
        source.targets,
        target.features,
        nothing.probabilities,
        groups=source.groups,
        seed=seed,
    )
    points, new = points_of(source, target), unseen(origin, target)
    first, second = typical(points, seed=seed)
    answers = nothing.probabilities.argmax(1)
    return Shifted(
        measured=Measured.of(shift),
        classes=class_views(points, source.targets, answers, common["labels"], seed=seed),
        domains=domain_views(points, target, seed=seed),
        typical=Typical(
            tuple(source.dataset.ids[row] for row in first), tuple(target.dataset.ids[row] for row in second)
        ),
        unlike=unlike_every_class(
            points,
            source.targets,
            own_mean=shift.kind in ("appearance", "both"),
            unseen=new,
            seed=seed,
        ),
        num_unseen=len(new),
        notes=tuple(notes),
        **common,
    )


def look_from_data(
    opened: Opened, target: TableDataset, context: Context, *, title: str
) -> tuple[Shifted, TableDataset]:
    """Look at the shift from labelled data, over whose features heads race first, and return the source's items too."""
    done = execute(opened.plan, opened.dataset, context, strict=False, encoder=opened.encoder)
    require_classes(done.model)
    origin = origin_of(done.model, done.material, context)
    found = look(
        origin, encode_target(target, done.model, context), done.model, title=title, seed=context.seed
    )
    return found, done.material.dataset


def outputs_of(model: Model, features: np.ndarray) -> np.ndarray:
    """Return the head's outputs [m, C] for features [m, D] of its form."""
    import torch

    with torch.inference_mode():
        return model.head.eval()(torch.from_numpy(features)).numpy()


def kind_of(found: Shifted, model: Model, probabilities: np.ndarray) -> Kind:
    """Return the kind of a shift; where it was not measured, the one under which the least can go wrong.

    That is `mixed`, under which a head only trains itself on, or `both`, under which nothing is changed, where the
    answers name quite other shares of the classes than the held-out items that came with the model.
    """
    if found.measured is not None:
        return found.measured.kind
    held = model.calibration.get("targets")
    if held is None or not len(held):
        return "mixed"
    shares = np.bincount(held.numpy(), minlength=len(found.labels)) / len(held)
    distance = float(np.abs(em_shares(probabilities.astype(np.float64), shares) - shares).sum() / 2)
    return "both" if distance >= SWALLOWED else "mixed"
