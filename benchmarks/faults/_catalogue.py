"""What a fault is, and what checking one gives."""

from __future__ import annotations

import dataclasses
import json
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.faults._process import End, Run, Subject, complete, fork


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a subject kept the promise, and what was seen."""

    survived: bool
    seen: str


@dataclass
class Bench:
    """Where faults are injected: a folder, how many random kills, references of uninterrupted runs."""

    root: Path
    kills: int
    draw: random.Random = field(default_factory=lambda: random.Random(0))
    _references: dict[str, str] = field(default_factory=dict)
    _count: int = 0

    def folder(self) -> Path:
        """Return a new empty folder."""
        self._count += 1
        path = self.root / f"{self._count:04d}"
        path.mkdir(parents=True)
        return path

    def run(self, **settings: Any) -> Run:
        """Return a run in a new folder."""
        return Run(self.folder(), **settings)

    def reference(self, subject: Subject, run: Run) -> str:
        """Return the hash of the weights that the run gives where nothing interrupts it."""
        whole = plain(run)
        key = f"{subject.NAME} {dataclasses.replace(whole, folder=Path())}"
        if key not in self._references:
            end = complete(subject, dataclasses.replace(whole, folder=self.folder()))
            if not end.digest:
                raise RuntimeError(f"the uninterrupted run failed: {end}\n{end.output[-1500:]}")
            self._references[key] = end.digest
        return self._references[key]

    def compare(self, subject: Subject, run: Run, end: End) -> Verdict:
        """Judge a run's end by the weights of an uninterrupted one."""
        if not end.digest:
            return Verdict(False, f"the restart failed: {end}")
        same = end.digest == self.reference(subject, run)
        return Verdict(same, "bit-identical weights" if same else "finished with other weights")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: what is injected, what is promised, and the check; `peers` where it applies to training loops."""

    code: str
    injected: str
    promised: str
    check: Callable[[Subject, Bench], Verdict]
    peers: bool = False


def plain(run: Run) -> Run:
    """Return the run without traps."""
    return dataclasses.replace(run, phase="", at=0, action="exit", pause=0.0)


def resumed(subject: Subject, bench: Bench, run: Run) -> Verdict:
    """Let the trapped run end, start it again without the trap, compare."""
    first = complete(subject, run)
    if first.digest:
        return Verdict(False, "the fault did not stop the run")
    return bench.compare(subject, run, complete(subject, plain(run)))


def apart(work: Callable[[], Verdict], folder: Path) -> Verdict:
    """Judge in a process of its own (which may mount and unmount as it likes)."""
    answer = folder / "verdict.json"

    def judge() -> int:
        verdict = work()
        answer.write_text(json.dumps([verdict.survived, verdict.seen]))
        return 0

    os.waitpid(fork(judge, output=folder / "apart.txt"), 0)
    if not answer.exists():
        return Verdict(False, "not injected: " + (folder / "apart.txt").read_text()[-200:])
    return Verdict(*json.loads(answer.read_text()))
