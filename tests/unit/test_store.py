"""The store keeps whole, sound results or none, whatever else happens on the machine."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headstart.core.errors import StoreError
from headstart.core.hashing import digest
from headstart.store import Store, atomic_write, replace_folder
from headstart.store._store import MANIFEST, seal

KEY = digest("an entry")


def writer(content: str = "hello", name: str = "value.txt") -> Callable[[Path], None]:
    """Return what fills an entry with one file."""

    def write(folder: Path) -> None:
        (folder / name).write_text(content)

    return write


def leftovers(root: Path) -> list[Path]:
    """Return the temporary names under a folder."""
    return [path for path in root.rglob("*") if path.name.startswith((".tmp-", ".del-"))]


def set_used(store: Store, key: str, seconds: float) -> None:
    """Say when an entry was used last."""
    os.utime(store.folder("models-v1", key) / MANIFEST, (seconds, seconds))


# What is put can be got.


def test_what_is_put_can_be_got(store: Store):
    assert store.get("models-v1", KEY) is None
    folder = store.put("models-v1", KEY, writer())
    assert store.get("models-v1", KEY) == folder
    assert (folder / "value.txt").read_text() == "hello"
    assert folder == store.root / "models-v1" / KEY[:2] / KEY


def test_what_is_there_is_not_made_again(store: Store):
    folder, was_there = store.get_or("models-v1", KEY, writer())
    assert not was_there
    again, was_there = store.get_or("models-v1", KEY, writer("never written"))
    assert was_there
    assert again == folder
    assert (again / "value.txt").read_text() == "hello"


def test_a_sound_entry_is_not_replaced(store: Store):
    folder = store.put("models-v1", KEY, writer("first"))
    place = folder.stat().st_ino
    assert store.put("models-v1", KEY, writer("second")) == folder
    assert folder.stat().st_ino == place


def test_files_in_folders_belong_to_the_entry(store: Store):
    def write(folder: Path) -> None:
        (folder / "deep" / "er").mkdir(parents=True)
        (folder / "deep" / "er" / "value.txt").write_text("x")

    folder = store.put("models-v1", KEY, write)
    (folder / "deep" / "er" / "value.txt").write_text("y")
    with pytest.warns(UserWarning, match="deep/er/value.txt was altered"):
        assert store.get("models-v1", KEY) is None


def test_buckets_do_not_share_keys(store: Store):
    store.put("models-v1", KEY, writer())
    assert store.get("models-v2", KEY) is None


def test_backup_programs_are_told_that_it_is_a_cache(store: Store):
    assert (store.root / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")


# A corrupt entry is a warning and is made anew.


def cut(folder: Path) -> None:
    (folder / "value.txt").write_text("hel")


def alter(folder: Path) -> None:
    (folder / "value.txt").write_text("jello")


def remove(folder: Path) -> None:
    (folder / "value.txt").unlink()


def lose_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def cut_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_text('{"files": {"value')


def empty_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_text("[]")


def bad_bytes(folder: Path) -> None:
    (folder / MANIFEST).write_bytes(b"\xff\xfe\x00")


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (cut, "value.txt has 3 bytes instead of 5"),
        (alter, "value.txt was altered"),
        (remove, "value.txt is missing"),
        (lose_manifest, "manifest cannot be read"),
        (cut_manifest, "manifest cannot be read"),
        (empty_manifest, "manifest cannot be read"),
        (bad_bytes, "manifest cannot be read"),
    ],
)
def test_a_corrupt_entry_is_dropped_with_a_warning_and_made_anew(
    store: Store, damage: Callable[[Path], None], fault: str
):
    damage(store.put("models-v1", KEY, writer()))
    with pytest.warns(UserWarning, match=fault):
        folder, was_there = store.get_or("models-v1", KEY, writer())
    assert not was_there
    assert (folder / "value.txt").read_text() == "hello"
    assert not leftovers(store.root)


def test_verify_names_the_corrupt_entries_and_touches_nothing(store: Store):
    sound, corrupt = digest("sound"), digest("corrupt")
    store.put("models-v1", sound, writer())
    cut(store.put("features-v1", corrupt, writer()))
    ((entry, fault),) = store.verify()
    assert (entry.bucket, entry.key) == ("features-v1", corrupt)
    assert fault == "value.txt has 3 bytes instead of 5"
    assert len(list(store.entries())) == 2


# What cannot be written says so, and leaves nothing behind.


def fail_with(code: int) -> Callable[..., None]:
    """Return what fails as the operating system would."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def test_a_full_disk_is_said_and_leaves_nothing_behind(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("headstart.store._store.os.fsync", fail_with(errno.ENOSPC))
    with pytest.raises(StoreError, match="is full") as caught:
        store.put("models-v1", KEY, writer())
    assert "headstart cache gc" in caught.value.fix
    monkeypatch.undo()
    assert store.get("models-v1", KEY) is None
    assert not leftovers(store.root)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_disk_that_fills_up_while_an_entry_is_written_is_said(store: Store):
    def write(folder: Path) -> None:
        (folder / "value.txt").write_text("half")
        Path("/dev/full").write_text("the other half")

    with pytest.raises(StoreError, match="is full"):
        store.put("models-v1", KEY, write)
    assert store.get("models-v1", KEY) is None
    assert not leftovers(store.root)


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_read_only_folder_is_said_with_the_setting_that_moves_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
):
    monkeypatch.setattr(Path, "mkdir", fail_with(code))
    with pytest.raises(StoreError, match="cannot be written") as caught:
        Store(tmp_path / "store")
    assert "HEADSTART_STORE" in caught.value.fix


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write_is_refused(tmp_path: Path):
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="cannot be written"):
        Store(tmp_path / "store")


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_file_where_the_store_should_be_is_refused(tmp_path: Path, place: str):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match="file"):
        Store(tmp_path / place)


