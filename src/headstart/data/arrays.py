"""Pictures that are already in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from headstart.core.errors import DataError
from headstart.core.types import SplitName
from headstart.data.dataset import TableDataset, sorted_labels
from headstart.data.tables import as_label, as_split


def from_arrays(
    images: Sequence[np.ndarray] | np.ndarray,
    targets: Sequence[object] | np.ndarray,
    *,
    groups: Sequence[object] | np.ndarray | None = None,
    domains: Sequence[object] | np.ndarray | None = None,
    splits: Sequence[str | None] | None = None,
    ids: Sequence[str] | None = None,
) -> TableDataset:
    """Return a dataset of arrays [H, W] or [H, W, C] (uint8, uint16 or float); targets are names or whole numbers.

    None and NaN targets mean unlabelled. DataError names the argument whose length or values do not fit.
    """
    count = len(images)
    columns = {"targets": targets, "groups": groups, "domains": domains, "splits": splits, "ids": ids}
    for name, column in columns.items():
        if column is not None and len(column) != count:
            raise DataError(
                f"{name} has {len(column)} values for {count} images",
                expected="one value an image",
                fix=f"pass {count} values",
            )
    if count == 0:
        raise DataError(
            "there are no images", expected="at least one array", fix="pass the images as a list of arrays"
        )
    names = [str(row) for row in range(count)] if ids is None else [str(name) for name in ids]
    _require_unique(names)
    labels = [as_label(target) for target in targets]
    return TableDataset(
        inputs=[np.asarray(image) for image in images],
        targets=labels,
        ids=names,
        domains=_texts(domains, count),
        groups=_texts(groups, count),
        splits=_splits(splits, count),
        labels=sorted_labels(labels),
    )


def from_texts(
    texts: Sequence[str | tuple[str, ...]], targets: Sequence[object] | None = None, **columns: Any
) -> TableDataset:
    """Return a dataset of texts; `targets` are names or whole numbers, `columns` as for `from_arrays`.

    DataError names the argument whose length or values do not fit.
    """
    holders = [np.zeros((1, 1), np.uint8)] * len(texts)
    made = from_arrays(holders, [None] * len(texts) if targets is None else targets, **columns)
    return replace(made, inputs=list(texts), modality="text")


def _texts(values: Sequence[object] | np.ndarray | None, count: int) -> list[str]:
    """Return values as text, missing ones empty."""
    return [""] * count if values is None else [as_label(value) or "" for value in values]


def _splits(values: Sequence[str | None] | None, count: int) -> list[SplitName | None]:
    """Return split names, refusing what is none."""
    if values is None:
        return [None] * count
    return [as_split(value, f"splits[{row}]") for row, value in enumerate(values)]


def _require_unique(names: list[str]) -> None:
    """Refuse two images of one id."""
    if len(set(names)) < len(names):
        double = next(name for row, name in enumerate(names) if name in names[:row])
        raise DataError(
            f"two images have the id '{double}'",
            expected="ids that differ",
            fix="leave ids out, or number them",
        )
