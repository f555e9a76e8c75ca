"""The page: what was hidden and what was predicted, the loss, and the rank of the features, in one HTML file."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup
from PIL import Image

from headstart.core.registry import resolve
from headstart.pretraining.outcome import Outcome
from headstart.report.charts import curves
from headstart.report.frame import fill
from headstart.report.texts import safe

if TYPE_CHECKING:
    from headstart.methods.objectives import Seen

SIDE = 144
"""Side of a shown picture in pixels."""
MOST_LEFT_OUT = 20
STYLE = """
.counts { display: flex; flex-wrap: wrap; gap: 1.2rem 3rem; margin: 0 0 1.6rem; }
.counts dd { font-size: 2.6rem; line-height: 1.1; font-weight: 600; color: var(--accent); font-family: var(--serif); }
.triples { display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: 1.2rem 2rem; }
.triples figure { margin: 0; display: grid; grid-template-columns: repeat(3, 1fr); gap: 0.3rem; }
.triples img { display: block; width: 100%; image-rendering: pixelated; }
.triples figcaption { grid-column: 1 / -1; }
.read { line-height: 2; }
.read mark { background: none; color: var(--accent); font-weight: 600; }
.read mark.wrong { color: inherit; font-weight: 600; }
.read .guess { color: var(--miss); }
"""


@dataclass(frozen=True)
class Picture:
    """Three pictures as data URIs."""

    original: str
    hidden: str
    predicted: str


@dataclass(frozen=True)
class Word:
    """A word of a text: hidden or not, and what was predicted in its place."""

    text: str
    is_hidden: bool = False
    guess: str = ""

    @property
    def is_right(self) -> bool:
        """Tell whether it was predicted."""
        return self.guess == self.text


def render(outcome: Outcome, seen: Sequence[Seen]) -> str:
    """Return the page."""
    texts = [words_of(item) for item in seen if item.words]
    hidden = [word for text in texts for word in text if word.is_hidden]
    return fill(
        "pretrain.html",
        style=STYLE,
        outcome=outcome,
        title=safe(outcome.data),
        pictures=[_picture(item) for item in seen if item.original is not None],
        texts=texts,
        num_right=sum(word.is_right for word in hidden),
        num_hidden=len(hidden),
        loss=loss_curve(outcome),
        rank=rank_curve(outcome),
        neighbours=neighbour_curve(outcome),
        nouns=resolve("modality", outcome.modality).NOUN,
        left_out=[(safe(name), safe(why)) for name, why in list(outcome.left_out.items())[:MOST_LEFT_OUT]],
    )


def loss_curve(outcome: Outcome) -> Markup:
    """Draw the loss on training and held-out items."""
    held = [(row["epoch"], row["validation_loss"]) for row in outcome.history]
    lines = {
        "training": [(row["epoch"], row["train_loss"]) for row in outcome.history],
        "held out": [(0.0, outcome.start_loss), *held],
    }
    return curves(lines, heading="loss")


def rank_curve(outcome: Outcome) -> Markup:
    """Draw the rank of the features."""
    later = [(row["epoch"], row["rank"]) for row in outcome.history]
    return curves({"rank": [(0.0, outcome.start_rank), *later]}, heading="rank of the features")


def neighbour_curve(outcome: Outcome) -> Markup:
    """Draw how often the nearest neighbours of an item have its label; nothing without labels."""
    if outcome.start_neighbours is None:
        return Markup("")
    later = [(row["epoch"], row["neighbours"]) for row in outcome.history if "neighbours" in row]
    return curves({"neighbours": [(0.0, outcome.start_neighbours), *later]}, heading="accuracy of neighbours")


def words_of(item: Seen) -> list[Word]:
    """Return the words of a text with those that were hidden."""
    guesses, truth = dict(item.guesses), dict(item.truth)
    return [
        Word(shown(word), place in truth, shown(guesses.get(place, "")))
        for place, word in enumerate(item.words)
    ]


def shown(token: str) -> str:
    """Return a token as it is read: without its tokenizer's mark of a blank before it; a blank alone by its sign."""
    plain = token.replace("\u0120", " ").replace("\u2581", " ").replace("\u010a", " ").strip()
    return safe(plain) if plain or not token else "\u2423"


def _picture(item: Seen) -> Picture:
    """Draw one item."""
    parts = (item.original, item.hidden, item.predicted)
    return Picture(*(_uri(part) for part in parts if part is not None))


def _uri(pixels: np.ndarray) -> str:
    """Return pixels [H, W, C] as an embedded PNG, small ones enlarged; of other than three channels, their mean."""
    if pixels.shape[2] != 3:
        pixels = pixels.mean(2).round().astype(np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    if max(picture.size) > SIDE:
        picture.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
