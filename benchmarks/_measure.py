"""Processor and wall seconds, peak memory, and contenders in processes of their own."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Seconds:
    """Processor seconds (user and system, finished children among them) and wall seconds."""

    cpu: float
    wall: float

    def __add__(self, other: Seconds) -> Seconds:
        """Add both parts."""
        return Seconds(self.cpu + other.cpu, self.wall + other.wall)

    def __sub__(self, other: Seconds) -> Seconds:
        """Subtract both parts."""
        return Seconds(self.cpu - other.cpu, self.wall - other.wall)


def now() -> Seconds:
    """Return what this process and its finished children have used so far."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return Seconds(own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime, time.perf_counter())


@dataclass
class Watch:
    """Named laps of one process."""

    laps: dict[str, Seconds] = field(default_factory=dict)

    @contextmanager
    def lap(self, name: str) -> Iterator[None]:
        """Add what the block uses to the lap of this name."""
        start = now()
        yield
        self.laps[name] = self.laps.get(name, Seconds(0, 0)) + (now() - start)


@dataclass(frozen=True)
class Job:
    """What a contender is asked to do: `table` is a CSV file of pictures, `folder` is where it may write."""

    table: str
    folder: str
    epochs: int = 5
    batch_size: int = 32
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What a contender did; `predictions` are test pictures' classes by path, `history` one row an epoch."""

    name: str
    laps: Mapping[str, Seconds]
    predictions: Mapping[str, str] = field(default_factory=dict)
    history: Sequence[Mapping[str, float]] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    peak_mb: float = 0.0

    def seconds(self, *names: str) -> Seconds:
        """Add up the laps of these names (those that exist)."""
        return sum((self.laps[name] for name in names if name in self.laps), Seconds(0, 0))

    def row(self) -> dict[str, Any]:
        """Return everything but the predictions, for the raw rows of a result file."""
        return {name: value for name, value in asdict(self).items() if name != "predictions"}


def run_contender(name: str, job: Job) -> Outcome:
    """Run a contender in a fresh process and return its outcome; its output is shown where it fails."""
    with tempfile.TemporaryDirectory() as folder:
        order, answer = Path(folder) / "job.json", Path(folder) / "outcome.json"
        order.write_text(json.dumps(asdict(job)))
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "benchmarks.contenders",
            name,
            str(order),
            str(answer),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(
                f"contender {name} failed ({done.returncode}):\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
            )
        values = json.loads(answer.read_text())
    laps = {lap: Seconds(**seconds) for lap, seconds in values.pop("laps").items()}
    return Outcome(laps=laps, **values)


def run_process(command: Sequence[str], **environment: str) -> tuple[Seconds, float, str]:
    """Run a command; return its seconds, its peak memory in MB and what it printed. Refuses a failing one."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **environment}
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed ({process.returncode}):\n{text[-4000:]}")
    seconds = Seconds(usage.ru_utime + usage.ru_stime, time.perf_counter() - start)
    return seconds, usage.ru_maxrss / 1024, text


def peak_mb() -> float:
    """Return the peak resident memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
