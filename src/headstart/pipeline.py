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
from typing import Any, cast

import numpy as np
import torch

from headstart.core.errors import DataError, PlanError, TrainingError
from headstart.core.plan import Plan
from headstart.core.protocols import Encoder, Task
from headstart.core.registry import resolve
from headstart.core.settings import Extract, FineTune
from headstart.core.types import Audit, Finding, Form, SplitName, Target
from headstart.data import TableDataset
from headstart.data.audit import Outcome, audit, refuse_grave
from headstart.data.splits import split
from headstart.evaluation import likely_wrong
from headstart.features.encode import Encoded, Rows, encode, take
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
    """The items that a run works on, after the audit: every one readable, with its split and its target."""

    dataset: TableDataset
    encoded: Encoded
    groups: list[str]
    audit: Audit

    def rows(self, *splits: SplitName) -> list[int]:
        """Return the labelled items of these splits."""
        wanted, targets = set(splits), self.dataset.targets
        return [
            row for row, name in enumerate(self.dataset.splits) if name in wanted and targets[row] is not None
        ]

    def targets(self, rows: Sequence[int]) -> list[Target]:
        """Return the targets of these items."""
        return [cast("Target", self.dataset.targets[row]) for row in rows]

    def part(self, rows: Sequence[int]) -> Encoded:
        """Return the features of these items."""
        features = take(self.encoded.features, rows)
        return replace(self.encoded, features=features, indices=tuple(range(len(rows))))


