"""Checkpoints: damage of every kind, full disks, locks, pruning."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from headstart.core.errors import ResumeError, StoreError
from headstart.train import checkpoint
from headstart.train.checkpoint import PHASES, Checkpoints, open_checkpoints, refuse_changes
from headstart.train.runtime import Event


def save(checkpoints: Checkpoints, value: float, *, best: int | None = None) -> int:
    """Save a checkpoint that holds `value`."""
    return checkpoints.save(
        state={"value": value}, tensors={"weights": {"w": torch.full((64,), value)}}, best=best
    )


def folders(root: Path) -> list[str]:
    """Return what lies in a checkpoint folder beside its lock."""
    return sorted(path.name for path in root.iterdir() if path.name != "LOCK")


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    with open_checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest() is None
        save(checkpoints, 1.5)
        found = checkpoints.latest()
    assert found is not None
    assert found.state["value"] == 1.5
    assert torch.equal(found.tensors["weights"]["w"], torch.full((64,), 1.5))


def test_the_last_two_and_the_best_are_kept(tmp_path: Path) -> None:
    with open_checkpoints(tmp_path) as checkpoints:
        for value in range(6):
            save(checkpoints, value, best=2)
    assert folders(tmp_path) == ["checkpoint-00000002", "checkpoint-00000005", "checkpoint-00000006"]


def truncate(path: Path) -> None:
    """Cut a file in half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    """Change one bit near the end."""
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)


DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "truncated weights": ("weights.safetensors", truncate),
    "zero bytes": ("weights.safetensors", lambda path: path.write_bytes(b"")),
    "one bit": ("weights.safetensors", flip),
    "truncated manifest": ("MANIFEST.json", truncate),
    "truncated state": ("state.json", truncate),
    "missing file": ("weights.safetensors", Path.unlink),
    "missing manifest": ("MANIFEST.json", Path.unlink),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_skipped(tmp_path: Path, kind: str) -> None:
    name, damage = DAMAGE[kind]
    with open_checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 1)
        save(checkpoints, 2)
        damage(tmp_path / "checkpoint-00000002" / name)
        with pytest.warns(UserWarning, match="checkpoint-00000002 is skipped"):
            found = checkpoints.latest()
        assert found is not None
        assert found.state["value"] == 1
        save(checkpoints, 3)
        assert folders(tmp_path) == ["checkpoint-00000001", "checkpoint-00000003"]


def test_a_plain_file_in_a_checkpoints_place_is_skipped(tmp_path: Path) -> None:
    with open_checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 1)
        (tmp_path / "checkpoint-00000007").write_text("?")
        with pytest.warns(UserWarning, match="checkpoint-00000007"):
            assert checkpoints.latest() is not None
        assert save(checkpoints, 2) == 8


def test_all_damaged_refuses_to_start_from_nothing(tmp_path: Path) -> None:
    with open_checkpoints(tmp_path) as checkpoints:
        for value in (1, 2):
            save(checkpoints, value)
        for folder in tmp_path.glob("checkpoint-*"):
            truncate(folder / "weights.safetensors")
        with (
            pytest.warns(UserWarning, match="skipped"),
            pytest.raises(ResumeError, match="all 2 checkpoints"),
        ):
            checkpoints.latest()


def test_a_newer_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_checkpoints(tmp_path) as checkpoints:
        monkeypatch.setattr(checkpoint, "VERSION", 2)
        save(checkpoints, 1)
        monkeypatch.setattr(checkpoint, "VERSION", 1)
        with pytest.raises(ResumeError, match="format 2"):
            checkpoints.latest()


@pytest.mark.parametrize("phase", PHASES)
def test_a_cut_in_any_phase_loses_nothing_acknowledged(tmp_path: Path, phase: str) -> None:
    class CutError(Exception):
        """Stands for a crash."""

    def cut(event: Event) -> None:
        if event.message == phase and event.values.get("number") == 3:
            raise CutError

    with open_checkpoints(tmp_path, progress=cut) as checkpoints:
        save(checkpoints, 1)
        save(checkpoints, 2)
        with pytest.raises(CutError):
            save(checkpoints, 3)
    with open_checkpoints(tmp_path) as checkpoints:
        found = checkpoints.latest()
    assert found is not None
    assert found.state["value"] == (3 if phase in ("acknowledged", "pruning") else 2)


@pytest.mark.parametrize(
    ("number", "said"), [(errno.ENOSPC, "is full"), (errno.EIO, "failed"), (errno.EROFS, "cannot be written")]
)
def test_a_failing_disk_is_explained_and_older_checkpoints_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    def fail(path: Path, content: bytes) -> int:
        with path.open("wb") as stream:
            stream.write(content[:10])
        raise OSError(number, os.strerror(number))

    with open_checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 1)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_bytes", fail)
            with pytest.raises(StoreError, match=said):
                save(checkpoints, 2)
        assert folders(tmp_path) == ["checkpoint-00000001"]
        assert checkpoints.latest() is not None
        save(checkpoints, 2)


def test_a_folder_that_cannot_be_written_is_refused_before_anything_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"), open_checkpoints(tmp_path / "file" / "run"):
        pass


def test_leftovers_of_a_killed_run_are_swept(tmp_path: Path) -> None:
    (tmp_path / ".tmp-99999-abc").mkdir()
    (tmp_path / ".tmp-99999-abc" / "weights.safetensors").write_text("half")
    (tmp_path / ".del-99999-def").write_text("")
    with open_checkpoints(tmp_path):
        assert folders(tmp_path) == []


def test_a_second_run_on_the_folder_is_told_the_first_ones_process(tmp_path: Path) -> None:
    told = pytest.raises(StoreError, match=f"in use by process {os.getpid()}")
    with open_checkpoints(tmp_path), told, open_checkpoints(tmp_path):
        pass
    with open_checkpoints(tmp_path):
        pass


def test_the_lock_of_a_dead_process_is_recovered(tmp_path: Path) -> None:
    (tmp_path / "LOCK").write_text("999999")
    told: list[str] = []
    with open_checkpoints(tmp_path, progress=lambda event: told.append(event.message)):
        assert (tmp_path / "LOCK").read_text() == str(os.getpid())
    assert told == ["recovered the lock of process 999999, which is gone"]


def test_changes_are_listed_one_by_one() -> None:
    saved = json.loads(
        json.dumps({"data": "a1", "classes": ["cat", "dog"], "settings": {"epochs": 3, "ema": 0.0}})
    )
    refuse_changes(saved, dict(saved), folder=Path("run"))
    now = {"data": "b2", "classes": ["cat", "fox"], "settings": {"epochs": 5, "ema": 0.0}, "seed": 1}
    with pytest.raises(ResumeError) as error:
        refuse_changes(saved, now, folder=Path("run"))
    assert "data: checkpoint has a1, this run has b2" in str(error.value)
    assert "classes: gone dog; new fox" in str(error.value)
    assert "settings.epochs: checkpoint has 3, this run has 5" in str(error.value)
    assert "seed: checkpoint has None, this run has 1" in str(error.value)
    assert "ema" not in str(error.value)
