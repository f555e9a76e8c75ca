"""Pictures or texts that are already in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from headstart.core.errors import DataError
from headstart.core.types import SplitName, Target
from headstart.data.columns import as_split
from headstart.data.dataset import TableDataset, sorted_labels
from headstart.data.tagged import from_tags
from headstart.data.targets import as_label, read_targets


def from_arrays(
    images: Sequence[np.ndarray] | np.ndarray,
    targets: Sequence[object] | np.ndarray,
    *,
    groups: Sequence[object] | np.ndarray | None = None,
    domains: Sequence[object] | np.ndarray | None = None,
    splits: Sequence[str | None] | None = None,
    ids: Sequence[str] | None = None,
    task: str | None = None,
) -> TableDataset:
    """Return a dataset of arrays [H, W] or [H, W, C] (uint8, uint16 or float).

    Targets are names or whole numbers (classes), lists of names (several labels an item), or, where they have a
    fraction or `task` is `regression`, numbers to predict. None and NaN targets mean unlabelled. DataError names the
    argument whose length or values do not fit.
    """
    made = _dataset(images, targets, groups=groups, domains=domains, splits=splits, ids=ids, task=task)
    return replace(made, inputs=[np.asarray(image) for image in images])


def from_texts(
    texts: Sequence[str | tuple[str, ...]],
    targets: Sequence[object] | np.ndarray | None = None,
    **columns: Any,
) -> TableDataset:
    """Return a dataset of texts; `targets` and the columns (groups, domains, splits, ids, task) as in `from_arrays`.

    A text may be given as its words; with `task="tagging"` targets are a tag a word. None and NaN are empty texts,
    which are left out when they are encoded. DataError names the argument whose length or values do not fit.
    """
    blank = [None] * len(texts)
    if columns.get("task") == "tagging":
        made = _dataset(texts, blank, **{**columns, "task": None}, noun="text")
        places = [f"targets[{row}]" for row in range(len(texts))]
        tagged = from_tags(
            [_as_text(item) for item in texts], blank if targets is None else list(targets), made.ids, places
        )
        return replace(tagged, domains=made.domains, groups=made.groups, splits=made.splits)
    made = _dataset(texts, blank if targets is None else targets, **columns, noun="text")
    return replace(made, inputs=[_as_text(item) for item in texts], modality="text")


def from_memory(items: Sequence[Any], targets: Sequence[object], *, task: str | None = None) -> TableDataset:
    """Return a dataset of texts where the items are such (or lists of words), else of arrays."""
    are_texts = all(item is None or isinstance(item, (str, tuple, list, float)) for item in items)
    if are_texts and any(
        isinstance(item, (str, tuple, list)) for item in items
    ):  # A float is a missing text, NaN.
        are_words = any(isinstance(item, (tuple, list)) for item in items)
        are_tags = any(isinstance(target, (tuple, list)) for target in targets)
        return from_texts(items, targets, task=task or ("tagging" if are_words and are_tags else None))
    return from_arrays(items, targets, task=task)


def _dataset(
    items: Sequence[Any] | np.ndarray,
    targets: Sequence[object] | np.ndarray,
    *,
    noun: str = "image",
    **columns: Any,
) -> TableDataset:
    """Make the dataset of items, with their inputs still to be put in."""
    count = len(items)
    task = columns.pop("task", None)
    known = {"groups", "domains", "splits", "ids"}
    if unknown := sorted(set(columns) - known):
        raise TypeError(
            f"unknown columns {', '.join(unknown)}; there are {', '.join(sorted(known))} and task"
        )
    for name, column in {"targets": targets, **columns}.items():
        if column is not None and len(column) != count:
            raise DataError(
                f"{name} has {len(column)} values for {count} {noun}s",
                expected=f"one value {'an' if noun == 'image' else 'a'} {noun}",
                fix=f"pass {count} values",
            )
    if count == 0:
        what = "at least one array" if noun == "image" else "at least one text"
        raise DataError(f"there are no {noun}s", expected=what, fix=f"pass the {noun}s as a list")
    ids = columns.get("ids")
    names = [str(row) for row in range(count)] if ids is None else [str(name) for name in ids]
    _require_unique(names, noun)
    values, task = _targets(targets, task)
    return TableDataset(
        inputs=[],
        targets=values,
        ids=names,
        domains=_texts(columns.get("domains"), count),
        groups=_texts(columns.get("groups"), count),
        splits=_splits(columns.get("splits"), count),
        labels=() if task == "regression" else sorted_labels(values),
        task=task,
    )


def _targets(targets: Sequence[object] | np.ndarray, task: str | None) -> tuple[list[Target | None], str]:
    """Return the targets and what they are; whole numbers in memory are class ids unless `task` says otherwise."""
    values = [target.item() if isinstance(target, np.generic) else target for target in targets]
    values = [value.tolist() if isinstance(value, np.ndarray) else value for value in values]
    if task == "tagging":
        raise DataError(
            "a tag a word was given for images",
            expected="texts",
            fix="headstart.data.from_texts(texts, tags, task='tagging')",
        )
    if task is None and not any(isinstance(value, (list, tuple, set)) for value in values):
        labels = [as_label(value) for value in values]
        if not any(isinstance(value, float) and value % 1 for value in values if as_label(value) is not None):
            return list(labels), "classification"
        task = "regression"
    read = read_targets(values, task=task, place=lambda row: f"targets[{row}]")
    return read.values, read.task


def _as_text(value: Any) -> str | tuple[str, ...]:
    """Return a text, or words as a tuple; what is missing (None, NaN) is an empty text."""
    if isinstance(value, (list, tuple)):
        return tuple(str(word) for word in value)
    return "" if value is None or value != value else str(value)


def _texts(values: Sequence[object] | np.ndarray | None, count: int) -> list[str]:
    """Return values as text, missing ones empty."""
    return [""] * count if values is None else [as_label(value) or "" for value in values]


def _splits(values: Sequence[str | None] | None, count: int) -> list[SplitName | None]:
    """Return split names, refusing what is none."""
    if values is None:
        return [None] * count
    return [as_split(value, f"splits[{row}]") for row, value in enumerate(values)]


def _require_unique(names: list[str], noun: str) -> None:
    """Refuse two items of one id."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(
                f"two {noun}s have the id '{name}'",
                expected="ids that differ",
                fix="leave ids out, or number them",
            )
        seen.add(name)
