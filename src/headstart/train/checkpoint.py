"""Checkpoints that survive a kill at any moment: staged, flushed, sealed, renamed, and acknowledged only then.

A checkpoint is a folder `checkpoint-NNNNNNNN` of safetensors files, `state.json` and a manifest of sizes and sha256.
Numbers only grow, so that no acknowledged checkpoint is ever written over, and each is self-contained: losing one never
damages another.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from headstart.core.errors import ResumeError, StoreError
from headstart.store import drop_folder, explained, fault_of, fsync_folder, replace_folder, seal
from headstart.train.runtime import Event, ignore

VERSION = 1
"""Version of the checkpoint format; older ones must load, newer ones are refused."""

PHASES = ("staging", "tensors", "state", "sealing", "renaming", "acknowledged", "pruning")
"""Steps of a save in order; each is announced as an Event of stage `checkpoint` when it begins."""

KEEP = 2
_NAME = re.compile(r"checkpoint-(\d{8,})")


@dataclass(frozen=True)
class Checkpoint:
    """One sound checkpoint as read from disk: JSON `state` and tensors by file and name."""

    number: int
    folder: Path
    state: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]]


class Checkpoints:
    """The checkpoints of one run in one folder; make it with `open_checkpoints`, which holds the folder's lock."""

    def __init__(self, folder: Path, *, progress: Callable[[Event], None] = ignore) -> None:
        """Name the folder; `progress` hears each phase of a save."""
        self.folder = folder
        self._progress = progress
        self._damaged: set[int] = set()

    def next_number(self) -> int:
        """Return the number that the next save will have."""
        return max(self._numbers(), default=0) + 1

    def save(
        self,
        *,
        state: Mapping[str, Any],
        tensors: Mapping[str, Mapping[str, Tensor]],
        best: int | None = None,
    ) -> int:
        """Write a checkpoint, acknowledge it, then prune all but the last two and number `best`; return its number.

        StoreError where the disk is full or fails; whatever was acknowledged before stays sound.
        """
        number = self.next_number()
        target = self.folder / f"checkpoint-{number:08d}"
        staged = self.folder / f".tmp-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        with explained(self.folder):
            try:
                self._announce("staging", number)
                staged.mkdir()
                self._announce("tensors", number)
                for name, named in tensors.items():
                    (staged / f"{name}.safetensors").write_bytes(save_tensors(_portable(named)))
                self._announce("state", number)
                content = {"version": VERSION, "files": sorted(tensors), **state}
                (staged / "state.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
                self._announce("sealing", number)
                seal(staged)
                fsync_folder(staged)
                self._announce("renaming", number)
                replace_folder(staged, target)
            finally:
                shutil.rmtree(staged, ignore_errors=True)
            self._announce("acknowledged", number)
            self._announce("pruning", number)
            self._prune(best)
        return number

    def latest(self) -> Checkpoint | None:
        """Return the newest sound checkpoint; None where there is none at all.

        Each damaged one is named in a warning; where all are damaged, ResumeError: starting from nothing would lose
        work in silence.
        """
        skipped: list[str] = []
        for number, folder in sorted(self._numbers().items(), reverse=True):
            fault = fault_of(folder)
            if not fault:
                return _read(number, folder)
            self._damaged.add(number)
            skipped.append(f"{folder.name}: {fault}")
            warnings.warn(f"checkpoint {folder} is skipped: {fault}", stacklevel=2)
        if skipped:
            raise ResumeError(
                f"all {len(skipped)} checkpoints in {self.folder} are damaged ({'; '.join(skipped)})",
                expected="at least one sound checkpoint",
                fix=f"restore the folder from a copy, or delete {self.folder} to start from the beginning",
            )
        return None

    def sweep(self) -> None:
        """Remove what a killed run left behind; safe because the lock is ours."""
        for path in [*self.folder.glob(".tmp-*"), *self.folder.glob(".del-*")]:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _announce(self, phase: str, number: int) -> None:
        """Tell that a phase of saving begins."""
        self._progress(Event("checkpoint", PHASES.index(phase), len(PHASES), phase, {"number": number}))

    def _numbers(self) -> dict[int, Path]:
        """Return what looks like a checkpoint, sound or not, by number."""
        named = ((_NAME.fullmatch(path.name), path) for path in self.folder.iterdir())
        return {int(match[1]): path for match, path in named if match}

    def _prune(self, best: int | None) -> None:
        """Drop all but the last two sound ones and the best."""
        folders = self._numbers()
        kept = {*sorted(folders.keys() - self._damaged)[-KEEP:], best}
        for number in folders.keys() - kept:
            drop_folder(folders[number])


@contextmanager
def open_checkpoints(folder: Path, *, progress: Callable[[Event], None] = ignore) -> Iterator[Checkpoints]:
    """Create the folder, hold its lock inside the block, and sweep what a killed run left there.

    StoreError where the folder cannot be written or another process (named) holds it.
    """
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "LOCK", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _lock(handle, folder, progress)
        try:
            checkpoints = Checkpoints(folder, progress=progress)
            with explained(folder):
                checkpoints.sweep()
            yield checkpoints
        finally:
            os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def refuse_changes(saved: Mapping[str, Any], now: Mapping[str, Any], *, folder: Path) -> None:
    """Raise ResumeError with a line for each difference between a checkpoint's identity and this run's."""
    lines = [
        line for name in sorted({*saved, *now}) for line in _difference(name, saved.get(name), now.get(name))
    ]
    if lines:
        raise ResumeError(
            f"the checkpoints in {folder} belong to another run:\n    " + "\n    ".join(lines),
            expected="the data, classes, network and settings that they were made with",
            fix=f"restore these, or choose another output folder, or delete {folder}",
        )


def _difference(name: str, saved: Any, now: Any) -> list[str]:
    """Say how two values differ, item by item for mappings, by what came and went for lists."""
    if saved == now:
        return []
    if isinstance(saved, Mapping) and isinstance(now, Mapping):
        return [
            line
            for key in sorted({*saved, *now})
            for line in _difference(f"{name}.{key}", saved.get(key), now.get(key))
        ]
    is_names = (
        isinstance(saved, list) and isinstance(now, list) and all(isinstance(item, str) for item in saved)
    )
    if is_names and {*saved} != {*now}:
        gone = [str(item) for item in saved if item not in now]
        come = [str(item) for item in now if item not in saved]
        return [f"{name}: gone {', '.join(gone) or 'none'}; new {', '.join(come) or 'none'}"]
    return [f"{name}: checkpoint has {saved}, this run has {now}"]


def _lock(handle: int, folder: Path, progress: Callable[[Event], None]) -> None:
    """Take the lock or raise StoreError naming its holder; the kernel frees the lock of a dead process."""
    owner = os.pread(handle, 32, 0).decode(errors="replace").strip()
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StoreError(
            f"{folder} is in use by process {owner or 'unknown'}",
            expected="one run at a time on a folder",
            fix=f"wait for it, stop it (`kill {owner or 'PID'}`), or choose another output folder",
        ) from None
    if owner:
        progress(Event("checkpoint", message=f"recovered the lock of process {owner}, which is gone"))
    with explained(folder):
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        os.fsync(handle)


def _read(number: int, folder: Path) -> Checkpoint:
    """Read a checkpoint whose manifest holds; ResumeError where a newer version wrote it."""
    state: dict[str, Any] = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    if state["version"] > VERSION:
        raise ResumeError(
            f"{folder} was written in format {state['version']}",
            expected=f"format {VERSION} or older",
            fix="pip install --upgrade headstart",
        )
    tensors = {name: load_tensors((folder / f"{name}.safetensors").read_bytes()) for name in state["files"]}
    return Checkpoint(number, folder, state, tensors)


def _portable(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors on the CPU, contiguous, as safetensors stores them."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in named.items()}
