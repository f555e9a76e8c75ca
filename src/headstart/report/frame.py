"""The frame of every page: one HTML file with its style inside, which loads nothing and runs nothing."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from headstart.report import metrics, words
from headstart.report.document import versions


def fill(template: str, *, title: str, style: str = "", **values: Any) -> str:
    """Return a page: `template` of `report/templates`, filled with values, `style` added to the style of all pages.

    Values are untrusted and shown escaped; a content security policy allows the page its own style sheet and embedded
    pictures, and nothing else.
    """
    common = files("headstart.report").joinpath("templates/report.css").read_text(encoding="utf-8")
    sheet = Markup(common + style)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("headstart.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["kind_of"] = lambda name: metrics.metric(name).kind
    return environment.get_template(template).render(
        title=title,
        style=sheet,
        style_hash=base64.b64encode(hashlib.sha256(sheet.encode()).digest()).decode(),
        versions=versions(),
        today=datetime.now(UTC).strftime("%d %B %Y").lstrip("0"),
        metrics=metrics,
        words=words,
        **values,
    )
