"""The verbs: plan, explain, run, fit, audit, evaluate, predict, load. `fit` is `plan` and then `run`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from headstart.core.errors import PlanError, nearest
from headstart.core.machine import Machine, read_machine
from headstart.core.plan import Plan
from headstart.core.settings import Extract, FineTune, Pretrained, Settings, Source, Split, parse
from headstart.core.types import Audit, LabelPrediction
from headstart.data import TableDataset, from_arrays, open_dataset, require_classes
from headstart.evaluation import Evaluation
from headstart.evaluation import evaluate as evaluated
from headstart.model import Model
from headstart.recipes import Facts, propose
from headstart.result import Result
from headstart.store import Store
from headstart.train.runtime import Context, Event, choose_device, ignore

Data = str | Path | TableDataset | tuple[Sequence[np.ndarray], Sequence[str]]
"""A folder, a table file, an opened dataset, or (images, labels) in memory."""
Progress = Callable[[Event], None]
MethodName = Literal["auto", "extract", "finetune"]


def fit(
    data: Data,
    *,
    encoder: str = "efficientnet-lite0",
    method: MethodName | Extract | FineTune = "auto",
    output: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    baseline: bool = False,
    machine: Machine | None = None,
) -> Result:
    """Fit a model to labelled pictures and return the result: audit, scores with intervals, model folder, report.

    `settings` are dotted keys such as {"finetune.layer_decay": 0.65, "data.group_column": "patient"}; `baseline`
    also trains the network from scratch, to show what transfer gained. A second run comes from the store.
    Raises HeadstartError (DataError, PlanError, EncoderError, ...) that says what to do.
    """
    dataset = _opened(data, Source()) if not isinstance(data, (str, Path)) else None
    made = plan(dataset or data, encoder=encoder, method=method, settings=settings, machine=machine)
    return run(made, dataset=dataset, output=output, baseline=baseline, machine=machine)


def plan(
    data: Data,
    *,
    encoder: str = "efficientnet-lite0",
    method: MethodName | Extract | FineTune = "auto",
    settings: Mapping[str, Any] | None = None,
    machine: Machine | None = None,
) -> Plan:
    """Look at the data and return a fully resolved plan, without running it."""
    from headstart.model import open_encoder

    machine = machine or read_machine()
    given = _sections(settings or {})
    source = parse(Source, {"uri": _uri(data), **given.pop("data", {})}, what="--set data.*")
    dataset = _opened(data, source)
    require_classes(dataset)
    chosen = parse(Pretrained, {"name": encoder, **given.pop("encoder", {})}, what="--set encoder.*")
    opened = open_encoder(chosen)
    labelled = sum(target is not None for target in dataset.targets)
    has_gpu = choose_device(machine.device).type != "cpu"
    facts = Facts(labelled, len(dataset.labels), has_gpu)
    if isinstance(method, str) and method not in ("auto", "extract", "finetune"):
        raise PlanError(
            f"unknown method '{method}'{nearest(method, ('auto', 'extract', 'finetune'))}",
            expected="auto, extract or finetune",
            fix="correct the name",
        )
    last, start = propose(facts, method if isinstance(method, str) else cast("MethodName", method.kind))
    last = method if not isinstance(method, str) else last
    changes = {name: given.pop(name, {}) for name in ("extract", "finetune")}
    _refuse_unused(changes, {last.kind, start.kind if start else last.kind})
    last, start = _changed(last, changes), _changed(start, changes)
    if isinstance(last, FineTune) and not isinstance(method, FineTune) and last.train_last is None:
        last = _cut_where_it_pays(last, "train_last" in changes["finetune"], dataset, opened, machine)
    common: dict[str, Any] = {
        "encoder": chosen.model_copy(update={"weights_sha256": opened.spec.weights_sha256}),
        "data": source,
        "split": parse(Split, given.pop("split", {}), what="--set split.*"),
        "fingerprint": dataset.fingerprint,
        "labels": dataset.labels,
        **given,
    }
    first = parse(Plan, {**common, "method": start}, what="the plan") if start else None
    return parse(Plan, {**common, "method": last, "start": first}, what="the plan")


def run(
    plan: Plan,
    *,
    dataset: TableDataset | None = None,
    output: Path | None = None,
    baseline: bool = False,
    strict: bool = False,
    machine: Machine | None = None,
    progress: Progress = ignore,
) -> Result:
    """Run a plan, or fetch its result from the store, and put the model folder at `output`.

    `dataset` is needed where the data are arrays in memory. With `strict`, findings of the audit are errors.
    """
    from headstart.runs import finished

    dataset = dataset or open_dataset(plan.data)
    if plan.fingerprint and plan.fingerprint != dataset.fingerprint:
        raise PlanError(
            f"the data at {plan.data.uri or 'hand'} are not those of the plan (fingerprint "
            f"{dataset.fingerprint[:12]} instead of {plan.fingerprint[:12]})",
            expected="the same pictures, labels, groups and splits",
            fix="make the plan anew with `headstart explain DATA --json`, or put the data back",
        )
    context = _context(machine or read_machine(), plan.seed, progress)
    return finished(plan, dataset, context, output=output, baseline=baseline, strict=strict)


def explain(plan: Plan, *, machine: Machine | None = None) -> str:
    """Say in plain words what a plan will do and how long it should take here."""
    from headstart.describe import describe

    return describe(plan, _context(machine or read_machine(), plan.seed, ignore))


def audit(
    data: Data,
    *,
    settings: Mapping[str, Any] | None = None,
    strict: bool = False,
    machine: Machine | None = None,
    progress: Progress = ignore,
) -> Audit:
    """Look for unreadable items, duplicates, leaks between splits, small classes and more; train nothing."""
    from headstart.data.audit import audit as audited
    from headstart.data.audit import inspect, refuse_grave

    given = _sections(settings or {})
    source = parse(Source, {"uri": _uri(data), **given.pop("data", {})}, what="--set data.*")
    dataset = _opened(data, source)
    progress(Event("audit", 0, len(dataset)))
    facts, failures = inspect(dataset, settings=source, threads=(machine or read_machine()).threads)
    progress(Event("audit", len(dataset), len(dataset)))
    found = audited(dataset, facts, failures, settings=source).audit
    if strict:
        refuse_grave(found)
    return found


def load(folder: str | Path) -> Model:
    """Load a model folder; nothing in it is executed (ModelFolderError where it was altered)."""
    from headstart.model import load_model

    return load_model(Path(folder))


def predict(
    model: Model | str | Path,
    inputs: Sequence[str | Path | np.ndarray],
    *,
    abstain: float | None = None,
    machine: Machine | None = None,
    progress: Progress = ignore,
) -> list[LabelPrediction]:
    """Predict files, folders of files or arrays; probabilities are calibrated, in the order of the inputs.

    With `abstain`, at most this share of answers is wrong (split-conformal); the other labels are None. An unreadable
    file is warned about and left out.
    """
    from headstart.data.unlabelled import open_inputs

    loaded = model if isinstance(model, Model) else load(model)
    return loaded.predict(
        open_inputs(inputs), _context(machine or read_machine(), 0, progress), abstain=abstain
    )


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
    given = _sections(settings or {})
    source = parse(Source, {"uri": _uri(data), **given.pop("data", {})}, what="--set data.*")
    dataset = _opened(data, source)
    labelled = dataset.subset([row for row, target in enumerate(dataset.targets) if target is not None])
    encoded = loaded.encode(labelled, _context(machine or read_machine(), 0, progress))
    part = labelled.subset(encoded.indices)
    targets = loaded.task.collate(part.targets).numpy()
    probabilities = loaded.probabilities(loaded.logits_of(encoded, loaded.head.form))
    domains = part.domains if any(part.domains) else None
    groups = [group or f"#{row}" for row, group in enumerate(part.groups)] if any(part.groups) else None
    scored = evaluated(probabilities, targets, labels=loaded.task.labels, domains=domains, groups=groups)
    bad = len(encoded.failures)
    return replace(scored, notes=(*scored.notes, f"{bad} items could not be read")) if bad else scored


def _context(machine: Machine, seed: int, progress: Progress) -> Context:
    """Return what a run on this machine needs."""
    return Context(
        Store(machine.store),
        choose_device(machine.device),
        machine.threads,
        seed,
        progress,
        workers=machine.threads,
    )


def _opened(data: Data, source: Source) -> TableDataset:
    """Open data of any kind."""
    if isinstance(data, TableDataset):
        return data
    return from_arrays(data[0], data[1]) if isinstance(data, tuple) else open_dataset(source)


def _uri(data: Data) -> str:
    """Return where data lie; empty for data in memory."""
    return str(data) if isinstance(data, (str, Path)) else ""


def _sections(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Turn dotted keys into nested ones; a PlanError names an unknown section."""
    known = {"data", "split", "encoder", "extract", "finetune", "seed", "task"}
    nested: dict[str, Any] = {}
    for name, value in settings.items():
        section, _, key = name.partition(".")
        if section not in known or bool(key) == (section in ("seed", "task")):
            raise PlanError(
                f"unknown setting '{name}'{nearest(section, known)}",
                expected="data.*, split.*, encoder.*, extract.*, finetune.* or seed",
                fix="`headstart explain --schema` lists every setting",
            )
        if key:
            nested.setdefault(section, {})[key] = value
        else:
            nested[section] = value
    return nested


def _refuse_unused(changes: Mapping[str, Mapping[str, Any]], kinds: set[str]) -> None:
    """Refuse settings of a method that the plan does not use."""
    for kind, values in changes.items():
        if values and kind not in kinds:
            raise PlanError(
                f"{', '.join(f'{kind}.{name}' for name in values)} set, but the plan has no {kind}",
                expected=f"settings of {' and '.join(sorted(kinds))}",
                fix=f"leave them out, or choose --method {kind}",
            )


def _changed(method: Any, changes: Mapping[str, Mapping[str, Any]]) -> Any:
    """Return a method with the settings given for its kind."""
    if method is None or not changes[method.kind]:
        return method
    kind = cast("type[Settings]", type(method))
    values = {**method.model_dump(), **changes[method.kind]}
    return parse(kind, values, what=f"--set {method.kind}.*")


def _cut_where_it_pays(
    settings: FineTune, everything: bool, dataset: TableDataset, encoder: Any, machine: Machine
) -> FineTune:
    """Choose how many groups train and how many views are cached, by timing this network on this machine."""
    from headstart.planning import choose_cut

    return settings if everything else choose_cut(settings, dataset, encoder, _context(machine, 0, ignore))
