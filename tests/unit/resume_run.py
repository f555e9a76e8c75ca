"""Runs in processes of their own, to be killed: `resume_run.py FOLDER kill|slow`.

`kill` forks a child for a kill -9 after step 11, in each phase of a save and at random times, and prints for each case
the sha256 of the weights that the same run gives when it is started again. `slow` takes 0.05 s a step, for signals
from outside.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from training_parts import bits, run

from headstart.core.errors import HeadstartError
from headstart.train.checkpoint import PHASES
from headstart.train.runtime import Event, ignore

KILLS = 12


def is_step(event: Event) -> bool:
    """Tell whether an event is the end of a step."""
    return event.stage == "finetune" and not event.message


def killer(when: Callable[[Event], bool]) -> Callable[[Event], None]:
    """Return a progress that kills its own process when told."""

    def progress(event: Event) -> None:
        if when(event):
            os.kill(os.getpid(), signal.SIGKILL)

    return progress


def forked(work: Callable[[], object]) -> int:
    """Do work in a child; return its process number."""
    process = os.fork()
    if process:
        return process
    work()
    sys.stdout.flush()
    os._exit(0)


def report(name: str, folder: Path) -> None:
    """Run to the end and print the hash of the weights."""
    net, _ = run(folder)
    print(name, hashlib.sha256(b"".join(bits(net).values())).hexdigest(), flush=True)


def kill(root: Path) -> None:
    """Kill a run in every way, then run it to the end."""
    cases = {"step": killer(lambda event: is_step(event) and event.done == 11)}
    for phase in PHASES:
        cases[phase] = killer(
            lambda event, phase=phase: event.message == phase and event.values.get("number") == 3  # type: ignore[misc]
        )
    for name, progress in cases.items():
        workers = 2 if name == "step" else 0
        child = forked(lambda: run(root / name, progress, workers=workers, checkpoint_steps=1))  # noqa: B023
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL, name
        os.waitpid(forked(lambda: report(name, root / name)), 0)  # noqa: B023
    delays = random.Random(0)
    for _ in range(KILLS):
        child = forked(lambda: run(root / "random", ignore, workers=1))
        time.sleep(delays.uniform(0.02, 0.3))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    os.waitpid(forked(lambda: report("random", root / "random")), 0)


def slow(folder: Path) -> None:
    """Run slowly, printing steps; end with the error's exit code."""

    def progress(event: Event) -> None:
        if is_step(event):
            print("step", event.done, flush=True)
            time.sleep(0.05)

    try:
        run(folder, progress, epochs=20, command="headstart fit X")
    except HeadstartError as error:
        print(error, flush=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    {"kill": kill, "slow": slow}[sys.argv[2]](Path(sys.argv[1]))
