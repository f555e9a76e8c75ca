"""What is written: two tables that a person fills in, the same as JSON, and a page to look at."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from headstart.core.errors import StoreError
from headstart.core.hashing import plain
from headstart.core.types import Target
from headstart.data.answers import ID, LABEL, written
from headstart.data.tables import read_table
from headstart.data.targets import as_label
from headstart.labelling.found import LabelReport
from headstart.labelling.page import render
from headstart.modalities.text import read
from headstart.report.document import versions
from headstart.store import atomic_write, explained

WRONG, NEXT, JSON, PAGE = "wrong_labels.csv", "next_labels.csv", "labels.json", "labels.html"
"""The files of a folder of labels."""


def publish(report: LabelReport, folder: Path, *, title: str) -> LabelReport:
    """Write the tables, the JSON document and the page into a folder; return the report with that folder.

    Files of an earlier look are replaced; `free_folder` says where none is lost.
    """
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / WRONG, _table(report, *_wrong_rows(report)))
        atomic_write(folder / NEXT, _table(report, *_next_rows(report)))
        text = json.dumps(to_json(report), indent=1, ensure_ascii=False)
        atomic_write(folder / JSON, text.encode())
        render(report, title=title, path=folder / PAGE)
    return replace(report, folder=folder)


def to_json(report: LabelReport) -> dict[str, Any]:
    """Return everything that the page says as JSON values, without pictures or texts."""
    kept = {name: value for name, value in vars(report).items() if name not in ("inputs", "folder")}
    text = json.dumps({"format": 1, **plain(kept), "versions": versions()}, ensure_ascii=False)
    return json.loads(written(text))


def named(target: Target | None) -> str:
    """Return a target as a table's cell that the readers take back: labels divided by `|`, `[]` for none of them."""
    if target is None:
        return ""
    if isinstance(target, tuple):
        return "|".join(target) or "[]"
    return f"{target:.6g}" if isinstance(target, (int, float)) else target


def _wrong_rows(report: LabelReport) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the likely wrong labels; `label` is for the right one, blank where it is right."""
    measure = "deviations" if report.task == "regression" else "probability"
    header = [ID, LABEL, "given", "suggested", measure, *([] if report.task == "regression" else ["p_given"])]
    rows = [
        [item.id, "", named(item.given), named(item.suggested), f"{item.probability:.4f}"]
        + ([] if item.p_given is None else [f"{item.p_given:.4f}"])
        for item in report.wrong
    ]
    return header, rows


def _next_rows(report: LabelReport) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the next items; `label` is blank, to be filled in."""
    rows = [
        [
            item.id,
            "",
            item.why,
            named(item.likely),
            "" if item.probability is None else f"{item.probability:.4f}",
        ]
        for item in report.next
    ]
    return [ID, LABEL, "why", "likely", "probability"], rows


def _table(report: LabelReport, header: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    """Return a table as UTF-8, with the texts themselves beside their ids."""
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    shows_texts = report.modality == "text"
    table.writerow([*header, *(["text"] if shows_texts else [])])
    for name, *others in rows:
        table.writerow([written(name), *others, *([_text(report.inputs[name])] if shows_texts else [])])
    return text.getvalue().encode("utf-8", "replace")


def _text(raw: Any) -> str:
    """Return a text as it is read, words joined by spaces."""
    found = read(raw)
    return found if isinstance(found, str) else " ".join(found)


def free_folder(output: Path | None, title: str) -> Path:
    """Return where the files shall go, before any work is done: `output`, else the first of labels/TITLE, TITLE-2, ...

    A folder is taken where a person has begun to fill in a table (StoreError for `output`), or where it is not ours.
    """
    if output is not None:
        taken = _taken(output)
        if taken:
            raise StoreError(
                taken,
                expected="a new or empty folder, or one of an earlier look whose labels are not filled in",
                fix="choose another --output; filled tables are given back with --answers FILE",
            )
        return output
    names = (title if number == 1 else f"{title}-{number}" for number in count(1))
    return next(folder for name in names if not _taken(folder := Path("labels") / name))


def _taken(folder: Path) -> str:
    """Say why a folder must not be written to; nothing where it may."""
    if not folder.is_dir():
        return f"{folder} is a file" if folder.exists() else ""
    if any(folder.iterdir()) and not (folder / JSON).is_file():
        return f"{folder} exists and holds other things"
    begun = next((path for path in (folder / WRONG, folder / NEXT) if _is_begun(path)), None)
    return f"{begun} has labels filled in, which would be lost" if begun else ""


def _is_begun(path: Path) -> bool:
    """Tell whether a person has filled in a label, in whatever way the file was saved."""
    if not path.is_file() or len(path.read_bytes().splitlines()) < 2:
        return False  # A header alone is no table to read.
    columns, _ = read_table(path)
    return any(as_label(cell) is not None for cell in columns.get(LABEL, ()))