def test_an_error_that_is_no_fault_of_the_disk_passes_through(store: Store):
    def write(folder: Path) -> None:
        raise ValueError("not finite")

    with pytest.raises(ValueError, match="not finite"):
        store.put("models-v1", KEY, write)
    assert not leftovers(store.root)


def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "value.json"
    atomic_write(path, b"old")
    monkeypatch.setattr("headstart.store._store.os.fsync", fail_with(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        atomic_write(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert not leftovers(tmp_path)


def test_a_folder_is_replaced_at_once(tmp_path: Path):
    target, staged = tmp_path / "model", tmp_path / "staged"
    for folder, content in ((target, "old"), (staged, "new")):
        folder.mkdir()
        (folder / "value.txt").write_text(content)
    replace_folder(staged, target)
    assert (target / "value.txt").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


# Several runs share one store.


def test_threads_that_write_and_read_one_entry_all_see_it_whole(store: Store):
    start = threading.Barrier(6)

    def write() -> None:
        start.wait()
        for _ in range(15):
            folder = store.put("models-v1", KEY, writer())
            assert (folder / "value.txt").read_text() == "hello"

    def read() -> None:
        start.wait()
        for _ in range(60):
            folder = store.get("models-v1", KEY)
            assert folder is None or (folder / "value.txt").read_text() == "hello"

    with warnings.catch_warnings(), ThreadPoolExecutor(6) as pool:
        warnings.simplefilter("error")
        for task in [pool.submit(work) for work in (write, write, write, write, read, read)]:
            task.result()
    assert store.verify() == []
    assert not leftovers(store.root)


WRITE = """
import sys, warnings
from pathlib import Path
from headstart.store import Store
warnings.simplefilter("error")
store = Store(Path(sys.argv[1]))
for number in range(20):
    key = f"{number % 4:064x}"
    folder, _ = store.get_or("models-v1", key, lambda folder: (folder / "value.txt").write_text(key))
    assert (folder / "value.txt").read_text() == key
"""


def test_processes_that_start_at_once_share_one_store(tmp_path: Path):
    root = tmp_path / "store"
    runs = [
        subprocess.Popen([sys.executable, "-c", WRITE, str(root)], stderr=subprocess.PIPE) for _ in range(3)
    ]
    errors = [run.communicate(timeout=60)[1].decode() for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], errors
    store = Store(root)
    assert len(list(store.entries())) == 4
    assert store.verify() == []


KILLED = """
import os, signal, sys
from pathlib import Path
from headstart.store import Store

def write(folder):
    (folder / "value.txt").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)

Store(Path(sys.argv[1])).put("models-v1", sys.argv[2], write)
"""


def test_a_run_killed_while_it_writes_leaves_no_entry_and_its_rest_is_swept(tmp_path: Path):
    root = tmp_path / "store"
    run = subprocess.run([sys.executable, "-c", KILLED, str(root), KEY], check=False)
    assert run.returncode == -signal.SIGKILL
    store = Store(root)
    assert store.get("models-v1", KEY) is None
    assert len(leftovers(root)) == 1
    store.sweep()
    assert not leftovers(root)


# Old results make room.


def test_collecting_drops_what_was_unused_for_longest(store: Store):
    keys = [digest("entry", number) for number in range(4)]
    for number, key in enumerate(keys):
        store.put("models-v1", key, writer("x" * 1000))
        set_used(store, key, 1_000_000 + number)
    store.get("models-v1", keys[0])  # used now, so it stays
    size = next(store.entries()).size
    dropped = store.collect(max_bytes=2 * size)
    assert [entry.key for entry in dropped] == keys[1:3]
    assert {entry.key for entry in store.entries()} == {keys[0], keys[3]}


def test_collecting_a_small_store_drops_nothing(store: Store):
    store.put("models-v1", KEY, writer())
    assert store.collect(max_bytes=10**9) == []
    assert [entry.key for entry in store.entries()] == [KEY]


def test_collecting_to_nothing_empties_the_store(store: Store):
    store.put("models-v1", KEY, writer())
    store.collect(max_bytes=0)
    assert list(store.entries()) == []


def test_sweeping_leaves_what_a_living_run_is_writing(store: Store):
    place = store.folder("models-v1", KEY).parent
    ours, stale = place / f".tmp-{os.getpid()}-aaaa", place / f".tmp-{os.getpid()}-bbbb"
    for path in (ours, stale):
        path.mkdir(parents=True)
    long_ago = time.time() - 7200
    os.utime(stale, (long_ago, long_ago))
    store.sweep()
    assert ours.exists()
    assert not stale.exists()


def test_the_manifest_holds_each_file_but_itself(tmp_path: Path):
    (tmp_path / "a.txt").write_text("abc")
    seal(tmp_path)
    seal(tmp_path)
    files = json.loads((tmp_path / MANIFEST).read_text())["files"]
    assert list(files) == ["a.txt"]
    assert files["a.txt"][0] == 3


def test_a_store_can_be_moved(store: Store, tmp_path: Path):
    store.put("models-v1", KEY, writer())
    moved = shutil.move(store.root, tmp_path / "elsewhere")
    assert Store(Path(moved)).get("models-v1", KEY) is not None
