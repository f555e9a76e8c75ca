"""`headstart labels` from end to end on small real pictures and texts: tables, page, bad input."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_parts import digit_folder, digits, machine
from PIL import Image
from sentence_parts import texts
from typer.testing import CliRunner

import headstart
from headstart.cli._app import app
from headstart.core.errors import DataError, PlanError, StoreError
from headstart.data import from_arrays, from_texts
from headstart.labelling import LabelReport
from headstart.labelling.wrong import wrong_labels
from headstart.tasks.regression import Regression


def look(root: Path, data: Any, *, encoder: str = "tiny-cnn", **values: Any) -> LabelReport:
    """Look through some data with a tiny network, everything under `root`."""
    return headstart.labels(
        data, encoder=encoder, machine=machine(root), **{"output": root / "labels", **values}
    )


def rows_of(path: Path) -> list[dict[str, str]]:
    """Read a table that was written."""
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def write_rows(path: Path, rows: Sequence[dict[str, str]], *, encoding: str = "utf-8") -> Path:
    """Write a table as a person's program would."""
    with path.open("w", newline="", encoding=encoding) as stream:
        table = csv.DictWriter(stream, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return path


def mixed_folder(root: Path) -> Path:
    """Return digits in class folders, two of them in a wrong one, and four without a class beside the folders."""
    folder = digit_folder(root / "digits, mixed", 20)
    (folder / "zero" / "003.png").rename(folder / "one" / "003 wröng.png")
    (folder / "two" / "050.png").rename(folder / "zero" / "'050',;wrong.png")
    for number in (5, 6, 25, 45):
        next(folder.rglob(f"{number:03d}.png")).rename(folder / f"open {number}.png")
    return folder


def test_planted_errors_are_named_and_the_open_items_proposed(tmp_path: Path):
    folder = mixed_folder(tmp_path)
    found = look(tmp_path, folder, next=3)
    assert (found.num_labelled, found.num_unlabelled) == (56, 4)
    said = {item.id: (item.given, item.suggested) for item in found.wrong}
    assert said["one/003 wröng.png"] == ("one", "zero")
    assert said["zero/'050',;wrong.png"] == ("zero", "two")
    assert len(found.next) == 3 and all(item.id.startswith("open ") for item in found.next)
    assert found.way == "uncertainty"
    written = rows_of(tmp_path / "labels" / "wrong_labels.csv")
    assert [row["id"] for row in written] == [item.id for item in found.wrong]
    assert {row["label"] for row in written} == {""}
    document = json.loads((tmp_path / "labels" / "labels.json").read_text("utf-8"))
    assert [row["id"] for row in document["next"]] == [item.id for item in found.next]
    page = (tmp_path / "labels" / "labels.html").read_text("utf-8")
    assert page.count("data:image/jpeg") == len(found.wrong) + 3 and "003 wröng.png" in page


def test_the_encoding_is_the_one_of_fit(tmp_path: Path):
    folder = mixed_folder(tmp_path)
    settings = {"extract.views": 1}
    headstart.fit(
        folder, encoder="tiny-cnn", settings=settings, output=tmp_path / "m", machine=machine(tmp_path)
    )
    found = look(tmp_path, folder)
    assert (found.num_encoded, found.num_stored) == (0, 60)


def test_filled_tables_are_given_back_and_not_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    folder = mixed_folder(tmp_path)
    first = look(tmp_path, folder, output=None)
    assert first.folder == Path("labels/digits, mixed")
    table = first.folder / "wrong_labels.csv"
    right = {"one/003 wröng.png": "zero", "zero/'050',;wrong.png": "two"}
    write_rows(
        table, [{**row, "label": right.get(row["id"], "")} for row in rows_of(table)], encoding="utf-8-sig"
    )
    second = look(tmp_path, folder, output=None, settings={"data.answers": str(table)})
    assert second.folder == Path("labels/digits, mixed-2")
    assert not {item.id for item in second.wrong} & set(right)
    assert [finding.code for finding in second.findings].count("answers") == 1
    with pytest.raises(StoreError, match="filled in"):
        look(tmp_path, folder, output=first.folder)


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_filled_row_is_kept_however_the_table_ends(tmp_path: Path, end: str):
    folder = mixed_folder(tmp_path)
    first = look(tmp_path, folder)
    assert first.folder
    (first.folder / "next_labels.csv").write_bytes(f"id,label\r\nzero,one{end}".encode())
    with pytest.raises(StoreError, match="filled in"):
        look(tmp_path, folder, output=first.folder)


def test_nothing_labelled_is_a_start_from_the_middle_of_what_is_alike(tmp_path: Path):
    pictures, _ = digits(10)
    found = look(tmp_path, (pictures, [None] * 30), next=6)
    assert found.way == "coverage" and found.wrong == () and found.labels == ()
    assert len({item.id for item in found.next}) == 6
    assert found.notes == ("wrong labels were not looked for: no item has a label yet",)
    assert [row["likely"] for row in rows_of(tmp_path / "labels" / "next_labels.csv")] == [""] * 6


def test_a_folder_without_class_folders_is_such_a_start(tmp_path: Path):
    pictures, _ = digits(4)
    (tmp_path / "loose").mkdir()
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / "loose" / f"=cmd {number}.png")
    found = look(tmp_path, tmp_path / "loose", next=2)
    assert found.num_unlabelled == 12 and all(item.id.startswith("=cmd ") for item in found.next)


