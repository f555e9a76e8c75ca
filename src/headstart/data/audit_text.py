"""What only texts can have: guessed encodings, a mix of scripts, very short ones, entity types with few spans."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from headstart.core.types import Finding
from headstart.data.dataset import TableDataset, explain_items
from headstart.modalities import encodings
from headstart.modalities.text import SCRIPTS

_FEW_SPANS = 10
_SHORT = 3
_MANY_SHORT = 0.05
_OTHER_SCRIPT = 0.01
_SCRIPT_NAMES = {"CJK": "Han"}


def text_findings(dataset: TableDataset, rows: Sequence[int], facts: Mapping[int, Any]) -> Iterator[Finding]:
    """Yield what is noteworthy about texts."""
    yield from _encodings(dataset, rows)
    yield from _scripts(dataset, rows, facts)
    short = [row for row in rows if row in facts and facts[row].num_characters < _SHORT]
    if len(short) > _MANY_SHORT * len(rows):
        message = f"{len(short)} of {len(rows)} texts have fewer than {_SHORT} characters"
        yield Finding(
            "short-texts",
            "info",
            message,
            "kept; there is little to go by",
            tuple(dataset.ids[row] for row in short),
        )
    if dataset.task == "tagging":
        yield from _types(dataset, rows)


def _encodings(dataset: TableDataset, rows: Sequence[int]) -> Iterator[Finding]:
    """Say which files are not UTF-8, and which texts were decoded wrongly before they came here."""
    guessed: defaultdict[str, list[int]] = defaultdict(list)
    garbled: list[int] = []
    for row in rows:
        raw = dataset.inputs[row]
        if isinstance(raw, Path):
            whole, encoding = encodings.decoded(encodings.content(raw), str(raw))
            if not encoding.startswith("utf"):
                guessed[encoding].append(row)
        else:
            whole = raw if isinstance(raw, str) else " ".join(map(str, raw))
        if encodings.is_garbled(whole):
            garbled.append(row)
    if guessed:
        count = sum(map(len, guessed.values()))
        said = ", ".join(f"{name} ({len(items)})" for name, items in sorted(guessed.items()))
        ids = tuple(dataset.ids[row] for items in guessed.values() for row in items)
        message = f"{count} of {len(rows)} files are not UTF-8: read as {said}"
        yield Finding("encoding-guessed", "warning", message, "save them as UTF-8 to be sure", ids)
    if garbled:
        example = _around(dataset.inputs[garbled[0]])
        message = (
            f"saved in a wrong encoding before they came here: {len(garbled)} of {len(rows)} texts{example}"
        )
        ids = tuple(dataset.ids[row] for row in garbled)
        yield Finding(
            "garbled-text", "info", message, "kept as they are: mend them where they came from", ids
        )


def _around(raw: Any) -> str:
    """Return a few garbled letters of a text in memory, for a message."""
    found = encodings.GARBLED.search(raw) if isinstance(raw, str) else None
    return f", such as '{raw[max(0, found.start() - 10) : found.end() + 10]}'" if found else ""


def _scripts(dataset: TableDataset, rows: Sequence[int], facts: Mapping[int, Any]) -> Iterator[Finding]:
    """Say which scripts the texts are written in, where there are several."""
    of_script: defaultdict[int, list[int]] = defaultdict(list)
    for row in rows:
        if row in facts and facts[row].script < len(SCRIPTS):
            of_script[facts[row].script].append(row)
    if len(of_script) < 2:
        return
    common = max(of_script, key=lambda script: len(of_script[script]))
    others = [row for script, items in of_script.items() if script != common for row in items]
    if len(others) < max(2, _OTHER_SCRIPT * len(rows)):
        return
    said = ", ".join(
        f"{_SCRIPT_NAMES.get(SCRIPTS[script], SCRIPTS[script].title())} {len(items)}"
        for script, items in sorted(of_script.items())
    )
    message = f"texts in several scripts: {said}"
    action = "check that the network was trained on these languages"
    yield Finding("scripts", "info", message, action, tuple(dataset.ids[row] for row in others))


def _types(dataset: TableDataset, rows: Sequence[int]) -> Iterator[Finding]:
    """Say which entity types have few spans, or none in a split."""
    counts: Counter[str] = Counter()
    splits: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        tags = dataset.targets[row]
        found = [tag[2:] for tag in tags if tag.startswith("B-")] if isinstance(tags, tuple) else []
        counts.update(found)
        splits[dataset.splits[row] or "train"].update(found)
    few = [f"{name} ({count})" for name, count in sorted(counts.items()) if count < _FEW_SPANS]
    if few:
        message = f"{len(few)} entity types have fewer than {_FEW_SPANS} spans: {explain_items(few)}"
        yield Finding("small-class", "warning", message, "kept; expect little of them")
    for name, found in sorted(splits.items()):
        if absent := sorted(set(counts) - found):
            message = f"the {name} split has no span of {len(absent)} entity types: {explain_items(absent)}"
            yield Finding("missing-class", "warning", message, f"no {name} score for them")
