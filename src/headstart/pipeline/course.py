"""What a run has come to so far: its cost, its contenders, what a reader must know."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from headstart.core.lineage import Way
from headstart.features.encode import Encoded
from headstart.result import Candidate, Cost
from headstart.train.runtime import Context


@dataclass
class Ledger:
    """What a run cost so far."""

    context: Context
    started: float = field(default_factory=time.perf_counter)
    cpu_started: float = field(default_factory=time.process_time)
    stages: dict[str, float] = field(default_factory=dict)
    encoded: int = 0
    stored: int = 0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the seconds of a block to a stage."""
        began = time.perf_counter()
        yield
        self.stages[name] = self.stages.get(name, 0.0) + time.perf_counter() - began

    def count(self, encoded: Encoded) -> Encoded:
        """Add what an encoding took from the network and from the store."""
        self.encoded += encoded.num_encoded
        self.stored += encoded.num_stored
        return encoded

    def cost(self) -> Cost:
        """Return the sum."""
        per_megabyte = 1024**2 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / per_megabyte
        return Cost(
            time.perf_counter() - self.started, time.process_time() - self.cpu_started, peak,
            self.encoded, self.stored, dict(self.stages),
        )  # fmt: skip


@dataclass(frozen=True)
class Course:
    """How the model came about: contenders, a row an epoch, and what a reader must know."""

    race: tuple[Candidate, ...] = ()
    history: tuple[Mapping[str, float], ...] = ()
    notes: tuple[str, ...] = ()
    alpha: float | None = None
    """How far from start to end the weights lie, where a floor held them back."""
    way: tuple[Way, ...] = ()
