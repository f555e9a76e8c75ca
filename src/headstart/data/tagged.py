"""Texts with a tag a word: CoNLL files, or tables with words and tags."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import NoneType
from typing import Any

from headstart.core.errors import DataError
from headstart.core.settings import Source
from headstart.core.types import Finding
from headstart.data.columns import Columns, choose, membership, require
from headstart.data.dataset import TableDataset
from headstart.data.folders import split_of
from headstart.modalities import encodings

CONLL_EXTENSIONS = (".conll", ".iob", ".iob2", ".bio", ".bioes", ".conll03", ".testa", ".testb", ".train")
WORDS, TAGS = ("tokens", "words"), ("tags", "ner_tags", "labels")
_TAG = re.compile(r"(?:O|([BIESLUM])-(.+))")
_BEGINS, _ENDS = "BSU", "ESLU"
_DOCUMENT = "-DOCSTART-"
_PERHAPS = (".txt", ".tsv")
_LOOKED_AT = 4096

_Sentence = tuple[int, str, tuple[str, ...], tuple[str, ...]]
"""Line of its first word, document, words, tags."""


def open_conll(path: Path) -> TableDataset:
    """Read a CoNLL file, or a folder of such files named train, dev (or validation) and test.

    Lines hold columns, the first a word, the last its tag; an empty line ends a text, `-DOCSTART-` begins a document
    (texts of one document stay in one split). IOB1, IOB2 and BIOES are recognised and read as BIO.
    """
    files = [(file, split_of(file.name)) for file in conll_files(path)] if path.is_dir() else [(path, None)]
    rows = [(file, split, sentence) for file, split in files for sentence in _sentences(file)]
    if not rows:
        raise DataError(f"{path} holds no words", expected="one word a line with its tag", fix="add texts")
    ids = [f"{file.name}:{line}" for file, _, (line, _, _, _) in rows]
    groups = [f"{file.name} {document}" if document else "" for file, _, (_, document, _, _) in rows]
    made = _dataset([words for *_, (_, _, words, _) in rows], [tags for *_, (_, _, _, tags) in rows], ids)
    said = ", ".join(f"{file.name} = {split}" for file, split in files if split)
    message = f"splits taken from the names of files: {said}"
    notes = (Finding("splits-from-files", "info", message), *made.notes) if said else made.notes
    return replace(made, groups=groups, splits=[split for _, split, _ in rows], root=path, notes=notes)


def conll_files(folder: Path) -> list[Path]:
    """Return the CoNLL files of a folder; .txt files count where they are named as splits and hold tagged words."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return [path for path in files if is_conll(path) and (_ends_as_conll(path) or split_of(path.name))]


def is_conll(path: Path) -> bool:
    """Tell a CoNLL file by its ending; one that is called .txt or .tsv by its first lines."""
    if _ends_as_conll(path):
        return True
    if path.suffix.lower() not in _PERHAPS or not path.is_file():
        return False
    with path.open("rb") as file:
        lines = file.read(_LOOKED_AT).decode("utf-8", "ignore").split("\n")[:-1]
    cells = [_cells(line) for line in lines if line.strip() and not line.startswith(_DOCUMENT)]
    return bool(cells) and all(len(row) >= 2 and _TAG.fullmatch(row[-1]) for row in cells)


def tagged_rows(path: Path, columns: Columns, source: Source, ids: Sequence[str]) -> TableDataset | None:
    """Return the dataset of a table whose rows hold lists of words and tags, None where it is another table."""
    words = next((name for name in WORDS if name in columns), None)
    tags = source.label_column or next((name for name in TAGS if name in columns), None)
    if words is None or tags is None or not isinstance(columns[words][0], (list, tuple)):
        return None
    place = [identity if path.name in identity else f"{path.name} {identity}" for identity in ids]
    made = from_tags(columns[words], columns[require(path, columns, "label", tags)], list(ids), place)
    rest = {name: values for name, values in columns.items() if name not in (words, tags)}
    roles = choose(path, {**rest, words: [], tags: []}, _roles_of(source, words, tags))
    domains, groups, splits = membership(columns, roles.roles, len(ids), lambda row: place[row])
    message = f"columns guessed: words = '{words}', tags = '{tags}'"
    note = Finding("columns-guessed", "info", message)
    return replace(
        made, domains=domains, groups=groups, splits=splits, root=path.parent,
        notes=(note, *roles.notes, *made.notes),
    )  # fmt: skip


