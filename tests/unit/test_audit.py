"""An audit finds what would spoil a score, says it, and leaves out what must go."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from headstart.core.errors import DataError
from headstart.core.settings import Source, Split
from headstart.core.types import Finding
from headstart.data import TableDataset, from_arrays, open_dataset
from headstart.data.audit import Outcome, audit, inspect
from headstart.data.splits import split
from headstart.data.twins import exact_twins, near_twins


def scene(seed: int, width: int = 120, height: int = 96) -> Image.Image:
    """Draw a picture of its own: smooth blobs and a little texture."""
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(draw.integers(0, 230, (6, 8, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
    return Image.fromarray((smooth + draw.normal(0, 5, smooth.shape)).clip(0, 255).astype(np.uint8))


def save(path: Path, seed: int, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    scene(seed).save(path, **options)  # type: ignore[arg-type]
    return path


def examine(root: Path | TableDataset, **settings: object) -> Outcome:
    source = Source(uri="" if isinstance(root, TableDataset) else str(root), **settings)  # type: ignore[arg-type]
    data = root if isinstance(root, TableDataset) else open_dataset(source)
    facts, failures = inspect(data, settings=source, threads=2)
    return audit(data, facts, failures, settings=source)


def only(outcome: Outcome, code: str) -> Finding:
    (finding,) = outcome.audit.by_code(code)
    return finding


def codes(outcome: Outcome) -> set[str]:
    return {finding.code for finding in outcome.audit.findings}


def plain(root: Path, count: int = 12, folders: tuple[str, ...] = ("cat", "dog")) -> Path:
    """Fill class folders with pictures that all differ."""
    for place, folder in enumerate(folders):
        for number in range(count):
            save(root / folder / f"{number}.png", seed=1000 * place + number)
    return root


def test_sound_data_have_no_findings(tmp_path: Path) -> None:
    outcome = examine(plain(tmp_path))
    assert outcome.audit.findings == ()
    assert outcome.keep == list(range(24))
    assert outcome.ties == []


def test_unreadable_items_are_left_out_and_named_by_kind(tmp_path: Path) -> None:
    plain(tmp_path)
    broken = tmp_path / "cat" / "0.png"
    broken.write_bytes(broken.read_bytes()[:900])
    (tmp_path / "cat" / "empty.jpg").write_bytes(b"")
    (tmp_path / "dog" / "words.jpg").write_text("not a picture")
    Image.new("L", (600, 600)).save(tmp_path / "dog" / "huge.png")
    outcome = examine(tmp_path, max_bad=0.2, max_megapixels=0.3)
    assert only(outcome, "unreadable").items == ("cat/0.png",)
    assert only(outcome, "empty-file").items == ("cat/empty.jpg",)
    assert only(outcome, "not-an-image").items == ("dog/words.jpg",)
    assert only(outcome, "oversized").items == ("dog/huge.png",)
    assert (outcome.audit.num_items, outcome.audit.num_kept, len(outcome.keep)) == (27, 23, 23)


def test_too_many_unreadable_items_are_refused_with_the_first_ten(tmp_path: Path) -> None:
    plain(tmp_path)
    for number in range(12):
        (tmp_path / "cat" / f"{number}.png").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"12 of 24 items cannot be read:\n +cat/0.png: it is empty[^$]*and 2 more"
    ) as caught:
        examine(tmp_path)
    assert "data.max_bad" in str(caught.value)
    assert "cat/9.png" not in str(caught.value)


def test_one_bad_item_is_always_left_out_unless_none_may_be(tmp_path: Path) -> None:
    plain(tmp_path)
    (tmp_path / "cat" / "3.png").write_bytes(b"")
    assert len(examine(tmp_path).keep) == 23
    with pytest.raises(DataError, match="1 of 24"):
        examine(tmp_path, max_bad=0)


def test_a_file_deleted_before_reading_is_a_finding(tmp_path: Path) -> None:
    data = open_dataset(Source(uri=str(plain(tmp_path))))
    (tmp_path / "dog" / "5.png").unlink()
    assert only(examine(data), "missing-file").items == ("dog/5.png",)


def test_unlabelled_items_are_named_and_kept_for_methods_that_can_use_them() -> None:
    images = [np.asarray(scene(seed)) for seed in range(12)]
    outcome = examine(from_arrays(images, ["a", "b", float("nan"), None, *"abababab"]))
    assert only(outcome, "missing-label").items == ("2", "3")
    assert outcome.keep == list(range(12))


def test_exact_twins_are_tied_without_given_splits(tmp_path: Path) -> None:
    plain(tmp_path)
    (tmp_path / "cat" / "copy.png").write_bytes((tmp_path / "cat" / "1.png").read_bytes())
    outcome = examine(tmp_path)
    assert only(outcome, "exact-duplicate").items == ("cat/1.png", "cat/copy.png")
    assert only(outcome, "exact-duplicate").severity == "info"
    ((one, other),) = outcome.ties
    data = open_dataset(Source(uri=str(tmp_path))).subset(outcome.keep)
    assert {data.ids[one], data.ids[other]} == {"cat/1.png", "cat/copy.png"}
    names = split(data, Split(), seed=0, ties=outcome.ties)
    assert names[one] == names[other]


def test_identical_pictures_with_other_labels_are_named(tmp_path: Path) -> None:
    plain(tmp_path)
    (tmp_path / "dog" / "x.png").write_bytes((tmp_path / "cat" / "1.png").read_bytes())
    finding = only(examine(tmp_path), "conflicting-labels")
    assert finding.severity == "warning"
    assert "cat/1.png 'cat' / dog/x.png 'dog'" in finding.message


def test_training_copies_of_test_pictures_are_left_out_and_test_stays(tmp_path: Path) -> None:
    plain(tmp_path, folders=("train/cat", "train/dog", "val/cat", "val/dog", "test/cat", "test/dog"))
    (tmp_path / "train/cat/twin.png").write_bytes((tmp_path / "test/cat/1.png").read_bytes())
    (tmp_path / "val/cat/twin.png").write_bytes((tmp_path / "test/cat/1.png").read_bytes())
    scene(3005).save(tmp_path / "train/dog/near.jpg", quality=70)
    outcome = examine(tmp_path)
    assert only(outcome, "leak-exact").items == ("train/cat/twin.png", "val/cat/twin.png")
    assert only(outcome, "leak-near").items == ("train/dog/near.jpg",)
    data = open_dataset(Source(uri=str(tmp_path)))
    left_out = {data.ids[row] for row in set(range(len(data))) - set(outcome.keep)}
    assert left_out == {"train/cat/twin.png", "val/cat/twin.png", "train/dog/near.jpg"}
    assert outcome.ties == []


def test_planted_near_duplicates_are_found_and_others_are_not(tmp_path: Path) -> None:
    plain(tmp_path, count=150)
    planted: set[tuple[str, str]] = set()
    for number in range(50):
        picture = scene(number)
        if number % 3 == 1:
            picture = picture.resize((84, 67), Image.Resampling.BICUBIC)
        if number % 3 == 2:
            picture = ImageEnhance.Brightness(picture).enhance(1.1)
        picture.save(tmp_path / "cat" / f"near{number}.jpg", quality=70)
        planted.add((f"cat/{number}.png", f"cat/near{number}.jpg"))
    outcome = examine(tmp_path)
    data = open_dataset(Source(uri=str(tmp_path))).subset(outcome.keep)
    found = {(data.ids[one], data.ids[other]) for one, other in outcome.ties}
    assert len(found & planted) >= 0.95 * len(planted)
    assert len(found - planted) <= 0.01 * len(data)


def test_flat_pictures_are_twins_only_at_the_same_grey() -> None:
    hashes = np.zeros(4, dtype=np.uint64)
    greys = np.stack([np.full((16, 16), value, np.uint8) for value in (0, 1, 90, 200)])
    assert near_twins(hashes, greys) == [(0, 1)]


def test_near_twins_agree_with_a_search_of_all_pairs() -> None:
    draw = np.random.default_rng(0)
    base = np.stack([np.asarray(scene(seed).convert("L").resize((16, 16))) for seed in range(60)])
    greys = np.concatenate(
        [base, np.clip(base.astype(int) + draw.integers(-2, 3, base.shape), 0, 255).astype(np.uint8)]
    )
    hashes = draw.integers(0, 2**64, 60, dtype=np.uint64)
    flips = np.array(
        [sum(1 << int(bit) for bit in draw.choice(64, row % 8, replace=False)) for row in range(60)],
        np.uint64,
    )
    found = near_twins(np.concatenate([hashes, hashes ^ flips]), greys)
    assert found == [(row, row + 60) for row in range(60)]


def test_exact_twins_are_groups() -> None:
    assert exact_twins(["x", "y", "x", "z", "y", "x"]) == [[0, 2, 5], [1, 4]]


def test_groups_across_given_splits_are_an_error() -> None:
    images = [np.asarray(scene(seed)) for seed in range(12)]
    splits = ["train"] * 8 + ["test"] * 4
    outcome = examine(
        from_arrays(images, "ab" * 6, groups=[1, 1, 2, 2, 3, 3, 4, 4, 4, 5, 6, 6], splits=splits)
    )
    finding = only(outcome, "group-leak")
    assert finding.severity == "error"
    assert finding.items == ("6", "7", "8")
    assert "1 groups lie in more than one split (4)" in finding.message


def test_classes_that_differ_between_splits(tmp_path: Path) -> None:
    plain(
        tmp_path, count=6, folders=("train/cat", "train/dog", "train/emu", "test/cat", "test/dog", "test/fox")
    )
    outcome = examine(tmp_path)
    assert only(outcome, "missing-class").severity == "error"
    assert "fox" in only(outcome, "missing-class").message
    assert "emu" in only(outcome, "label-folder-mismatch").message


def test_small_classes_imbalance_and_a_single_class(tmp_path: Path) -> None:
    plain(tmp_path, count=30, folders=("many",))
    assert only(examine(tmp_path), "one-class").severity == "error"
    save(tmp_path / "few" / "1.png", seed=9999)
    outcome = examine(tmp_path)
    assert "few (1)" in only(outcome, "small-class").message
    assert only(outcome, "imbalance").severity == "info"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Cat", "cat"),
        ("big cat", "big_cat"),
        (unicodedata.normalize("NFC", "né"), unicodedata.normalize("NFD", "né")),
    ],
)
def test_class_names_that_look_alike(one: str, other: str) -> None:
    images = [np.asarray(scene(seed)) for seed in range(12)]
    finding = only(examine(from_arrays(images, [one, other] * 6)), "label-spelling")
    assert one in finding.message
    assert other in finding.message


def test_odd_shapes_are_mentioned(tmp_path: Path) -> None:
    plain(tmp_path)
    scene(77, width=900, height=40).save(tmp_path / "cat" / "strip.png")
    assert only(examine(tmp_path), "shape-outlier").items == ("cat/strip.png",)


def test_what_the_reader_noted_is_repeated(tmp_path: Path) -> None:
    plain(tmp_path)
    (tmp_path / "cat" / "notes.txt").write_text("x")
    assert codes(examine(tmp_path)) == {"not-an-image"}
