"""fastai, frozen body: `fit_one_cycle`."""

from __future__ import annotations

from typing import Any

from benchmarks._measure import Job, Watch
from benchmarks.contenders._fastai import train


def run(job: Job, watch: Watch) -> dict[str, Any]:
    """Train the head (and, as fastai does, the body's BatchNorm)."""
    return train(job, watch, lambda learner, epochs: learner.fit_one_cycle(epochs))
