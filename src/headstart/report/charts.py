"""Charts as small inline SVG: text stays text, colours come from the page's style, nothing is loaded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from markupsafe import Markup

from headstart.evaluation import wilson

if TYPE_CHECKING:
    from headstart.evaluation import Bin, Evaluation

MAX_CLASSES = 50
"""Largest confusion matrix that is drawn whole; of more classes, the most mistaken ones are."""
MAX_POINTS = 1_500
"""Most points of a scatter plot; of more, every second, third, ... by size is drawn."""
_CELLS = ((6, 50, "large"), (12, 40, "large"), (25, 25, "medium"), (MAX_CLASSES, 16, "small"))
"""Up to how many classes a cell of the confusion matrix is how wide (px), and its CSS class."""
_LETTER = 6.3  # Width of a letter at 11 px, on average.


def whisker(
    value: float, low: float, high: float, *, ends: tuple[float, float] = (0, 1), kind: str = ""
) -> Markup:
    """Draw a dot with its interval on a line, as wide as its place; `kind` is a CSS class."""
    first, last = ends
    x, start, end = (100 * min(max((at - first) / (last - first), 0), 1) for at in (value, low, high))
    return Markup(
        '<svg class="whisker {}" width="100%" height="16" aria-hidden="true">'
        '<line class="rail" x1="0" x2="100%" y1="8" y2="8"/>'
        '<line class="span" x1="{:.2f}%" x2="{:.2f}%" y1="8" y2="8"/>'
        '<circle class="dot" cx="{:.2f}%" cy="8" r="4.5"/></svg>'
    ).format(kind, start, end, x)


def span_of(lows: Iterable[float], highs: Iterable[float]) -> tuple[float, float]:
    """Return round ends, multiples of 0.05, at most 1, and at least 0 unless an interval lies below."""
    low, high = min(lows), max(highs)
    least = 0.0 if low >= 0 else -1.0
    return max(least, math.floor(20 * low - 1e-9) / 20), max(
        min(1, math.ceil(20 * high + 1e-9) / 20), max(least, math.floor(20 * low - 1e-9) / 20) + 0.05
    )


def bar(value: float, low: float, high: float, *, kind: str = "") -> Markup:
    """Draw a share as a bar with its interval, as wide as its place."""
    value, low, high = (min(max(at, 0.0), 1.0) for at in (value, low, high))
    return Markup(
        '<svg class="bar {}" width="100%" height="26" aria-hidden="true">'
        '<rect class="rail" width="100%" height="26" rx="2"/>'
        '<rect class="fill" width="{:.2f}%" height="26" rx="2"/>'
        '<line class="span" x1="{:.2f}%" x2="{:.2f}%" y1="13" y2="13"/></svg>'
    ).format(kind, 100 * value, 100 * low, 100 * high)


def stack(shares: Mapping[str, float]) -> Markup:
    """Draw shares that sum to 1 side by side; each name is a CSS class too."""
    parts, start = [], 0.0
    for name, share in shares.items():
        parts.append(
            Markup('<rect class="{}" x="{:.2f}%" width="{:.2f}%" height="14"/>').format(
                name, 100 * start, 100 * share
            )
        )
        start += share
    return Markup('<svg class="stack" width="100%" height="14" aria-hidden="true">{}</svg>').format(
        Markup("").join(parts)
    )


def curves(
    lines: Mapping[str, Sequence[tuple[float, float]]], *, heading: str, mark: float | None = None
) -> Markup:
    """Draw lines of (x, y) points over epochs, named at their ends; `mark` is the epoch that was kept."""
    known = {name: [pair for pair in pairs if math.isfinite(pair[1])] for name, pairs in lines.items()}
    known = {name: pairs for name, pairs in known.items() if pairs}
    xs = [x for pairs in known.values() for x, _ in pairs]
    ys = [y for pairs in known.values() for _, y in pairs]
    if not xs:
        return Markup("")
    left, right, up, down = 44, 330, 34, 196
    marks = ticks(min(ys), max(ys))
    first, last, low, high = min(xs), max(max(xs), min(xs) + 1), marks[0], marks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        return left + (right - left) * (x - first) / (last - first), down - (down - up) * (y - low) / (
            high - low
        )

    parts = [Markup('<text class="heading" x="0" y="14">{}</text>').format(heading)]
    parts.extend(grid(left, right, place(first, tick)[1], f"{tick:g}") for tick in marks)
    parts.extend(note(place(x, low)[0], down + 18, f"{x:g}", "middle") for x in sorted({first, last}))
    parts.append(note((left + right) / 2, down + 18, "epoch", "middle"))
    if mark is not None:
        x = place(mark, low)[0]
        parts.append(
            Markup('<line class="mark" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>').format(x, x, up - 4, down)
            + note(x, up - 8, "kept", "middle")
        )
    ends = apart([place(*pairs[-1])[1] for pairs in known.values()])
    for index, ((name, pairs), end) in enumerate(zip(known.items(), ends, strict=True)):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*pair) for pair in pairs))
        x, y = place(*pairs[-1])
        parts.append(
            Markup('<polyline class="line line{}" points="{}"/>'
                   '<circle class="end line{}" cx="{:.1f}" cy="{:.1f}" r="3"/>')
            .format(index, path, index, x, y)
            + Markup('<text x="{:.1f}" y="{:.1f}">{}</text>').format(x + 8, end + 4, name)
        )  # fmt: skip
    return picture(420, 220, f"{heading} by epoch", parts, "curves")


def reliability(bins: Sequence[Bin], *, many: str = "pictures") -> Markup:
    """Draw how often the model is right against how sure it says it is, with Wilson intervals and counts of `many`."""
    left, right, up, down, base = 44, 344, 12, 312, 372
    total = sum(item.n for item in bins)

    def place(x: float, y: float) -> tuple[float, float]:
        return left + (right - left) * x, down - (down - up) * y

    parts: list[Markup] = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        x, y = place(tick, tick)
        parts.append(grid(left, right, y, f"{100 * tick:g}%"))
        parts.append(note(x, base + 16, f"{100 * tick:g}%", "middle"))
    parts.append(
        Markup('<line class="ideal" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(left, down, right, up)
    )
    tallest = max(item.n for item in bins)
    points: list[str] = []
    for item in bins:
        x, y = place(item.probability, item.accuracy)
        low, high = (place(0, bound)[1] for bound in wilson(round(item.accuracy * item.n), item.n))
        points.append(f"{x:.1f},{y:.1f}")
        start, end = place(item.low, 0)[0], place(item.high, 0)[0]
        height = 40 * item.n / tallest
        parts.append(
            Markup(
                '<line class="span" x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}"/>'
                '<circle class="dot" cx="{0:.1f}" cy="{3:.1f}" r="{4:.1f}"><title>{5} {12}: '
                "says {6:.0f}%, right {7:.0f}%</title></circle>"
                '<rect class="count" x="{8:.1f}" width="{9:.1f}" y="{10:.1f}" height="{11:.1f}"/>'
            ).format(
                x, low, high, y, 3 + 5 * math.sqrt(item.n / total), item.n, 100 * item.probability,
                100 * item.accuracy, start + 1, end - start - 2, base - height, height, many,
            )
        )  # fmt: skip
    parts.append(Markup('<polyline class="line line0" points="{}"/>').format(" ".join(points)))
    parts.append(
        Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(left, right, base, base)
    )
    parts.append(note((left + right) / 2, base + 34, f"stated probability, and number of {many}", "middle"))
    parts.append(_turned(12, (up + down) / 2, "share right", -90, "note", "middle"))
    return picture(360, 412, "Reliability: share right against stated probability", parts, "reliability")


def confusion(evaluation: Evaluation) -> Markup:
    """Draw the confusion matrix, rows the truth, shaded by the share of the row; 2 to 50 classes."""
    chosen = most_mistaken(evaluation)
    labels = [evaluation.labels[index] for index in chosen]
    cell, kind = next((size, kind) for most, size, kind in _CELLS if len(labels) <= most)
    margin = 30 + _LETTER * min(max(len(label) for label in labels), 20)
    slanted, side = kind == "large", cell * len(labels)
    top = 26 + (0.8 if slanted else 1) * (margin - 24)
    parts = [_sheet(margin, top, side)]
    for place, label in enumerate(labels):
        middle = cell * (place + 0.5)
        parts.append(_turned(margin - 8, top + middle + 4, label, 0, "name", "end"))
        parts.append(_turned(margin + middle + 3, top - 7, label, -50 if slanted else -90, "name", "start"))
    for row, truth in enumerate(chosen):
        counts = evaluation.confusion[truth]
        for column, said in enumerate(chosen):
            if counts[said]:
                words = f"{counts[said]} of {sum(counts)} {labels[row]} called {labels[column]}"
                share, hit = counts[said] / sum(counts), row == column
                parts.append(
                    _cell(margin + cell * column, top + cell * row, cell, (counts[said], share, hit), words)
                )
    parts.append(_turned(11, top + side / 2, "truth", -90, "note", "middle"))
    parts.append(note(margin + side / 2, top + side + 18, "predicted", "middle"))
    slack = max(8.0, 0.66 * (margin - 30) - cell / 2) if slanted else 8
    size = (margin + side + slack, top + side + 26)
    return picture(*size, "Confusion matrix", parts, f"confusion {kind}", fixed=True)


def scatter(pairs: Sequence[tuple[float, float]]) -> Markup:
    """Draw predicted numbers against true ones, (truth, predicted), with the line on which both agree."""
    left, right, up, down = 64, 384, 12, 332
    values = [value for pair in pairs for value in pair]
    marks = ticks(min(values), max(values))
    low, high = marks[0], marks[-1]

    def place(value: float) -> float:
        return (value - low) / (high - low)

    parts: list[Markup] = []
    for tick in marks:
        x, y = left + (right - left) * place(tick), down - (down - up) * place(tick)
        parts.append(grid(left, right, y, f"{tick:,.6g}"))
        parts.append(note(x, down + 18, f"{tick:,.6g}", "middle"))
    parts.append(
        Markup('<line class="ideal" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(left, down, right, up)
    )
    step = -(-len(pairs) // MAX_POINTS)
    for truth, said in sorted(pairs)[::step]:
        x, y = left + (right - left) * place(truth), down - (down - up) * place(said)
        parts.append(Markup('<circle class="point" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(x, y))
    parts.append(note((left + right) / 2, down + 36, "truth", "middle"))
    parts.append(_turned(12, (up + down) / 2, "predicted", -90, "note", "middle"))
    return picture(400, 376, "Predicted against true numbers", parts, "scatter")


def most_mistaken(evaluation: Evaluation) -> list[int]:
    """Return the classes to draw, in their order: all of up to 50, else the 50 with the most mistakes."""
    wrong = [0] * len(evaluation.labels)
    for row, counts in enumerate(evaluation.confusion):
        for column, number in enumerate(counts):
            if row != column:
                wrong[row] += number
                wrong[column] += number
    order = sorted(range(len(wrong)), key=lambda index: -wrong[index])
    return sorted(order[:MAX_CLASSES])


def _sheet(left: float, top: float, side: float) -> Markup:
    """Draw the ground of a matrix."""
    return Markup('<rect class="sheet" x="{0:.1f}" y="{1:.1f}" width="{2}" height="{2}"/>').format(
        left, top, side
    )


def _cell(x: float, y: float, size: float, content: tuple[int, float, bool], words: str) -> Markup:
    """Draw one cell: its number, shaded by the share of the row, right or wrong; `words` are its tooltip."""
    number, share, hit = content
    kind = ("hit" if hit else "miss") + (" strong" if share > 0.5 else "")
    return Markup(
        '<rect class="{0}" x="{1:.1f}" y="{2:.1f}" width="{3}" height="{3}" fill-opacity="{4:.2f}">'
        '<title>{5}</title></rect><text class="{0}" x="{6:.1f}" y="{7:.1f}" dy="0.36em" text-anchor="middle">{8}</text>'
    ).format(kind, x + 0.5, y + 0.5, size - 1, 0.1 + 0.9 * share, words, x + size / 2, y + size / 2, number)


def picture(
    width: float, height: float, name: str, parts: Sequence[Markup], kind: str, *, fixed: bool = False
) -> Markup:
    """Wrap parts into one SVG; a fixed one keeps its size on narrow screens and is scrolled."""
    size = Markup(' width="{:.0f}" height="{:.0f}"').format(width, height) if fixed else ""
    return Markup(
        '<svg class="chart {}" viewBox="0 0 {:.0f} {:.0f}"{} role="img" aria-label="{}">{}</svg>'
    ).format(kind, width, height, size, name, Markup("").join(parts))


def grid(left: float, right: float, y: float, name: str) -> Markup:
    """Draw a line across, named at its left end."""
    line = Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(left, right, y, y)
    return line + note(left - 8, y + 4, name, "end")


def note(x: float, y: float, words: str, anchor: str) -> Markup:
    """Write a small note."""
    return Markup('<text class="note" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        x, y, anchor, words
    )


def _turned(x: float, y: float, words: str, angle: float, kind: str, anchor: str) -> Markup:
    """Write words at an angle (degrees), cut to 20 letters; the whole is its tooltip."""
    cut = words if len(words) <= 20 else words[:19] + "\N{HORIZONTAL ELLIPSIS}"
    return Markup(
        '<text class="{}" transform="translate({:.1f} {:.1f}) rotate({})" text-anchor="{}">{}'
        "<title>{}</title></text>"
    ).format(kind, x, y, angle, anchor, cut, words)


def ticks(low: float, high: float, *, most: int = 4, least: float = 1e-3) -> list[float]:
    """Return up to `most` round steps that hold low and high, which count as `least` apart where they are nearer."""
    spread = max(high - low, least)
    step = 10 ** math.floor(math.log10(spread))
    step *= next(factor for factor in (0.2, 0.5, 1, 2, 5, 10) if spread / (step * factor) <= most)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, max(last, first + 1) + 1)]


def apart(heights: Sequence[float], gap: float = 14) -> list[float]:
    """Move label heights at least `gap` apart, keeping their order."""
    moved = list(heights)
    order = sorted(range(len(moved)), key=lambda index: moved[index])
    for above, below in pairwise(order):
        moved[below] = max(moved[below], moved[above] + gap)
    return moved
