"""Entities as they are and as the model marked them: which are right, and what is wrong with the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from headstart.result import Predicted

Kind = Literal["right", "type", "edges", "missed", "spurious"]
KINDS: dict[Kind, str] = {
    "right": "found, with the right type",
    "type": "found, but called another type",
    "edges": "found, but with other first or last words",
    "missed": "not marked at all",
    "spurious": "marked where there is none",
}
"""What can be true of an entity, in plain words."""


@dataclass(frozen=True, slots=True)
class Place:
    """Entities that touch, `start` to before `end` in words: the true ones, the marked ones, and what is wrong."""

    start: int
    end: int
    true: tuple[tuple[int, int, str], ...]
    said: tuple[tuple[int, int, str], ...]
    kind: Kind
    probability: float


def places(item: Predicted) -> list[Place]:
    """Join the true and the marked entities of a text that overlap, in order."""
    marked = [(*span[:3], True, span[3] if len(span) > 3 else 1.0) for span in item.label]
    true = [(*span[:3], False, 1.0) for span in item.target]
    joined: list[list[Any]] = []
    end = -1
    for span in sorted([*marked, *true], key=lambda span: span[:2]):
        if span[0] >= end:
            joined.append([])
        joined[-1].append(span)
        end = max(end, span[1]) if len(joined[-1]) > 1 else span[1]
    return [_place(spans) for spans in joined]


def _place(spans: Sequence[Any]) -> Place:
    """Judge entities that overlap."""
    said = tuple(span[:3] for span in spans if span[3])
    true = tuple(span[:3] for span in spans if not span[3])
    if set(said) == set(true):
        kind: Kind = "right"
    elif not said or not true:
        kind = "spurious" if said else "missed"
    else:
        kind = "type" if {span[:2] for span in said} == {span[:2] for span in true} else "edges"
    probability = max((span[4] for span in spans if span[3]), default=0.0)
    return Place(
        min(span[0] for span in spans), max(span[1] for span in spans), true, said, kind, probability
    )


def mistakes_of(item: Predicted) -> set[Kind]:
    """Return what is wrong in a text; empty where every entity is right."""
    return {place.kind for place in places(item) if place.kind != "right"}


def tally(items: Sequence[Predicted]) -> dict[str, int]:
    """Count the places of all texts by what is true of them, in words."""
    found = Counter(place.kind for item in items for place in places(item))
    return {words: found[kind] for kind, words in KINDS.items()}


def called(items: Sequence[Predicted], limit: int = 8) -> list[tuple[str, str, int]]:
    """Return (true type, type said, how often) of entities that were found and called another type."""
    pairs = Counter(
        (true[2], said[2])
        for item in items
        for place in places(item)
        if place.kind == "type"
        for true, said in zip(place.true, place.said, strict=False)
        if true[2] != said[2]
    )
    ranked = sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0]))
    return [(true, said, number) for (true, said), number in ranked[:limit]]