def test_a_table_of_texts_without_a_label_column_and_with_a_mark_at_its_start(tmp_path: Path):
    lines, _ = texts(8)
    table = write_rows(tmp_path / "réviews.csv", [{"text": line} for line in lines], encoding="utf-8-sig")
    found = look(tmp_path, table, encoder="tiny-text-transformer", next=4)
    written = rows_of(tmp_path / "labels" / "next_labels.csv")
    assert [row["id"] for row in written] == [item.id for item in found.next] and len(written) == 4
    number = int(written[0]["id"].removeprefix("row ")) - 2
    assert written[0]["text"] == lines[number]
    assert lines[number] in (tmp_path / "labels" / "labels.html").read_text("utf-8")
    given = write_rows(tmp_path / "answers.csv", [{"id": row["id"], "label": "a"} for row in written])
    again = look(
        tmp_path, table, encoder="tiny-text-transformer", next=4, settings={"data.answers": str(given)}
    )
    assert again.num_labelled == 4 and not {row["id"] for row in written} & {item.id for item in again.next}


def test_without_an_unlabelled_item_only_wrong_labels_are_looked_for(tmp_path: Path):
    pictures, labels = digits(20)
    labels[0] = "two"
    found = look(tmp_path, (pictures, labels), next=30)
    assert found.next == () and "0" in {item.id.split()[-1].strip("[]") for item in found.wrong}
    assert found.notes == ("there is no unlabelled picture, so there is none to label next",)
    assert look(tmp_path, (pictures, labels), next=0).notes == ()


def test_one_class_tells_no_wrong_label_but_what_to_label_next(tmp_path: Path):
    pictures, _ = digits(10)
    found = look(tmp_path, (pictures, ["zero"] * 25 + [None] * 5), next=2)
    assert found.wrong == () and len(found.next) == 2 and found.way == "coverage"
    assert found.notes == ("wrong labels were not looked for: all 25 labels are 'zero'",)
    with pytest.raises(DataError, match="only one class"):
        look(tmp_path, (pictures, ["zero"] * 30))


def test_three_pictures_are_too_few_to_call_a_label_wrong(tmp_path: Path):
    pictures, labels = digits(1)
    found = look(tmp_path, (pictures, [*labels[:2], None]))
    assert not found.has_looked and found.wrong == () and len(found.next) == 1
    assert found.notes[0] == (
        "wrong labels were not looked for: 2 labelled pictures are too few (at least 20 are needed)"
    )


def test_unlabelled_items_of_a_test_split_are_not_proposed(tmp_path: Path):
    pictures, labels = digits(8)
    targets = [None if row % 4 == 0 else label for row, label in enumerate(labels)]
    splits = ["test" if row % 8 == 0 else "train" for row in range(24)]
    found = look(tmp_path, from_arrays(pictures, targets, splits=splits, ids=[str(row) for row in range(24)]))
    assert sorted(int(item.id) for item in found.next) == [4, 12, 20]
    assert any("test split" in note for note in found.notes)


def test_a_number_that_does_not_suit_its_picture_is_named(tmp_path: Path):
    draws = np.random.default_rng(0)
    pictures = [
        np.full((32, 32), 4 * row, np.uint8) + draws.integers(0, 9, (32, 32), np.uint8) for row in range(60)
    ]
    numbers: list[Any] = [row + 0.5 for row in range(60)]
    numbers[12], numbers[40] = 55.5, None
    found = look(
        tmp_path, from_arrays(pictures, numbers, task="regression", ids=[f"p{row}" for row in range(60)])
    )
    assert found.wrong[0].id == "p12" and found.wrong[0].p_given is None
    assert [item.id for item in found.next] == ["p40"] and found.way == "coverage"
    header = next(iter(rows_of(tmp_path / "labels" / "wrong_labels.csv")))
    assert "deviations" in header


