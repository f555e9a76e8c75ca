"""What answering without looking would score on the same test items: the least that a model must beat."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headstart.evaluation import Evaluation
    from headstart.result import Result


@dataclass(frozen=True, slots=True)
class Floor:
    """An answer that needs no model (`Always “cat”`) and its value of the primary score."""

    name: str
    value: float


def floor_of(result: Result) -> Floor | None:
    """Return the floor of a result's primary score; None where the test items do not tell it."""
    maker = _FLOORS.get((result.evaluation.task, result.evaluation.primary.name))
    return maker(result) if maker else None


def commonest(evaluation: Evaluation) -> tuple[str, float]:
    """Return the most common class of the test items and its share: what answering it always would score."""
    row = max(evaluation.per_class, key=lambda item: item.support)
    return row.label, row.support / evaluation.n


def quoted(words: str) -> str:
    """Put words into quotation marks."""
    return f"\N{LEFT DOUBLE QUOTATION MARK}{words}\N{RIGHT DOUBLE QUOTATION MARK}"


def _one_class(result: Result) -> Floor:
    """Answer the most common class."""
    label, share = commonest(result.evaluation)
    return Floor(f"Always {quoted(label)}", share)


def _one_set(result: Result) -> Floor | None:
    """Answer the most common set of labels: F1 of each of them against its own number, 0 for the labels left out."""
    sets = Counter(frozenset(item.target) for item in result.predictions)
    if not sets:
        return None
    said = min(sets, key=lambda labels: (-sets[labels], sorted(labels)))
    support = Counter(label for labels in sets.elements() for label in labels)
    n = len(result.predictions)
    grades = [2 * support[label] / (support[label] + n) if label in said else 0.0 for label in support]
    name = f"Always {quoted(', '.join(sorted(said)))}" if said else "Never a label"
    return Floor(name, sum(grades) / len(grades) if grades else 0.0)


def _mean(result: Result) -> Floor:  # noqa: ARG001 - R2 is measured against just this
    """Answer the mean."""
    return Floor("Always the mean", 0.0)


def _nothing(result: Result) -> Floor:  # noqa: ARG001 - without spans nothing is right, whatever the texts
    """Mark nothing."""
    return Floor("Marking nothing", 0.0)


_FLOORS = {
    ("classification", "accuracy"): _one_class,
    ("multilabel", "macro_f1"): _one_set,
    ("regression", "r2"): _mean,
    ("tagging", "span_f1"): _nothing,
}
