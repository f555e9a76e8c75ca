"""A ranking as one HTML page: the pick and why, a picture of quality against time, and the table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from headstart.core.registry import resolve
from headstart.report import charts, metrics
from headstart.report.frame import fill
from headstart.store import atomic_write, explained

if TYPE_CHECKING:
    from headstart.select.rank import Ranked, Ranking

WIDTH, HEIGHT = 640, 380
LEFT, RIGHT, UP, DOWN = 56, 500, 20, 320
"""Where the axes of the picture end; names stand right of their points."""
SHOWN = 20
"""Candidates that are shown, and all that were probed."""
MOST_UNPROBED = 12
"""Candidates in the picture where none was probed."""
LINE, LETTER, GAP = 14, 6.6, 19
"""Least distance between two names, width of a letter, distance of a name from its point, in pixels."""
TICKS: Mapping[str, float] = {
    "0.1 s": 0.1, "1 s": 1, "3 s": 3, "10 s": 10, "30 s": 30, "1 min": 60, "2 min": 120, "5 min": 300, "10 min": 600,
    "20 min": 1200, "1 h": 3600, "3 h": 10_800, "10 h": 36_000, "1 day": 86_400, "4 days": 345_600,
}  # fmt: skip
STYLE = """
.big strong.pick { font-size: 2.2rem; overflow-wrap: anywhere; }
.ranking { font-size: 0.8125rem; }
.ranking th:first-child { min-width: 11rem; }
.ranking td, .ranking th { vertical-align: top; }
.trade { width: 100%; max-width: 46rem; }
.trade .span { stroke: var(--soft); stroke-width: 2; }
.trade .dot { fill: var(--quiet); }
.trade .dot.open { fill: var(--paper); stroke: var(--quiet); stroke-width: 1.5; }
.trade .dot.pick { fill: var(--accent); }
.trade .span.pick { stroke: var(--accent); }
.trade .leader { stroke: var(--rule); }
.trade text.pick { font-weight: 600; }
"""


def render(ranking: Ranking, *, title: str, path: Path) -> Path:
    """Write a ranking as one HTML file with everything inside and return its path.

    StoreError where the file cannot be written.
    """
    quality = resolve("task", ranking.task).quality_name
    page = fill(
        "ranking.html",
        style=STYLE,
        ranking=ranking,
        title=title,
        rows=ranking.shown(SHOWN),
        picture=picture(ranking.shown(SHOWN), ranking.pick, quality=metrics.metric(quality).title),
        metric=metrics.metric(quality),
        foresees=any(row.fine_tuned for row in ranking.rows),
        nouns=resolve("modality", ranking.modality).NOUN,
    )
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, page.encode())
    return path


def picture(rows: Sequence[Ranked], pick: str, *, quality: str) -> Markup:
    """Draw what each candidate is expected to reach against the time that fine-tuning takes here, on a log scale."""
    # Giants that nobody can try here would squeeze what matters into a corner.
    shown = [row for row in rows if row.frozen] or list(rows)[:MOST_UNPROBED]
    lows = [row.fine_tuned.low if row.fine_tuned else row.score for row in shown]
    highs = [row.fine_tuned.high if row.fine_tuned else row.score for row in shown]
    ticks = charts.ticks(min(lows), max(highs), most=5, least=0.01)
    times = [row.finetune_seconds for row in shown]
    first, last = math.log(min(times)) - 0.4, math.log(max(times)) + 0.4

    def place(seconds: float, value: float) -> tuple[float, float]:
        across = (math.log(seconds) - first) / (last - first)
        return LEFT + (RIGHT - LEFT) * across, DOWN - (DOWN - UP) * (value - ticks[0]) / (
            ticks[-1] - ticks[0]
        )

    parts = [charts.grid(LEFT, RIGHT, place(times[0], tick)[1], f"{tick:g}") for tick in ticks]
    parts += [
        charts.note(place(seconds, ticks[0])[0], DOWN + 18, label, "middle")
        for label, seconds in TICKS.items()
        if first <= math.log(seconds) <= last
    ]
    parts.append(charts.note((LEFT + RIGHT) / 2, DOWN + 38, "time to fine-tune all layers", "middle"))
    parts.append(charts.note(LEFT - 44, UP - 8, quality, "start"))
    points = [place(row.finetune_seconds, row.score) for row in shown]
    heights = _beside(points, [row.entry.name for row in shown])
    for row, (x, y), height, low, high in zip(shown, points, heights, lows, highs, strict=True):
        kind = "pick" if row.entry.name == pick else ("" if row.frozen else "open")
        span = place(row.finetune_seconds, low)[1], place(row.finetune_seconds, high)[1]
        parts.append(_point((x, y), span, height, row.entry.name, kind))
    name = f"{quality} against the time to fine-tune, by network"
    return charts.picture(WIDTH, HEIGHT, name, parts, "trade")


def _point(at: tuple[float, float], span: tuple[float, float], height: float, name: str, kind: str) -> Markup:
    """Draw one candidate: its interval, its point, and its name at a height of its own."""
    x, y = at
    return Markup(
        '<line class="span {0}" x1="{1:.1f}" x2="{1:.1f}" y1="{2:.1f}" y2="{3:.1f}"/>'
        '<line class="leader" x1="{4:.1f}" x2="{5:.1f}" y1="{6:.1f}" y2="{7:.1f}"/>'
        '<circle class="dot {0}" cx="{1:.1f}" cy="{6:.1f}" r="5"/>'
        '<text class="{0}" x="{8:.1f}" y="{9:.1f}">{10}</text>'
    ).format(kind, x, *span, x + 6, x + GAP - 3, y, height, x + GAP, height + 4, name)


def _beside(points: Sequence[tuple[float, float]], names: Sequence[str]) -> list[float]:
    """Return a height for each name right of its point, as near to it as leaves the names apart, the highest first."""
    taken: list[tuple[float, float, float]] = []
    heights = [0.0] * len(points)
    for index in sorted(range(len(points)), key=lambda place: points[place][1]):
        x, y = points[index]
        end = x + GAP + LETTER * len(names[index])
        steps = [sign * step * LINE / 2 for step in range(2 * len(points) + 2) for sign in (1, -1)]
        heights[index] = next(
            y + step
            for step in steps
            if all(
                abs(y + step - other) >= LINE or end < left or x + GAP > right for left, right, other in taken
            )
        )
        taken.append((x + GAP, end, heights[index]))
    return heights
