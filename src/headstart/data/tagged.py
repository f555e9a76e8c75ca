"""Texts with a tag a word: CoNLL files, or tables with words and tags."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from headstart.core.errors import DataError
from headstart.core.settings import Source
from headstart.core.types import Finding, SplitName
from headstart.data.dataset import TableDataset
from headstart.data.folders import SPLIT_NAMES
from headstart.modalities import text

CONLL_EXTENSIONS = (".conll", ".iob", ".iob2", ".bio", ".conll03")
WORDS, TAGS = ("tokens", "words"), ("tags", "ner_tags", "labels")
_TAG = re.compile(r"(?:O|([BIESLUM])-(.+))")
_BEGINS, _ENDS = "BSU", "ESLU"
_DEV = {"dev": "validation", **SPLIT_NAMES}

_Sentence = tuple[int, str, tuple[str, ...], tuple[str, ...]]
"""Line of its first word, document, words, tags."""


def open_conll(path: Path) -> TableDataset:
    """Read a CoNLL file, or a folder of such files named train, dev (or validation) and test.

    Lines hold columns, the first a word, the last its tag; an empty line ends a text, `-DOCSTART-` begins a document
    (texts of one document stay in one split). IOB1, IOB2 and BIOES are recognised and read as BIO.
    """
    files = _files(path) if path.is_dir() else [(path, None)]
    rows = [(file, split, sentence) for file, split in files for sentence in _sentences(file)]
    if not rows:
        raise DataError(f"{path} holds no words", expected="one word a line with its tag", fix="add texts")
    ids = [f"{file.name}:{line}" for file, _, (line, _, _, _) in rows]
    groups = [f"{file.name} {document}" if document else "" for file, _, (_, document, _, _) in rows]
    return _dataset(
        [words for *_, (_, _, words, _) in rows],
        [tags for *_, (_, _, _, tags) in rows],
        ids=ids, groups=groups, splits=[split for _, split, _ in rows], root=path,
    )  # fmt: skip


def tagged_rows(path: Path, columns: Mapping[str, Sequence[Any]], source: Source) -> TableDataset | None:
    """Return the dataset of a table whose rows hold lists of words and tags, None where it is another table."""
    words = next((name for name in WORDS if name in columns), None)
    tags = source.label_column or next((name for name in TAGS if name in columns), None)
    if words is None or tags is None or not isinstance(columns[words][0], (list, tuple)):
        return None
    rows: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
    for number, (some, others) in enumerate(zip(columns[words], columns[tags], strict=True), start=1):
        if (
            not isinstance(some, (list, tuple))
            or not isinstance(others, (list, tuple))
            or len(some) != len(others)
        ):
            counts = f"{len(some or ())} words and {len(others or ())} tags"
            raise DataError(
                f"{path.name} row {number} has {counts}",
                expected="a tag for each word",
                fix="correct the row",
            )
        rows.append((tuple(map(str, some)), tuple(map(str, others))))
    split_column = source.split_column or next(
        (name for name in ("split", "subset") if name in columns), None
    )
    raw_splits = columns[split_column] if split_column else [None] * len(rows)
    splits = [_DEV.get(str(split).lower()) if split else None for split in raw_splits]
    ids = [f"row {number}" for number in range(1, len(rows) + 1)]
    groups = (
        [str(group) for group in columns[source.group_column]] if source.group_column else [""] * len(rows)
    )
    return _dataset(
        [words for words, _ in rows],
        [tags for _, tags in rows],
        ids=ids,
        groups=groups,
        splits=splits,
        root=path,
    )


def as_bio(tags: Sequence[str]) -> tuple[str, ...]:
    """Return tags of IOB1, IOB2 or BIOES (BILOU) as BIO: every span begins with B-."""
    found: list[str] = []
    inside = ""  # The type of the span that the word before is in.
    for tag in tags:
        match = _TAG.fullmatch(tag)
        mark, kind = (match.group(1), match.group(2)) if match else (None, None)
        if mark is None or kind is None:
            found.append("O")
            inside = ""
            continue
        found.append(f"{'B' if mark in _BEGINS or inside != kind else 'I'}-{kind}")
        inside = "" if mark in _ENDS else kind
    return tuple(found)


def _dataset(
    words: list[tuple[str, ...]],
    tags: list[tuple[str, ...]],
    *,
    ids: list[str],
    groups: list[str],
    splits: list[SplitName | None],
    root: Path,
) -> TableDataset:
    """Make the dataset, with the tags as BIO and a note where they were not."""
    targets = [as_bio(row) for row in tags]
    kinds = sorted({tag[2:] for row in targets for tag in row if tag != "O"})
    labels = ("O", *(f"{mark}-{kind}" for kind in kinds for mark in "BI"))
    changed = sum(new != old for new, old in zip(targets, tags, strict=True))
    marks = {tag[0] for row in tags for tag in row}
    scheme = "BIOES" if marks & set("ESLU") else "IOB1"
    message = f"the tags are in the scheme {scheme}: {changed} texts were put into BIO"
    notes = (Finding("tag-scheme", "info", message),) if changed else ()
    return TableDataset(
        inputs=words, targets=list(targets), ids=ids, domains=[""] * len(ids), groups=groups, splits=splits,
        labels=labels, root=root, modality="text", task="tagging", notes=notes,
    )  # fmt: skip


def _files(folder: Path) -> list[tuple[Path, SplitName | None]]:
    """Return the CoNLL files of a folder with the splits that their names mean."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in CONLL_EXTENSIONS)
    return [(path, _DEV.get(path.stem.lower())) for path in files]


def _sentences(path: Path) -> Iterator[_Sentence]:
    """Yield the texts of a file."""
    document, start, columns = "", 0, 0
    rows: list[tuple[str, str]] = []
    for number, line in enumerate([*text.decode(path).splitlines(), ""], start=1):
        if not line.strip():
            if rows:
                yield start, document, tuple(word for word, _ in rows), tuple(tag for _, tag in rows)
            rows = []
            continue
        if line.startswith("-DOCSTART-"):
            document = f"document at line {number}"
            continue
        if line.startswith("# ") and not rows and len(line.split()) > 1 and "\t" not in line:
            continue
        cells = line.split("\t") if "\t" in line else line.split()
        columns = columns or len(cells)
        if len(cells) != columns or columns < 2:
            raise DataError(
                f"{path.name} line {number} has {len(cells)} columns",
                expected=f"{max(columns, 2)}, as the lines before: a word first, its tag last",
                fix="correct the line",
            )
        if not _TAG.fullmatch(cells[-1].strip()):
            raise DataError(
                f"{path.name} line {number} has the tag '{cells[-1]}'",
                expected="O, or B-, I- (or E-, S-, L-, U-) and a type, such as B-PER",
                fix="correct the tag, or move the column of tags to the end",
            )
        start = start if rows else number
        rows.append((cells[0].strip() or "_", cells[-1].strip()))
