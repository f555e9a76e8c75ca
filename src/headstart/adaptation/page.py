"""A shift, or an adaptation, as one HTML page with its maps, as JSON beside it, and as the card of the model folder."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.adaptation.outcome import KIND_NAMES, Adaptation, Shifted, unlike_words
from headstart.adaptation.picture import MOST_COLOURS, colour, draw_map
from headstart.core.registry import resolve
from headstart.core.types import EncoderSpec
from headstart.data import TableDataset
from headstart.modalities import image
from headstart.report.frame import fill
from headstart.report.texts import SHORT, safe
from headstart.store import atomic_write, explained

PAGE, JSON = "report.html", "report.json"
"""Names that `headstart report` looks for in a model folder."""
SHIFT_PAGE, SHIFT_JSON = "shift.html", "shift.json"
THUMBNAIL = 200
"""Longer side of a shown picture in pixels."""
MOST_CLASSES = 40
"""Rows of a table of classes; of more, those that change or differ most."""
STYLE = """
.maps { display: flex; flex-wrap: wrap; gap: 1rem 2rem; }
.maps figure { flex: 1 1 17rem; max-width: 21.25rem; margin: 0 0 1rem; }
.map { width: 100%; }
.map .sheet { fill: var(--sheet); }
.map .from { fill: none; stroke: var(--quiet); stroke-width: 1; opacity: 0.55; }
.map .to { opacity: 0.8; }
.k0 { fill: var(--accent); color: var(--accent); } .k1 { fill: var(--miss); color: var(--miss); }
.k2 { fill: #7a5ea8; color: #7a5ea8; } .k3 { fill: #b08a1e; color: #b08a1e; }
.k4 { fill: #3f7fc1; color: #3f7fc1; } .k5 { fill: #5d8f3a; color: #5d8f3a; }
.k6 { fill: #b4477f; color: #b4477f; } .k7 { fill: #7d7468; color: #7d7468; }
.dots > span { white-space: nowrap; margin-right: 1.1rem; }
.dots b { font-weight: 400; }
.big strong.kind { font-size: 2.3rem; }
.shots { display: grid; grid-template-columns: repeat(auto-fill, minmax(7.5rem, 1fr)); gap: 1rem; }
.shots { margin-bottom: 1.4rem; }
.shots figure { margin: 0; min-width: 0; }
.shots img { display: block; width: 100%; height: 7.5rem; object-fit: contain; object-position: left bottom; }
.shots figcaption, .passage figcaption { font-size: 0.75rem; color: var(--quiet); overflow-wrap: anywhere; }
.passage { margin: 0 0 1rem; }
.passage blockquote { margin: 0 0 0.2rem; padding-left: 0.9rem; border-left: 2px solid var(--rule); }
.passage blockquote { font-size: 0.9375rem; max-width: 40rem; }
"""

Inputs = Mapping[tuple[str, str], Any]
"""Raw items by side (source, target) and id."""


@dataclass(frozen=True)
class Shown:
    """An item as the page shows it: a picture (a data URI) or a text."""

    id: str
    picture: str = ""
    text: str = ""


def render(found: Adaptation, inputs: Inputs, *, path: Path) -> Path:
    """Write the page of an adaptation and return its path."""
    shifted = found.shifted
    page = fill(
        "adapt.html",
        style=STYLE,
        adaptation=found,
        after=draw_map(found.after, shifted.labels, name="After", like=shifted.before),
        changes=_largest(found.changes, key=lambda row: abs(row.after - row.before)),
        votes=tuple(dict.fromkeys(name for row in found.tried for name in row.votes)),
        has_labels=any(row.labelled for row in found.tried),
        asked=shown("target", [item.id for item in found.asked[:12]], shifted, inputs),
        **_common(shifted, inputs),
    )
    atomic_write(path, page.encode("utf-8", "replace"))
    return path


def publish_shift(found: Shifted, inputs: Inputs, folder: Path) -> Path:
    """Write the page and the JSON of a shift into a folder and return the page's path."""
    page = fill("adapt.html", style=STYLE, adaptation=None, **_common(found, inputs))
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / SHIFT_JSON, found.to_json().encode("utf-8", "replace"))
        atomic_write(folder / SHIFT_PAGE, page.encode("utf-8", "replace"))
    return folder / SHIFT_PAGE


def _common(found: Shifted, inputs: Inputs) -> dict[str, Any]:
    """Return what both pages show."""
    return {
        "title": safe(found.title),
        "shifted": found,
        "kinds": KIND_NAMES,
        "before": draw_map(found.before, found.labels, name="Before"),
        "colours": _colours(found),
        "classes": _largest(found.classes, key=lambda row: row.gap or 0.0),
        "typical_source": shown("source", found.typical.source, found, inputs),
        "typical_target": shown("target", found.typical.target, found, inputs),
        "unlike": unlike_words(found) if found.has_unknown else "",
        "nouns": resolve("modality", found.modality).NOUN,
        "safe": safe,
    }


def _colours(found: Shifted) -> list[tuple[str, str]]:
    """Return the colour and name of each class that has one of its own, and one for all others."""
    names = [safe(name) for name in found.labels]
    if len(names) <= MOST_COLOURS:
        return [(colour(number), name) for number, name in enumerate(names)]
    first = [(colour(number), name) for number, name in enumerate(names[: MOST_COLOURS - 1])]
    return [*first, (colour(MOST_COLOURS), "others")]


def _largest(rows: Sequence[Any], *, key: Any) -> list[Any]:
    """Return the rows of a table in their order, of many those with the largest keys."""
    if len(rows) <= MOST_CLASSES:
        return list(rows)
    kept = sorted(range(len(rows)), key=lambda place: -key(rows[place]))[:MOST_CLASSES]
    return [rows[place] for place in sorted(kept)]


def shown(side: str, ids: Sequence[str], found: Shifted, inputs: Inputs) -> list[Shown]:
    """Draw items of a side."""
    return [_drawn(one, inputs[side, one], found.modality) for one in ids if (side, one) in inputs]


def _drawn(name: str, raw: Any, modality: str) -> Shown:
    """Draw one item."""
    if modality == "text":
        read = resolve("modality", "text").read(raw)
        text = safe(read if isinstance(read, str) else " ".join(read))
        cut = text.rfind(" ", 0, SHORT)
        short = text if len(text) <= SHORT else f"{text[: cut if cut > 0 else SHORT]} …"
        return Shown(safe(name), text=short)
    drawn = image.thumbnail(raw if isinstance(raw, (Path, np.ndarray)) else Path(raw), side=THUMBNAIL)
    return Shown(safe(name), picture="data:image/jpeg;base64," + base64.b64encode(drawn).decode())


def inputs_of(source: TableDataset | None, target: TableDataset) -> Inputs:
    """Return the raw items of both sides by side and id."""
    sides = {"target": target, **({"source": source} if source is not None else {})}
    return {
        (name, one): raw
        for name, data in sides.items()
        for one, raw in zip(data.ids, data.inputs, strict=True)
    }


def card(found: Adaptation, spec: EncoderSpec) -> str:
    """Return the model card of an adapted model as Markdown."""
    import json

    shifted = found.shifted
    front = {
        "license": "other", "license_name": spec.licence or "unknown", "library_name": "headstart",
        "tags": ["headstart", "domain-adaptation", spec.name],
    }  # fmt: skip
    head = "".join(f"{name}: {json.dumps(value)}\n" for name, value in front.items())
    shift = (
        f"{KIND_NAMES[shifted.measured.kind]}: {shifted.measured.implies}"
        if shifted.measured
        else "not measured"
    )
    lines = [
        f"---\n{head}---",
        f"# {_plain(shifted.title)}: an adapted model",
        f"A model of {len(shifted.labels)} classes, adapted to {shifted.num_target} unlabelled items.",
        f"Shift: {shift}.",
        f"Chosen: {found.chosen}. {' '.join(f'{reason[0].upper()}{reason[1:]}.' for reason in found.reasons)}",
        "How right it is on the target is not known without labels of it: `headstart evaluate MODEL LABELLED`.",
    ]
    return "\n\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Return a title on one line, without Markdown's marks."""
    return "".join(one for one in safe(text).replace("\n", " ") if one not in "<>[]`*_|#")
