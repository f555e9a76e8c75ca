"""Which column of a table means what: as set, else by its name, else by what it holds; guesses are said."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart.core.errors import DataError, nearest
from headstart.core.settings import Source
from headstart.core.types import Finding, SplitName
from headstart.data.dataset import explain_items
from headstart.data.folders import SPLIT_NAMES
from headstart.data.targets import as_label, truth

GUESSES: dict[str, tuple[str, ...]] = {
    "path": (
        *("path", "file", "filename", "file_name", "filepath", "file_path"),
        *("image", "image_path", "img", "img_path"),
    ),
    "text": (
        *("text", "sentence", "review", "content", "body", "message", "comment", "tweet", "document"),
        *("review_text", "comment_text", "description", "question", "title"),
    ),
    "label": (
        *("label", "class", "target", "category", "class_name", "label_name", "diagnosis", "y", "labels"),
        *("sentiment", "topic", "intent", "emotion", "rating", "stars", "score"),
    ),
    "split": ("split", "subset", "fold_name", "partition"),
    "group": (
        *("group", "patient", "patient_id", "subject", "subject_id", "group_id", "lesion_id"),
        *("scene", "speaker"),
    ),
    "domain": ("domain", "site", "source", "scanner", "hospital"),
}
"""Column names, in lower case, by which a role is known when the settings name none; the first that is there."""

_PROSE = 3
"""Words that the fields of a column hold on average if it is taken for the text without its name saying so."""
_LOOKED_AT = 1000
"""Rows by which the content of a column is judged."""

Columns = Mapping[str, Sequence[object]]


@dataclass(frozen=True, slots=True)
class Chosen:
    """The column of each role, the columns that each say of one label whether an item has it, and the guesses."""

    roles: Mapping[str, str]
    labels: tuple[str, ...] = ()
    notes: tuple[Finding, ...] = ()


def choose(path: Path, columns: Columns, source: Source, *, needs_label: bool = True) -> Chosen:
    """Return what each column means; DataError names a column that is missing and those that are there.

    Without `needs_label` a table may have no column of labels.
    """
    asked = {role: getattr(source, f"{role}_column") for role in GUESSES}
    labels = _label_columns(path, columns, asked.pop("label"))
    chosen = {role: require(path, columns, role, name) for role, name in asked.items() if name is not None}
    if len(labels) == 1:
        chosen["label"] = labels[0]
    guessed = _by_name(columns, chosen, without={"label"} if labels else set())
    if "path" in chosen or "text" in chosen:
        guessed.pop("text" if "path" in chosen else "path", None)
    elif "path" in guessed and "text" in guessed:
        guessed.pop("path" if not _is_there(path, columns[guessed["path"]]) else "text")
    roles = {**chosen, **guessed}
    if "path" not in roles and "text" not in roles:
        roles["text"] = guessed["text"] = _prose(path, columns, taken={*roles.values(), *labels})
    if "label" not in roles and not labels:
        labels = _rest(columns, taken=set(roles.values()))
        if needs_label and not labels:
            raise _no_column(path, columns, "label", "no column that looks like the label")
        if len(labels) == 1:
            roles["label"] = guessed["label"] = labels[0]
        elif labels:
            guessed["labels"] = explain_items(labels, most=6)
    notes = [f"{role} = '{name}'" for role, name in guessed.items()]
    message, action = (
        f"columns guessed: {', '.join(notes)}",
        "others: --set data.label_column=NAME (text, split, ...)",
    )
    found = (Finding("columns-guessed", "info", message, action),) if notes else ()
    return Chosen(roles, labels if len(labels) > 1 else (), found)


def require(path: Path, columns: Columns, role: str, name: str) -> str:
    """Return a column's name if the table has it."""
    if name not in columns:
        raise _no_column(path, columns, role, f"no column '{name}'{nearest(name, columns)}")
    return name


def as_split(value: object, place: str) -> SplitName | None:
    """Return the split that a value means, None where it is missing; DataError says the place of an unknown one."""
    name = as_label(value)
    if name is None:
        return None
    if name.lower() not in SPLIT_NAMES:
        raise DataError(
            f"{place} says the split '{name}'{nearest(name, SPLIT_NAMES)}",
            expected=f"one of {', '.join(SPLIT_NAMES)} (any case), or nothing",
            fix="correct the value, or choose another column with --set data.split_column=...",
        )
    return SPLIT_NAMES[name.lower()]


