"""What is wrong or noteworthy in classes, labels and numbers."""

from __future__ import annotations

import difflib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from headstart.core.types import SPLITS, Finding, SplitName
from headstart.data.dataset import TableDataset, explain_items

_SMALL_CLASS = 5
_IMBALANCE = 10
_TYPO_LETTERS, _TYPO_SHARE, _TYPO_LIKENESS = 5, 0.05, 0.88
"""Letters from which on a name may be a misspelling, of a name at least 20 times as common, this alike."""
_FAR = 10
"""A number is far off beyond so many times the distance between the quartiles."""


def target_findings(dataset: TableDataset, rows: Sequence[int]) -> Iterator[Finding]:
    """Yield what is noteworthy about the targets of these labelled rows."""
    if dataset.task == "regression":
        yield from _numbers(dataset, rows)
    elif dataset.task == "classification":
        yield from _classes_across(dataset, rows)
        yield from _class_sizes(dataset, rows)
    elif dataset.task == "multilabel":
        yield from _label_sizes(dataset, rows)
    yield from _spelling(_names(dataset.labels, dataset.task))
    if dataset.task in ("classification", "multilabel"):
        yield from _misspelt(dataset, rows)


def _names(labels: Sequence[str], task: str) -> list[str]:
    """Return the names that people gave: of tags their types."""
    if task != "tagging":
        return list(labels)
    return list(dict.fromkeys(label[2:] for label in labels if label != "O"))


def _classes_across(dataset: TableDataset, rows: Sequence[int]) -> Iterator[Finding]:
    """Say which classes are not in every split that the data bring."""
    classes: dict[SplitName, set[str]] = {}
    for row in rows:
        classes.setdefault(dataset.splits[row] or "train", set()).add(str(dataset.targets[row]))
    if len(classes) < 2:
        return
    every = set.union(*classes.values())
    for name in SPLITS:
        if name not in classes or not (absent := sorted(every - classes[name])):
            continue
        items = [row for row in rows if dataset.targets[row] in absent]
        said = f"the {name} split has none of {len(absent)} classes: {explain_items(absent)}"
        if name == "train":
            action = "their items count as wrong in every score: add training items, or correct the names"
            yield Finding("missing-class", "error", said, action, _named(dataset, items))
        else:
            action = f"no {name} score for them"
            yield Finding("label-folder-mismatch", "warning", said, action, _named(dataset, items))


def _class_sizes(dataset: TableDataset, rows: Sequence[int]) -> Iterator[Finding]:
    """Say which classes are small, whether some dwarf others, and whether there is only one."""
    counts = Counter(str(dataset.targets[row]) for row in rows)
    if len(counts) == 1:
        yield Finding(
            "one-class", "error", f"there is only one class: {next(iter(counts))}", "nothing can be learnt"
        )
    small = {label: count for label, count in sorted(counts.items()) if count < _SMALL_CLASS}
    if small:
        said = explain_items([f"{label} ({count})" for label, count in small.items()])
        items = [row for row in rows if dataset.targets[row] in small]
        message = f"{len(small)} classes have fewer than {_SMALL_CLASS} items: {said}"
        action = "kept; a class of one is only trained on, of two has no validation item"
        yield Finding("small-class", "warning", message, action, _named(dataset, items))
    if len(counts) > 1:
        (most, many), (least, few) = counts.most_common()[0], counts.most_common()[-1]
        if many >= _IMBALANCE * few:
            message = f"class '{most}' has {many} items, class '{least}' {few}"
            yield Finding(
                "imbalance", "info", message, "read balanced accuracy and macro-F1, not accuracy alone"
            )


