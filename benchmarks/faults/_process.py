"""Training in forked processes: started, trapped, killed, and what they left behind.

The parent imports everything once and computes nothing, so that a fork is safe and costs milliseconds.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Run:
    """A training run of the tiny network: its folder, its settings, and the trap that waits in it.

    At the training forward pass number `at` the `action` happens: exit, fill (the disk), eio, hang, memory, term.
    """

    folder: Path
    epochs: int = 3
    accumulate: int = 1
    batch_size: int = 4
    workers: int = 0
    learning_rate: float = 5e-3
    random: bool = True
    """Whether augmentation and dropout draw numbers."""
    stop_early: bool = False
    average: bool = False
    frozen: bool = False
    spoilt: str = ""
    """What is wrong with item 7: `nan`, `hang` or `memory` while it is opened; `labels`: all labels mean nothing."""
    phase: str = ""
    """The phase of the third save in which the process is killed."""
    pause: float = 0.0
    """Seconds that each forward pass sleeps."""
    at: int = 0
    action: str = "exit"
    timeout: float = 60.0

    @property
    def checkpoints(self) -> Path:
        """Where the subject keeps its checkpoints."""
        return self.folder / "checkpoints"

    def note(self, name: str, value: Any) -> None:
        """Append a line to a note that survives the process."""
        with (self.folder / f"{name}.txt").open("a") as stream:
            stream.write(f"{value}\n")

    def notes(self, name: str) -> list[str]:
        """Read the lines of a note."""
        path = self.folder / f"{name}.txt"
        return path.read_text().splitlines() if path.exists() else []


class Subject(Protocol):
    """A training system under test; a module is one."""

    NAME: str

    def train(self, run: Run, /) -> Mapping[str, Tensor]:
        """Train the tiny network to the end, from whatever checkpoints are there, and return its final weights."""
        ...


@dataclass(frozen=True)
class End:
    """How a process ended: exit code (negative: signal), hash of the final weights, error, what it printed."""

    code: int
    digest: str = ""
    error: str = ""
    message: str = ""
    output: str = ""
    seconds: float = 0.0
    forwards: int = 0

    def __str__(self) -> str:
        """Say it in a few words."""
        if self.digest:
            return "finished"
        return (
            f"{self.error}: {self.message.splitlines()[0][:90] if self.message else ''}"
            if self.error
            else f"exit {self.code}"
        )


@dataclass
class Traps:
    """Counts training forward passes and springs the run's trap."""

    run: Run
    count: int = 0
    mounted: list[str] = field(default_factory=list)

    def forward(self) -> None:
        """Count one training forward pass."""
        self.count += 1
        self.run.note("forwards", self.count)
        time.sleep(self.run.pause)
        if self.count == self.run.at:
            getattr(self, f"_{self.run.action}")()

    def _exit(self) -> None:
        os._exit(137)

    def _fill(self) -> None:
        with suppress(OSError), (self.run.checkpoints / "ballast").open("wb", buffering=0) as stream:
            while True:
                stream.write(bytes(1024))

    def _eio(self) -> None:
        def fail(_handle: int) -> None:
            raise OSError(5, "Input/output error")

        os.fsync = fail

    def _memory(self) -> None:
        raise torch.OutOfMemoryError("simulated: out of memory")

    def _term(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def launch(subject: Subject, run: Run) -> int:
    """Fork a process that trains, and return its number."""
    run.folder.mkdir(parents=True, exist_ok=True)
    for name in ("end.json", "forwards.txt"):
        (run.folder / name).unlink(missing_ok=True)
    return fork(lambda: _train(subject, run), output=run.folder / "output.txt")


def fork(work: Callable[[], int], *, output: Path | None = None) -> int:
    """Run `work` in a child, which exits with the code that it returns."""
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        if output:
            handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def wait(run: Run, number: int, *, limit: float = 90.0) -> End:
    """Wait for a training process and return how it ended; after `limit` seconds it is killed."""
    start = time.monotonic()
    while True:
        done, status = os.waitpid(number, os.WNOHANG)
        if done:
            break
        if time.monotonic() - start > limit:
            os.kill(number, signal.SIGKILL)
            os.waitpid(number, 0)
            return End(-9, error="Hang", message=f"no end within {limit:g} s")
        time.sleep(0.005)
    end, output = run.folder / "end.json", run.folder / "output.txt"
    values = json.loads(end.read_text()) if end.exists() else {}
    text = output.read_text(errors="replace") if output.exists() else ""
    code, seconds = os.waitstatus_to_exitcode(status), time.monotonic() - start
    return End(code, **values, output=text, seconds=seconds, forwards=len(run.notes("forwards")))


def complete(subject: Subject, run: Run, *, limit: float = 90.0) -> End:
    """Launch and wait."""
    return wait(run, launch(subject, run), limit=limit)


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the hash of tensors' names and bytes."""
    whole = hashlib.sha256()
    for name in sorted(tensors):
        whole.update(name.encode() + tensors[name].detach().contiguous().numpy().tobytes())
    return whole.hexdigest()


def _train(subject: Subject, run: Run) -> int:
    """Train inside the child and leave the end in a file."""
    torch.set_num_threads(1)
    warnings.simplefilter("always")
    values: dict[str, str] = {}
    code = 0
    try:
        values["digest"] = digest(subject.train(run))
    except BaseException as error:
        code = getattr(error, "exit_code", 1)
        values |= {"error": type(error).__name__, "message": str(error)}
        traceback.print_exc()
    (run.folder / "end.json").write_text(json.dumps(values))
    return code
