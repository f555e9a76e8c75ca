"""Predictions of every kind as JSON lines and as a table."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from headstart.core.types import Prediction

LABELS_JOINED_BY = "|"
"""What stands between the labels of an item in a table; `headstart fit` reads it so, too."""


class Format(StrEnum):
    """How rows are written."""

    JSONL = "jsonl"
    CSV = "csv"


def write_jsonl(rows: Sequence[Prediction], stream: TextIO) -> None:
    """Write one JSON object an item, with every field of its kind of prediction."""
    for row in rows:
        stream.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")


def write_csv(rows: Sequence[Prediction], stream: TextIO) -> None:
    """Write a table with a header: a row an item, of tagged texts a row an entity (a bare id where there is none).

    Offsets count the characters of the text from 0; `end` is the one behind the last.
    """
    table = csv.writer(stream, lineterminator="\n")
    for number, row in enumerate(rows):
        header, lines = _lines(row)
        if number == 0:
            table.writerow(header)
        table.writerows(lines)


def _lines(row: Prediction) -> tuple[list[str], list[list[Any]]]:
    """Return the header of a prediction's kind and its lines."""
    from headstart.core.types import LabelPrediction, LabelsPrediction, ValuePrediction

    if isinstance(row, LabelPrediction):
        header = ["id", "label", "probability", *(f"p({label})" for label in row.probabilities)]
        return header, [[row.id, row.label or "", row.probability, *row.probabilities.values()]]
    if isinstance(row, LabelsPrediction):
        header = ["id", "labels", *(f"p({label})" for label in row.probabilities)]
        return header, [[row.id, LABELS_JOINED_BY.join(row.labels), *row.probabilities.values()]]
    if isinstance(row, ValuePrediction):
        return ["id", "value", "low", "high"], [[row.id, row.value, row.low, row.high]]
    spans = [[row.id, span.start, span.end, span.label, span.text, span.probability] for span in row.spans]
    return ["id", "start", "end", "label", "text", "probability"], spans or [[row.id, "", "", "", "", ""]]


WRITERS: dict[Format, Callable[[Sequence[Prediction], TextIO], None]] = {
    Format.JSONL: write_jsonl,
    Format.CSV: write_csv,
}
