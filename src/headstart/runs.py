"""Finished runs: made once, kept in the store with their report, put where the user wants them."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from headstart.core.errors import DataError, PlanError, StoreError
from headstart.core.hashing import digest, plain
from headstart.core.plan import Plan, Saved
from headstart.core.settings import FineTune
from headstart.core.types import Score
from headstart.data import TableDataset, open_dataset
from headstart.data.audit import refuse_grave
from headstart.evaluation import paired_gain
from headstart.model import FACTS, Model, folder_sha256, load_model, original
from headstart.pipeline import execute
from headstart.pipeline.origin import Step, name_of, origin_of, unused
from headstart.planning import Opened
from headstart.report import card, render, to_json
from headstart.report.document import versions
from headstart.result import Baseline, Result, Selection
from headstart.store import MANIFEST, drop_folder, explained, fault_of, replace_folder, seal
from headstart.train.runtime import Context, Event
from headstart.train.signals import stopping

VERSION = 2
"""Version of what a run does as a whole; bump when its numbers move."""
BUCKET = "models-v1"
RESULT, TEST = "result.json", "test.safetensors"
SCRATCH_BATCH = 32
SCRATCH_RATE = {"image": 3e-3, "text": 5e-4}
"""A network without pretraining gains nothing from low rates; transformers bear none that are high."""
SCRATCH_SIZE = 64
"""Nor does it gain much from large pictures."""
SCRATCH_ITEMS, SCRATCH_EPOCHS = 4_000, (10, 30)
"""The from-scratch baseline sees about this many training pictures, in at least and at most so many epochs."""


def finished(
    opened: Opened,
    context: Context,
    *,
    output: Path | None,
    baseline: bool,
    strict: bool,
    gains: Mapping[str, Score] | None = None,
) -> Result:
    """Return the result of a plan, from the store where it is there, with its model folder at `output`.

    With `baseline` it is compared with training from scratch. Where `gains` of earlier links (by the keys of their
    plans) are given, a link of a chain is compared with the same link without the chain.
    """
    plan, dataset = opened.plan, opened.dataset
    target = output or Path("runs") / f"{_name(plan)}-{plan.key[:8]}"
    refuse_foreign(target)
    with stopping(context.command) as stop:

        def progress(event: Event) -> None:
            stop.check()
            context.progress(event)

        inner = replace(context, progress=progress)
        folder = _alone(opened, inner, strict=strict)
        if baseline:
            folder = _beside_scratch(opened, inner, folder)
        if gains is not None and plan.earlier is not None:
            folder = _beside_alone(opened, inner, folder, gains)
        result = _read(folder, dataset)
        if strict:  # A stored result is judged as a fresh one.
            refuse_grave(result.audit)
        publish(folder, target)
    return replace(result, folder=target)


def scratch_plan(plan: Plan, num_items: int, *, modality: str) -> Plan:
    """Return the plan of the baseline: the same network and data, random weights, everything trains."""
    least, most = SCRATCH_EPOCHS
    epochs = max(least, min(most, round(SCRATCH_ITEMS / num_items)))
    settings = FineTune(
        epochs=epochs, learning_rate=SCRATCH_RATE[modality], layer_decay=1.0, weight_decay=0.05, label_smoothing=0.1,
        freeze_statistics=False, patience=epochs, batch_size=SCRATCH_BATCH,
    )  # fmt: skip
    size = min(SCRATCH_SIZE, plan.encoder.image_size or SCRATCH_SIZE) if modality == "image" else None
    network = plan.encoder.model_copy(
        update={"weights": "random", "weights_sha256": None, "image_size": size}
    )
    return plan.model_copy(update={"encoder": network, "method": settings, "start": None, "retention": None})


def alone_plan(plan: Plan) -> Plan:
    """Return a link's plan without the chain: the same data and method, from the pretrained weights."""
    network = original(plan.encoder) if isinstance(plan.links()[0], Saved) else plan.encoder
    first = (
        plan.extraction.model_copy(update={"start": None, "encoder": network}) if plan.extraction else None
    )
    return plan.model_copy(update={"start": first, "retention": None, "encoder": network})


def _alone(opened: Opened, context: Context, *, strict: bool) -> Path:
    """Return the store's folder of a plan's result, running the plan where there is none."""
    plan, dataset = opened.plan, opened.dataset
    key = digest("run", VERSION, plan.key, *_selected(opened))
    found = context.store.get(BUCKET, key)
    if found is not None:
        return found
    checkpoints = checkpoint_folder(plan, context)
    inner = replace(context, folder=checkpoints)
    origin = None
    if plan.earlier is not None:
        origin = origin_of(steps_of(opened, context, strict=strict), plan.retention, context)
    outputs = execute(plan, dataset, inner, strict=strict, encoder=opened.encoder, origin=origin)
    result = replace(outputs.result, selection=opened.selection)
    test = {"quality": np.asarray(outputs.test_quality, dtype=np.float64)}

    def write(folder: Path) -> None:
        outputs.model.save(folder, facts=_facts(result))
        save_file(test, folder / TEST)
        context.progress(Event("report"))
        _write_result(result, outputs.model, dataset, folder)

    folder = context.store.put(BUCKET, key, write)
    if checkpoints.exists():
        drop_folder(checkpoints)
    return folder