@dataclass(frozen=True)
class Course:
    """How the model came about: contenders, a row an epoch, and what a reader must know."""

    race: tuple[Candidate, ...] = ()
    history: tuple[Mapping[str, float], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outputs:
    """What a run made: the model, and how well it did on each test item (in the order of `rows("test")`)."""

    result: Result
    model: Model
    test_quality: np.ndarray
    material: Material


def execute(
    plan: Plan, dataset: TableDataset, context: Context, *, strict: bool, encoder: Encoder | None = None
) -> Outputs:
    """Run a plan on its data and return the result (without a folder yet) and the model.

    `encoder` is the plan's network where it is open already; its weights may be changed.
    """
    ledger = Ledger(context)
    if not plan.split.respect:
        dataset = dataset.with_splits([None] * len(dataset))
    with ledger.stage("open"):
        encoder = encoder or open_encoder(plan.encoder, limits=plan.data.limits)
    _check_weights(plan, encoder)
    task: Task = resolve("task", plan.task)(plan.labels)
    extraction, tuning = _links(plan)
    form = _form(task, encoder, extraction)
    with ledger.stage("encode"):
        whole = ledger.count(encode(dataset, encoder, form=form, context=context))
    with ledger.stage("audit"):
        found = _audited(dataset, whole, plan)
        _refuse_findings(found.audit, strict=strict)
        material = _material(plan, dataset, whole, found, task)
    lineage = tuple(link.model_dump(mode="json") for link in plan.chain())
    model = Model(encoder, task, None, plan.encoder, lineage=lineage)
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


def _audited(dataset: TableDataset, whole: Encoded, plan: Plan) -> Outcome:
    """Audit a dataset that was encoded; vectors help to find near twins."""
    features = None
    if isinstance(whole.features, np.ndarray) and len(whole.features):
        features = np.full((len(dataset), whole.features.shape[1]), np.nan, np.float32)
        features[list(whole.indices)] = whole.features
    return audit(dataset, whole.facts, whole.failures, settings=plan.data, features=features)


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


def _material(plan: Plan, dataset: TableDataset, whole: Encoded, found: Outcome, task: Task) -> Material:
    """Keep what the audit keeps, and give every item its split."""
    kept = dataset.subset(found.keep)
    strata = task.strata([cast("Target", target) for target in kept.targets])
    by_strata = replace(kept, targets=list(strata))
    kept = kept.with_splits(split(by_strata, plan.split, seed=plan.seed, ties=found.ties))
    row_of = {index: row for row, index in enumerate(whole.indices)}
    features = take(whole.features, [row_of[index] for index in found.keep])
    encoded = replace(whole, features=features, indices=tuple(range(len(kept))))
    return Material(kept, encoded, _clusters(kept.groups, found.ties), found.audit)


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
    views = [material.part(rows).features]
    part = material.dataset.subset(rows)
    views += [
        ledger.count(encode(part, model.encoder, form=form, context=context, view=view)).features
        for view in range(1, settings.views)
    ]
    targets = material.targets(rows)
    groups = [material.groups[row] for row in rows]
    done = _raced(model, _forms(model.encoder, form, views), targets, groups, settings, context)
    model.head = done.head.eval()
    held_out = [targets[index] for index in done.held_out]
    _calibrate(model, done.held_out_outputs, held_out)
    wrong = _suspects(model, done.held_out_outputs, held_out)
    return done.race, [rows[index] for index in done.held_out[wrong]]


def _forms(encoder: Encoder, form: Form, views: Sequence[Rows]) -> dict[Form, list[Rows]]:
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


def _raced(
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
        vectors = {name: [np.asarray(view) for view in views] for name, views in features.items()}
        done = extract(
            vectors, task.encode(targets), groups, task=task, settings=settings, context=context
        )
        return _Race(done.head, done.race, done.held_out, done.held_out_logits)
    flat = {
        name: [task.flatten(cast("list[np.ndarray]", view), targets) for view in views]
        for name, views in features.items()
    }
    _, ids, item = next(iter(flat.values()))[0]
    words = {name: [view[0] for view in views] for name, views in flat.items()}
    done = extract(
        words, ids, [groups[index] for index in item], task=task, settings=settings, context=context, items=item
    )
    # The words of each text together again.
    texts, starts = np.unique(item[done.held_out], return_index=True)
    return _Race(done.head, done.race, texts, np.split(done.held_out_logits, starts[1:]))


def _suspects(model: Model, outputs: Any, targets: Sequence[Target]) -> np.ndarray:
    """Return the places of items whose class is likely wrong; other targets are not looked at."""
    if model.task.link != "softmax" or model.task.form == "sequence":
        return np.zeros(0, np.int64)
    return likely_wrong(model.probabilities(outputs), model.task.encode(targets))


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


def _calibrate(model: Model, outputs: Any, targets: Sequence[Target]) -> None:
    """Fit the temperature on held-out outputs and keep them, with their targets, for abstaining and intervals."""
    model.temperature = model.task.fit_temperature(outputs, targets)
    rows = outputs if isinstance(outputs, np.ndarray) else np.concatenate(outputs)
    model.calibration = {
        "logits": torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float32)),
        "targets": torch.from_numpy(np.ascontiguousarray(model.task.encode(targets))),
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
    targets = material.targets(held_out)
    before = {name: tensor.clone() for name, tensor in model.encoder.module.state_dict().items()}
    extracted = model.head
    extracted_outputs = model.logits_of(material.part(held_out), form) if race else None
    model.head = _starting_head(model, material, form, context) if race else _new_head(model)
    rows: list[Candidate] = []
    outputs, history, notes = extracted_outputs, (), ()
    try:
        done = finetune(model, training=training, validation=validation, settings=settings, context=context)
    except TrainingError as error:
        if not race:
            raise
        notes = (f"fine-tuning was given up, the extracted head is kept: {error.given}; {error.fix}",)
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
    _calibrate(model, outputs, targets)
    return Course(tuple(replace(row, chosen=row is best) for row in rows), tuple(history), tuple(notes))


def _starting_head(model: Model, material: Material, form: Form, context: Context) -> Any:
    """Return the best linear head on the final features of the training items: what fine-tuning begins from."""
    rows = material.rows("train")
    own = model.task.form
    features = material.part(rows).features
    if form == "depths":
        features = cast("np.ndarray", features)[:, model.encoder.spec.columns(own)]
    groups = [material.groups[row] for row in rows]
    linear = Extract(heads=("logistic", "ridge"))
    return _raced(model, {own: [features]}, material.targets(rows), groups, linear, context).head


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


def _evaluated(
    plan: Plan, model: Model, material: Material, form: Form, ledger: Ledger, course: Course
) -> Outputs:
    """Score the test items, once, with the model that was chosen without them."""
    rows, task = material.rows("test"), model.task
    test, targets = material.dataset.subset(rows), material.targets(rows)
    is_extracted = not course.history or model.encoder.spec.weights_sha256 == plan.encoder.weights_sha256
    if is_extracted:
        outputs = model.logits_of(material.part(rows), form)
    else:
        outputs = model.logits_of(ledger.count(model.encode(test, ledger.context)), model.head.form)
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
        race=course.race, history=course.history, cost=ledger.cost(), predictions=predictions, notes=course.notes,
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
