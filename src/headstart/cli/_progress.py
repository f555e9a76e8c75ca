"""What is being done: bars with the time left on a terminal, one line a stage elsewhere, nothing when quiet."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from headstart.train.runtime import Event

Show = Callable[["Event"], None]


@contextmanager
def progress(*, quiet: bool) -> Generator[Show]:
    """Yield what shows events on stderr while the block runs."""
    from rich.console import Console

    console = Console(stderr=True)
    if quiet:
        yield _ignore
    elif console.is_terminal:
        with _columns(console) as bars:
            yield Bars(bars).show
    else:
        lines = Lines(print_line=lambda text: print(text, file=console.file, flush=True))
        try:
            yield lines.show
        finally:
            lines.close()


class Bars:
    """One bar a stage, with the time left and the latest figures."""

    def __init__(self, bars: Progress) -> None:
        """Start without a bar."""
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def show(self, event: Event) -> None:
        """Move the stage's bar; an event without a total is a line of text."""
        if not event.total:
            self._bars.console.print(
                f"{event.stage}  {event.message}".rstrip(), markup=False, highlight=False
            )
            return
        if event.stage not in self._tasks:
            self._tasks[event.stage] = self._bars.add_task(event.stage, total=event.total, details="")
        self._bars.update(
            self._tasks[event.stage],
            completed=event.done,
            total=event.total,
            details=details(event.message, event.values),
        )
        if event.done >= event.total:
            self._tasks.pop(event.stage)


class Lines:
    """One plain line for each stage, when it ends."""

    def __init__(self, *, print_line: Callable[[str], None]) -> None:
        """Start without a stage."""
        self._print = print_line
        self._open: dict[str, tuple[float, Event]] = {}

    def show(self, event: Event) -> None:
        """Print a line of text at once, a stage once it is done."""
        if not event.total:
            self._print(f"{event.stage}  {event.message}".rstrip())
            return
        started, _ = self._open.get(event.stage, (time.monotonic(), event))
        self._open[event.stage] = (started, event)
        if event.done >= event.total:
            self._finish(event.stage)

    def close(self) -> None:
        """Print the stages that ended before their total (training that stopped early)."""
        for stage in list(self._open):
            self._finish(stage)

    def _finish(self, stage: str) -> None:
        """Print a stage's line."""
        started, event = self._open.pop(stage)
        said = details(event.message, event.values)
        seconds = time.monotonic() - started
        self._print(f"{stage}  {event.done}/{event.total}  {seconds:.1f} s{'  ' + said if said else ''}")


def _ignore(event: Event) -> None:
    """Show nothing."""


def details(message: str, values: Mapping[str, float]) -> str:
    """Return the message and the figures as one short text."""
    return "  ".join([message] * bool(message) + [f"{name} {value:.4g}" for name, value in values.items()])


def _columns(console: Console) -> Progress:
    """Return the bars' layout."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[details]}", markup=False),
        console=console,
        redirect_stdout=False,  # rows on stdout must stay there
    )
