"""Curves over labels or seconds on a logarithmic scale, with bands, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from headstart.report.charts import apart, grid, note, picture, ticks

WIDTH, HEIGHT = 660, 330
LEFT, RIGHT, UP, DOWN = 52, 470, 30, 270
GAP = 15
"""Least distance between two names, in pixels."""


@dataclass(frozen=True)
class Line:
    """A curve: its name (none: not named), its CSS class, its points, and the band [low, high] at each point."""

    name: str
    kind: str
    points: tuple[tuple[float, float], ...]
    band: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class _Axes:
    """Where values lie on the sheet."""

    first: float
    last: float
    ticks: tuple[float, ...]

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return the pixels of a point; what lies below the sheet stands on its edge."""
        across = (math.log(max(x, 1e-9)) - self.first) / (self.last - self.first)
        low, high = self.ticks[0], self.ticks[-1]
        return LEFT + (RIGHT - LEFT) * across, DOWN - (DOWN - UP) * (min(max(y, low), high) - low) / (
            high - low
        )


def lines(drawn: Sequence[Line], *, across: str, up: str, targets: Sequence[float] = ()) -> Markup:
    """Draw curves; `across` and `up` name the axes, `targets` are scores that are marked."""
    named = [line for line in drawn if line.points]
    if not named:
        return Markup("")
    ys = [
        y
        for line in named
        if line.name
        for pair in (*line.band, *((y, y) for _, y in line.points))
        for y in pair
    ]
    xs = [x for line in named for x, _ in line.points]
    marks = tuple(ticks(min(ys), max(ys), most=5, least=0.01))
    margin = 0.15 if max(xs) > min(xs) else 1.0
    axes = _Axes(math.log(max(min(xs), 1e-9)) - margin, math.log(max(xs)) + margin, marks)
    parts = [
        *_frame(axes, xs, across, up),
        *(_target(axes, y) for y in targets if marks[0] <= y <= marks[-1]),
    ]
    parts += [_band(axes, line) for line in named if line.band]
    parts += [_curve(axes, line) for line in named]
    parts += _names(axes, [line for line in named if line.name])
    return picture(WIDTH, HEIGHT, f"{up} over {across}", parts, "proof")


def _frame(axes: _Axes, xs: Sequence[float], across: str, up: str) -> list[Markup]:
    """Draw the lines of round scores, the marks of the other axis, and what both are."""
    parts = [grid(LEFT, RIGHT, axes.place(xs[0], tick)[1], f"{tick:g}") for tick in axes.ticks]
    low, high = math.exp(axes.first), math.exp(axes.last)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 300 else (1, 3)
    marks = [step * 10.0**power for power in decades for step in steps]
    parts.extend(
        note(axes.place(mark, axes.ticks[0])[0], DOWN + 18, f"{mark:,g}", "middle")
        for mark in marks
        if low <= mark <= high
    )
    parts.append(note((LEFT + RIGHT) / 2, DOWN + 40, across, "middle"))
    parts.append(note(LEFT - 40, UP - 14, up, "start"))
    return parts


def _target(axes: _Axes, score: float) -> Markup:
    """Mark a score."""
    y = axes.place(1.0, score)[1]
    return Markup('<line class="target" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(LEFT, RIGHT, y, y)


def _band(axes: _Axes, line: Line) -> Markup:
    """Draw the band of a curve; around a lone point it is a stroke."""
    ends = [
        (axes.place(x, low), axes.place(x, high))
        for (x, _), (low, high) in zip(line.points, line.band, strict=True)
    ]
    if len(ends) == 1:
        (x, low), (_, high) = ends[0]
        return Markup('<rect class="band {}" x="{:.1f}" width="8" y="{:.1f}" height="{:.1f}"/>').format(
            line.kind, x - 4, high, max(1.0, low - high)
        )
    outline = [low for low, _ in ends] + [high for _, high in reversed(ends)]
    return Markup('<polygon class="band {}" points="{}"/>').format(line.kind, _path(outline))


def _curve(axes: _Axes, line: Line) -> Markup:
    """Draw a curve; one that is named has a dot at each point."""
    places = [axes.place(*point) for point in line.points]
    drawn = Markup('<polyline class="{}" points="{}"/>').format(line.kind, _path(places))
    if not line.name:
        return drawn
    dots = [
        Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="3"><title>{}: {:.3f} at {:,.4g}</title></circle>')
        .format(line.kind, x, y, line.name, score, at)
        for (x, y), (at, score) in zip(places, line.points, strict=True)
    ]  # fmt: skip
    return drawn + Markup("").join(dots)


def _names(axes: _Axes, named: Sequence[Line]) -> list[Markup]:
    """Write the curves' names right of the sheet, at least a line apart."""
    heights = apart([axes.place(*line.points[-1])[1] for line in named], gap=GAP)
    return [
        Markup('<circle class="{}" cx="{}" cy="{:.1f}" r="3"/><text x="{}" y="{:.1f}">{}</text>').format(
            line.kind, RIGHT + 12, height, RIGHT + 20, height + 4, line.name
        )
        for line, height in zip(named, heights, strict=True)
    ]


def _path(places: Sequence[tuple[float, float]]) -> str:
    """Write points for SVG."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
