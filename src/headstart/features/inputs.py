"""A dataset's inputs, opened once as far as that saves time in later epochs: pictures decoded, texts as token ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from headstart.core.types import InputContract
from headstart.features.pictures import Pictures, keep_pictures
from headstart.train.runtime import Context

if TYPE_CHECKING:
    from headstart.core.protocols import Dataset, Encoder


@dataclass(frozen=True)
class Texts:
    """Texts as their encoder's values, by index; `lengths` [n] counts their tokens, padding included."""

    values: Sequence[np.ndarray]
    lengths: np.ndarray

    def __getitem__(self, index: int) -> Any:
        """Return a text's value."""
        return self.values[index]


class Kept(Protocol):
    """Inputs by index; `lengths` [n] where they differ in length, so that batches may hold items of like length."""

    @property
    def lengths(self) -> np.ndarray | None:
        """Return how long each item is."""
        ...

    def __getitem__(self, index: int) -> Any:
        """Return what an encoder prepares."""
        ...


def keep_inputs(
    dataset: Dataset,
    encoder: Encoder,
    *,
    context: Context,
    exact: bool = False,
    check: Callable[[], None] = lambda: None,
) -> Kept:
    """Return what `encoder.prepare` opens faster than the raw inputs, and to the same values if `exact`.

    Pictures are kept decoded at a size for augmentation, so an exact one is opened anew. `check` is called between
    items and may raise.
    """
    contract = encoder.spec.contract
    if isinstance(contract, InputContract):
        return (
            Pictures(dataset, {}) if exact else keep_pictures(dataset, contract, context=context, check=check)
        )
    values: list[np.ndarray] = []
    for index in range(len(dataset)):
        check()
        values.append(encoder.prepare(dataset[index].input).value)
    return Texts(values, np.array([value.shape[0] * value.shape[1] for value in values]))
