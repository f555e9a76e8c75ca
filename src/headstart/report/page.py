"""The page: one HTML file with everything inside, no script and nothing loaded from anywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from headstart.report import charts, lineage, metrics, spans, words
from headstart.report.floors import floor_of
from headstart.report.frame import fill
from headstart.report.pictures import PictureAlbum, picture_album
from headstart.report.texts import LONGEST, TextAlbum, text_album
from headstart.store import atomic_write

if TYPE_CHECKING:
    from headstart.core.types import Receipt, Score, TensorOrigin
    from headstart.model import Model
    from headstart.result import Candidate, Result

_SHOWN_ITEMS = 20
_SHOWN_HEADS = 8


@dataclass(frozen=True, slots=True)
class GroupRow:
    """What transferred into one layer group; shares of its numbers by origin, in the order of the chart."""

    name: str
    num_tensors: int
    num_values: int
    shares: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Contender:
    """One bar of the first figure."""

    name: str
    score: Score | None
    value: float
    kind: str


@dataclass(frozen=True, slots=True)
class Raced:
    """One head of the race with the ends of its interval, one standard error each way."""

    name: str
    score: float
    standard_error: float
    log_loss: float
    low: float
    high: float
    seconds: float
    chosen: bool

    @classmethod
    def of(cls, item: Candidate) -> Raced:
        """Add the interval to a candidate."""
        error = item.standard_error
        low, high = item.score - error, item.score + error
        return cls(item.name, item.score, error, item.log_loss, low, high, item.seconds, item.chosen)


def render(result: Result, model: Model, inputs: Mapping[str, Any], *, path: Path) -> Path:
    """Write the report of a result as one HTML file and return its path.

    `inputs` maps the ids of test items to their raw inputs, for pictures with heat maps or texts with word weights;
    where it lacks them the report says so.
    """
    album = _album(result, model, inputs)
    page = fill(
        "report.html",
        title=words.title(result),
        style=lineage.STYLE if result.lineage else "",
        drawn=lineage,
        result=result,
        spec=model.encoder.spec,
        album=album,
        shows_texts=isinstance(album, TextAlbum),
        groups=group_rows(result.receipt, model),
        contenders=contenders(result),
        race=[
            Raced.of(item) for item in sorted(result.race, key=lambda item: (not item.chosen, -item.score))
        ],
        panels=panels(result),
        plan=json.dumps(words.settings_of(result), indent=2, ensure_ascii=False),
        charts=charts,
        spans=spans,
        nouns=words.nouns(result),
        use=words.use_of(result),
        longest=LONGEST,
        points=[(item.target, item.label) for item in result.predictions],
        shown_items=_SHOWN_ITEMS,
        shown_heads=_SHOWN_HEADS,
    )
    atomic_write(path, page.encode())
    return path


def _album(result: Result, model: Model, inputs: Mapping[str, Any]) -> PictureAlbum | TextAlbum:
    """Draw the items worth a look, as what they are."""
    draw = text_album if model.encoder.spec.modality == "text" else picture_album
    return draw(result, model, inputs)


def contenders(result: Result) -> list[Contender]:
    """Return the model, the baseline and the floor, as the first figure compares them."""
    primary = result.evaluation.primary
    if metrics.metric(primary.name).kind == "amount":
        return []
    rows = [Contender("This model", primary, primary.value, "ours")]
    if result.baseline:
        other = result.baseline.evaluation.primary
        name = result.baseline.name
        rows.append(Contender(name[0].upper() + name[1:], other, other.value, "other"))
    floor = floor_of(result)
    return [*rows, *([Contender(floor.name, None, floor.value, "floor")] if floor else [])]


def group_rows(receipt: Receipt, model: Model) -> list[GroupRow]:
    """Sum the receipt's tensors by layer group; buffers belong to the group of their module's parameters."""
    groups = model.encoder.layer_groups()
    owners = {name: group.name for group in groups for name in group.parameters}
    modules = {name.rpartition(".")[0]: group for name, group in owners.items()}
    rows: dict[str, list[TensorOrigin]] = {group.name: [] for group in groups}
    for tensor in receipt.tensors:
        owner = owners.get(tensor.name) or modules.get(tensor.name.rpartition(".")[0]) or "other"
        rows.setdefault(owner, []).append(tensor)
    return [_group_row(name, tensors) for name, tensors in rows.items() if tensors]


def _group_row(name: str, tensors: list[TensorOrigin]) -> GroupRow:
    """Sum one group."""
    counts = {"loaded": 0, "adapted": 0, "fresh": 0}
    for tensor in tensors:
        size = 1
        for length in tensor.shape:
            size *= length
        counts[tensor.origin] += size
    total = sum(counts.values())
    return GroupRow(
        name, len(tensors), total, {origin: number / max(total, 1) for origin, number in counts.items()}
    )


def panels(result: Result) -> list[Markup]:
    """Draw the learning curves, if the result has any."""
    rows = result.history
    if not rows:
        return []

    def line(name: str) -> list[tuple[float, float]]:
        return [(row["epoch"], row[name]) for row in rows if name in row]

    validation = line("validation_loss")
    kept = min(validation, key=lambda pair: pair[1])[0] if validation else None
    loss = charts.curves(
        {"training": line("train_loss"), "validation": validation}, heading="Loss", mark=kept
    )
    title = metrics.metric(result.evaluation.primary.name).title
    quality = charts.curves(
        {"validation": line("validation_quality") or line("validation_accuracy")},
        heading=f"{title} on the validation split",
        mark=kept,
    )
    return [panel for panel in (loss, quality) if panel]
