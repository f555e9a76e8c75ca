"""The map of both sides in two dimensions, before and after, as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from headstart.adaptation.outcome import Point, Sketch
from headstart.report.charts import picture

SIDE, MARGIN = 340, 12
MOST_COLOURS = 8
"""Classes that have a mark of their own; further ones share the last."""


def draw_map(sketch: Sketch, labels: Sequence[str], *, name: str, like: Sketch | None = None) -> Markup:
    """Draw source items as hollow and target items as filled points, coloured by what the model calls these.

    `like` is a sketch whose scale is taken, so that two maps can be compared.
    """
    if not sketch.target:
        return Markup("")
    scale = like if like is not None and bool(like.source) == bool(sketch.source) else sketch
    points = np.array([*scale.source, *scale.target], float)
    low, high = np.quantile(points, 0.01, axis=0), np.quantile(points, 0.99, axis=0)
    reach = np.maximum(high - low, 1e-9)

    def place(point: Point) -> tuple[float, float]:
        share = np.clip((np.array(point) - low) / reach, -0.02, 1.02)
        x, y = MARGIN + (SIDE - 2 * MARGIN) * share
        return float(x), SIDE - float(y)

    parts = [Markup('<rect class="sheet" width="{0}" height="{0}" rx="3"/>').format(SIDE)]
    parts.extend(
        Markup('<circle class="from" cx="{:.1f}" cy="{:.1f}" r="2.4"/>').format(*place(point))
        for point in sketch.source
    )
    for point, answer in zip(sketch.target, sketch.answers, strict=True):
        parts.append(
            Markup('<circle class="to {}" cx="{:.1f}" cy="{:.1f}" r="2.6"><title>{}</title></circle>').format(
                colour(answer), *place(point), labels[answer]
            )
        )
    return picture(SIDE, SIDE, name, parts, "map")


def colour(answer: int) -> str:
    """Return the CSS class of a class id."""
    return f"k{min(answer, MOST_COLOURS - 1)}"
