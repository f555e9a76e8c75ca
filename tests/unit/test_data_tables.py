"""CSV, TSV and Parquet tables: columns by name or guess, paths inside their folder, rows named in every message."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from headstart.core.errors import DataError
from headstart.core.settings import Source
from headstart.data import TableDataset, open_dataset

NAMES = ("a.png", "b.png", "sub/c.png", "d.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data" / "sub").mkdir(parents=True)
    for name in NAMES:
        (tmp_path / "data" / name).write_bytes(name.encode())
    return tmp_path / "data"


def opened(folder: Path, text: str, name: str = "table.csv", **columns: str) -> TableDataset:
    (folder / name).write_text(text, encoding="utf-8")
    return open_dataset(Source(uri=str(folder / name), **columns))  # type: ignore[arg-type]


def test_columns_are_guessed_and_said(folder: Path) -> None:
    header = "Image,Diagnosis,patient_id,split,site\n"
    text = header + "a.png,x,p1,train,s1\nb.png,y,p1,VALID,s1\nsub/c.png,x,p2,Testing,s2\n"
    data = opened(folder, text)
    assert data.ids == ["a.png", "b.png", "sub/c.png"]
    assert data.targets == ["x", "y", "x"]
    assert data.groups == ["p1", "p1", "p2"]
    assert data.splits == ["train", "validation", "test"]
    assert data.domains == ["s1", "s1", "s2"]
    (note,) = data.notes
    assert note.code == "columns-guessed"
    for said in ("path = 'Image'", "label = 'Diagnosis'", "group = 'patient_id'", "domain = 'site'"):
        assert said in note.message


def test_columns_as_set_win_over_guesses(folder: Path) -> None:
    data = opened(folder, "path,label,kind\na.png,1,x\nb.png,2,y\n", label_column="kind", path_column="path")
    assert data.labels == ("x", "y")
    assert data.notes == ()


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_quotes_and_a_byte_order_mark(folder: Path, separator: str) -> None:
    text = (
        "\ufeff"
        + separator.join(["path", "label"])
        + "\r\n"
        + separator.join(["a.png", '"one\nline"'])
        + "\r\n"
    )
    data = opened(folder, text + separator.join(["b.png", '"a "" quote"']) + "\n\n")
    assert data.targets == ["one\nline", 'a " quote']


def test_tsv(folder: Path) -> None:
    assert opened(folder, "file\tlabel\na.png\tx, y\nb.png\tz\n", "table.tsv").labels == ("x, y", "z")


def test_parquet_reads_as_csv_does(folder: Path) -> None:
    columns = {"path": ["a.png", "b.png", "d.png"], "label": [1.0, None, 2.0], "group": [1, 1, 2]}
    parquet.write_table(pyarrow.table(columns), folder / "t.parquet")
    data = open_dataset(Source(uri=str(folder / "t.parquet")))
    assert data.targets == ["1", None, "2"]
    assert data.groups == ["1", "1", "2"]
    (folder / "t.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match="cannot be read"):
        open_dataset(Source(uri=str(folder / "t.parquet")))


def test_parquet_without_pyarrow_names_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"pip install 'headstart\[parquet\]'"):
        open_dataset(Source(uri=str(folder / "t.parquet")))


@pytest.mark.parametrize("missing", ["", "NaN", "nan", "None", "NULL", "inf", " "])
def test_missing_labels_are_unlabelled_items(folder: Path, missing: str) -> None:
    data = opened(folder, f"path,label\na.png,x\nb.png,{missing}\nd.png,y\n")
    assert data.targets == ["x", None, "y"]
    assert data.labels == ("x", "y")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no text"),
        ("path,label\n", "a header but no rows"),
        ("path,label,label\na.png,x,y\n", "two columns 'label'"),
        ("path,label\na.png,x\nb.png\n", "row 3 has 1 values"),
        ("path,label\na.png,x\n,y\n", "row 3 has no path"),
        ("path,label\na.png,x\nsub/../a.png,y\n", r"row 2 and table\.csv row 3 both name"),
        ("path,label\na.png,x\nmissing.png,y\n", r"row 3: missing\.png"),
        ("path,label\n../out.png,x\n", "row 2: .* lies outside"),
        ("path,label\n/etc/hostname,x\n", "row 2: .* lies outside"),
        ("path,label\nsub/../../out.png,x\n", "lies outside"),
        ("path,label,split\na.png,x,trian\n", r"row 2 says the split 'trian' \(did you mean 'train'"),
        ("path,name\na.png,x\n", "no column that looks like the label"),
        ("where,label\na.png,x\n", r"no column that looks like the path[^$]*has where, label"),
        ("path,label\0\na.png,x\n", "NUL"),
    ],
)
def test_bad_tables_say_row_and_fix(folder: Path, text: str, said: str) -> None:
    (folder.parent / "out.png").write_bytes(b"x")
    with pytest.raises(DataError, match=said) as caught:
        opened(folder, text)
    assert caught.value.fix


def test_a_missing_column_is_named_with_the_nearest(folder: Path) -> None:
    with pytest.raises(
        DataError, match=r"no column 'lable' \(did you mean 'label'\?\)[^$]*--set data.label_column"
    ):
        opened(folder, "path,label\na.png,x\n", label_column="lable")


def test_a_table_in_another_encoding_is_read_and_said(folder: Path) -> None:
    (folder / "t.csv").write_bytes("path,label\na.png,café\nb.png,thé\n".encode("latin-1"))
    data = open_dataset(Source(uri=str(folder / "t.csv")))
    assert data.targets == ["café", "thé"]
    (note,) = (note for note in data.notes if note.code == "encoding-guessed")
    assert note.severity == "warning"
    assert "t.csv is not UTF-8: read as cp1252" in note.message


def test_tables_that_are_not_there(folder: Path) -> None:
    for name in ("none.csv", "none.parquet"):
        with pytest.raises(DataError, match="does not exist"):
            open_dataset(Source(uri=str(folder / name)))


def test_links_that_lead_outside_are_refused(folder: Path) -> None:
    outside = folder.parent / "secret.png"
    outside.write_bytes(b"x")
    (folder / "link.png").symlink_to(outside)
    with pytest.raises(DataError, match="link that leads outside"):
        opened(folder, "path,label\nlink.png,x\n")
    (folder / "elsewhere").symlink_to(folder.parent)
    with pytest.raises(DataError, match="link that leads outside"):
        opened(folder, "path,label\nelsewhere/secret.png,x\n")


def test_absolute_paths_inside_and_backslashes_are_taken(folder: Path) -> None:
    data = opened(folder, f"path,label\n{folder / 'a.png'},x\nsub\\c.png,y\n")
    assert data.ids == ["a.png", "sub/c.png"]


def test_moving_a_table_with_its_folder_keeps_the_fingerprint(folder: Path, tmp_path: Path) -> None:
    first = opened(folder, "path,label\na.png,x\nb.png,y\n").fingerprint
    moved = folder.rename(tmp_path / "moved")
    assert open_dataset(Source(uri=str(moved / "table.csv"))).fingerprint == first
