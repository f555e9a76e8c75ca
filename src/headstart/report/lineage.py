"""The transfer graph: the links of a chain from left to right, what each gave to the next, and what was kept."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from headstart.core.lineage import Kept, Lineage, Link, Way
from headstart.report.charts import apart, grid, note, picture, ticks

BOX, GAP, HEIGHT = 190, 96, 118
UP = 34
LETTERS = 28
"""Characters that fit into a box."""


STYLE = """
.lineage { width: 100%; }
.lineage .link { fill: var(--sheet); stroke: var(--rule); }
.lineage .link.ours { stroke: var(--accent); stroke-width: 1.5; }
.lineage .name { font-weight: 600; font-size: 13px; }
.lineage .score { fill: var(--accent); }
.lineage .gave { stroke: var(--accent); stroke-width: 1.5; }
.lineage .tip { fill: var(--accent); }
.lineage .kept { fill: none; stroke: var(--miss); stroke-dasharray: 4 3; }
.curves .floor { stroke: var(--miss); stroke-dasharray: 4 3; }
"""
"""Added to the style of a page that shows a chain."""


def graph(lineage: Lineage) -> Markup:
    """Draw the links with their data and scores; arrows say the share of the network's numbers and the classes known
    by name that each began with, arcs back what is left of an earlier task now.
    """
    links, kept = lineage.links, [row for row in lineage.kept if not row.why_not]
    count = len(links)
    width = count * BOX + (count - 1) * GAP + 8
    base = UP + HEIGHT
    parts: list[Markup] = []
    for place, link in enumerate(links):
        left = 4 + place * (BOX + GAP)
        parts.append(_box(link, left, is_last=place == count - 1))
        if place:
            parts.append(_arrow(link, left - GAP, left))
    middle_of = {link.name: 4 + place * (BOX + GAP) + BOX / 2 for place, link in enumerate(links)}
    last = 4 + (count - 1) * (BOX + GAP) + BOX / 2
    for depth, row in enumerate(reversed(kept)):
        if row.name in middle_of:
            parts.append(_arc(row, middle_of[row.name], last, base, base + 30 + 30 * depth))
    height = base + 18 + 30 * len(kept) + 18
    return picture(width, height, "Transfer graph of the chain", parts, "lineage")


def _box(link: Link, left: float, *, is_last: bool) -> Markup:
    """Draw a link."""
    score = f"{link.score.name.replace('_', ' ')} {link.score.value:.3f}" if link.score else "no task yet"
    classes = f"{link.num_classes} classes" if link.num_classes else link.task
    lines = [
        (link.name, "name"),
        (f"{link.method}, {classes}" if link.task else link.method, ""),
        (score, "score"),
    ]
    if link.gain:
        sign = f"{link.gain.value:+.2f} [{link.gain.low:+.2f}, {link.gain.high:+.2f}]"
        lines.append((f"chain {sign}", ""))
    parts = [
        Markup('<rect class="link{}" x="{}" y="{}" width="{}" height="{}" rx="4"/>').format(
            " ours" if is_last else "", left, UP, BOX, HEIGHT
        )
    ]
    parts += [
        Markup('<text class="{}" x="{}" y="{}">{}</text>').format(
            kind, left + 12, UP + 26 + 24 * row, _short(text)
        )
        for row, (text, kind) in enumerate(lines)
    ]
    return Markup("").join(parts)


def _arrow(link: Link, start: float, end: float) -> Markup:
    """Draw what a link began with."""
    y = UP + HEIGHT / 2
    said = [f"{link.transferred:.0%} of numbers"]
    if link.classes_known:
        said.append(f"{link.classes_known} of {link.num_classes} classes")
    middle = (start + end) / 2
    lines = [
        note(middle, y - 10, said[0], "middle"),
        *(note(middle, y + 20, text, "middle") for text in said[1:]),
    ]
    return (
        Markup('<line class="gave" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(start + 4, end - 9, y, y)
        + Markup('<polygon class="tip" points="{},{} {},{} {},{}"/>').format(
            end - 3, y, end - 11, y - 5, end - 11, y + 5
        )
        + Markup("").join(lines)
    )


def _arc(row: Kept, start: float, end: float, top: float, low: float) -> Markup:
    """Draw what is left of an earlier task: from the last link back to it."""
    share = f"{row.share.value:.0%} kept" if row.share else "nothing to keep"
    interval = f" [{row.share.low:.0%}, {row.share.high:.0%}]" if row.share else ""
    return Markup('<polyline class="kept" points="{},{} {},{} {},{} {},{}"/>').format(
        end, top + 2, end, low, start, low, start, top + 2
    ) + note((start + end) / 2, low - 6, f"{row.name}: {share}{interval}", "middle")


def _short(text: str) -> str:
    """Cut what would not fit."""
    return text if len(text) <= LETTERS else text[: LETTERS - 1] + "\N{HORIZONTAL ELLIPSIS}"


def way(points: Sequence[Way], *, floor: float, alpha: float) -> Markup:
    """Draw the curve between start and end: quality on the new task, shares kept of earlier ones, floor and choice."""
    if len(points) < 2:
        return Markup("")
    lines = {"new task": [(one.alpha, one.quality) for one in points]}
    for name in points[0].kept:
        lines[f"{name} kept"] = [(one.alpha, one.kept[name]) for one in points]
    values = [value for line in lines.values() for _, value in line] + [floor]
    marks = ticks(min(values), max(values))
    left, right, up, down = 44, 300, 34, 196
    low, high = marks[0], marks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        return left + (right - left) * x, down - (down - up) * (y - low) / (high - low)

    parts = [Markup('<text class="heading" x="0" y="14">{}</text>').format("Between start and end")]
    parts += [grid(left, right, place(0, tick)[1], f"{tick:g}") for tick in marks]
    parts += [note(place(at, low)[0], down + 18, name, "middle") for at, name in ((0, "start"), (1, "end"))]
    level, chosen = place(0, floor)[1], place(alpha, low)[0]
    parts.append(
        Markup('<line class="floor" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
            left, right, level, level
        )
    )
    parts.append(
        Markup('<line class="mark" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>').format(
            chosen, chosen, up - 4, down
        )
        + note(chosen, up - 8, f"chosen, {alpha:.0%}", "middle")
    )
    ends = apart([place(*line[-1])[1] for line in lines.values()])
    for index, ((name, line), end) in enumerate(zip(lines.items(), ends, strict=True)):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*pair) for pair in line))
        parts.append(
            Markup('<polyline class="line line{}" points="{}"/><text x="{}" y="{:.1f}">{}</text>').format(
                index % 2, path, right + 8, end + 4, _short(name)
            )
        )
    return picture(420, 220, "Scores between the weights at the start and at the end", parts, "curves")
