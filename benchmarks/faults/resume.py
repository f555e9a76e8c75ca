"""R: a cut run, started again, ends with the bits of one that was not cut."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from benchmarks.faults._catalogue import Bench, Fault, Verdict, plain, resumed
from benchmarks.faults._process import Subject, complete


def _cut(at: int, **settings: Any) -> Callable[[Subject, Bench], Verdict]:
    """Return a check that kills the process at a training forward pass (6 a pass over the items, 18 in all)."""
    return lambda subject, bench: resumed(subject, bench, bench.run(at=at, **settings))


def _workers(before: int, after: int) -> Callable[[Subject, Bench], Verdict]:
    """Return a check that resumes with another number of loader workers."""

    def check(subject: Subject, bench: Bench) -> Verdict:
        run = bench.run(at=10, workers=before)
        complete(subject, run)
        again = dataclasses.replace(plain(run), workers=after)
        return bench.compare(subject, dataclasses.replace(run, workers=0), complete(subject, again))

    return check


def _three_cuts(subject: Subject, bench: Bench) -> Verdict:
    """Cut a run three times."""
    run = bench.run(at=5)
    for _ in range(3):
        complete(subject, run)
    return bench.compare(subject, run, complete(subject, plain(run)))


def _best_kept(subject: Subject, bench: Bench) -> Verdict:
    """Cut a run that stops early; it must stop at the same step with the same best weights."""
    run = bench.run(at=20, epochs=12, stop_early=True, learning_rate=0.05)
    verdict = resumed(subject, bench, run)
    return Verdict(verdict.survived, f"early stop: {verdict.seen}")


_SAME = "bit-identical final weights"
FAULTS = (
    Fault("R1", "cut in the middle of epoch 1", _SAME, _cut(4), peers=True),
    Fault("R2", "cut at an epoch's end", _SAME, _cut(7), peers=True),
    Fault("R3", "cut in the middle of epoch 2", _SAME, _cut(10), peers=True),
    Fault("R4", "cut in the last step", _SAME, _cut(18), peers=True),
    Fault("R5", "0 loader workers before the cut, 2 after", _SAME, _workers(0, 2), peers=True),
    Fault("R6", "2 loader workers before the cut, 0 after", _SAME, _workers(2, 0), peers=True),
    Fault("R7", "three cuts in a row", _SAME, _three_cuts, peers=True),
    Fault("R8", "cut inside a gradient accumulation window", _SAME, _cut(20, accumulate=2), peers=True),
    Fault("R9", "cut during warm-up", "the schedule goes on: " + _SAME, _cut(3), peers=True),
    Fault("R10", "cut of a run that stops early", "same stop, same best weights", _best_kept, peers=True),
    Fault("R11", "cut with averaged weights (EMA)", _SAME, _cut(10, average=True)),
)
