"""Run one contender: `python -m benchmarks.contenders NAME JOB.json OUTCOME.json`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from benchmarks._measure import Job, Outcome, Watch, peak_mb


def main() -> None:
    """Import the contender's module as its first lap, run it, and write its outcome."""
    name, order, answer = sys.argv[1:]
    job, watch = Job(**json.loads(Path(order).read_text())), Watch()
    with watch.lap("imports"):
        contender = import_module(f"benchmarks.contenders.{name}")
    found = contender.run(job, watch)
    outcome = Outcome(name=name, laps=watch.laps, peak_mb=peak_mb(), **found)
    Path(answer).write_text(json.dumps(asdict(outcome)))


main()
