"""The recorded runs that headstart ships: `python -m benchmarks._history` writes them anew from the ground truth."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from statistics import fmean, variance
from typing import Any

import numpy as np

from benchmarks import _ground_truth
from benchmarks._zoo import NETWORKS
from headstart.select.history import History, Run, Traits
from headstart.select.rank import shared_of

SHIPPED = Path(__file__).parents[1] / "src/headstart/select/facts/history.json"
DIGITS = 4
"""Digits of a quality that are kept."""


def main() -> int:
    """Write the file and say what is in it."""
    history = history_of(_ground_truth.read())
    names = [field.name for field in fields(Run)]
    networks = {
        name: {key: value for key, value in asdict(traits).items() if value == value}  # JSON has no NaN.
        for name, traits in history.traits.items()
    }
    rows = [
        ["image", "classification", *(_short(getattr(run, name)) for name in names)] for run in history.runs
    ]
    whole = {"networks": networks, "columns": ["modality", "task", *names], "runs": rows}
    lines = json.dumps(whole, indent=1).replace("\n   ", " ").replace("\n  ]", " ]").replace("\n  }", " }")
    SHIPPED.write_text(lines + "\n")
    print(f"{len(rows)} runs of {len(networks)} networks on {history.num_sets} data sets: {SHIPPED}")
    return 0


def history_of(rows: Sequence[Mapping[str, Any]]) -> History:
    """Return the ground truth's rows as recorded runs, with what is known of the networks."""
    known = {network.name: Traits.of(network.entry()) for network in NETWORKS}
    marks: defaultdict[str, list[np.ndarray]] = defaultdict(list)
    for row in rows:
        marks[row["data"]].append(np.array([mark == "1" for mark in row["frozen_right"]], float))
    shared = {name: shared_of(found) for name, found in marks.items()}
    errors = {name: _run_error([row for row in rows if row["data"] == name]) for name in shared}
    return History(
        tuple(_run(row, shared[row["data"]], errors[row["data"]]) for row in rows),
        {name: known[name] for name in {row["model"] for row in rows}},
    )


def _run_error(rows: Sequence[Mapping[str, Any]]) -> float:
    """Return the standard error of a network's quality on a data set over its fine-tunes, alike for all networks."""
    repeated = [runs for row in rows if len(runs := _ground_truth.runs(row)) > 1]
    return math.sqrt(fmean(variance(runs) / len(runs) for runs in repeated)) if repeated else 0.0


def _run(row: Mapping[str, Any], shared: float, error: float) -> Run:
    """Return a row of the ground truth as a recorded run; what all networks find hard moves no difference."""
    return Run(
        model=row["model"],
        data=row["data"],
        fine_tuned=_ground_truth.quality(row),
        frozen=row["probe"]["quality"],
        frozen_error=row["probe"]["error"] * math.sqrt(1 - shared),
        n_train=row["n_train"],
        n_test=row["n_test"],
        fine_tuned_error=error,
    )


def _short(value: Any) -> Any:
    """Round a quality; what was not measured stays NaN nowhere."""
    assert not (isinstance(value, float) and math.isnan(value)), "every row has its probe"
    return round(value, DIGITS) if isinstance(value, float) else value


if __name__ == "__main__":
    raise SystemExit(main())
