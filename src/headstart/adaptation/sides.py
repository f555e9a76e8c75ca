"""Both sides of an adaptation: the items that a model was trained on, and the target, of which no label is known.

The source is opened again from where the model's plan says, split as the run split it, and only trained and validated
items are taken, never those of the test split. Of the target the labels are dropped before anything else sees the data,
and its items are put in the order of their contents: neither a column of labels nor the order of folders tells a thing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from headstart.core.errors import DataError, HeadstartError, PlanError
from headstart.core.plan import Plan
from headstart.core.registry import resolve
from headstart.core.settings import Source
from headstart.data import TableDataset, open_dataset
from headstart.data.dataset import explain_items
from headstart.data.tables import is_table
from headstart.data.tagged import is_conll
from headstart.data.unlabelled import open_inputs
from headstart.features.encode import encode
from headstart.model import Model, open_encoder
from headstart.pipeline.course import Ledger
from headstart.pipeline.gathering import gather, parts_of
from headstart.pipeline.material import Material
from headstart.train.runtime import Context

ADAPTATION = "adaptation"
"""The `kind` of a lineage's entry that says how a model was adapted; the others are plans."""

FEW = 8
"""Items of a side, below which no shift is measured."""


@dataclass(frozen=True)
class Side:
    """One side: readable items, their features [n, D] in the form of the model's head, and what is known of them.

    `targets` are class ids [n], None for the target; `groups` [n] name what must stay together; `unreadable` says of
    each id that was left out why.
    """

    dataset: TableDataset
    features: np.ndarray
    targets: np.ndarray | None
    groups: tuple[str, ...]
    unreadable: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.dataset)


@dataclass(frozen=True)
class Origin:
    """Where the source comes from: its readable items with labels, or why there are none (`missing`).

    `known` are the contents of all of the source's items, those of its test split too, as hashes.
    """

    side: Side | None
    missing: str = ""
    known: frozenset[str] = frozenset()


def masked(dataset: TableDataset) -> TableDataset:
    """Return the items without labels, splits and what readers noted of them, in the order of their contents."""
    order = sorted(range(len(dataset)), key=dataset.item_hashes().__getitem__)
    part = dataset.subset(order)
    empty = [None] * len(order)
    return replace(
        part, targets=empty, splits=list(empty), labels=(), task="classification", notes=(), groups=[""] * len(order)
    )  # fmt: skip


def open_target(target: Any, modality: str, source: Source) -> TableDataset:
    """Open a target without its labels: a folder, a table, a file, a dataset, a list of files, arrays or texts.

    DataError where there are no items, PlanError where they are of another modality than the model.
    """
    if isinstance(target, TableDataset):
        dataset = target
    elif isinstance(target, (str, Path)) and _is_data(Path(target)):
        # Columns that are named for the source's sake may not be there.
        unnamed = dict.fromkeys(("label_column", "split_column", "group_column"))
        dataset = open_dataset(
            source.model_copy(update={"uri": str(target), **unnamed, "answers": ()}), needs_label=False
        )
    else:
        items = [target] if isinstance(target, (str, Path, np.ndarray)) else list(target)
        dataset = open_inputs(items, modality=modality, source=source)
    if not len(dataset):
        raise DataError(
            "the target holds no items",
            expected=f"{resolve('modality', modality).NOUN[1]} of the world where the model is used",
            fix="check the path",
        )
    if dataset.modality != modality:
        given, wanted = (resolve("modality", name).NOUN[1] for name in (dataset.modality, modality))
        raise PlanError(
            f"the target holds {given}, but the model is one of {wanted}",
            expected=f"a target of {wanted}",
            fix="name the right folder or table, or the right model",
        )
    return masked(dataset)


def _is_data(path: Path) -> bool:
    """Tell whether a path is what readers of data open, rather than a lone item; one that is missing is meant so."""
    return path.is_dir() or is_table(path) or is_conll(path) or not path.exists()


def encode_target(dataset: TableDataset, model: Model, context: Context) -> Side:
    """Encode a masked target by the model's network; DataError where nothing can be read."""
    found = encode(dataset, model.encoder, form=model.head.form, context=context)
    failures = tuple(
        (dataset.ids[index], reason.replace(str(dataset.inputs[index]), dataset.ids[index]))
        for index, reason in found.failures.items()
    )  # Where the items lie may name a person.
    if not found.indices:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in failures[:3])
        raise DataError(
            f"no item of the target can be read ({reasons})",
            expected=f"readable {resolve('modality', model.encoder.spec.modality).NOUN[1]}",
            fix="check the path",
        )
    part = dataset.subset(found.indices)
    return Side(part, np.asarray(found.features, np.float32), None, tuple(part.groups), failures)


def plan_of(model: Model) -> Plan | None:
    """Return the last plan that made a model; None where its lineage holds none."""
    dumps = [entry for entry in model.lineage if entry.get("kind") != ADAPTATION and "method" in entry]
    return Plan.model_validate(dict(dumps[-1])) if dumps else None