def stored(plan: Plan, context: Context) -> Path | None:
    """Return where the store holds a plan's result; None where it would have to run."""
    return context.store.get(BUCKET, digest("run", VERSION, plan.key))


def checkpoint_folder(plan: Plan, context: Context) -> Path:
    """Return where a plan's run keeps its checkpoints: one place, wherever on its schedule it shall end."""
    if isinstance(plan.method, FineTune):
        plan = plan.model_copy(update={"method": plan.method.model_copy(update={"stop_after": None})})
    return context.store.root / "checkpoints-v1" / digest("run", VERSION, plan.key)


def steps_of(opened: Opened, context: Context, *, strict: bool) -> list[Step]:
    """Return the finished links before a plan's own, oldest first, running those that the store does not hold."""
    steps: list[Step] = []
    links = opened.plan.links()[:-1]
    for place, link in enumerate(links):
        began = steps[-1].folder if steps else None
        if isinstance(link, Saved):
            steps.append(_saved(link, opened))
            continue
        data = lambda link=link: earlier_data(link, opened.earlier)  # noqa: E731 - opened where needed alone
        folder = stored(link, context)
        said = f"link {place + 1} of {len(links) + 1}: {name_of(link)}"
        if folder is None:
            context.progress(Event("chain", message=said))
            folder = _alone(Opened(link, data(), earlier=opened.earlier), context, strict=strict)
        else:
            context.progress(Event("chain", message=f"{said} comes from the store"))
        result = Result.from_json((folder / RESULT).read_text(encoding="utf-8"), folder=folder)
        name = unused(name_of(link), [step.name for step in steps])
        steps.append(Step(name, folder, link, result, data, began))
    return steps


def _saved(link: Saved, opened: Opened) -> Step:
    """Return a model folder as a step; PlanError where it is not what it was when the plan was made."""
    folder = Path(link.folder)
    found = folder_sha256(folder)
    if found != link.sha256:
        raise PlanError(
            f"the model folder {folder} holds another model than when the plan was made (sha256 {found[:12]}... "
            f"instead of {link.sha256[:12]}...)",
            expected="the same weights, task and network",
            fix="make the plan anew, or put the folder back",
        )
    path = folder / RESULT
    if not path.is_file():
        return Step(folder.name, folder, None, None, _no_data, is_folder=True)
    result = Result.from_json(path.read_text(encoding="utf-8"), folder=folder)
    plan = result.plan
    return Step(folder.name, folder, plan, result, lambda: earlier_data(plan, opened.earlier), is_folder=True)


def earlier_data(plan: Plan, known: Mapping[str, TableDataset]) -> TableDataset:
    """Return a link's data: those at hand by their content, else where the plan says; DataError where they are gone."""
    if plan.fingerprint in known:
        return known[plan.fingerprint]
    if not plan.data.uri:
        return _no_data()
    dataset = open_dataset(plan.data)
    if dataset.fingerprint != plan.fingerprint:
        raise DataError(
            f"the data at {plan.data.uri} have changed since the link {name_of(plan)} was planned",
            expected=f"the fingerprint {plan.fingerprint[:12]}, not {dataset.fingerprint[:12]}",
            fix="put them back, or plan the chain anew",
        )
    return dataset


def _no_data() -> TableDataset:
    """Say that there are no data to open."""
    raise DataError(
        "the data of an earlier link lay in memory, or it had none",
        expected="data in a file or folder, or handed in",
        fix="hand the dataset to `headstart.chain`",
    )


def _selected(opened: Opened) -> tuple[Selection, ...]:
    """Return what, beside the plan, decides a report: how the network was chosen."""
    return (opened.selection,) if opened.selection else ()


def _beside_scratch(opened: Opened, context: Context, folder: Path) -> Path:
    """Return the store's folder of the same result with the from-scratch baseline in its report."""
    plan, dataset = opened.plan, opened.dataset
    against = scratch_plan(plan, len(dataset), modality=dataset.modality)
    key = digest("run beside scratch", VERSION, plan.key, against.key, *_selected(opened))
    found = context.store.get(BUCKET, key)
    if found is not None:
        return found
    scratch = _alone(Opened(against, dataset), context, strict=False)
    other = _read(scratch, dataset)
    result = _read(folder, dataset)
    size = f"{against.encoder.image_size} px, " if against.encoder.image_size else ""
    name = f"the same network from scratch ({size}{len(other.history)} epochs)"
    difference = _difference((folder, result), (scratch, other), dataset)
    result = replace(result, baseline=Baseline(name, other.evaluation, other.cost.seconds, difference))
    return context.store.put(BUCKET, key, lambda staged: _rewrite(result, folder, dataset, staged))


