"""Stopping on request: SIGTERM and the first SIGINT let the run save its state, a second SIGINT stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from headstart.core.errors import Interrupted


class Stop:
    """Whether somebody asked this run to stop, and by which signal."""

    def __init__(self, command: str) -> None:
        """Start with nobody having asked; `command` is what resumes the run."""
        self.command = command
        self.asked = 0

    def ask(self, number: int, _frame: FrameType | None = None) -> None:
        """Note the signal; a second SIGINT raises KeyboardInterrupt at once."""
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = number

    def check(self) -> None:
        """Raise Interrupted (exit code 128 + signal: 130 or 143) once somebody asked; call it between batches."""
        if self.asked:
            error = Interrupted(
                f"stopped by {signal.Signals(self.asked).name}",
                expected="to run until the end",
                fix=f"resume with: {self.command}",
            )
            error.exit_code = 128 + self.asked
            raise error


@contextmanager
def stopping(command: str) -> Iterator[Stop]:
    """Listen to SIGTERM and SIGINT inside the block (in the main thread), then restore the handlers of before."""
    stop = Stop(command)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
