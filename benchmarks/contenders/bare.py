"""The floor: one forward pass in onnxruntime over the same pictures, already decoded and scaled in memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image
from torchvision.transforms import v2

from benchmarks._data import read
from benchmarks._measure import Job, Seconds, Watch, now
from benchmarks._network import CROP, SIZE, export, session

TRIAL = 32
"""Pictures that each setting is tried on."""


def run(job: Job, watch: Watch) -> dict[str, Any]:
    """Try batch sizes on every processor, as ours uses them all, then pass over all pictures with the fastest; only
    the passes count. (One thread alone costs fewer processor seconds where two share a core, and twice the time.)
    """
    collection = read(job.table)
    pictures = _decode([collection.path(item) for item in collection.items])
    with watch.lap("export"):
        graph = export(Path(job.folder) / "bare.onnx")
    threads = len(os.sched_getaffinity(0))
    open_session = session(graph, threads=threads)
    trials: dict[int, float] = {}
    for batch in (1, 4, 8, 16, 32):
        _forward(open_session, pictures[:batch], batch)
        trials[batch] = _forward(open_session, pictures[:TRIAL], batch).wall
    batch = min(trials, key=lambda size: trials[size])
    watch.laps["forward"] = _forward(open_session, pictures, batch)
    return {"facts": {"threads": threads, "batch": batch, "pictures": len(pictures)}}


def _decode(paths: list[Path]) -> np.ndarray:
    """Return uint8 pictures [N, 3, 224, 224] by the evaluation transform."""
    transform = v2.Compose([v2.Resize(round(SIZE / CROP), antialias=True), v2.CenterCrop(SIZE)])
    pictures = [np.asarray(transform(Image.open(path).convert("RGB"))) for path in paths]
    return np.stack(pictures).transpose(0, 3, 1, 2)


def _forward(open_session: onnxruntime.InferenceSession, pictures: np.ndarray, batch: int) -> Seconds:
    """Return what the session's own calls use; scaling to -1..1 is not counted."""
    total = Seconds(0, 0)
    for start in range(0, len(pictures), batch):
        scaled = pictures[start : start + batch].astype(np.float32) / 127.5 - 1
        before = now()
        open_session.run(None, {"pictures": scaled})
        total += now() - before
    return total
