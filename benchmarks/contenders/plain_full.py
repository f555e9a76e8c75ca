"""Plain PyTorch, everything trains."""

from __future__ import annotations

from typing import Any

from benchmarks._measure import Job, Watch
from benchmarks.contenders._loop import train


def run(job: Job, watch: Watch) -> dict[str, Any]:
    """Train the whole network."""
    return train(job, watch, frozen=False)