def from_tags(
    words: Sequence[Any], tags: Sequence[Any], ids: list[str], places: Sequence[str]
) -> TableDataset:
    """Return the dataset of lists of words with a list of tags each; None for the tags of an unlabelled text.

    DataError says the place of a row whose words and tags do not fit, or of a tag of no known scheme.
    """
    rows: list[tuple[str, ...]] = []
    targets: list[tuple[str, ...] | None] = []
    for where, some, others in zip(places, words, tags, strict=True):
        if not isinstance(some, (list, tuple)) or not isinstance(others, (list, tuple, NoneType)):
            raise DataError(
                f"{where} has no list of words and tags",
                expected="two lists",
                fix="correct or delete the row",
            )
        if others is not None and len(some) != len(others):
            raise DataError(
                f"{where} has {len(some)} words and {len(others)} tags",
                expected="a tag for each word",
                fix="correct the row",
            )
        found = None if others is None else tuple(str(tag) for tag in others)
        if unknown := next((tag for tag in found or () if not _TAG.fullmatch(tag)), None):
            raise _unknown_tag(where, unknown)
        rows.append(tuple(map(str, some)))
        targets.append(found)
    return _dataset(rows, targets, ids)


def _roles_of(source: Source, words: str, tags: str) -> Source:
    """Return the settings with the columns of words and tags in the places of text and label."""
    return source.model_copy(update={"text_column": words, "label_column": tags, "path_column": None})


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
    words: list[tuple[str, ...]], tags: Sequence[tuple[str, ...] | None], ids: list[str]
) -> TableDataset:
    """Make the dataset, with the tags as BIO and a note where they were not."""
    targets = [None if row is None else as_bio(row) for row in tags]
    kinds = sorted({tag[2:] for row in targets for tag in row or () if tag != "O"})
    changed = sum(new != old for new, old in zip(targets, tags, strict=True))
    message = f"{_scheme([row or () for row in tags])}: {changed} texts were put into BIO"
    notes = (Finding("tag-scheme", "info", message),) if changed else ()
    blank = [""] * len(ids)
    return TableDataset(
        inputs=words,
        targets=targets,
        ids=ids,
        domains=blank,
        groups=list(blank),
        splits=[None] * len(ids),
        labels=("O", *(f"{mark}-{kind}" for kind in kinds for mark in "BI")),
        modality="text",
        task="tagging",
        notes=notes,
    )


def _scheme(tags: Sequence[Sequence[str]]) -> str:
    """Say in which scheme tags are that are not BIO."""
    marks = {tag[0] for row in tags for tag in row}
    if marks & set("ESLUM"):
        return "the tags are in the scheme BIOES"
    # IOB1 has a B only where a span follows another of its type.
    begun = sum(
        tag[0] == "B" and (not place or row[place - 1][1:] != tag[1:])
        for row in tags
        for place, tag in enumerate(row)
    )
    return "some spans begin with I- instead of B-" if begun else "the tags are in the scheme IOB1"


def _sentences(path: Path) -> Iterator[_Sentence]:
    """Yield the texts of a file."""
    document, start, columns = "", 0, 0
    rows: list[tuple[str, str]] = []
    # Only line ends end a line: words may be other separators (U+2028, a no-break space).
    lines = encodings.decode(path).replace("\r\n", "\n").split("\n")
    for number, line in enumerate([*lines, ""], start=1):
        if not line.strip():
            if rows:
                yield start, document, tuple(word for word, _ in rows), tuple(tag for _, tag in rows)
            rows = []
            continue
        if line.startswith(_DOCUMENT):
            document = f"document at line {number}"
            continue
        if line.startswith("# ") and not rows and len(line.split()) > 1 and "\t" not in line:
            continue
        cells = _cells(line)
        columns = columns or len(cells)
        if len(cells) != columns or columns < 2:
            raise DataError(
                f"{path.name} line {number} has {len(cells)} columns",
                expected=f"{max(columns, 2)}, as the lines before: a word first, its tag last",
                fix="correct the line",
            )
        if not _TAG.fullmatch(cells[-1]):
            raise _unknown_tag(f"{path.name} line {number}", cells[-1])
        start = start if rows else number
        rows.append((cells[0] or "_", cells[-1]))


def _cells(line: str) -> list[str]:
    """Return the columns of a line, divided by tabs or else by spaces."""
    if "\t" in line:
        return [cell.strip() for cell in line.split("\t")]
    return [cell for cell in line.strip().split(" ") if cell]


def _ends_as_conll(path: Path) -> bool:
    """Tell whether a file's ending says that it is a CoNLL file."""
    return path.suffix.lower() in CONLL_EXTENSIONS


def _unknown_tag(place: str, tag: str) -> DataError:
    """Return the error for a tag of no known scheme."""
    is_number = tag.lstrip("-").isdecimal()
    return DataError(
        f"{place} has the tag '{tag}'",
        expected="O, or B-, I- (or E-, S-, L-, U-) and a type, such as B-PER",
        fix="write the names of the tags instead of their numbers"
        if is_number
        else "correct the tag, or move the column of tags to the end",
    )
