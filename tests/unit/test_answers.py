"""Labels that a person filled in are laid over the data, and what does not fit is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from picture_parts import digit_folder

from headstart.core.errors import DataError
from headstart.core.plan import Plan
from headstart.core.settings import Source
from headstart.data import from_texts, open_dataset, with_answers


def answered(folder: Path, table: str, *, targets: list[str | None], task: str | None = None) -> list[object]:
    """Return the targets of three texts after a table was laid over them."""
    path = folder / "answers.csv"
    path.write_text(table, encoding="utf-8")
    dataset = from_texts(["one", "two", "three"], targets, ids=["1", "2, b", "3"])
    source = Source.model_validate({"answers": str(path), "task": task})
    return list(with_answers(dataset, source).targets)


def test_filled_rows_go_before_the_data_and_blank_ones_change_nothing(tmp_path: Path):
    table = '\ufeffid,label,likely\n"2, b",new,x\n3,,x\n'
    assert answered(tmp_path, table, targets=["old", "old", None]) == ["old", "new", None]


def test_of_two_tables_the_later_one_counts(tmp_path: Path):
    for name, label in (("a.csv", "first"), ("b.csv", "second")):
        (tmp_path / name).write_text(f"id;label\n1;{label}\n")
    dataset = from_texts(["one", "two"], [None, "old"], ids=["1", "2"])
    source = Source(answers=(str(tmp_path / "a.csv"), str(tmp_path / "b.csv")))
    laid = with_answers(dataset, source)
    assert laid.targets == ["second", "old"] and laid.labels == ("old", "second")


def test_answers_say_what_unlabelled_data_are_of(tmp_path: Path):
    assert answered(tmp_path, "id,label\n1,0.5\n3,2.25\n", targets=[None] * 3) == [0.5, None, 2.25]
    several = answered(tmp_path, "id,label\n1,a|b\n3,[]\n", targets=[None] * 3, task="multilabel")
    assert several == [("a", "b"), None, ()]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("id,label\n4,x\n", "row 2 names '4', which is no item"),
        ("id,label\n1,x\n1,y\n", "row 2 and answers.csv row 3 give one item"),
        ("name,label\n1,x\n", "no column 'id'"),
        ("id,class\n1,x\n", "no column 'label'"),
        ("id,label\n", "a header but no rows"),
    ],
)
def test_answers_that_do_not_fit_are_refused(tmp_path: Path, table: str, message: str):
    with pytest.raises(DataError, match=message):
        answered(tmp_path, table, targets=["old", None, None])


def test_an_id_that_reads_as_two_items_cannot_be_answered(tmp_path: Path):
    (tmp_path / "answers.csv").write_text("id,label\ncaf?.png,x\n")
    dataset = from_texts(["one", "two"], [None, None], ids=["caf\udce9.png", "caf\udce8.png"])
    with pytest.raises(DataError, match="the id of several items"):
        with_answers(dataset, Source(answers=str(tmp_path / "answers.csv")))


def test_a_folder_without_classes_can_be_fitted_once_answers_say_them(tmp_path: Path):
    folder = digit_folder(tmp_path / "digits", 2)
    for path in list(folder.rglob("*.png")):
        path.rename(folder / path.name)
    for name in ("zero", "one", "two"):
        (folder / name).rmdir()
    with pytest.raises(DataError, match="no class folders"):
        open_dataset(Source(uri=str(folder)))
    (tmp_path / "answers.csv").write_text("id,label\n000.png,zero\n002.png,one\n")
    dataset = open_dataset(Source(uri=str(folder), answers=str(tmp_path / "answers.csv")))
    assert dataset.labels == ("one", "zero") and dataset.targets.count(None) == 4


def test_where_answers_lie_is_in_no_key():
    assert Plan(data=Source(answers="a.csv")).key == Plan().key
