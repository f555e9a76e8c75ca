"""What is wrong or noteworthy in data, found before any score is printed, and what is done about it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from headstart.core.errors import DataError
from headstart.core.registry import resolve
from headstart.core.settings import Source
from headstart.core.types import Audit, Finding, Limits, SplitName, Target
from headstart.data.audit_targets import target_findings
from headstart.data.audit_text import text_findings
from headstart.data.dataset import TableDataset, explain_items
from headstart.data.text_twins import near_texts
from headstart.data.twins import exact_twins, near_twins

_SAID_LABELS = 6
_STRIP = 4
_ODD_SIZE = 8
_RANK: dict[SplitName | None, int] = {None: 0, "train": 0, "validation": 1, "test": 2}


@dataclass(frozen=True, slots=True)
class Outcome:
    """The findings, the rows to go on with, and the twins among them.

    `keep` are indices of the audited dataset, rising; `ties` are pairs of *positions in* `keep`, ready for
    `split(dataset.subset(keep), ..., ties=ties)`.
    """

    audit: Audit
    keep: list[int]
    ties: list[tuple[int, int]]


def inspect(
    dataset: TableDataset, *, settings: Source, threads: int
) -> tuple[dict[int, Any], dict[int, str]]:
    """Open every item as cheaply as facts allow; return facts and reasons of failure by index."""
    modality = resolve("modality", dataset.modality)
    look = partial(_look, modality=modality, limits=settings.limits)
    facts: dict[int, Any] = {}
    failures: dict[int, str] = {}
    with ThreadPoolExecutor(threads) as pool:
        for row, found in enumerate(pool.map(look, dataset.inputs)):
            if isinstance(found, str):
                failures[row] = found
            else:
                facts[row] = found
    return facts, failures


def _look(raw: Any, *, modality: Any, limits: Limits) -> Any:
    """Return an item's facts, or why there are none."""
    try:
        return modality.inspect(raw, limits=limits)
    except DataError as error:
        return error.given


def audit(
    dataset: TableDataset,
    facts: Mapping[int, Any],
    failures: Mapping[int, str],
    *,
    settings: Source,
    features: np.ndarray | None = None,
) -> Outcome:
    """Examine a dataset whose items were opened once; nothing is decoded again, files are hashed.

    Unreadable items are left out; unlabelled ones stay, for methods that can use them. Where the data bring their own
    splits, training copies of test or validation items (and validation copies of test items) are left out; all other
    twins are tied.
    DataError where more than `settings.max_bad` of the items (but at least one) cannot be read.
    """
    _refuse_too_many(dataset, failures, settings)
    rows = [row for row in range(len(dataset)) if row not in failures]
    labelled = [row for row in rows if dataset.targets[row] is not None]
    exact, near = _twins(dataset, rows, facts, features)
    is_tagged = dataset.task == "tagging"
    leaks_exact = _leaks(dataset, exact)
    leaks_near = {row: twin for row, twin in _leaks(dataset, near).items() if row not in leaks_exact}
    keep = [row for row in rows if row not in leaks_exact and row not in leaks_near]
    findings = [
        *dataset.notes,
        *_unreadable(dataset, failures),
        *_unlabelled(dataset, failures),
        *_leaked(dataset, leaks_exact, "leak-exact", "are byte-identical to"),
        *_leaked(dataset, leaks_near, "leak-near", "nearly equal"),
        *_duplicates(dataset, exact, "exact-duplicate", "identical"),
        *_duplicates(dataset, near, "near-duplicate", "nearly identical"),
        *_conflicts(dataset, exact, "conflicting-labels", "Identical"),
        # The tags of texts whose words differ are bound to differ.
        *(_conflicts(dataset, near, "conflicting-labels-near", "Nearly identical") if not is_tagged else ()),
        *_groups_across(dataset, labelled),
        *target_findings(dataset, labelled),
        *(_shapes(dataset, facts) if dataset.modality == "image" else text_findings(dataset, rows, facts)),
    ]
    return Outcome(Audit(len(dataset), len(keep), tuple(findings)), keep, _ties([*exact, *near], keep))


def refuse_grave(found: Audit) -> None:
    """Refuse data in which an audit found errors or warnings (`--strict`); DataError lists them."""
    grave = [finding.message for finding in found.findings if finding.severity != "info"]
    if grave:
        raise DataError(
            "the audit found: " + "; ".join(grave),
            expected="data without findings (--strict)",
            fix="mend the data, or leave --strict out to go on with what is sound",
        )


