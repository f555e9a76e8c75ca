"""What a column of labels means: classes, several labels an item, or numbers."""

from __future__ import annotations

import ast
import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from headstart.core.errors import DataError
from headstart.core.types import Finding, Target
from headstart.data.dataset import sorted_labels

MOST_NUMBERED_CLASSES = 20
"""More different whole numbers are classes only where they count up from 0 or 1 without a gap."""
SEPARATORS = "|;"
"""What divides several labels in one field."""

_MISSING = {"", "nan", "none", "null", "na", "n/a", "<na>", "inf", "-inf", "infinity", "-infinity"}
_TRUE, _FALSE = {"1", "true", "yes"}, {"0", "false", "no"}
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d{1,2}")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True, slots=True)
class Targets:
    """The targets of a table's rows, what they are, the names that occur, and what was guessed on the way."""

    values: list[Target | None]
    task: str
    notes: tuple[Finding, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the names that occur; numbers have none."""
        return () if self.task == "regression" else sorted_labels(self.values)


def as_label(value: object) -> str | None:
    """Return a label, group or domain as text; None for what means missing (None, NaN, an infinity, empty text)."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a column of whole numbers with a hole in it is read as floats
    label = str(value).strip()
    return None if label.lower() in _MISSING else label


def as_number(label: str) -> float | None:
    """Return a label as a number (`3.5`, `-2`, `1e-3`, and `3,5`), None where it is none."""
    if _DECIMAL_COMMA.fullmatch(label):
        label = label.replace(",", ".")
    return float(label) if _NUMBER.fullmatch(label) else None


def read_targets(values: Sequence[object], *, task: str | None, place: Callable[[int], str]) -> Targets:
    """Return a label column as what `task` says that it is, or as what it looks like, with a note on that.

    `place` names an item in messages, by its index. DataError says which value does not fit the task.
    """
    lists = [_as_list(value) for value in values]
    is_listed = any(row is not None for row in lists)
    labels = [None if row is not None else as_label(value) for row, value in zip(lists, values, strict=True)]
    notes: tuple[Finding, ...] = ()
    if task is None:
        task, notes = (
            ("multilabel", ()) if is_listed else _guess([label for label in labels if label is not None])
        )
    if task == "multilabel":
        rows = [_several(label) if row is None else row for row, label in zip(lists, labels, strict=True)]
        return Targets(list(rows), task, notes)
    if is_listed:
        row = next(row for row, found in enumerate(lists) if found is not None)
        raise _misfit(place(row), f"the labels {values[row]!r}", task, "multilabel")
    if task == "regression":
        return Targets([_number(label, place, row) for row, label in enumerate(labels)], task, notes)
    numbers = [as_number(label) for label in labels if label is not None]
    if all(number is not None and number.is_integer() for number in numbers):
        # 1.0 is the class 1; whole numbers as they are written keep their zeros (007) and all of their digits.
        labels = [f"{float(label):.0f}" if label and "." in label else label for label in labels]
    return Targets(list(labels), "classification", notes)


def read_label_columns(columns: Mapping[str, Sequence[object]], *, place: Callable[[int], str]) -> Targets:
    """Return the targets of several columns, each of which says of one label whether an item has it.

    Blank rows are unlabelled. DataError names the column and the row of a value that is neither yes nor no.
    """
    rows: list[Target | None] = []
    for number, cells in enumerate(zip(*columns.values(), strict=True)):
        found = [as_label(cell) for cell in cells]
        if all(cell is None for cell in found):
            rows.append(None)
            continue
        for name, cell in zip(columns, found, strict=True):
            if truth(cell) is None:
                raise DataError(
                    f"{place(number)} says '{'' if cell is None else cell}' of the label '{name}'",
                    expected="0 or 1 (or true, false, yes, no) in each label column",
                    fix="correct the value, or name the label columns: --set data.label_column=NAME,NAME",
                )
        rows.append(tuple(name for name, cell in zip(columns, found, strict=True) if truth(cell)))
    return Targets(rows, "multilabel")


def truth(cell: str | None) -> bool | None:
    """Return what a cell of a label column says, None where it says neither yes nor no."""
    word = (cell or "").lower()
    return True if word in _TRUE else False if word in _FALSE else None


def _guess(labels: Sequence[str]) -> tuple[str, tuple[Finding, ...]]:
    """Return what labels look like, with a note where it could be something else."""
    numbers = [as_number(label) for label in labels]
    found = sorted({number for number in numbers if number is not None})
    if labels and len(found) and None not in numbers:
        return _guess_numbers(found, is_pointed=any("." in label for label in labels))
    if _are_several(labels):
        example = next(label for label in labels if len(_parts(label)) > 1)
        message = f"labels such as '{example}' are taken for several labels an item"
        return "multilabel", (_said(message, "where each is one class", "classification"),)
    return "classification", ()


def _guess_numbers(found: Sequence[float], *, is_pointed: bool) -> tuple[str, tuple[Finding, ...]]:
    """Tell classes from numbers to predict, by the different values."""
    count, span = len(found), f"{found[0]:g} to {found[-1]:g}"
    is_whole = all(number.is_integer() for number in found)
    counts_up = is_whole and found[0] in (0, 1) and found[-1] - found[0] == count - 1
    if not is_whole or (count > MOST_NUMBERED_CLASSES and not counts_up):
        message = f"the labels are {count} different numbers ({span}): a number is predicted (regression)"
        return "regression", (_said(message, "where they are classes", "classification"),)
    if is_pointed:
        message = (
            f"the labels are whole numbers written with a point ({found[0]:.1f}): taken for {count} classes"
        )
        return "classification", (
            _said(message, "to predict a number", "regression", code="labels-as-floats"),
        )
    if count > 2:
        message = f"the labels are the whole numbers {span}: taken for {count} classes"
        return "classification", (_said(message, "to predict a number", "regression"),)
    return "classification", ()


def _said(message: str, when: str, task: str, code: str = "task-guessed") -> Finding:
    """Return the note on a guess with the setting that changes it."""
    return Finding(code, "info", message, f"{when}: --set data.task={task}")


def _are_several(labels: Sequence[str]) -> bool:
    """Tell whether fields hold several labels: some part occurs beside others or alone, in two different fields."""
    fields: defaultdict[str, set[str]] = defaultdict(set)
    for label in set(labels):
        for part in _parts(label):
            fields[part].add(label)
    divided = [label for label in set(labels) if len(_parts(label)) > 1]
    return any(len(fields[part]) > 1 for label in divided for part in _parts(label))


def _parts(label: str) -> tuple[str, ...]:
    """Return the labels in a field, each once."""
    separator = next((mark for mark in SEPARATORS if mark in label), None)
    found = label.split(separator) if separator else [label]
    return tuple(dict.fromkeys(part.strip() for part in found if part.strip()))


def _several(label: str | None) -> tuple[str, ...] | None:
    """Return the labels of a field, None of an empty one."""
    return None if label is None else _parts(label)


def _as_list(value: object) -> tuple[str, ...] | None:
    """Return the labels of a list, or of a list as Python or JSON writes it (`['a', 'b']`); None of anything else."""
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None  # A name in brackets, such as [deleted].
    if not isinstance(value, (list, tuple, set, frozenset)):
        return None
    names = [as_label(item) for item in value]
    return tuple(dict.fromkeys(name for name in names if name is not None))


def _number(label: str | None, place: Callable[[int], str], row: int) -> float | None:
    """Return a label as a number to predict."""
    number = None if label is None else as_number(label)
    if label is not None and number is None:
        raise _misfit(place(row), f"the label '{label}'", "regression", "classification")
    return number


def _misfit(place: str, given: str, task: str, other: str) -> DataError:
    """Return the error for a label that does not fit the task."""
    wanted = {"regression": "a number", "classification": "one class"}[task]
    return DataError(
        f"{place} has {given}",
        expected=f"{wanted} an item (data.task={task})",
        fix=f"correct it, or --set data.task={other}",
    )
