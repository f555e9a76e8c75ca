"""Fine-tuning to the same validation accuracy: ours (the last groups on a cached prefix), fastai, a plain loop."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks._claims import Claim, at_least, not_worse, publish
from benchmarks._data import read, stage, subset
from benchmarks._measure import Job, Outcome, run_contender

PEERS = {"fastai_fine_tune": "fastai's fine_tune(5)", "plain_full": "a plain PyTorch loop of 5 epochs"}
EPOCHS = 5
PICTURES = 400
"""Few enough that the peers' full epochs end in minutes on two cores."""
LAST_GROUPS: Mapping[str, Any] = {
    "method": "finetune",
    "settings": {"finetune.train_last": 2, "finetune.views": 4},
}
EVERYTHING: Mapping[str, Any] = {
    "method": "finetune",
    "settings": {
        "finetune.train_last": None,
        "finetune.batch_size": 16,
        "finetune.epochs": EPOCHS,
        "finetune.patience": EPOCHS,
    },
}


def run(*, quick: bool) -> int:
    """Measure, judge, publish."""
    with tempfile.TemporaryDirectory() as folder:
        table = stage("brain_mri", Path(folder))
        table = subset(table, 60 if quick else PICTURES)
        found = {"ours": _contend("ours", table, Path(folder), LAST_GROUPS)}
        found |= {name: _contend(name, table, Path(folder)) for name in PEERS}
        few = subset(table, 40 if quick else 300)
        steps = {"ours, everything": _contend("ours", few, Path(folder), EVERYTHING)}
        steps["plain, everything"] = _contend("plain_full", few, Path(folder), batch_size=16)
        truth = {item.path: item.label for item in read(table).of("test")}
    claims = [_faster(found["ours"], found[name], words) for name, words in PEERS.items()]
    claims += [_as_accurate(found["ours"], found[name], words, truth) for name, words in PEERS.items()]
    ratio = _epoch_seconds(steps["plain, everything"]) / _epoch_seconds(steps["ours, everything"])
    claims.append(at_least("full fine-tuning, an epoch against the usual loop's (cpu)", ratio, 1.3))
    rows = [{"what": name, **outcome.row()} for name, outcome in {**found, **steps}.items()]
    return publish("finetune", claims, rows=rows, quick=quick)


def _contend(
    name: str, table: Path, folder: Path, options: Mapping[str, Any] | None = None, *, batch_size: int = 32
) -> Outcome:
    """Run a contender in a folder of its own."""
    work = Path(tempfile.mkdtemp(dir=folder))
    outcome = run_contender(name, Job(str(table), str(work), EPOCHS, batch_size, options=options or {}))
    best = max(row["validation_accuracy"] for row in outcome.history)
    print(
        f"  {table.name}: {name}: validation {best:.3f}, {outcome.seconds('train').cpu:.1f} cpu-s", flush=True
    )
    return outcome


def _faster(ours: Outcome, peer: Outcome, words: str) -> Claim:
    """Judge the processor seconds until each first validates as well as the peer ever does."""
    target = max(row["validation_accuracy"] for row in peer.history)
    claim = f"faster than {words} to its best validation accuracy, {target:.3f} (cpu)"
    mine, theirs = _seconds_to(ours, target), _seconds_to(peer, target)
    if mine is None or theirs is None:
        best = max(row["validation_accuracy"] for row in ours.history)
        return Claim(claim, f"not reached (best {best:.3f})", ">= 3 x", met=False)
    return at_least(claim, theirs / mine, 3)


def _seconds_to(outcome: Outcome, target: float) -> float | None:
    """Return the processor seconds, from reading the first file, until an epoch validates at `target` or better."""
    # Both count right answers of the same pictures; the slack is for float32 against float64.
    return next((row["cpu"] for row in outcome.history if row["validation_accuracy"] >= target - 1e-6), None)


def _as_accurate(ours: Outcome, peer: Outcome, words: str, truth: Mapping[str, str]) -> Claim:
    """Judge test accuracy, picture by picture."""
    right = [
        [outcome.predictions[path] == label for path, label in truth.items()] for outcome in (ours, peer)
    ]
    return not_worse(f"test accuracy against {words}", *right)


def _epoch_seconds(outcome: Outcome) -> float:
    """Return the median processor seconds of an epoch after the first."""
    times = [row["cpu"] for row in outcome.history]
    return statistics.median(after - before for before, after in pairwise(times[-EPOCHS:]))