def _spelling(labels: Sequence[str]) -> Iterator[Finding]:
    """Say which class names differ only in case, spaces or the way that their accents are encoded."""
    spelled: defaultdict[str, list[str]] = defaultdict(list)
    for label in labels:
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFKC", label).casefold())
        spelled["".join(folded.replace("_", " ").replace("-", " ").split())].append(label)
    alike = [names for names in spelled.values() if len(names) > 1]
    if alike:
        said = explain_items([" / ".join(f"'{name}' ({name!a})" for name in names) for names in alike])
        message = f"class names that look alike but differ in case, spaces or Unicode form: {said}"
        yield Finding("label-spelling", "warning", message, "kept apart: rename them if they mean the same")


def _misspelt(dataset: TableDataset, rows: Sequence[int]) -> Iterator[Finding]:
    """Say which rare names are one or two letters away from a common one."""
    counts: Counter[str] = Counter()
    for row in rows:
        target = dataset.targets[row]
        counts.update(target if isinstance(target, tuple) else (str(target),))
    common = [name for name, count in counts.items() if count * _TYPO_SHARE >= 1]
    pairs: list[str] = []
    for name, count in sorted(counts.items()):
        likely = [other for other in common if count <= _TYPO_SHARE * counts[other]]
        # Names that differ in a digit (grade 1, grade 2) are different names.
        if len(name) < _TYPO_LETTERS or any(letter.isdecimal() for letter in name):
            continue
        if close := difflib.get_close_matches(name, likely, n=1, cutoff=_TYPO_LIKENESS):
            pairs.append(f"'{name}' ({count}) / '{close[0]}' ({counts[close[0]]})")
    if pairs:
        message = f"rare names that may be misspellings of common ones: {explain_items(pairs)}"
        yield Finding("label-typo", "warning", message, "kept apart: correct them if they mean the same")


def _label_sizes(dataset: TableDataset, rows: Sequence[int]) -> Iterator[Finding]:
    """Say which labels few items have, or all, and which a split lacks."""
    counts = Counter(label for row in rows for label in _tuple(dataset, row))
    few = [f"{label} ({counts[label]})" for label in dataset.labels if 0 < counts[label] < _SMALL_CLASS]
    if few:
        message = f"{len(few)} labels have fewer than {_SMALL_CLASS} items: {explain_items(few)}"
        yield Finding("small-class", "warning", message, "kept; expect little of them")
    always = [label for label in dataset.labels if counts[label] == len(rows)]
    if always:
        message = f"every item has the label {explain_items(always)}"
        yield Finding("constant-label", "warning", message, "kept; nothing can be learnt of it")
    splits: dict[SplitName, set[str]] = {}
    for row in rows:
        splits.setdefault(dataset.splits[row] or "train", set()).update(_tuple(dataset, row))
    for name, found in sorted(splits.items()):
        absent = [label for label in dataset.labels if counts[label] and label not in found]
        if len(splits) > 1 and absent:
            message = f"the {name} split has no item with {len(absent)} labels: {explain_items(absent)}"
            yield Finding("missing-class", "warning", message, f"no {name} score for them")


def _numbers(dataset: TableDataset, rows: Sequence[int]) -> Iterator[Finding]:
    """Say which numbers are far from all others."""
    values = np.array([float(str(dataset.targets[row])) for row in rows])
    if not len(values):
        return
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    far = [row for row, value in zip(rows, values, strict=True) if abs(value - middle) > _FAR * (high - low)]
    if far and high > low:
        said = explain_items([f"{dataset.ids[row]} ({dataset.targets[row]:g})" for row in far], most=5)
        message = (
            f"{len(far)} numbers are far from the others ({low:g} to {high:g} in the middle half): {said}"
        )
        ids = tuple(dataset.ids[row] for row in far)
        yield Finding(
            "number-outlier", "warning", message, "kept: a few such outweigh all others in training", ids
        )


def _tuple(dataset: TableDataset, row: int) -> tuple[str, ...]:
    """Return the labels of a row."""
    target = dataset.targets[row]
    return target if isinstance(target, tuple) else ()


def _named(dataset: TableDataset, rows: Sequence[int]) -> tuple[str, ...]:
    """Return the ids of rows."""
    return tuple(dataset.ids[row] for row in rows)
