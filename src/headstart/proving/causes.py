"""Why a transfer went wrong, by measurement, and what to change."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from pydantic import TypeAdapter

from headstart.core.errors import TrainingError
from headstart.core.hashing import digest
from headstart.core.settings import Extract, FineTune
from headstart.features.encode import take
from headstart.methods.finetune import finetune
from headstart.model import Model
from headstart.pipeline.heads import race_heads
from headstart.pipeline.tuning import LINEAR
from headstart.planning import sample_values
from headstart.proving.arms import BUCKET
from headstart.proving.bench import Bench
from headstart.proving.measures import drift, group_features, statistics_gap
from headstart.proving.outcome import Cause, Scored

if TYPE_CHECKING:
    from pathlib import Path

    from headstart.core.types import Form

VERSION = 1
"""Version of what is measured; bump when its numbers move."""
SAMPLE, WATCHED = 96, 300
"""Items whose features are compared, and training items by which the tried epochs are judged."""
MOST_EPOCHS = 5
"""Epochs that are tried to see where training leads."""
DRIFTED = 0.6
"""Features of a layer group that are less alike than this before and after are others."""
APART = 0.5
"""Running deviations by which the data's channel means lie off those that the network learnt."""
GAP = 0.15
"""Points of quality between training and validation items from which on training is learning by heart."""
WRONG = 0.08
"""Share of the training labels that are likely wrong from which on they hurt."""


@dataclass(frozen=True)
class Traced:
    """A few epochs of fine-tuning, kept by how well they fit the training items: where it leads unstopped.

    `alike` is the CKA of each layer group, shallow to deep; `failure` says why there is nothing.
    """

    alike: dict[str, float]
    train: float
    validation: float
    start_train: float
    start_validation: float
    failure: str = ""


def causes_of(
    bench: Bench, scored: Mapping[str, Sequence[Scored]], *, epochs: int | None, lost_to_frozen: bool
) -> tuple[Cause, ...]:
    """Measure what may explain a negative transfer, the likely causes first; kept in the store.

    `scored` are the runs of each arm on all labels, `epochs` those of fine-tuning (None: it was cut).
    """
    seen = {name: [(one.score, one.validation) for one in runs] for name, runs in scored.items()}
    key = digest(
        "causes", VERSION, bench.tuning.key, list(bench.dataset.splits), seen, epochs, lost_to_frozen
    )

    def write(folder: Path) -> None:
        found = _measured(bench, scored, epochs=epochs, lost_to_frozen=lost_to_frozen)
        text = json.dumps([asdict(cause) for cause in found], ensure_ascii=False)
        (folder / "causes.json").write_text(text, encoding="utf-8")

    folder, _ = bench.context.store.get_or(BUCKET, key, write)
    values = json.loads((folder / "causes.json").read_text(encoding="utf-8"))
    return TypeAdapter(tuple[Cause, ...]).validate_python(values)


def _measured(
    bench: Bench, scored: Mapping[str, Sequence[Scored]], *, epochs: int | None, lost_to_frozen: bool
) -> list[Cause]:
    """Measure every cause that may apply."""
    bench.encoder.module.load_state_dict(bench.weights)
    sample = bench.dataset.subset(bench.material.rows("train"))
    values = sample_values(sample, bench.encoder, SAMPLE)
    found: list[Cause] = []
    if epochs is not None and lost_to_frozen:
        found += _of_tuning(_traced(bench, values, min(epochs, MOST_EPOCHS)))
        bench.encoder.module.load_state_dict(bench.weights)
    gap, layers = statistics_gap(bench.encoder, values, bench.task.form)
    found += _of_statistics(gap, layers)
    if scored.get("frozen") and scored.get("scratch"):
        found.append(_of_domain(scored, gap, layers))
    if bench.task.link == "softmax" and bench.task.form != "sequence" and scored.get("frozen"):
        found.append(_of_labels(scored["frozen"]))
    return sorted(found, key=lambda cause: not cause.is_likely)


