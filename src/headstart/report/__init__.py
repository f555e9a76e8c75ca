"""One self-contained page about a result, the same numbers as JSON, and the model card."""

from headstart.report.card import card
from headstart.report.document import to_json
from headstart.report.page import render

__all__ = ["card", "render", "to_json"]
