"""How far headstart's features are from those of the same network in torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._measure import Job, Watch
from benchmarks._network import network
from headstart.core.settings import Pretrained, Source
from headstart.data import open_dataset
from headstart.features.encode import encode
from headstart.model import open_encoder
from headstart.store import Store
from headstart.train.runtime import Context


def run(job: Job, _watch: Watch) -> dict[str, Any]:
    """Encode pictures by both from the same pixels; our own copy of the weights is the reference."""
    source = Source(uri=job.table, path_column="path", label_column="label")
    dataset, encoder = open_dataset(source), open_encoder(Pretrained())
    context = Context(Store(Path(job.folder) / "exact-store"), torch.device("cpu"), 1, job.seed)
    ours = encode(dataset, encoder, form="pooled", context=context).features
    pixels = encoder.collate([dataset[index].input for index in range(len(dataset))])
    with torch.inference_mode():
        theirs = network().eval()(pixels.float() / 127.5 - 1).numpy()
    return {
        "facts": {
            "relative_difference": float(np.abs(ours - theirs).max() / np.abs(theirs).max()),
            "pictures": len(ours),
        }
    }