def _refuse_too_many(dataset: TableDataset, failures: Mapping[int, str], settings: Source) -> None:
    """Refuse data of which too much cannot be read, listing the first ten with their reasons."""
    allowed = max(1, int(settings.max_bad * len(dataset))) if settings.max_bad > 0 else 0
    if len(failures) <= allowed and len(failures) < max(2, len(dataset)):
        return
    first = "".join(f"\n    {dataset.ids[row]}: {_reason(failures[row])}" for row in sorted(failures)[:10])
    rest = f"\n    and {len(failures) - 10} more" if len(failures) > 10 else ""
    raise DataError(
        f"{len(failures)} of {len(dataset)} items cannot be read:{first}{rest}",
        expected=f"at most {allowed} ({settings.max_bad:.1%}, data.max_bad)",
        fix="replace or delete them, or allow more with --set data.max_bad=0.1",
    )


def _reason(failure: str) -> str:
    """Return the first line of a failure without the path that it begins with."""
    line = failure.splitlines()[0] if failure else "unknown"
    return line.split(" cannot be read: ", 1)[-1].split(" is oversized: ", 1)[-1]


def _twins(
    dataset: TableDataset, rows: Sequence[int], facts: Mapping[int, Any], features: np.ndarray | None
) -> tuple[list[list[int]], list[list[int]]]:
    """Return the groups of identical rows, and for each two nearly identical items all of their rows."""
    hashes = dataset.item_hashes(rows)
    exact = [[rows[place] for place in group] for group in exact_twins(hashes)]
    copies = {group[0]: group for group in exact}
    behind = {row for group in exact for row in group[1:]}
    alone = [row for row in rows if row in facts and row not in behind]
    if not alone:
        return exact, []
    if dataset.modality == "text":
        vectors = None if features is None else features[alone]
        pairs = near_texts(
            np.stack([facts[row].sketch for row in alone]), [dataset.inputs[row] for row in alone], vectors
        )
    else:
        phashes = np.array([facts[row].phash for row in alone], dtype=np.uint64)
        pairs = near_twins(phashes, np.stack([facts[row].thumbnail for row in alone]))
    return exact, [
        [*copies.get(alone[one], [alone[one]]), *copies.get(alone[other], [alone[other]])]
        for one, other in pairs
    ]


def _leaks(dataset: TableDataset, bundles: Iterable[Sequence[int]]) -> dict[int, int]:
    """Return the rows with a twin in a later split (train, validation, test), and that twin."""
    leaks: dict[int, int] = {}
    for bundle in bundles:
        last = max(bundle, key=lambda row: _RANK[dataset.splits[row]])
        leaks |= {row: last for row in bundle if _RANK[dataset.splits[row]] < _RANK[dataset.splits[last]]}
    return leaks


def _ties(bundles: Iterable[Sequence[int]], keep: Sequence[int]) -> list[tuple[int, int]]:
    """Chain the kept rows of each bundle, as positions in `keep`."""
    position = {row: place for place, row in enumerate(keep)}
    ties: list[tuple[int, int]] = []
    for bundle in bundles:
        places = [position[row] for row in bundle if row in position]
        ties += pairwise(places)
    return ties


# Findings


def _noun(dataset: TableDataset) -> str:
    """Return what the items are called, in the plural."""
    return resolve("modality", dataset.modality).NOUN[1]


def _unreadable(dataset: TableDataset, failures: Mapping[int, str]) -> Iterator[Finding]:
    """Say which items cannot be read, by kind of failure."""
    kinds: defaultdict[str, list[int]] = defaultdict(list)
    for row in sorted(failures):
        kinds[_kind(failures[row])].append(row)
    for code, rows in sorted(kinds.items()):
        reasons = [f"{dataset.ids[row]}: {_reason(failures[row])}" for row in rows]
        message = (
            f"{len(rows)} of {len(dataset)} items cannot be used: {explain_items(reasons, separator='; ')}"
        )
        yield Finding(code, "warning", message, "left out", _named(dataset, rows))


def _kind(failure: str) -> str:
    """Return the code of a failure by the words of its message."""
    for words, code in (
        (" is oversized", "oversized"),
        ("a text cannot be read: it is empty", "empty-text"),
        ("a list of words cannot be read: it is empty", "empty-text"),
        ("it is empty", "empty-file"),
        ("does not exist", "missing-file"),
        ("it is no text", "not-a-text"),
        ("holds a NUL character", "not-a-text"),
        ("it is ", "not-an-image"),
    ):
        if words in failure:
            return code
    return "unreadable"


def _unlabelled(dataset: TableDataset, failures: Mapping[int, str]) -> Iterator[Finding]:
    """Say which items have no label."""
    rows = [row for row, target in enumerate(dataset.targets) if target is None and row not in failures]
    if rows:
        message = f"{len(rows)} of {len(dataset)} items have no label (empty, None or NaN)"
        action = "kept for methods that learn from items without labels; never scored"
        yield Finding("missing-label", "warning", message, action, _named(dataset, rows))


