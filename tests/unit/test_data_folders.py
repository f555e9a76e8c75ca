"""Folders of class folders become datasets; what cannot be learnt from is refused with the fix."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.core.errors import DataError
from headstart.core.settings import Source
from headstart.data import TableDataset, open_dataset, require_targets


def fill(root: Path, *names: str) -> Path:
    """Write a small picture of its own colour under each name."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 12), (number % 256, number // 256, 7)).save(path)
    return root


def opened(root: Path) -> TableDataset:
    return open_dataset(Source(uri=str(root)))


def test_class_folders(tmp_path: Path) -> None:
    data = opened(fill(tmp_path, "cat/1.png", "cat/deep/2.PNG", "dog/1.jpg", ".hidden/x.png", "cat/.x.png"))
    assert data.ids == ["cat/1.png", "cat/deep/2.PNG", "dog/1.jpg"]
    assert data.targets == ["cat", "cat", "dog"]
    assert data.labels == ("cat", "dog")
    assert data.splits == [None, None, None]
    assert data[2].input == tmp_path / "dog" / "1.jpg"
    assert (data[2].id, data[2].target) == ("dog/1.jpg", "dog")


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Training", "Validation", "TESTING"), ("TRAIN", "valid", "Test")]
)
def test_split_folders_in_any_case(tmp_path: Path, names: tuple[str, str, str]) -> None:
    data = opened(fill(tmp_path, *(f"{name}/{label}/1.png" for name in names for label in "ab")))
    assert [len(data.indices(split)) for split in ("train", "validation", "test")] == [2, 2, 2]
    assert data.labels == ("a", "b")


def test_a_class_called_test_without_a_train_folder_is_a_class(tmp_path: Path) -> None:
    assert opened(fill(tmp_path, "test/1.png", "other/1.png")).labels == ("other", "test")


def test_train_and_test_only_leave_validation_to_be_cut(tmp_path: Path) -> None:
    data = opened(fill(tmp_path, "train/a/1.png", "train/b/1.png", "test/a/1.png"))
    assert set(data.splits) == {"train", "test"}


def test_folders_beside_split_folders_are_named(tmp_path: Path) -> None:
    data = opened(fill(tmp_path, "train/a/1.png", "train/b/1.png", "docs/a/1.png"))
    assert len(data) == 2
    assert "docs" in data.notes[0].items


def test_a_level_of_domains(tmp_path: Path) -> None:
    data = opened(
        fill(tmp_path, *(f"{domain}/{label}/1.png" for domain in ("photo", "art") for label in "ab"))
    )
    assert data.labels == ("a", "b")
    assert data.domains == ["art", "art", "photo", "photo"]
    assert data.notes[0].code == "domains-from-folders"


def test_numbers_sort_by_value(tmp_path: Path) -> None:
    assert opened(fill(tmp_path, "10/1.png", "9/1.png", "1/1.png")).labels == ("1", "9", "10")


def test_other_files_and_empty_class_folders_are_noted(tmp_path: Path) -> None:
    fill(tmp_path, "cat/1.png", "dog/1.png")
    (tmp_path / "cat" / "drawing.svg").write_text("<svg/>")
    (tmp_path / "cat" / "paper.pdf").write_text("%PDF")
    (tmp_path / "cow").mkdir()
    notes = {note.code: note for note in opened(tmp_path).notes}
    assert notes["not-an-image"].items == ("cat/drawing.svg", "cat/paper.pdf")
    assert notes["empty-class"].items == ("cow",)
    assert notes["empty-class"].severity == "warning"


def test_class_names_that_differ_in_case_stay_apart(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    assert len(opened(fill(tmp_path, f"{composed}/1.png", f"{decomposed}/1.png", "x/1.png")).labels) == 3


def test_empty_missing_and_flat_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no pictures"):
        opened(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        opened(tmp_path / "nowhere")
    with pytest.raises(DataError, match="2 pictures but no class folders"):
        opened(fill(tmp_path, "1.png", "2.png"))
    with pytest.raises(DataError, match="is not a folder"):
        opened(tmp_path / "1.png")
    with pytest.raises(DataError, match="no data were given"):
        open_dataset(Source())


def test_one_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="only one class, 'cat'"):
        require_targets(opened(fill(tmp_path, "cat/1.png", "cat/2.png")))


def test_the_fingerprint_is_of_content_not_of_place(tmp_path: Path) -> None:
    names = ("cat/1.png", "cat/2.png", "dog/1.png")
    first = opened(fill(tmp_path / "here", *names))
    (tmp_path / "there").mkdir()
    moved = (tmp_path / "here").rename(tmp_path / "there" / "moved")
    again = opened(moved)
    assert first.labels == again.labels
    assert opened(fill(tmp_path / "copy", *names)).fingerprint == again.fingerprint
    Image.new("RGB", (12, 12), (99, 99, 99)).save(moved / "dog" / "1.png")
    assert opened(moved).fingerprint != again.fingerprint


def test_the_fingerprint_sees_targets_and_splits(tmp_path: Path) -> None:
    data = opened(fill(tmp_path, "cat/1.png", "cat/2.png", "dog/1.png"))
    assert data.with_splits(["train", "train", "test"]).fingerprint != data.fingerprint
    assert data.subset([2, 1, 0]).fingerprint == data.fingerprint
    assert data.subset([0, 1]).fingerprint != data.fingerprint


def test_a_file_deleted_after_listing_is_named(tmp_path: Path) -> None:
    data = opened(fill(tmp_path, "cat/1.png", "dog/1.png"))
    (tmp_path / "dog" / "1.png").unlink()
    with pytest.raises(DataError, match=r"dog/1\.png cannot be opened"):
        data.item_hash(1)
    with pytest.raises(DataError, match=r"dog/1\.png cannot be opened"):
        _ = data.fingerprint


def test_subsets_keep_labels_and_hashes(tmp_path: Path) -> None:
    data = opened(fill(tmp_path, "cat/1.png", "dog/1.png", "emu/1.png"))
    part = data.subset(np.array([2, 0]))
    assert part.ids == ["emu/1.png", "cat/1.png"]
    assert part.labels == data.labels
    assert part.item_hash(-1) == data.item_hash(0)
    with pytest.raises(ValueError, match="1 splits for 3 items"):
        data.with_splits(["train"])
