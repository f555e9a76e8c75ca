"""The page: the doubtful labels and the next items, as pictures or texts; one HTML file with everything inside."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core.registry import resolve
from headstart.labelling.found import LabelReport, NextLabel, WrongLabel
from headstart.modalities import image
from headstart.report import metrics
from headstart.report.frame import fill
from headstart.report.texts import LONGEST, SHORT, safe, snap
from headstart.store import atomic_write

MOST_SHOWN = 60
"""Items of each kind that the page shows; the tables hold all."""
SIDE = 220
"""Longer side of a shown picture in pixels."""
STYLE = """
.counts { display: flex; flex-wrap: wrap; gap: 1.2rem 3rem; margin: 0 0 1.6rem; }
.counts dd { font-size: 2.6rem; line-height: 1.1; font-weight: 600; color: var(--accent); font-family: var(--serif); }
.shots { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: 1.6rem 1.2rem; }
.shots figure { margin: 0; min-width: 0; }
.shots img { display: block; width: 100%; height: 9.5rem; object-fit: contain; object-position: left bottom; }
figcaption .given { color: var(--miss); text-decoration: line-through; text-decoration-thickness: 1px; }
figcaption .said { font-weight: 600; }
figcaption > .quiet:first-child { font-weight: 400; }
"""


@dataclass(frozen=True, slots=True)
class Shown:
    """One item of the page: a picture (a data URI), or the beginning of a text and the whole where that is longer."""

    item: WrongLabel | NextLabel
    id: str
    picture: str = ""
    text: str = ""
    whole: str = ""


def render(report: LabelReport, *, title: str, path: Path) -> Path:
    """Write the page and return its path."""
    page = fill(
        "labels.html",
        style=STYLE,
        report=report,
        title=safe(title),
        wrong=_shown(report, report.wrong),
        following=_shown(report, report.next),
        nouns=resolve("modality", report.modality).NOUN,
        quality=metrics.metric(resolve("task", report.task).quality_name),
        said=said,
    )
    atomic_write(path, page.encode("utf-8", "replace"))
    return path


def said(target: Any) -> str:
    """Return a target as the page names it."""
    if isinstance(target, tuple):
        return safe(", ".join(target)) or "no label"
    return metrics.amount(target) if isinstance(target, float) else safe(str(target))


def _shown(report: LabelReport, items: Sequence[WrongLabel | NextLabel]) -> list[Shown]:
    """Draw the first items of a kind."""
    return [_drawn(item, report) for item in items[:MOST_SHOWN]]


def _drawn(item: WrongLabel | NextLabel, report: LabelReport) -> Shown:
    """Draw one item."""
    raw, name = report.inputs[item.id], safe(item.id)
    if report.modality == "text":
        found = resolve("modality", "text").read(raw)
        text = safe(found if isinstance(found, str) else " ".join(found))
        if len(text) <= SHORT:
            return Shown(item, name, text=text)
        cut = text.rfind(" ", 0, SHORT)
        return Shown(
            item, name, text=text[: cut if cut > 0 else snap(text, SHORT)], whole=text[: snap(text, LONGEST)]
        )
    drawn = image.thumbnail(raw if isinstance(raw, (Path, np.ndarray)) else Path(raw), side=SIDE)
    return Shown(item, name, picture="data:image/jpeg;base64," + base64.b64encode(drawn).decode())
