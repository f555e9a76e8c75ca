"""One small tree of errors; every message says what was given, what was expected, and the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HeadstartError(Exception):
    """Any failure that headstart explains; `exit_code` is what the command line returns for it."""

    exit_code = 1

    def __init__(self, given: str, *, expected: str, fix: str) -> None:
        """Join the three parts into one message, kept as attributes too."""
        super().__init__(f"{given}\n  expected: {expected}\n  fix: {fix}")
        self.given, self.expected, self.fix = given, expected, fix


class PlanError(HeadstartError):
    """A plan, a setting or an argument that cannot be run (exit code 2)."""

    exit_code = 2


class DataError(HeadstartError):
    """Data that cannot be read, split or trusted (exit code 3)."""

    exit_code = 3


class EncoderError(HeadstartError):
    """A network that is unknown, unreachable or whose weights do not fit (exit code 4)."""

    exit_code = 4


class ModelFolderError(HeadstartError):
    """A saved model folder that is incomplete, altered or from a newer version (exit code 5)."""

    exit_code = 5


class ResumeError(HeadstartError):
    """Checkpoints that exist but cannot be continued from (exit code 6)."""

    exit_code = 6


class TrainingError(HeadstartError):
    """Training that cannot go on: not finite, nothing to train, out of memory (exit code 7)."""

    exit_code = 7


class StoreError(HeadstartError):
    """A store or output folder that cannot be written or is in use (exit code 8)."""

    exit_code = 8


class Interrupted(HeadstartError):
    """A run that was asked to stop (SIGINT, SIGTERM) after saving its state (exit code 130 or 143)."""

    exit_code = 130


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` for the known name closest to `name`, or an empty string."""
    close = sorted(difflib.get_close_matches(name, list(known)))  # Of names as close, the first.
    best = max(close, key=lambda other: difflib.SequenceMatcher(None, other, name).ratio(), default=None)
    return f" (did you mean '{best}'?)" if best else ""