def open_source(model: Model, context: Context, *, given: TableDataset | None = None) -> Origin:
    """Open what a model was trained and validated on: `given`, or what its plan names.

    Where that is gone or has changed the origin says so, and what needs only the model goes on. DataError where `given`
    is not what the model was trained on.
    """
    plan = plan_of(model)
    if plan is None:
        return Origin(None, "the model does not say what it was trained on")
    if plan.earlier is not None:
        return Origin(
            None, "the model goes on from an earlier link of a chain, whose split is not made again here"
        )
    dataset, missing = _dataset_of(plan, given)
    if dataset is None:
        return Origin(None, missing)
    try:
        first = open_encoder(plan.encoder, limits=plan.data.limits)
    except HeadstartError as error:
        return Origin(None, f"the network that the split was made with cannot be opened ({error.given})")
    inner = replace(context, seed=plan.seed)
    extraction, _ = parts_of(plan)
    _, form, material = gather(plan, dataset, first, extraction, Ledger(inner), strict=False)
    return origin_of(model, material, inner, form=form if _is_same(first, model) else None)


def origin_of(model: Model, material: Material, context: Context, *, form: Any = None) -> Origin:
    """Return the material of a run as the origin of what its model knows; `form`: that of features at hand."""
    side = _source_side(model, material, context, form=form)
    return Origin(side, known=frozenset(material.dataset.item_hashes()))


def _source_side(model: Model, material: Material, context: Context, *, form: Any) -> Side:
    """Return the trained and validated items of a run's material as a side."""
    rows = material.rows("train", "validation")
    part = material.dataset.subset(rows)
    if form is None:
        found = encode(part, model.encoder, form=model.head.form, context=context)
        rows = [rows[index] for index in found.indices]
        part, features = part.subset(found.indices), np.asarray(found.features, np.float32)
    else:
        columns = model.encoder.spec.columns(model.head.form) if form != model.head.form else slice(None)
        features = np.asarray(material.part(rows).features, np.float32)[:, columns]
    place = {name: number for number, name in enumerate(model.task.labels)}
    ids = np.array([place[str(target)] for target in cast("list[str]", part.targets)], np.int64)
    return Side(part, np.ascontiguousarray(features), ids, tuple(material.groups[row] for row in rows))


def _dataset_of(plan: Plan, given: TableDataset | None) -> tuple[TableDataset | None, str]:
    """Return a plan's data as they were, or why they are not there."""
    if given is not None:
        if given.fingerprint != plan.fingerprint:
            raise DataError(
                f"the source given is not what the model was trained on (fingerprint {given.fingerprint[:12]} instead "
                f"of {plan.fingerprint[:12]})",
                expected="the same items, labels, groups and splits", fix="leave the source out, or give the right one",
            )  # fmt: skip
        return given, ""
    if not plan.data.uri:
        return None, "the model was trained on data in memory, which were not handed in"
    name = Path(plan.data.uri).name
    try:
        dataset = open_dataset(plan.data)
    except HeadstartError as error:
        return (
            None,
            f"what the model was trained on cannot be opened: {error.given.replace(plan.data.uri, name)}",
        )
    if dataset.fingerprint != plan.fingerprint:
        return None, f"the data in '{name}' have changed since the model was trained on them"
    return dataset, ""


def _is_same(first: Any, model: Model) -> bool:
    """Tell whether the model's network is still the one that the plan began with."""
    return first.spec.weights_sha256 == model.encoder.spec.weights_sha256


def unseen(origin: Origin, target: Side) -> np.ndarray:
    """Return the rows of the target that are no items of the source, by their contents."""
    return np.array(
        [row for row, name in enumerate(target.dataset.item_hashes()) if name not in origin.known], int
    )


def said_of(origin: Origin, target: Side) -> list[str]:
    """Say what a person should know of both sides before reading on."""
    lines: list[str] = []
    if origin.side is None:
        lines.append(f"the source is not used: {origin.missing}; what needs the model alone goes on")
    else:
        same = len(target) - len(unseen(origin, target))
        if same == len(target):
            lines.append("every item of the target is one of the source's own: there is nothing to adapt to")
        elif same:
            lines.append(f"{same} of {len(target)} items of the target are ones of the source's own")
    if target.unreadable:
        names = explain_items([name for name, _ in target.unreadable])
        count = len(target.unreadable)
        lines.append(f"{count} item{'s' if count > 1 else ''} of the target cannot be read: {names}")
    if len(target) < FEW:
        lines.append(
            f"the target has {len(target)} items, too few to tell a shift (at least {FEW} are needed)"
        )
    return lines


def require_classes(model: Model) -> None:
    """Refuse a model that does not name one class an item (PlanError)."""
    if model.task.name != "classification":
        raise PlanError(
            f"the model's task is {model.task.name}",
            expected="a model that names one class an item",
            fix="adapt a classification model; train others on labelled items of the target (`headstart fit`)",
        )
