"""A folder of versioned buckets: write to a temporary name, rename, never change again.

Safe for concurrent runs: two that make the same entry write the same content, and the second rename is harmless.
Every entry is a folder with a MANIFEST.json that holds each file's size and sha256.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
import uuid
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from headstart.core.errors import StoreError
from headstart.core.hashing import file_sha256

MANIFEST = "MANIFEST.json"
_STALE_SECONDS = 3600.0
_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# This folder is a cache made by headstart.\n"


@dataclass(frozen=True, slots=True)
class Entry:
    """One result in the store: its bucket, key, folder, bytes and the time of its last use (seconds since 1970)."""

    bucket: str
    key: str
    folder: Path
    size: int
    used: float


class Store:
    """Results by bucket and key under one root folder."""

    def __init__(self, root: Path) -> None:
        """Open (and create) the store; StoreError where the folder cannot be written."""
        self.root = root
        with explained(root):
            root.mkdir(parents=True, exist_ok=True)
            if not (root / "CACHEDIR.TAG").exists():
                atomic_write(root / "CACHEDIR.TAG", _TAG.encode())

    def folder(self, bucket: str, key: str) -> Path:
        """Return where an entry lies or would lie."""
        return self.root / bucket / key[:2] / key

    def get(self, bucket: str, key: str) -> Path | None:
        """Return the folder of a sound entry, or None; a corrupt one is warned about and dropped."""
        folder = self.folder(bucket, key)
        if not folder.exists():
            return None
        fault = fault_of(folder)
        if fault:
            warnings.warn(
                f"store entry {bucket}/{key[:12]} is corrupt ({fault}): it is made anew", stacklevel=2
            )
            drop_folder(folder)
            return None
        with explained(folder):
            os.utime(folder / MANIFEST)
        return folder

    def put(self, bucket: str, key: str, write: Callable[[Path], None]) -> Path:
        """Let `write` fill a temporary folder, seal it and rename it into place; a sound entry there stays."""
        target = self.folder(bucket, key)
        with explained(self.root):
            target.parent.mkdir(parents=True, exist_ok=True)
            staged = target.parent / f".tmp-{os.getpid()}-{uuid.uuid4().hex[:8]}"
            staged.mkdir()
            try:
                write(staged)
                seal(staged)
                if target.exists() and fault_of(target):
                    drop_folder(target)
                rename_into(staged, target)
            finally:
                shutil.rmtree(staged, ignore_errors=True)
        return target

    def get_or(self, bucket: str, key: str, make: Callable[[Path], None]) -> tuple[Path, bool]:
        """Return (folder, was it there); `make` fills a new entry's temporary folder."""
        found = self.get(bucket, key)
        return (found, True) if found else (self.put(bucket, key, make), False)

    def entries(self) -> Iterator[Entry]:
        """Yield every entry, bucket by bucket."""
        for manifest in sorted(self.root.glob(f"*/??/*/{MANIFEST}")):
            folder = manifest.parent
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            yield Entry(folder.parent.parent.name, folder.name, folder, size, manifest.stat().st_mtime)

    def verify(self) -> list[tuple[Entry, str]]:
        """Check every entry against its manifest; return the corrupt ones with what is wrong."""
        return [(entry, fault) for entry in self.entries() if (fault := fault_of(entry.folder))]

    def collect(self, *, max_bytes: int) -> list[Entry]:
        """Drop the entries unused for longest until the store is at most `max_bytes`; return what was dropped."""
        self.sweep()
        entries = sorted(self.entries(), key=lambda entry: entry.used)
        excess = sum(entry.size for entry in entries) - max_bytes
        dropped: list[Entry] = []
        for entry in entries:
            if excess <= 0:
                break
            drop_folder(entry.folder)
            excess -= entry.size
            dropped.append(entry)
        return dropped

    def sweep(self) -> None:
        """Remove temporary folders that a killed run left behind (older than an hour, or their process is gone)."""
        for path in [*self.root.glob("*/??/.tmp-*"), *self.root.glob("*/??/.del-*")]:
            owner = int(path.name.split("-")[1])
            if not is_alive(owner) or time.time() - path.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def atomic_write(path: Path, content: bytes) -> None:
    """Write a whole file or nothing: temporary name, fsync, rename, fsync of the folder."""
    staged = path.with_name(f".tmp-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        with staged.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        staged.replace(path)
        fsync_folder(path.parent)
    finally:
        staged.unlink(missing_ok=True)


def seal(folder: Path) -> None:
    """Flush every file of a folder to disk, then write the manifest of sizes and sha256 last."""
    files: dict[str, list[object]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != MANIFEST:
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
            files[path.relative_to(folder).as_posix()] = [path.stat().st_size, file_sha256(path)]
    atomic_write(folder / MANIFEST, json.dumps({"files": files}, indent=1).encode())


def fault_of(folder: Path) -> str:
    """Return what is wrong with a sealed folder, or an empty string."""
    try:
        files: dict[str, tuple[int, str]] = json.loads((folder / MANIFEST).read_text())["files"]
        for name, (size, sha256) in files.items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size} bytes instead of {size}"
            if file_sha256(path) != sha256:
                return f"{name} was altered (sha256 differs)"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its manifest cannot be read ({error.__class__.__name__}: {error})"
    return ""


def replace_folder(staged: Path, target: Path) -> None:
    """Rename a staged folder into place; whatever lies there is renamed aside first, then deleted."""
    if target.exists():
        drop_folder(target)
    rename_into(staged, target)


def rename_into(staged: Path, target: Path) -> None:
    """Rename a staged folder into place, or drop it where another run was first: a reader may have that open."""
    try:
        staged.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        shutil.rmtree(staged)
    fsync_folder(target.parent)


def drop_folder(folder: Path) -> None:
    """Take a folder out of sight by a rename, then delete it, so that nobody sees half of it."""
    aside = folder.with_name(f".del-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        folder.rename(aside)
    except FileNotFoundError:
        return
    if aside.is_dir():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.unlink(missing_ok=True)


def fsync_folder(folder: Path) -> None:
    """Flush a folder's names to disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_alive(process: int) -> bool:
    """Tell whether a process of this number runs here."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def explained(folder: Path) -> Generator[None]:
    """Turn a full disk, a read-only folder or an I/O error under `folder` into a StoreError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            given, fix = (
                f"the disk that holds {folder} is full",
                "free some space or run `headstart cache gc`",
            )
        elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR):
            given = f"{folder} cannot be written ({error.strerror})"
            fix = "set HEADSTART_STORE (or --store) to a folder that you may write to"
        else:
            given, fix = (
                f"writing under {folder} failed ({error})",
                "check the disk, then run the same command again",
            )
        raise StoreError(given, expected="a folder with space that can be written", fix=fix) from error
