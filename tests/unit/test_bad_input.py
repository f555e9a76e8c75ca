"""What people give by mistake: each ends in one of our errors that names it and says what to do."""

from __future__ import annotations

import errno
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from picture_parts import NAMES, digit_folder, digits, machine
from PIL import Image
from safetensors.torch import save_file

from headstart import api
from headstart.core.errors import (
    DataError,
    EncoderError,
    HeadstartError,
    ModelFolderError,
    PlanError,
    StoreError,
)
from headstart.core.plan import Plan
from headstart.data import from_arrays
from headstart.result import Result


def fit(root: Path, data: Any, **values: Any) -> Result:
    """Fit the tiny network with its store and output under `root`."""
    given = {"encoder": "tiny-cnn", "output": root / "model", "machine": machine(root), **values}
    given["settings"] = {"extract.views": 1, **given.get("settings", {})}
    return api.fit(data, **given)


def nothing_was_left(root: Path) -> bool:
    """Tell whether neither a model nor anything temporary lies under `root`."""
    return not (root / "model").exists() and not list(root.rglob(".tmp-*"))


def bomb(path: Path, side: int = 30_000) -> None:
    """Write a PNG of side x side black pixels without ever holding them."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    packer, row = zlib.compressobj(1), b"\0" * (side // 8 + 1)
    body = b"".join(packer.compress(row * 1000) for _ in range(side // 1000)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


# -- folders and labels ---------------------------------------------------------------------------------------


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match="data"):
        fit(tmp_path, tmp_path / "data")
    assert nothing_was_left(tmp_path)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        fit(tmp_path, tmp_path / "nowhere")


def test_one_class(tmp_path: Path) -> None:
    pictures, _ = digits(4)
    with pytest.raises(DataError, match="only one class, 'zero'"):
        fit(tmp_path, (pictures, ["zero"] * 12))


def test_no_labels_at_all(tmp_path: Path) -> None:
    pictures, _ = digits(2)
    with pytest.raises(DataError, match="no labelled item"):
        fit(tmp_path, (pictures, [None] * 6))


@pytest.mark.parametrize("each", [1, 2, 3])
@pytest.mark.parametrize("method", ["extract", "finetune"])
def test_one_two_or_three_images_a_class_give_a_model_or_a_plain_error(
    tmp_path: Path, each: int, method: Any
) -> None:
    """Whatever is decided for so little, no other error than ours gets out, and a model that comes out works."""
    try:
        result = fit(tmp_path, digits(each), method=method)
    except HeadstartError:
        assert nothing_was_left(tmp_path)
    else:
        assert result.evaluation.n >= 1
        assert api.predict(result.folder, digits(1, skip=5)[0], machine=machine(tmp_path))


def test_one_image_a_class_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        fit(tmp_path, digits(1))


def test_labels_only_in_test(tmp_path: Path) -> None:
    pictures, labels = digits(4)
    splits = ["test" if row % 2 else "train" for row in range(12)]
    targets = [label if split == "test" else None for label, split in zip(labels, splits, strict=True)]
    data = from_arrays(pictures, targets, splits=splits)
    with pytest.raises(DataError):
        fit(tmp_path, data)
    assert nothing_was_left(tmp_path)


# -- files ----------------------------------------------------------------------------------------------------


def cut_jpeg(path: Path) -> None:
    """Write the first half of a JPEG."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, quality=90)
    path.write_bytes(path.read_bytes()[:2000])


BAD_FILES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "corrupt JPEG": ("unreadable", cut_jpeg),
    "zero bytes": ("empty-file", lambda path: path.write_bytes(b"")),
    "text": ("not-an-image", lambda path: path.write_text("Dear diary")),
    "30,000 x 30,000 PNG": ("oversized", bomb),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_left_out_and_named(tmp_path: Path, kind: str) -> None:
    code, write = BAD_FILES[kind]
    folder = digit_folder(tmp_path / "data")
    write(folder / "one" / "bad.jpg")
    result = fit(tmp_path, folder)
    (finding,) = result.audit.by_code(code)
    assert finding.items == ("one/bad.jpg",)
    assert (result.audit.num_items, result.audit.num_kept) == (37, 36)
    assert "bad.jpg" not in {Path(item.id).name for item in result.predictions}