def _beside_alone(opened: Opened, context: Context, folder: Path, gains: Mapping[str, Score]) -> Path:
    """Return the store's folder of the same link beside itself without the chain, the gains of all links told."""
    plan, dataset = opened.plan, opened.dataset
    against = alone_plan(plan)
    key = digest("run beside alone", VERSION, plan.key, against.key, dict(gains), *_selected(opened))
    found = context.store.get(BUCKET, key)
    if found is not None:
        return found
    alone = _alone(Opened(against, dataset), context, strict=False)
    result, other = _read(folder, dataset), _read(alone, dataset)
    difference = _difference((folder, result), (alone, other), dataset)
    known = {**gains, plan.key: difference}
    assert result.lineage is not None, "a link has a lineage"
    links = tuple(replace(link, gain=known.get(link.key)) for link in result.lineage.links)
    baseline = Baseline("the same without the chain", other.evaluation, other.cost.seconds, difference)
    result = replace(result, baseline=baseline, lineage=replace(result.lineage, links=links))
    return context.store.put(BUCKET, key, lambda staged: _rewrite(result, folder, dataset, staged))


def _difference(ours: tuple[Path, Result], theirs: tuple[Path, Result], dataset: TableDataset) -> Score:
    """Return how much better ours answers the test items that both had, paired."""
    quality = [
        dict(zip([item.id for item in one.predictions], load_file(folder / TEST)["quality"], strict=True))
        for folder, one in (ours, theirs)
    ]
    both = [name for name in quality[0] if name in quality[1]]
    group_of = dict(zip(dataset.ids, dataset.groups, strict=True))
    gain = np.array([quality[0][name] - quality[1][name] for name in both])
    name = f"{theirs[1].evaluation.primary.name}_difference"
    return paired_gain(gain, name=name, groups=[group_of[item] for item in both], seed=ours[1].plan.seed)


def _rewrite(result: Result, folder: Path, dataset: TableDataset, staged: Path) -> None:
    """Write a copy of a result's folder with more to say."""
    shutil.copytree(folder, staged, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))
    _write_result(result, load_model(folder), dataset, staged)


def _write_result(result: Result, model: Model, dataset: TableDataset, folder: Path) -> None:
    """Write the result, the report as page and JSON, and the model card."""
    (folder / RESULT).write_text(result.to_json(), encoding="utf-8")
    (folder / "README.md").write_text(card(result, model.encoder.spec), encoding="utf-8")
    inputs = {dataset.ids[row]: dataset.inputs[row] for row in range(len(dataset))}
    render(result, model, inputs, path=folder / "report.html")
    text = json.dumps(to_json(result), indent=1, ensure_ascii=False)
    (folder / "report.json").write_text(text, encoding="utf-8")


def _facts(result: Result) -> dict[str, Any]:
    """Return what headstart.json says beside the model itself."""
    scores = {score.name: plain(score) for score in result.evaluation.scores}
    return {"metrics": scores, "versions": versions(), "data_fingerprint": result.plan.fingerprint}


def _read(folder: Path, dataset: TableDataset) -> Result:
    """Read a stored result; its test items get the paths that they have now."""
    result = Result.from_json((folder / RESULT).read_text(encoding="utf-8"), folder=folder)
    inputs = dict(zip(dataset.ids, dataset.inputs, strict=True))
    paths = {name: raw for name, raw in inputs.items() if isinstance(raw, Path)}
    return replace(
        result, predictions=tuple(replace(item, path=paths.get(item.id)) for item in result.predictions)
    )


def refuse_foreign(target: Path) -> None:
    """Refuse to replace anything that is not a model folder, before any work is done."""
    if target.exists() and not (target / FACTS).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise StoreError(
            f"{target} exists and is not a model folder",
            expected="a new or empty folder, or an earlier model folder to replace",
            fix="choose another --output",
        )
    with explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _staging(target).rmdir()


def publish(folder: Path, target: Path) -> None:
    """Copy a finished folder to where the user wants it: all of it or nothing."""
    manifest = target / MANIFEST
    if (
        manifest.is_file()
        and manifest.read_bytes() == (folder / MANIFEST).read_bytes()
        and not fault_of(target)
    ):
        return
    with explained(target):
        staged = _staging(target)
        try:
            shutil.copytree(folder, staged, dirs_exist_ok=True)
            seal(staged)
            if target.exists() and not any(target.iterdir()):
                target.rmdir()
            replace_folder(staged, target)
        finally:
            shutil.rmtree(staged, ignore_errors=True)


def _staging(target: Path) -> Path:
    """Make an empty folder of this run's own beside `target`."""
    folder = target.with_name(f".tmp-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    folder.mkdir()
    return folder


def _name(plan: Plan) -> str:
    """Return a folder name for a plan's data."""
    return Path(plan.data.uri).stem or "model" if plan.data.uri else "arrays"
