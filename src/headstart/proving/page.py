"""A proof as one HTML page with its curves, and as JSON beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from headstart.core.errors import StoreError
from headstart.core.registry import resolve
from headstart.proving import said
from headstart.proving.picture import Line, lines
from headstart.proving.schedule import minutes
from headstart.report import metrics
from headstart.report.frame import fill
from headstart.report.texts import safe
from headstart.store import atomic_write, explained

if TYPE_CHECKING:
    from headstart.proving.outcome import Proof

PAGE, DATA = "proof.html", "proof.json"
STYLE = """
.proof { width: 100%; max-width: 46rem; }
.proof .band { stroke: none; opacity: 0.16; }
.proof .law { stroke-dasharray: 3 4; stroke-width: 1.25; }
.proof .target { stroke: var(--quiet); stroke-dasharray: 2 3; }
.proof polyline { fill: none; stroke-width: 2; }
.proof .frozen { --own: var(--soft); }
.proof .finetune { --own: var(--accent); }
.proof .scratch { --own: var(--miss); }
.proof polyline, .proof circle { stroke: var(--own, var(--quiet)); }
.proof circle, .proof .band { fill: var(--own, var(--quiet)); }
.big strong.verdict { font-size: 2.6rem; }
.yes { color: var(--miss); font-weight: 600; }
"""


def require_free(folder: Path) -> None:
    """Refuse, before any work is done, a place for page and JSON where another thing lies (StoreError)."""
    other = folder if folder.exists() and not folder.is_dir() else folder / DATA
    if other != folder and not other.exists():
        return
    try:
        is_ours = "verdict" in json.loads(other.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        is_ours = False
    if other == folder or not is_ours:
        raise StoreError(
            f"{other} is there already and is no proof",
            expected="a folder that is new, or without files of these names, or with an earlier proof",
            fix="choose another --output",
        )


def publish(proof: Proof, folder: Path) -> Path:
    """Write page and JSON into a folder and return the page's path; StoreError where that cannot be."""
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / DATA, proof.to_json().encode())
        atomic_write(folder / PAGE, render(proof).encode("utf-8", "replace"))
    return folder / PAGE


def render(proof: Proof) -> str:
    """Return the page."""
    return fill(
        "proof.html",
        style=STYLE,
        proof=proof,
        title=safe(proof.title),
        by_labels=by_labels(proof),
        by_time=by_time(proof),
        metric=metrics.metric(proof.quality),
        nouns=resolve("modality", proof.modality).NOUN,
        rows=said.arm_rows(proof),
        said=said,
        minutes=minutes,
    )


def by_labels(proof: Proof) -> Markup:
    """Draw the scores over label budgets, each with the range of its seeds, and the fitted laws."""
    drawn = [
        Line(
            arm.title, arm.name, tuple((point.budget.n, point.value) for point in arm.points),
            band=tuple((point.low, point.high) for point in arm.points),
        )
        for arm in proof.arms
    ]  # fmt: skip
    most = max((point.budget.n for arm in proof.arms for point in arm.points), default=1)
    least = min((point.budget.n for arm in proof.arms for point in arm.points), default=1)
    for law in {one.arm: one for one in proof.growth if one.power}.values():
        steps = [least * (2 * most / least) ** (place / 40) for place in range(41)]
        fitted = tuple((n, 1 - law.floor - law.factor * n**-law.power) for n in steps)
        drawn.append(Line("", f"{law.arm} law", fitted))
    asked = tuple(dict.fromkeys(one.target for one in proof.growth)) or _targets(proof)
    return lines(drawn, across="labels", up=metrics.metric(proof.quality).title, targets=asked)


def by_time(proof: Proof) -> Markup:
    """Draw the validation scores on all labels over the seconds of one run."""
    drawn = [
        Line(arm.title, arm.name, tuple((lap.seconds, lap.quality) for lap in arm.course))
        for arm in proof.arms
        if arm.course
    ]
    return lines(
        drawn, across="seconds of one run", up=f"{metrics.metric(proof.quality).title} on validation items",
        targets=_targets(proof),
    )  # fmt: skip


def _targets(proof: Proof) -> tuple[float, ...]:
    """Return the scores that are asked about."""
    return tuple(dict.fromkeys(one.target for one in proof.reached))