def test_too_many_bad_files_are_refused_with_their_names(tmp_path: Path) -> None:
    folder = digit_folder(tmp_path / "data", 4)
    for number in range(5):
        (folder / "one" / f"bad{number}.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"(?s)5 of 17 items cannot be read.*one/bad0\.jpg.*one/bad4\.jpg"):
        fit(tmp_path, folder)
    assert nothing_was_left(tmp_path)


def test_a_missing_column_names_the_nearest(tmp_path: Path) -> None:
    folder = digit_folder(tmp_path / "data", 2)
    (folder / "t.csv").write_text(
        "path,diagnosis\n" + "\n".join(f"{p},x" for p in sorted(folder.rglob("*.png")))
    )
    with pytest.raises(DataError, match="diagnosis"):
        fit(tmp_path, folder / "t.csv", settings={"data.label_column": "diagnose"})


def test_a_path_outside_the_folder_of_the_table(tmp_path: Path) -> None:
    folder = digit_folder(tmp_path / "data", 2)
    (tmp_path / "secret.png").write_bytes(b"x")
    (folder / "t.csv").write_text("path,label\n../secret.png,one\nzero/000.png,zero\n")
    with pytest.raises(DataError, match=r"\.\./secret\.png"):
        fit(tmp_path, folder / "t.csv")


# -- encoders and weights -------------------------------------------------------------------------------------


def test_an_unknown_encoder(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"unknown encoder 'tiny-cn'.*did you mean 'tiny-cnn'"):
        fit(tmp_path, digits(), encoder="tiny-cn")


def test_weights_of_another_architecture(tmp_path: Path) -> None:
    save_file({"conv1.weight": torch.zeros(2, 2)}, tmp_path / "w.safetensors")
    with pytest.raises(EncoderError, match=r"does not fit this network: \d+ missing"):
        fit(tmp_path, digits(), settings={"encoder.weights": str(tmp_path / "w.safetensors")})
    assert nothing_was_left(tmp_path)


# -- settings and plans ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"extract.fold": 3}, r"fold: unknown key \(did you mean 'folds'\?\)"),
        ({"extrakt.folds": 3}, r"unknown setting 'extrakt.folds' \(did you mean 'extract'\?\)"),
        ({"extract.folds": 1}, "folds: Input should be greater than or equal to 2"),
        ({"extract.folds": "many"}, "folds: "),
        ({"finetune.epochs": 3}, "the plan has no finetune"),
        ({"folds": 3}, "unknown setting 'folds'"),
        ({"seed": -1}, "seed"),
        ({"data.max_bad": float("nan")}, "max_bad"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(PlanError, match=said):
        fit(tmp_path, digits(), method="extract", settings=settings)


def test_an_unknown_method(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"unknown method 'finetun' \(did you mean 'finetune'\?\)"):
        fit(tmp_path, digits(), method="finetun")


def test_an_unknown_key_in_a_plan_is_refused_by_name() -> None:
    text = Plan().to_json().replace('"seed"', '"sed"')
    with pytest.raises(PlanError, match=r"sed: unknown key \(did you mean 'seed'\?\)"):
        Plan.from_json(text)


def test_more_groups_to_train_than_there_are(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="train_last is 9, but tiny-cnn has 4 layer groups"):
        fit(tmp_path, digits(), method="finetune", settings={"finetune.train_last": 9})


# -- the model folder and the disk ----------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["altered", "cut"])
def test_a_damaged_model_folder(tmp_path: Path, damage: str) -> None:
    path = fit(tmp_path, digits()).folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-5] if damage == "cut" else content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ModelFolderError, match=r"model\.safetensors"):
        api.predict(tmp_path / "model", digits(1)[0], machine=machine(tmp_path))


def full_disk(*_: object, **__: object) -> None:
    """Fail as a write on a full disk does."""
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "place", ["numpy.save", "headstart.store._store.os.fsync", "headstart.model.save_file", "shutil.copytree"]
)
def test_a_full_disk_at_any_write_is_said_and_the_next_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(place, full_disk)
        with pytest.raises(StoreError, match=r"the disk that holds .* is full") as caught:
            fit(tmp_path, digits())
        assert "headstart cache gc" in caught.value.fix
    assert nothing_was_left(tmp_path)
    result = fit(tmp_path, digits())
    assert api.load(result.folder).task.labels == tuple(sorted(NAMES))


def test_a_read_only_store(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file, where no folder can be made")
    with pytest.raises(StoreError, match="store"):
        fit(tmp_path, digits())


def test_a_read_only_output_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a read-only file system does it (this may run as root, whom no permission stops)."""
    make = Path.mkdir

    def mkdir(self: Path, *arguments: Any, **values: Any) -> None:
        if self.is_relative_to(tmp_path / "mounted") and self != tmp_path / "mounted":
            raise OSError(errno.EROFS, "Read-only file system")
        make(self, *arguments, **values)

    (tmp_path / "mounted").mkdir()
    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(StoreError, match="cannot be written"):
        fit(tmp_path, digits(), output=tmp_path / "mounted" / "model")
    assert not (tmp_path / "store" / "features-v1").exists()
