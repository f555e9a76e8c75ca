"""How a plan runs: encode and audit in one pass, split, race heads, fine-tune, calibrate, score the test split once."""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart.core.errors import DataError, PlanError, TrainingError
from headstart.core.plan import Plan
from headstart.core.protocols import Encoder
from headstart.core.registry import resolve
from headstart.core.settings import Extract, FineTune
from headstart.core.types import Audit, Finding, Form, SplitName
from headstart.data import TableDataset
from headstart.data.audit import Outcome, audit, refuse_grave
from headstart.data.splits import split
from headstart.evaluation import evaluate, fit_temperature, likely_wrong
from headstart.features.encode import Encoded, encode
from headstart.methods.extract import extract
from headstart.methods.finetune import finetune
from headstart.model import Model, open_encoder
from headstart.result import Candidate, Cost, Predicted, Result
from headstart.train.runtime import Context

POOLED_TOO = 600
"""With more training items, several depths beat the final features alone, so these do not race."""


@dataclass
class Ledger:
    """What a run cost so far."""

    context: Context
    started: float = field(default_factory=time.perf_counter)
    cpu_started: float = field(default_factory=time.process_time)
    stages: dict[str, float] = field(default_factory=dict)
    encoded: int = 0
    stored: int = 0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the seconds of a block to a stage."""
        began = time.perf_counter()
        yield
        self.stages[name] = self.stages.get(name, 0.0) + time.perf_counter() - began

    def count(self, encoded: Encoded) -> Encoded:
        """Add what an encoding took from the network and from the store."""
        self.encoded += encoded.num_encoded
        self.stored += encoded.num_stored
        return encoded

    def cost(self) -> Cost:
        """Return the sum."""
        per_megabyte = 1024**2 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / per_megabyte
        return Cost(
            time.perf_counter() - self.started, time.process_time() - self.cpu_started, peak,
            self.encoded, self.stored, dict(self.stages),
        )  # fmt: skip


@dataclass(frozen=True)
class Material:
    """The items that a run works on, after the audit: every one readable, with its split and class id."""

    dataset: TableDataset
    encoded: Encoded
    targets: np.ndarray
    groups: list[str]
    audit: Audit

    def rows(self, *splits: SplitName) -> list[int]:
        """Return the labelled items of these splits."""
        wanted = set(splits)
        return [
            row for row, name in enumerate(self.dataset.splits) if name in wanted and self.targets[row] >= 0
        ]

    def features(self, rows: Sequence[int]) -> np.ndarray:
        """Return the features [n, D] of these items."""
        return self.encoded.features[list(rows)]


@dataclass(frozen=True)
class Course:
    """How the model came about: contenders, a row an epoch, and what a reader must know."""

    race: tuple[Candidate, ...] = ()
    history: tuple[Mapping[str, float], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outputs:
    """What a run made: the model and its logits on the test items (in the order of `rows("test")`)."""

    result: Result
    model: Model
    test_probabilities: np.ndarray
    material: Material


def execute(plan: Plan, dataset: TableDataset, context: Context, *, strict: bool) -> Outputs:
    """Run a plan on its data and return the result (without a folder yet) and the model."""
    ledger = Ledger(context)
    if not plan.split.respect:
        dataset = dataset.with_splits([None] * len(dataset))
    with ledger.stage("open"):
        encoder = open_encoder(plan.encoder, max_megapixels=plan.data.max_megapixels)
    _check_weights(plan, encoder)
    extraction, tuning = _links(plan)
    form: Form = "depths" if extraction.depths and len(encoder.spec.depths) > 1 else "pooled"
    with ledger.stage("encode"):
        whole = encode(dataset, encoder, form=form, context=context, max_megapixels=plan.data.max_megapixels)
        ledger.count(whole)
    with ledger.stage("audit"):
        found = audit(dataset, whole.facts, whole.failures, settings=plan.data)
        _refuse_findings(found.audit, strict=strict)
        material = _material(plan, dataset, whole, found)
    task = resolve("task", plan.task)(plan.labels)
    model = Model(
        encoder,
        task,
        None,
        plan.encoder,
        lineage=tuple(link.model_dump(mode="json") for link in plan.chain()),
    )
    course = Course()
    if tuning is None or plan.start is not None:
        with ledger.stage("heads"):
            race, suspects = _extract(model, material, extraction, form, context, ledger)
            course, material = Course(race), _with_suspects(material, suspects)
    if tuning is not None:
        with ledger.stage("finetune"):
            course = _finetune(model, material, tuning, course.race, form, context)
    with ledger.stage("evaluate"):
        return _evaluated(plan, model, material, form, ledger, course)


def _links(plan: Plan) -> tuple[Extract, FineTune | None]:
    """Return the extraction and the fine-tuning of a plan (a lone fine-tuning encodes too, for the audit)."""
    if isinstance(plan.method, Extract):
        return plan.method, None
    start = plan.start.method if plan.start else Extract(depths=False)
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


def _refuse_findings(found: Audit, *, strict: bool) -> None:
    """Refuse what would make every score a lie; with `strict`, errors and warnings of any kind."""
    for finding in found.by_code("group-leak"):
        raise DataError(
            finding.message,
            expected="every group (patient, speaker, scene) in one split",
            fix="mend the splits, or let headstart split by group: --set split.respect=false",
        )
    if strict:
        refuse_grave(found)


def _material(plan: Plan, dataset: TableDataset, whole: Encoded, found: Outcome) -> Material:
    """Keep what the audit keeps, and give every item its split and class id."""
    kept = dataset.subset(found.keep)
    kept = kept.with_splits(split(kept, plan.split, seed=plan.seed, ties=found.ties))
    row_of = {index: row for row, index in enumerate(whole.indices)}
    rows = [row_of[index] for index in found.keep]
    encoded = replace(whole, features=whole.features[rows], indices=tuple(range(len(rows))))
    ids = {label: index for index, label in enumerate(plan.labels)}
    targets = np.array([-1 if target is None else ids[target] for target in kept.targets], dtype=np.int64)
    return Material(kept, encoded, targets, _clusters(kept.groups, found.ties), found.audit)


def _clusters(groups: Sequence[str], ties: Sequence[tuple[int, int]]) -> list[str]:
    """Return for each item the name of what it must stay with: its group, its twins, and theirs."""
    name = [group or f"#{row}" for row, group in enumerate(groups)]
    leader: dict[str, str] = {}

    def root(item: str) -> str:
        while item in leader:
            item = leader[item]
        return item

    for one, other in ties:
        first, second = root(name[one]), root(name[other])
        if first != second:
            leader[second] = first
    return [root(item) for item in name]


def _extract(
    model: Model, material: Material, settings: Extract, form: Form, context: Context, ledger: Ledger
) -> tuple[tuple[Candidate, ...], list[int]]:
    """Race heads and leave the best in the model, calibrated; return the race and the items with suspect labels."""
    rows = material.rows("train", "validation") if settings.use_validation else material.rows("train")
    views = [material.features(rows)]
    part = material.dataset.subset(rows)
    views += [
        ledger.count(encode(part, model.encoder, form=form, context=context, view=view)).features
        for view in range(1, settings.views)
    ]
    width = model.encoder.spec.width["pooled"]
    features: dict[Form, list[np.ndarray]] = {}
    if form == "pooled" or len(rows) < POOLED_TOO:
        features["pooled"] = [view[:, :width] for view in views]
    if form == "depths":
        features["depths"] = views
    targets = material.targets[rows]
    done = extract(
        features, targets, [material.groups[row] for row in rows],
        num_classes=len(model.task.labels), settings=settings, context=context,
    )  # fmt: skip
    model.head = done.head.eval()
    _calibrate(model, done.held_out_logits, targets[done.held_out])
    wrong = likely_wrong(model.probabilities(done.held_out_logits), targets[done.held_out])
    return done.race, [rows[index] for index in done.held_out[wrong]]


def _with_suspects(material: Material, suspects: Sequence[int]) -> Material:
    """Add the items whose labels are likely wrong to the audit."""
    if not suspects:
        return material
    finding = Finding(
        "label-suspect",
        "info",
        f"{len(suspects)} of the training labels are likely wrong: a model that had not seen these items is surer of "
        "another class",
        "kept as they are; look at them, the surest first",
        tuple(material.dataset.ids[row] for row in suspects),
    )
    return replace(material, audit=replace(material.audit, findings=(*material.audit.findings, finding)))


def _calibrate(model: Model, logits: np.ndarray, targets: np.ndarray) -> None:
    """Fit the temperature on held-out logits [n, C] and keep them, with their targets [n], for abstaining."""
    model.temperature = fit_temperature(logits, targets)
    model.calibration = {
        "logits": torch.from_numpy(np.ascontiguousarray(logits, dtype=np.float32)),
        "targets": torch.from_numpy(targets),
    }


def _finetune(
    model: Model,
    material: Material,
    settings: FineTune,
    race: tuple[Candidate, ...],
    form: Form,
    context: Context,
) -> Course:
    """Fine-tune from a linear head on final features; keep the better of it and the extracted model on validation."""
    held_out = material.rows("validation")
    training = material.dataset.subset(material.rows("train"))
    validation = material.dataset.subset(held_out)
    names = [str(target) for target in validation.targets]
    before = {name: tensor.clone() for name, tensor in model.encoder.module.state_dict().items()}
    extracted = model.head
    features = replace(
        material.encoded, features=material.features(held_out), indices=tuple(range(len(held_out)))
    )
    extracted_logits = model.logits_of(features, form) if race else None
    model.head = _starting_head(model, material, context) if race else _new_head(model)
    rows: list[Candidate] = []
    logits, history, notes = extracted_logits, (), ()
    try:
        done = finetune(model, training=training, validation=validation, settings=settings, context=context)
    except TrainingError as error:
        if not race:
            raise
        notes = (f"fine-tuning was given up, the extracted head is kept: {error.given}; {error.fix}",)
    else:
        model.head = model.head.cpu().eval()
        logits = model.logits_of(model.encode(validation, context), model.head.form)
        history, notes = done.history, done.notes
        seconds = sum(row["seconds"] for row in history)
        title = "fine-tuned" if done.kept == "finetuned" else "linear head that fine-tuning began from"
        rows = [_contender(title, model.task.score(logits, names), len(names), seconds)]
    if extracted_logits is not None:
        name = next(candidate.name for candidate in race if candidate.chosen)
        rows.append(_contender(name, model.task.score(extracted_logits, names), len(names), 0.0))
    best = max(rows, key=lambda row: (row.score, -row.log_loss))
    if extracted_logits is not None and best is rows[-1]:
        model.head, logits = extracted, extracted_logits
        model.encoder.module.load_state_dict(before)
    assert logits is not None, "either was trained"
    _calibrate(model, logits, material.targets[held_out])
    return Course(tuple(replace(row, chosen=row is best) for row in rows), tuple(history), tuple(notes))


def _starting_head(model: Model, material: Material, context: Context) -> Any:
    """Return the best linear head on the final features of the training items: what fine-tuning begins from."""
    rows = material.rows("train")
    width = model.encoder.spec.width["pooled"]
    done = extract(
        {"pooled": [material.features(rows)[:, :width]]},
        material.targets[rows],
        [material.groups[row] for row in rows],
        num_classes=len(model.task.labels),
        settings=Extract(heads=("logistic", "ridge")),
        context=context,
    )
    return done.head


def _new_head(model: Model) -> Any:
    """Return an untrained head."""
    return model.task.build_head(model.encoder.spec.width["pooled"])


def _contender(name: str, scores: Mapping[str, float], count: int, seconds: float) -> Candidate:
    """Return a contender scored on the validation items."""
    accuracy = scores["accuracy"]
    error = math.sqrt(max(accuracy * (1 - accuracy), 0.25 / count) / count)
    return Candidate(name, accuracy, error, scores["log_loss"], seconds)


def _evaluated(
    plan: Plan, model: Model, material: Material, form: Form, ledger: Ledger, course: Course
) -> Outputs:
    """Score the test items, once, with the model that was chosen without them."""
    rows = material.rows("test")
    test = material.dataset.subset(rows)
    is_extracted = not course.history or model.encoder.spec.weights_sha256 == plan.encoder.weights_sha256
    if is_extracted:
        encoded = replace(material.encoded, features=material.features(rows), indices=tuple(range(len(rows))))
        logits = model.logits_of(encoded, form)
    else:
        logits = model.logits_of(ledger.count(model.encode(test, ledger.context)), model.head.form)
    probabilities = model.probabilities(logits)
    evaluation = evaluate(
        probabilities, material.targets[rows], labels=plan.labels, seed=plan.seed,
        domains=test.domains if any(test.domains) else None, groups=_named(test.groups),
    )  # fmt: skip
    predictions = tuple(
        Predicted(name, str(target), plan.labels[int(row.argmax())], float(row.max()), _path(raw))
        for name, target, raw, row in zip(test.ids, test.targets, test.inputs, probabilities, strict=True)
    )
    result = Result(
        plan=plan, folder=Path(), evaluation=evaluation, audit=material.audit, receipt=model.encoder.receipt,
        race=course.race, history=course.history, cost=ledger.cost(), predictions=predictions, notes=course.notes,
    )  # fmt: skip
    return Outputs(result, model, probabilities, material)


def _named(groups: Sequence[str]) -> Sequence[str] | None:
    """Return groups where there are any; an item without one is a group of its own."""
    if not any(groups):
        return None
    return [group or f"#{row}" for row, group in enumerate(groups)]


def _path(raw: Any) -> Path | None:
    """Return the path of an item that has one."""
    return raw if isinstance(raw, Path) else None
