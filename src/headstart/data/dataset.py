"""The table of items that every reader makes: references, targets, groups, domains, splits; nothing is decoded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from headstart.core.errors import DataError
from headstart.core.hashing import file_sha256
from headstart.core.types import Finding, Sample, SplitName, Target

_HASH_THREADS = 8

Input = Path | np.ndarray | str | tuple[str, ...]
"""A file, an array, a text, or the words of a text."""


@dataclass(frozen=True, eq=False)
class TableDataset:
    """Items as parallel lists; `inputs` are paths or arrays, `ids` paths relative to `root` (or row numbers)."""

    inputs: Sequence[Input]
    targets: Sequence[Target | None]
    ids: list[str]
    domains: list[str]
    groups: list[str]
    splits: Sequence[SplitName | None]
    labels: tuple[str, ...]
    root: Path | None = None
    modality: str = "image"
    task: str = "classification"
    """What the targets are: classes, several labels, numbers, or a tag a word."""
    notes: tuple[Finding, ...] = ()
    """What the reader guessed, ignored or stumbled over; an audit repeats it."""
    _hashes: dict[int, str] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        """Return one item; its input is a reference that only an encoder opens."""
        return Sample(
            self.inputs[index],
            target=self.targets[index],
            domain=self.domains[index],
            group=self.groups[index],
            id=self.ids[index],
        )

    def subset(self, indices: Sequence[int] | np.ndarray) -> TableDataset:
        """Return the items at these indices, in this order; all labels stay, so class ids do not move."""
        rows = [int(index) for index in indices]
        return replace(
            self,
            inputs=[self.inputs[row] for row in rows],
            targets=[self.targets[row] for row in rows],
            ids=[self.ids[row] for row in rows],
            domains=[self.domains[row] for row in rows],
            groups=[self.groups[row] for row in rows],
            splits=[self.splits[row] for row in rows],
            _hashes={new: self._hashes[row] for new, row in enumerate(rows) if row in self._hashes},
        )

    def with_splits(self, splits: Sequence[SplitName | None]) -> TableDataset:
        """Return the same items in other splits."""
        if len(splits) != len(self):
            raise ValueError(f"{len(splits)} splits for {len(self)} items")
        return replace(self, splits=list(splits))

    def indices(self, split: SplitName) -> list[int]:
        """Return the indices of a split's items, rising."""
        return [index for index, name in enumerate(self.splits) if name == split]

    def item_hash(self, index: int) -> str:
        """Return the sha256 of the file's bytes, or of an array's type, shape and numbers; kept in memory."""
        index = range(len(self))[index]
        if index not in self._hashes:
            self._hashes[index] = content_hash(self.inputs[index])
        return self._hashes[index]

    def item_hashes(self, indices: Sequence[int] | None = None) -> list[str]:
        """Return the hashes of these items (all of them by default), read by several threads."""
        wanted = range(len(self)) if indices is None else indices
        missing = [index for index in wanted if index not in self._hashes]
        texts = [index for index in missing if isinstance(self.inputs[index], (str, tuple))]
        # A thread costs more than the hash of a text.
        self._hashes.update((index, content_hash(self.inputs[index])) for index in texts)
        missing = [index for index in missing if index not in self._hashes]
        # One task a thread: one a file would cost as much as a small file's hash.
        shares = [missing[start::_HASH_THREADS] for start in range(_HASH_THREADS)]
        with ThreadPoolExecutor(_HASH_THREADS) as pool:
            for found in pool.map(self._hashed, shares):
                self._hashes.update(found)
        return [self._hashes[index] for index in wanted]

    def _hashed(self, indices: Sequence[int]) -> dict[int, str]:
        """Hash these items one after another."""
        return {index: content_hash(self.inputs[index]) for index in indices}

    @property
    def fingerprint(self) -> str:
        """Hash of content; order, names and location play no part."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        """Hash of the multiset of (content, target, group, domain, split); order, names and location play no part."""
        rows = zip(self.item_hashes(), self.targets, self.groups, self.domains, self.splits, strict=True)
        whole = hashlib.sha256()
        for row in sorted(repr(row) for row in rows):
            whole.update(row.encode("utf-8", "surrogatepass") + b"\n")
        return whole.hexdigest()


def content_hash(raw: Input) -> str:
    """Return the sha256 of an input's content; DataError names a file that is gone or cannot be opened."""
    if isinstance(raw, (str, tuple)):
        whole = raw if isinstance(raw, str) else "\x1f".join(("words", *raw))
        return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()
    if isinstance(raw, np.ndarray):
        return hashlib.sha256(f"{raw.dtype.str}{raw.shape}".encode() + raw.tobytes()).hexdigest()
    try:
        return file_sha256(raw)
    except OSError as error:
        raise DataError(
            f"{raw} cannot be opened: {error.strerror}",
            expected="every file that was listed when the data were opened",
            fix="put the file back (or make it readable), or run the command again to list the data anew",
        ) from None


def sorted_labels(targets: Sequence[Target | None]) -> tuple[str, ...]:
    """Return the names of classes or labels, sorted, those that are whole numbers by value."""
    names = {
        str(name)
        for target in targets
        if target is not None
        for name in (target if isinstance(target, tuple) else (target,))
    }
    return tuple(sorted(names, key=_by_number if all(_is_number(name) for name in names) else str))


def _is_number(name: str) -> bool:
    """Tell whether a class name is a whole number in plain digits."""
    return name.removeprefix("-").isdecimal() and name.isascii()


def _by_number(name: str) -> tuple[int, str]:
    """Order number-like names by value, then as text."""
    return int(name), name


def require_targets(dataset: TableDataset, *, source: str = "") -> None:
    """Refuse data that nothing can be learnt from: no items, no labels, a single class or number (DataError).

    `source` is the path that the person gave, which the error names.
    """
    where = Path(source).resolve() if source else dataset.root.resolve() if dataset.root else "the data"
    labelled = [target for target in dataset.targets if target is not None]
    if not labelled:
        raise DataError(
            f"{where} has no labelled item ({len(dataset)} items)",
            expected="items with labels",
            fix="add labels",
        )
    if dataset.task == "tagging" and len(dataset.labels) < 2:
        raise DataError(
            f"{where} has no tagged word ({len(dataset)} texts)",
            expected="tags such as B-PER and I-PER beside O",
            fix="check which column holds the tags (of a CoNLL file the last one is taken)",
        )
    if dataset.task == "multilabel" and not dataset.labels:
        raise DataError(
            f"{where} has no item with a label ({len(dataset)} items)",
            expected="one or more labels on some items",
            fix="check which column holds the labels: --set data.label_column=NAME",
        )
    if dataset.task == "regression" and len(set(labelled)) < 2:
        raise DataError(
            f"{where} has only one number, {labelled[0]} ({len(labelled)} items)",
            expected="numbers that differ",
            fix="check which column holds the numbers: --set data.label_column=NAME",
        )
    if dataset.task == "classification" and len(set(labelled)) < 2:
        raise DataError(
            f"{where} has only one class, '{labelled[0]}' ({len(dataset)} items)",
            expected="two or more classes, each a folder or a value of the label column",
            fix="add items of what is *not* that class",
        )


def explain_items(names: Sequence[str], *, most: int = 10, separator: str = ", ") -> str:
    """Join the first few names for a message, with the number of the others."""
    rest = f", and {len(names) - most} more" if len(names) > most else ""
    return separator.join(names[:most]) + rest