def _of_tuning(traced: Traced) -> list[Cause]:
    """Judge what training does to the features, and whether it learns by heart."""
    if traced.failure:
        change = "lower finetune.learning_rate tenfold, or train fewer layers (finetune.train_last)"
        return [Cause("rates too high", True, f"training failed: {traced.failure}", change)]
    lowest = min(traced.alike, key=traced.alike.__getitem__) if traced.alike else ""
    least = traced.alike.get(lowest, 1.0)
    got_worse = traced.train < traced.start_train
    words = (
        f"least alike before and after: {lowest} with CKA {least:.2f}"
        if lowest
        else "no layer could be compared"
    )
    if got_worse:
        words += (
            f"; even training items are answered worse ({traced.train:.3f} after {traced.start_train:.3f})"
        )
    rates = Cause(
        "rates too high", got_worse or least < DRIFTED, words,
        "finetune.learning_rate to a third, finetune.layer_decay=0.65, or finetune.train_last to half the groups",
    )  # fmt: skip
    opened = traced.train - traced.validation
    learning = Cause(
        "overfitting", opened > GAP and opened > traced.start_train - traced.start_validation,
        f"{traced.train:.3f} on training items, {traced.validation:.3f} on validation items "
        f"(before: {traced.start_train:.3f} and {traced.start_validation:.3f})",
        "finetune.augment=strong, fewer epochs or layers (finetune.epochs, finetune.train_last), or more labels",
    )  # fmt: skip
    return [rates, learning]


def _of_statistics(gap: float, layers: int) -> list[Cause]:
    """Judge whether BatchNorm's running statistics fit the data."""
    if not layers:
        return []
    words = (
        f"channel means lie {gap:.2f} deviations off the running ones on average ({layers} BatchNorm layers)"
    )
    return [
        Cause(
            "BatchNorm statistics of another domain", gap > APART, words, "finetune.freeze_statistics=false"
        ),
    ]


def _of_domain(scored: Mapping[str, Sequence[Scored]], gap: float, layers: int) -> Cause:
    """Judge whether the frozen features say too little, whatever the head."""
    frozen, scratch = (
        float(np.mean([one.validation for one in scored[name]])) for name in ("frozen", "scratch")
    )
    words = f"the best of all heads on frozen features reaches {frozen:.3f} unseen, training from scratch {scratch:.3f}"
    if layers:
        words += f"; the data lie {gap:.2f} deviations off what the network learnt from"
    return Cause(
        "domain gap", frozen < scratch, words,
        "a network that learnt from data more like these (`headstart rank`), all layers trained, or more epochs",
    )  # fmt: skip


def _of_labels(frozen: Sequence[Scored]) -> Cause:
    """Judge whether wrong labels hurt."""
    share = float(np.mean([one.suspects / one.budget.n for one in frozen]))
    words = f"{share:.1%} of the training labels are likely wrong (confident learning)"
    return Cause("label noise", share > WRONG, words, "look at them with `headstart labels`, and mend them")


def _traced(bench: Bench, values: Sequence[np.ndarray], epochs: int) -> Traced:
    """Fine-tune a little, keep the epoch that fits the training items best, and compare."""
    material, context = bench.material, replace(bench.context, folder=None)
    rows, held_out = material.rows("train"), material.rows("validation")
    watched = rows[:: max(1, len(rows) // WATCHED)]
    model, form = _started(bench, rows), bench.task.form
    before = group_features(bench.encoder, values, form)
    first = _quality(bench, model, watched), _quality(bench, model, held_out)
    method = cast("FineTune", bench.tuning.method)
    views = min(method.views, epochs) if method.views else None
    settings = method.model_copy(
        update={"epochs": epochs, "head_epochs": 0, "views": views, "patience": epochs}
    )
    part = material.dataset.subset
    try:
        finetune(model, training=part(rows), validation=part(watched), settings=settings, context=context)
    except TrainingError as error:
        return Traced({}, 0.0, 0.0, *first, failure=error.given)
    model.head = model.head.cpu().eval()
    after = group_features(bench.encoder, values, form)
    last = _quality(bench, model, watched), _quality(bench, model, held_out)
    return Traced(drift(before, after), *last, *first)


def _started(bench: Bench, rows: Sequence[int]) -> Model:
    """Return the model that fine-tuning starts from: the best linear head on final features."""
    material, own = bench.material, bench.task.form
    model = Model(bench.encoder, bench.task, None, bench.tuning.encoder)
    features: Any = take(material.encoded.features, rows)
    if bench.form == "depths":
        features = features[:, bench.encoder.spec.columns(own)]
    linear = Extract(heads=LINEAR)
    groups = [material.groups[row] for row in rows]
    raced = race_heads(model, {own: [features]}, material.targets(rows), groups, linear, bench.context)
    model.head = raced.head
    return model


def _quality(bench: Bench, model: Model, rows: Sequence[int]) -> float:
    """Return the quality of a model on some items, with the network as it is now."""
    form: Form = model.head.form
    encoded = model.encode(bench.dataset.subset(rows), bench.context)
    return float(bench.task.score(model.logits_of(encoded, form), bench.material.targets(rows))["quality"])
