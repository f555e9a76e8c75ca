"""What only texts can have: a mix of scripts, very short ones, entity types with few spans."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from headstart.core.types import Finding
from headstart.data.dataset import TableDataset, explain_items
from headstart.modalities.text import SCRIPTS

_FEW_SPANS = 10
_SHORT = 3
_MANY_SHORT = 0.05
_OTHER_SCRIPT = 0.01


def text_findings(dataset: TableDataset, rows: Sequence[int], facts: Mapping[int, Any]) -> Iterator[Finding]:
    """Yield what is noteworthy about texts."""
    yield from _scripts(dataset, rows, facts)
    short = [row for row in rows if row in facts and facts[row].num_characters < _SHORT]
    if len(short) > _MANY_SHORT * len(rows):
        message = f"{len(short)} of {len(rows)} texts have fewer than {_SHORT} characters"
        yield Finding("short-texts", "info", message, "", tuple(dataset.ids[row] for row in short))
    if dataset.task == "tagging":
        yield from _types(dataset, rows)


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
    said = ", ".join(f"{SCRIPTS[script].title()} {len(items)}" for script, items in sorted(of_script.items()))
    message = f"texts in several scripts: {said}"
    action = "check that the network was trained on these languages"
    yield Finding("scripts", "info", message, action, tuple(dataset.ids[row] for row in others))


def _types(dataset: TableDataset, rows: Sequence[int]) -> Iterator[Finding]:
    """Say which entity types have few spans, or none in a split."""
    counts: Counter[str] = Counter()
    splits: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        for tag in dataset.targets[row] or ():
            if str(tag).startswith("B-"):
                counts[str(tag)[2:]] += 1
                splits[dataset.splits[row] or "train"].add(str(tag)[2:])
    few = [f"{name} ({count})" for name, count in sorted(counts.items()) if count < _FEW_SPANS]
    if few:
        message = f"{len(few)} entity types have fewer than {_FEW_SPANS} spans: {explain_items(few)}"
        yield Finding("small-class", "warning", message, "kept; expect little of them")
    for name, found in sorted(splits.items()):
        if absent := sorted(set(counts) - found):
            message = f"the {name} split has no span of {len(absent)} entity types: {explain_items(absent)}"
            yield Finding("missing-class", "warning", message, f"no {name} score for them")
