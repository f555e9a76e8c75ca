"""The texts worth a look: shortened around what matters, with tinted words or marked entities."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.modalities.text import read
from headstart.modalities.text import words as words_of
from headstart.report.attribution import word_weights
from headstart.report.shelves import Shelf, explained_name, shelves_of
from headstart.report.spans import Place, places
from headstart.report.words import labels

if TYPE_CHECKING:
    from headstart.model import Model
    from headstart.result import Predicted, Result

SHORT = 360
"""Characters of a text that are shown at once; the rest opens on a click."""
LONGEST = 20_000
"""Characters of a whole text that the page holds."""
NUM_COLOURS, NUM_LEVELS = 12, 4
_FAINT = 0.2
"""Words with less than this share of the heaviest word's weight stay without a tint."""
_BIDI_CONTROLS = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
_JOINERS = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"
_CONTROLS: dict[int, str] = {
    **{code: chr(0x2400 + code) for code in range(0x20) if code not in (9, 10, 13)},
    **{code: f"\N{LEFT WHITE SQUARE BRACKET}U+{code:04X}\N{RIGHT WHITE SQUARE BRACKET}"
       for code in (*range(0x80, 0xA0), *_BIDI_CONTROLS, 0xFFFE, 0xFFFF)},
    **dict.fromkeys(range(0xD800, 0xE000), "\N{REPLACEMENT CHARACTER}"),
    0x7F: "\N{SYMBOL FOR DELETE}",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Run:
    """A stretch of text with the CSS classes that it is shown in; `tag` is what stands beside it."""

    text: str
    kind: str = ""
    tag: str = ""


@dataclass(frozen=True, slots=True)
class ShownText:
    """One text of the report: its excerpt, and the whole where that is longer (up to a limit)."""

    item: Predicted
    runs: tuple[Run, ...]
    whole: tuple[Run, ...]
    num_characters: int
    explained: str = ""
    """The label that tinted words speak for, where that is not plain."""


@dataclass(frozen=True, slots=True)
class TextAlbum:
    """Shelves of texts, why word weights or texts are missing, and the entity types by colour."""

    shelves: tuple[Shelf, ...] = ()
    note: str = ""
    is_tinted: bool = False
    types: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class _Read:
    """A text as a string, where its words begin and end, and how its encoder is given it."""

    text: str
    bounds: tuple[tuple[int, int], ...]
    raw: Any


def text_album(result: Result, model: Model, inputs: Mapping[str, Any]) -> TextAlbum:
    """Choose texts and draw them; empty, with a note, where none are given."""
    known = [item for item in result.predictions if item.id in inputs]
    shelves = shelves_of(result, known, with_pairs=result.evaluation.task == "classification")
    if not shelves:
        return TextAlbum(note="The test texts were not at hand when this report was written.")
    types = {name: place % NUM_COLOURS for place, name in enumerate(labels(result.evaluation))}
    drawn: dict[str, tuple[ShownText, str]] = {}
    for item in (item for shelf in shelves for item in shelf.items):
        if item.id not in drawn:
            opened = _open(inputs[item.id])
            is_tagged = result.evaluation.task == "tagging"
            drawn[item.id] = (_marked(item, opened, types), "") if is_tagged else _tinted(item, opened, model)
    reasons = sorted({reason for _, reason in drawn.values() if reason})
    note = " ".join(f"{reason[0].upper()}{reason[1:]}." for reason in reasons)
    filled = tuple(
        replace(shelf, items=tuple(drawn[item.id][0] for item in shelf.items)) for shelf in shelves
    )
    is_tinted = any(run.kind for shown, _ in drawn.values() for run in shown.runs)
    if result.evaluation.task == "tagging":
        return TextAlbum(filled, note, types=types)
    return TextAlbum(filled, note, is_tinted=is_tinted)


def safe(text: str) -> str:
    """Return a text in which control characters are seen and do nothing: a bell as its symbol, U+202E by its number.

    Overrides of the writing direction would turn what stands behind them; marks and joiners that scripts need stay.
    """
    return text.translate(_CONTROLS)


def _open(raw: Any) -> _Read:
    """Read a text and find its words; of words alone, join them with spaces."""
    found = read(raw)
    if isinstance(found, str):
        return _Read(found, tuple((start, end) for _, start, end in words_of(found)), found)
    ends = np.cumsum([len(word) + 1 for word in found]).tolist()
    return _Read(
        " ".join(found), tuple((end - 1 - len(word), end - 1) for word, end in zip(found, ends, strict=True)), found
    )  # fmt: skip


def _tinted(item: Predicted, opened: _Read, model: Model) -> tuple[ShownText, str]:
    """Tint the words of a text by what they did to the answer; also say why not, if so."""
    words = [opened.text[start:end] for start, end in opened.bounds]
    name = explained_name(item)
    column = model.task.labels.index(name) if name else 0
    found = word_weights(model, words, opened.raw, column=column)
    if found.weights is None:
        return _shown(item, opened, [Run("")] * len(words), np.zeros(len(words))), found.reason
    sizes = np.abs(found.weights)
    shares = sizes / max(float(sizes.max(initial=0)), 1e-12)
    levels = np.where(shares < _FAINT, 0, np.ceil(shares * NUM_LEVELS)).astype(int)
    kinds = [
        Run("", f"{'for' if weight > 0 else 'con'} w{level}" if level else "")
        for weight, level in zip(found.weights, levels, strict=True)
    ]
    explained = name if isinstance(item.label, tuple) else ""
    return replace(_shown(item, opened, kinds, sizes), explained=explained), ""


def _marked(item: Predicted, opened: _Read, types: Mapping[str, int]) -> ShownText:
    """Mark the entities of a text: coloured where the model says so, underlined where it is true."""
    kinds = [Run("")] * len(opened.bounds)
    matter = np.zeros(len(kinds))
    for place in places(item):
        matter[place.start : place.end] = 0.1 if place.kind == "right" else 1.0
        for word in range(place.start, min(place.end, len(kinds))):
            tag = _tag(place, opened) if word == min(place.end, len(kinds)) - 1 else ""
            kinds[word] = Run("", _entity_kind(word, place, types), tag)
    return _shown(item, opened, kinds, matter)


def _entity_kind(word: int, place: Place, types: Mapping[str, int]) -> str:
    """Return the CSS classes of a word of an entity."""
    said = next((span for span in place.said if span[0] <= word < span[1]), None)
    true = next((span for span in place.true if span[0] <= word < span[1]), None)
    name = said[2] if said else true[2] if true else ""
    classes = ["entity", f"t{types.get(name, 0)}", "said" if said else "", "true" if true else ""]
    return " ".join(part for part in (*classes, place.kind) if part)


def _tag(place: Place, opened: _Read) -> str:
    """Say what stands beside an entity: its type, and what is wrong with it."""
    said, true = (", ".join(dict.fromkeys(span[2] for span in spans)) for spans in (place.said, place.true))
    if place.kind == "edges":
        true = "; ".join(
            f"\N{LEFT DOUBLE QUOTATION MARK}{opened.text[opened.bounds[start][0] : opened.bounds[end - 1][1]]}"
            f"\N{RIGHT DOUBLE QUOTATION MARK} {name}"
            for start, end, name in place.true
        )
    return safe(
        {
            "right": said,
            "type": f"{said}, is {true}",
            "edges": f"{said}, is {true}",
            "missed": f"missed: {true}",
            "spurious": f"{said}, is none",
        }[place.kind]
    )


def _shown(item: Predicted, opened: _Read, kinds: Sequence[Run], matter: np.ndarray) -> ShownText:
    """Cut a text to the stretch of words that matters most, and keep the whole beside it."""
    text = opened.text
    bounds = [(snap(text, start), snap(text, end)) for start, end in opened.bounds]
    start, end = _stretch(text, bounds, matter)
    is_whole = start == 0 and end == len(text)
    last = snap(text, min(len(text), LONGEST))
    return ShownText(
        item,
        tuple(_runs(text, bounds, kinds, (start, end))),
        () if is_whole else tuple(_runs(text, bounds, kinds, (0, last))),
        len(text),
    )


def _runs(
    text: str, bounds: Sequence[tuple[int, int]], kinds: Sequence[Run], part: tuple[int, int]
) -> list[Run]:
    """Divide a part of a text into runs of one kind; what lies between two words of one entity belongs to it."""
    first, last = part
    runs: list[Run] = [Run("\N{HORIZONTAL ELLIPSIS} ")] if first else []
    at, before = first, Run("")
    for (start, end), run in zip(bounds, kinds, strict=True):
        start, end = max(start, first), min(end, last)
        if start >= end:
            continue
        joins = run.kind.startswith("entity") and before.kind == run.kind and not before.tag and start > at
        if start > at:
            runs.append(Run(safe(text[at:start]), run.kind if joins else ""))
        runs.append(Run(safe(text[start:end]), run.kind, run.tag))
        at, before = end, run
    if at < last:
        runs.append(Run(safe(text[at:last])))
    if last < len(text):
        runs.append(Run(" \N{HORIZONTAL ELLIPSIS}"))
    return _joined(runs)


def _joined(runs: Sequence[Run]) -> list[Run]:
    """Join neighbours of one kind, as far as no tag stands between them."""
    joined: list[Run] = []
    for run in runs:
        if (
            joined
            and joined[-1].kind == run.kind
            and not joined[-1].tag
            and not run.kind.startswith(("for", "con"))
        ):
            joined[-1] = Run(joined[-1].text + run.text, run.kind, run.tag)
        else:
            joined.append(run)
    return joined


def _stretch(text: str, bounds: Sequence[tuple[int, int]], matter: np.ndarray) -> tuple[int, int]:
    """Return where the stretch of at most SHORT characters begins and ends whose words matter most together."""
    if len(text) <= SHORT or not bounds:
        return 0, snap(text, min(len(text), SHORT))
    sums = np.concatenate([[0.0], np.cumsum(matter)])
    best, left, found = -1.0, 0, (0, 0)
    for right in range(len(bounds)):
        while bounds[right][1] - bounds[left][0] > SHORT and left < right:
            left += 1
        if sums[right + 1] - sums[left] > best + 1e-9:
            best, found = sums[right + 1] - sums[left], (left, right)
    left, right = found
    while right + 1 < len(bounds) and bounds[right + 1][1] - bounds[left][0] <= SHORT:
        right += 1
    start = bounds[left][0] if left else 0
    end = len(text) if right + 1 == len(bounds) else bounds[right][1]
    return start, min(end, snap(text, min(len(text), start + SHORT)))


def snap(text: str, at: int) -> int:
    """Move a cut forward until it divides no letter from its marks and no emoji from what it is joined to."""
    while 0 < at < len(text) and (
        unicodedata.category(text[at])[0] == "M"
        or text[at] in _JOINERS
        or text[at - 1] == _JOINERS[0]
        or 0x1F3FB <= ord(text[at]) <= 0x1F3FF
    ):
        at += 1
    return at