def _leaked(dataset: TableDataset, leaks: Mapping[int, int], code: str, verb: str) -> Iterator[Finding]:
    """Say which items were left out because their twin is in a later split."""
    if not leaks:
        return
    ways = Counter((dataset.splits[row] or "train", str(dataset.splits[twin])) for row, twin in leaks.items())
    noun = _noun(dataset)
    said = [f"{count} {low} {noun} {verb} {high} {noun}" for (low, high), count in sorted(ways.items())]
    twins = len(set(leaks.values()))
    message = f"{'; '.join(said)} ({twins} of these leak): scores would be too good"
    yield Finding(
        code, "warning", message, "the earlier split's copies are left out", _named(dataset, sorted(leaks))
    )


def _duplicates(
    dataset: TableDataset, bundles: Sequence[Sequence[int]], code: str, word: str
) -> Iterator[Finding]:
    """Say how many pictures inside the splits (or without splits) are there more than once."""
    inside = [bundle for bundle in bundles if len({_RANK[dataset.splits[row]] for row in bundle}) == 1]
    rows = sorted({row for bundle in inside for row in bundle})
    if rows:
        pairs = [" = ".join(dataset.ids[row] for row in bundle[:3]) for bundle in inside]
        message = f"{len(rows)} {_noun(dataset)} are {word} to another one: {explain_items(pairs, most=3)}"
        yield Finding(code, "info", message, "they stay together in one split", _named(dataset, rows))


def _conflicts(
    dataset: TableDataset, bundles: Sequence[Sequence[int]], code: str, word: str
) -> Iterator[Finding]:
    """Say which twins have labels that differ."""
    known = [[row for row in bundle if dataset.targets[row] is not None] for bundle in bundles]
    differing = [bundle for bundle in known if len({dataset.targets[row] for row in bundle}) > 1]
    if differing:
        said = [
            " / ".join(f"{dataset.ids[row]} {_said(dataset.targets[row])}" for row in bundle[:4])
            for bundle in differing
        ]
        rows = sorted({row for bundle in differing for row in bundle})
        message = (
            f"{word} {_noun(dataset)} have different labels: {explain_items(said, most=5, separator='; ')}"
        )
        yield Finding(code, "warning", message, "kept: correct the wrong labels", _named(dataset, rows))


def _said(target: Target | None) -> str:
    """Return a target as a message names it."""
    if not isinstance(target, tuple):
        return f"{target:g}" if isinstance(target, float) else f"'{target}'"
    return f"'{', '.join(target)}'" if len(target) <= _SAID_LABELS else f"({len(target)} tags)"


def _groups_across(dataset: TableDataset, rows: Sequence[int]) -> Iterator[Finding]:
    """Say which groups lie in more than one of the splits that the data bring."""
    splits: defaultdict[str, set[int]] = defaultdict(set)
    for row in rows:
        if dataset.groups[row]:
            splits[dataset.groups[row]].add(_RANK[dataset.splits[row]])
    crossing = {group for group, ranks in splits.items() if len(ranks) > 1}
    if crossing:
        items = [row for row in rows if dataset.groups[row] in crossing]
        message = (
            f"{len(crossing)} groups lie in more than one split ({explain_items(sorted(crossing), most=5)}): "
            "scores would be too good"
        )
        action = "nothing: correct the split column, or cut anew with --set split.respect=false"
        yield Finding("group-leak", "error", message, action, _named(dataset, items))


def _shapes(dataset: TableDataset, facts: Mapping[int, Any]) -> Iterator[Finding]:
    """Say which pictures are far narrower, smaller or larger than the others."""
    if not facts:
        return
    sides = {row: min(fact.width, fact.height) for row, fact in facts.items()}
    middle = float(np.median(list(sides.values())))
    odd = [
        row
        for row, fact in sorted(facts.items())
        if max(fact.width, fact.height) >= _STRIP * sides[row]
        or not middle / _ODD_SIZE < sides[row] < middle * _ODD_SIZE
    ]
    if 0 < len(odd) <= max(1, len(facts) // 20):
        said = [f"{dataset.ids[row]} ({facts[row].width} x {facts[row].height})" for row in odd]
        message = f"{len(odd)} pictures have a shape unlike the others': {explain_items(said, most=5)}"
        yield Finding(
            "shape-outlier", "info", message, "kept; a strip's ends are cut off", _named(dataset, odd)
        )


def _named(dataset: TableDataset, rows: Iterable[int]) -> tuple[str, ...]:
    """Return the ids of rows."""
    return tuple(dataset.ids[row] for row in rows)
