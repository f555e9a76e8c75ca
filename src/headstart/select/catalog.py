"""The catalog of pretrained networks: facts from public tables, entries of the user's own, and filters."""

from __future__ import annotations

import csv
import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from headstart.core.errors import PlanError, nearest
from headstart.core.registry import resolve
from headstart.core.types import Form
from headstart.select.entry import Entry, Place, whereabouts
from headstart.select.own import read_own

__all__ = [
    "HERE",
    "LICENCE_CLASSES",
    "Entry",
    "Filters",
    "Place",
    "catalog",
    "is_like",
    "licence_class",
    "select",
    "whereabouts",
]

HERE: tuple[Place, ...] = ("installed", "file", "cached")
"""Where weights are that need not be fetched."""
FORMS: Mapping[str, tuple[Form, ...]] = {
    "image": ("pooled", "depths", "map"),
    "text": ("pooled", "layers", "depths", "sequence"),
}
"""What networks of each modality give."""
LICENCE_CLASSES: Mapping[str, tuple[str, ...]] = {
    "permissive": (
        "Apache-2.0",
        "MIT",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "ISC",
        "CC0-1.0",
        "CC-BY-4.0",
        "Unlicense",
    ),
    "share-alike": ("GPL-2.0", "GPL-3.0", "LGPL-3.0", "AGPL-3.0", "MPL-2.0", "CC-BY-SA-4.0"),
    "non-commercial": ("CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "CC-BY-NC-ND-4.0"),
}
"""What licences come to; "own terms" are all others that are stated, "unknown" those that are not."""
_ALTERNATIVES = 3


@dataclass(frozen=True, slots=True)
class Filters:
    """What a candidate must be; None and "" ask for nothing. `licence` is a licence's name or a class of licences."""

    task: str | None = None
    form: Form | None = None
    licence: str | None = None
    max_parameters_m: float | None = None
    max_gmacs: float | None = None
    offline: bool = False
    pattern: str = ""


def catalog(modality: str | None = None, *, own: Path | None = None) -> tuple[Entry, ...]:
    """Return every network of a modality (all by default), those of the user's file first.

    An entry of `own` (TOML, JSON or CSV) takes the place of one of the same name. PlanError names the file and the row
    that cannot be read.
    """
    shipped = _shipped()
    mine = read_own(own, shipped, FORMS) if own else ()
    taken = {entry.name for entry in mine}
    known = (*mine, *(entry for entry in shipped if entry.name not in taken))
    return tuple(entry for entry in known if modality in (None, entry.modality))


@cache
def _shipped() -> tuple[Entry, ...]:
    """Read the networks that come with the package (`benchmarks/make_catalog.py` wrote them)."""
    return (*_facts("image"), *_facts("text"))


def _facts(modality: str) -> Iterator[Entry]:
    """Read the file of a modality; a column `score:NAME` holds reported scores, an empty cell says nothing."""
    text = files("headstart.select").joinpath(f"facts/{modality}s.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        scores = {
            column.partition(":")[2]: float(cell)
            for column, cell in row.items()
            if column.startswith("score:") and cell
        }
        yield Entry(
            name=row["name"], modality=modality, forms=FORMS[modality], parameters_m=float(row["parameters_m"]),
            gmacs=float(row["gmacs"]), activations_m=float(row["activations_m"]), input_side=int(row["input_side"]),
            pretraining=row["pretraining"], scores=scores, licence=row["licence"], encoder={"name": row["name"]},
            layers=int(row.get("layers") or 0), width=int(row.get("width") or 0),
            context=int(row.get("context") or 0), origin=row.get("origin") or "",
        )  # fmt: skip


def licence_class(licence: str) -> str:
    """Return what a licence comes to: permissive, share-alike, non-commercial, own terms or unknown."""
    for name, licences in LICENCE_CLASSES.items():
        if licence.lower() in (one.lower() for one in licences):
            return name
    return "unknown" if licence.lower() in ("", "unknown") else "own terms"


@dataclass(frozen=True, slots=True)
class _Limit:
    """A filter that is set: how it is said, what it asks of an entry, what an entry has instead, how far that is off.

    `advice` is what else helps; it goes alone where nothing is nearer than anything else.
    """

    said: str
    accepts: Callable[[Entry], bool]
    has: Callable[[Entry], str] | None = None
    distance: Callable[[Entry], float] = lambda _: 0.0
    advice: str = ""


def select(entries: Sequence[Entry], filters: Filters) -> tuple[Entry, ...]:
    """Return the entries that pass every filter, in their order.

    PlanError where none does: it names the filter that left none (the one that alone would let some through, if there
    is one), and the nearest entries that would fit without it.
    """
    limits = list(_limits(filters, entries))
    kept = tuple(entry for entry in entries if all(limit.accepts(entry) for limit in limits))
    if kept or not limits:
        return kept
    for limit in limits:
        near = [e for e in entries if all(other.accepts(e) for other in limits if other is not limit)]
        if near:
            raise _nothing_left(limit, near, [other.said for other in limits if other is not limit])
    left, before = list(entries), []
    for limit in limits:
        near, left = left, [entry for entry in left if limit.accepts(entry)]
        if not left:
            raise _nothing_left(limit, near, before)
        before.append(limit.said)
    raise AssertionError("one of the filters left none")


def _nothing_left(limit: _Limit, near: Sequence[Entry], others: Sequence[str]) -> PlanError:
    """Return the error for a filter that left none of the entries that all the others let through."""
    best = sorted(near, key=lambda entry: (limit.distance(entry), entry.gmacs, entry.name))[:_ALTERNATIVES]
    has = limit.has
    named = ", ".join(f"{entry.name} ({has(entry)})" for entry in best) if has else ""
    beside = f" and {', '.join(others)}" if others else ""
    return PlanError(
        f"no network of {len(near)} is {limit.said}{beside}",
        expected="filters that at least one network passes",
        fix="; ".join(
            [*([f"the nearest: {named}"] if named else []), *([limit.advice] if limit.advice else [])]
        )
        or "describe networks in a file of your own (--catalog FILE)",
    )


def _limits(filters: Filters, entries: Sequence[Entry]) -> Iterator[_Limit]:
    """Yield the filters that are set, the ones that matter most to the user first."""
    if filters.task:
        form = _form_of(filters.task)
        yield _needs(form, f"for the task {filters.task} (features of form '{form}')")
    if filters.form:
        yield _needs(filters.form, f"one with features of form '{filters.form}'")
    if filters.pattern:
        yield _named(filters.pattern, entries)
    if filters.licence:
        wanted = _licences(filters.licence, entries)
        yield _Limit(
            f"of licence {filters.licence}",
            lambda entry: wanted in (entry.licence.lower(), licence_class(entry.licence)),
            lambda entry: f"licence {entry.licence}",
        )
    if filters.max_parameters_m is not None:
        yield _most("parameters_m", filters.max_parameters_m, "M parameters")
    if filters.max_gmacs is not None:
        yield _most("gmacs", filters.max_gmacs, "GMACs")
    if filters.offline:
        yield _Limit(
            "on this machine", lambda entry: whereabouts(entry) in HERE, _where_to_get,
            lambda entry: float(whereabouts(entry) == "absent"),
        )  # fmt: skip


def _needs(form: Form, said: str) -> _Limit:
    """Return the filter by a form of features."""
    givers = " and ".join(modality for modality, forms in FORMS.items() if form in forms)
    return _Limit(
        said, lambda entry: form in entry.forms, lambda entry: f"has {', '.join(entry.forms)}",
        advice=f"networks for {givers} give this form" if givers else "",
    )  # fmt: skip


def _named(pattern: str, entries: Sequence[Entry]) -> _Limit:
    """Return the filter by name."""
    fits = any(is_like(entry.name, pattern) for entry in entries)
    close = "" if fits else nearest(pattern, [_short(entry.name) for entry in entries])
    return _Limit(
        f"named like '{pattern}'{close}", lambda entry: is_like(entry.name, pattern),
        advice="correct the pattern or leave it out ('*' stands for anything)",
    )  # fmt: skip


def _most(fact: str, most: float, unit: str) -> _Limit:
    """Return the filter by the largest value of a fact."""
    return _Limit(
        f"of at most {most:g} {unit}", lambda entry: getattr(entry, fact) <= most,
        lambda entry: f"{getattr(entry, fact):g} {unit}", lambda entry: getattr(entry, fact),
    )  # fmt: skip


def _where_to_get(entry: Entry) -> str:
    """Say where the weights of an entry are."""
    return (
        "from the hub: leave offline out" if whereabouts(entry) == "hub" else "its weights cannot be had here"
    )


def _form_of(task: str) -> Form:
    """Return the form of features that a task needs."""
    return resolve("task", task).form


def _licences(wanted: str, entries: Sequence[Entry]) -> str:
    """Return a licence or a class in lower case; PlanError where no network and no class is called so."""
    classes = [*LICENCE_CLASSES, "own terms", "unknown"]
    stated = {entry.licence for entry in entries} | {
        one for group in LICENCE_CLASSES.values() for one in group
    }
    if wanted.lower() in {name.lower() for name in (*classes, *stated)}:
        return wanted.lower()
    raise PlanError(
        f"unknown licence '{wanted}'{nearest(wanted, [*classes, *stated])}",
        expected=f"a class ({', '.join(classes)}) or a licence such as {', '.join(sorted(stated)[:6])}",
        fix="correct the name",
    )


def _short(name: str) -> str:
    """Return a name without its library."""
    return name.partition(":")[2] or name


def is_like(name: str, pattern: str) -> bool:
    """Tell whether a name (or what follows its library) fits a pattern, or holds one that has no wildcards."""
    name, pattern = name.lower(), pattern.lower()
    if not set("*?[") & set(pattern):
        return pattern in name
    return any(fnmatch.fnmatchcase(one, pattern) for one in (name, _short(name)))
