"""fastai's `fine_tune`: one frozen epoch, then everything with discriminative rates."""

from __future__ import annotations

from typing import Any

from benchmarks._measure import Job, Watch
from benchmarks.contenders._fastai import train


def run(job: Job, watch: Watch) -> dict[str, Any]:
    """Fine-tune by fastai's own recipe."""
    return train(job, watch, lambda learner, epochs: learner.fine_tune(epochs))
