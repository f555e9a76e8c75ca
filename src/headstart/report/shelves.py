"""Which test items are worth a look: the mistakes, the doubts and the surest answers, by task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headstart.report.spans import mistakes_of
from headstart.report.words import count, nouns

if TYPE_CHECKING:
    from headstart.result import Predicted, Result

LIMIT = 6
"""Items a shelf."""
_PAIRS, _EACH = 4, 2
"""Pairs of classes whose mix-ups are shown, and how many of each."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """Items that belong together: predicted ones first, what is drawn of them in their place later."""

    title: str
    note: str
    items: tuple[Any, ...]


def shelves_of(result: Result, known: Sequence[Predicted], *, with_pairs: bool = False) -> list[Shelf]:
    """Sort the items worth a look onto shelves of at most six; none is on two of them, but for those of a pair.

    `with_pairs` adds items of the pairs of classes that are mistaken for each other most.
    """
    if result.evaluation.task == "regression":
        found = _by_error(result, known)
    elif result.evaluation.task == "tagging":
        found = _by_mistake(known)
    else:
        found = [*(_mixed_up(result, known) if with_pairs else []), *_by_certainty(result, known)]
    return [shelf for shelf in found if shelf.items]


def explained_name(item: Predicted) -> str:
    """Return the name whose evidence is shown: the class, the first label given or else true; none of a number."""
    if isinstance(item.label, str):
        return item.label
    return next(iter((*item.label, *item.target)), "") if isinstance(item.label, tuple) else ""


def _by_certainty(result: Result, known: Sequence[Predicted]) -> list[Shelf]:
    """Return the surest mistakes, the least sure of the others, and the surest right answer of each class."""
    many = nouns(result)[1]
    surest = sorted(known, key=lambda item: (-item.probability, item.id))
    wrong = [item for item in surest if not item.is_right][:LIMIT]
    taken = {item.id for item in wrong}
    unsure = [item for item in reversed(surest) if item.id not in taken][:LIMIT]
    taken |= {item.id for item in unsure}
    best = {item.target: item for item in reversed(surest) if item.is_right and item.id not in taken}
    order = {label: place for place, label in enumerate(result.evaluation.labels)}
    right = sorted(best, key=lambda target: [order[name] for name in _names(target)])
    return [
        Shelf(
            "Sure, and wrong", "The mistakes with the highest probability. Some may be wrong labels.", tuple(wrong)
        ),
        Shelf(
            "Least sure",
            f"The {many} with the lowest top probability. More like these would teach the most.",
            tuple(unsure),
        ),
        Shelf("Sure, and right", "The surest right answers.", tuple(best[target] for target in right[:LIMIT])),
    ]  # fmt: skip


def _names(target: Any) -> tuple[str, ...]:
    """Return a class, or each of several labels."""
    return target if isinstance(target, tuple) else (target,)


def _mixed_up(result: Result, known: Sequence[Predicted]) -> list[Shelf]:
    """Return a shelf for each of the pairs of classes that are confused most often."""
    surest = sorted(known, key=lambda item: (-item.probability, item.id))
    shelves: list[Shelf] = []
    for pair in result.evaluation.confused(_PAIRS):
        items = [item for item in surest if (item.target, item.label) == (pair.truth, pair.predicted)]
        note = f"{count(pair.count, 'time')}, {100 * pair.share:.1f}% of the class."
        shelves.append(
            Shelf(f"{pair.truth} \N{RIGHTWARDS ARROW} {pair.predicted}", note, tuple(items[:_EACH]))
        )
    return shelves


def _by_error(result: Result, known: Sequence[Predicted]) -> list[Shelf]:
    """Return the numbers that are furthest off, too high and too low."""
    many = nouns(result)[1]
    ranked = sorted(known, key=lambda item: (item.target - item.label, item.id))
    high = [item for item in ranked if item.label > item.target][: LIMIT // 2]
    low = [item for item in reversed(ranked) if item.label < item.target][: LIMIT // 2]
    return [
        Shelf("Too high", f"The {many} whose number is furthest above the truth.", tuple(high)),
        Shelf("Too low", f"The {many} whose number is furthest below the truth.", tuple(low)),
    ]


_MISTAKES = {
    "type": ("Wrong type", "The right words under another type."),
    "edges": ("Wrong words", "An entity is there, but it begins or ends elsewhere."),
    "missed": ("Missed", "Entities that the model did not mark."),
    "spurious": (
        "Not an entity",
        "What the model marked where there is nothing. Some may be missing labels.",
    ),
}


def _by_mistake(known: Sequence[Predicted]) -> list[Shelf]:
    """Return texts by the kind of their worst mistake, and texts whose entities are all right."""
    ranked = sorted(known, key=lambda item: (-item.probability, item.id))
    taken: set[str] = set()
    shelves: list[Shelf] = []
    for kind, (title, note) in _MISTAKES.items():
        chosen = [item for item in ranked if item.id not in taken and kind in mistakes_of(item)][: LIMIT // 2]
        taken |= {item.id for item in chosen}
        shelves.append(Shelf(title, note, tuple(chosen)))
    right = [item for item in ranked if item.is_right and item.target]
    right.sort(key=lambda item: -len({span[2] for span in item.target}))
    return [*shelves, Shelf("All right", "Texts with every entity found.", tuple(right[: LIMIT // 2]))]
