"""Using a finished model: load, predict, evaluate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from headstart.api._given import (
    Data,
    Progress,
    context_of,
    opened_data,
    source_of,
)
from headstart.core.machine import Machine, read_machine
from headstart.core.types import Prediction, Target
from headstart.evaluation import Evaluation
from headstart.model import Model
from headstart.train.runtime import ignore

if TYPE_CHECKING:
    pass


def load(folder: str | Path) -> Model:
    """Load a model folder; nothing in it is executed (ModelFolderError where it was altered)."""
    from headstart.model import load_model

    return load_model(Path(folder))


def predict(
    model: Model | str | Path,
    inputs: Sequence[Any],
    *,
    abstain: float | None = None,
    settings: Mapping[str, Any] | None = None,
    machine: Machine | None = None,
    progress: Progress = ignore,
) -> list[Prediction]:
    """Predict files, folders of files, tables, texts or arrays; probabilities are calibrated, in the inputs' order.

    A string is a text to a network of texts and a path to others; a `Path` is always a path. `settings` may say which
    column of a table holds the texts or paths ({"data.text_column": "body"}). With `abstain`, at most this share of
    answers is wrong (split-conformal); the other labels are None. An unreadable file is warned about and left out.
    """
    from headstart.data.unlabelled import open_inputs

    loaded = model if isinstance(model, Model) else load(model)
    source = source_of("", settings)
    dataset = open_inputs(inputs, modality=loaded.encoder.spec.modality, source=source)
    return loaded.predict(dataset, context_of(machine or read_machine(), 0, progress), abstain=abstain)


def evaluate(
    model: Model | str | Path,
    data: Data,
    *,
    settings: Mapping[str, Any] | None = None,
    machine: Machine | None = None,
    progress: Progress = ignore,
) -> Evaluation:
    """Score a model on every labelled item of some data, each metric with its interval."""
    loaded = model if isinstance(model, Model) else load(model)
    source = source_of(data, settings)
    dataset = opened_data(data, source)
    labelled = dataset.subset([row for row, target in enumerate(dataset.targets) if target is not None])
    encoded = loaded.encode(labelled, context_of(machine or read_machine(), 0, progress))
    part = labelled.subset(encoded.indices)
    domains = part.domains if any(part.domains) else None
    groups = [group or f"#{row}" for row, group in enumerate(part.groups)] if any(part.groups) else None
    outputs = loaded.logits_of(encoded, loaded.head.form)
    scored = loaded.task.evaluate(
        loaded.probabilities(outputs),
        cast("list[Target]", part.targets),
        domains=domains,
        groups=groups,
        seed=0,
    )
    bad = len(encoded.failures)
    return replace(scored, notes=(*scored.notes, f"{bad} items could not be read")) if bad else scored