def membership(
    columns: Columns, roles: Mapping[str, str], count: int, place: Callable[[int], str]
) -> tuple[list[str], list[str], list[SplitName | None]]:
    """Return the domain, the group and the split of each row; empty, or None, where no column says."""
    blank: list[object] = [None] * count
    domains, groups, splits = (
        columns[roles[role]] if role in roles else blank for role in ("domain", "group", "split")
    )
    return (
        [as_label(value) or "" for value in domains],
        [as_label(value) or "" for value in groups],
        [as_split(value, place(row)) for row, value in enumerate(splits)],
    )


def _label_columns(path: Path, columns: Columns, asked: str | None) -> tuple[str, ...]:
    """Return the label columns as set: one, or several names divided by commas."""
    if asked is None:
        return ()
    if asked in columns or "," not in asked:
        return (require(path, columns, "label", asked),)
    return tuple(require(path, columns, "label", name.strip()) for name in asked.split(","))


def _by_name(columns: Columns, chosen: Mapping[str, str], *, without: set[str]) -> dict[str, str]:
    """Return the roles that the names of columns say, but for those that are chosen already."""
    known = {name.lower(): name for name in reversed(list(columns)) if name not in chosen.values()}
    guessed: dict[str, str] = {}
    for role, names in GUESSES.items():
        found = next((known[name] for name in names if name in known), None)
        if found is not None and role not in chosen and role not in without:
            guessed[role] = found
    return guessed


def _is_there(path: Path, values: Sequence[object]) -> bool:
    """Tell whether the first path of a column is a file."""
    first = next((str(value) for value in values if as_label(value) is not None), "")
    return bool(first) and Path(path.parent, first.replace("\\", "/")).is_file()


def _prose(path: Path, columns: Columns, *, taken: set[str]) -> str:
    """Return the column whose fields hold the most words, if they read as texts."""
    words = {
        name: _words_per_field(values[:_LOOKED_AT]) for name, values in columns.items() if name not in taken
    }
    best = max(words, key=lambda name: words[name], default="")
    if not best or words[best] < _PROSE:
        raise _no_column(path, columns, "path", "no column that looks like the path or the text")
    return best


def _words_per_field(values: Sequence[object]) -> float:
    """Return how many words the text fields of a column hold on average; scripts without spaces count by letters."""
    texts = [value for value in values if isinstance(value, str) and value.strip()]
    counts = [max(len(text.split()), sum(letter > "\u2e7f" for letter in text) / 3) for text in texts]
    return sum(counts) / len(counts) if counts else 0.0


def _rest(columns: Columns, *, taken: set[str]) -> tuple[str, ...]:
    """Return the only column that is left for the label, or several columns of yes and no; nothing for neither."""
    left = tuple(name for name in columns if name not in taken)
    flags = tuple(name for name in left if _is_flag(columns[name]))
    if len(flags) > 1:
        return flags
    if len(left) == 1 and len(set(map(str, columns[left[0]]))) < len(columns[left[0]]):
        return left
    return ()


def _is_flag(values: Sequence[object]) -> bool:
    """Tell whether a column says yes of some rows and no of others."""
    found = {truth(cell) if (cell := as_label(value)) is not None else "" for value in values}
    return found - {""} == {True, False}


def _no_column(path: Path, columns: Columns, role: str, what: str) -> DataError:
    """Return the error for a missing column; a first row that looks like data is said to be no header."""
    names = explain_items(list(columns), most=20)
    if any(name in values[:_LOOKED_AT] for name, values in columns.items()):
        return DataError(
            f"{path} has {what}: its first row looks like data ({names[:200]})",
            expected="a first row of column names, such as text,label",
            fix="add a row of names as the first line",
        )
    return DataError(
        f"{path} has {what}",
        expected=f"a {role} column; the header (row 1) has {names}",
        fix=f"--set data.{role}_column=NAME" + (" (or data.text_column=NAME)" if role == "path" else ""),
    )