def test_numbers_that_most_heads_meet_exactly_call_no_other_wrong():
    numbers: list[Any] = [10.0] * 30 + [30.0] * 18
    said = np.array([10.001 + 0.001 * (row % 3) for row in range(30)] + [11.0 + row % 5 for row in range(18)])
    assert wrong_labels(Regression(), [str(row) for row in range(48)], numbers, said) == []


def test_the_only_item_of_a_class_is_not_called_wrong(tmp_path: Path):
    pictures, names = digits(20)
    targets: list[Any] = [name if name != "two" else None for name in names]
    targets[59] = "two"
    found = look(tmp_path, from_arrays(pictures, targets, ids=[str(row) for row in range(60)]), next=2)
    assert "59" not in {item.id for item in found.wrong}


def test_doubt_chooses_only_where_most_classes_have_labels(tmp_path: Path):
    pictures, names = digits(40)
    kept = {"zero": 40, "one": 1, "two": 1}
    seen: Counter[str] = Counter()
    targets: list[Any] = []
    for name in names:
        seen[name] += 1
        targets.append(name if seen[name] <= kept[name] else None)
    assert look(tmp_path, (pictures, targets), next=2).way == "coverage"


def test_several_labels_an_item_are_looked_through_one_by_one(tmp_path: Path):
    pictures, names = digits(20)
    targets: list[Any] = [(name, "round") if name in ("zero", "two") else (name,) for name in names]
    targets[3], targets[59] = ("one", "round"), None
    found = look(tmp_path, from_arrays(pictures, targets, ids=[str(row) for row in range(60)]), next=1)
    assert {item.id for item in found.wrong} >= {"3"}
    assert [item.id for item in found.next] == ["59"]
    written = {row["id"]: row for row in rows_of(tmp_path / "labels" / "wrong_labels.csv")}
    assert written["3"]["given"] == "one|round"


def test_tagged_words_are_refused(tmp_path: Path):
    dataset = from_texts(
        [("Ann", "left"), ("so", "did", "Bob")], [("B-PER", "O"), ("O", "O", "B-PER")], task="tagging"
    )
    with pytest.raises(PlanError, match="a tag a word"):
        look(tmp_path, dataset, encoder="tiny-text-transformer")


def test_a_folder_of_other_things_is_not_written_to(tmp_path: Path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "thesis.txt").write_text("precious")
    with pytest.raises(StoreError, match="holds other things"):
        look(tmp_path, digits())
    with pytest.raises(PlanError, match="-1 items"):
        look(tmp_path, digits(), next=-1)


@pytest.mark.skipif(os.name != "posix", reason="file names are text elsewhere")
def test_a_file_name_that_is_no_text_keeps_its_place_in_the_tables(tmp_path: Path):
    folder = digit_folder(tmp_path / "digits", 8)
    odd = os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png")
    (folder / "zero" / "001.png").rename(odd)
    arguments = ["labels", str(folder), "--encoder", "tiny-cnn", "--store", str(tmp_path / "store")]
    done = CliRunner().invoke(app, [*arguments, "--output", str(tmp_path / "labels")])
    assert done.exit_code == 0 and "caf?.png" in done.stdout
    (row,) = rows_of(tmp_path / "labels" / "next_labels.csv")
    assert row["id"] == "caf?.png"
    given = write_rows(tmp_path / "answers.csv", [{**row, "label": "zero"}])
    assert look(tmp_path, folder, settings={"data.answers": str(given)}).num_unlabelled == 0


def test_the_command_line_says_what_was_found_and_where(tmp_path: Path):
    folder = mixed_folder(tmp_path)
    arguments = [
        "labels",
        str(folder),
        "--next",
        "2",
        "--encoder",
        "tiny-cnn",
        "--store",
        str(tmp_path / "store"),
    ]
    done = CliRunner().invoke(app, [*arguments, "--output", str(tmp_path / "out"), "--threads", "1"])
    assert done.exit_code == 0, done.output
    assert (
        "one/003 wröng.png: one -> zero" in done.stdout
        and "2 items to label next, by uncertainty" in done.stdout
    )
    assert str(tmp_path / "out" / "labels.html") in done.stdout
    again = CliRunner().invoke(app, [*arguments, "--output", str(tmp_path / "out"), "--json"])
    assert json.loads(again.stdout)["num_labelled"] == 56
