"""fastai's `vision_learner` on the shared weights, in the manner of its quick start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
from fastai.vision.all import (
    Callback,
    ImageDataLoaders,
    Learner,
    Normalize,
    Resize,
    SaveModelCallback,
    accuracy,
    set_seed,
    vision_learner,
)

from benchmarks._data import Collection, read
from benchmarks._measure import Job, Watch, now
from benchmarks._network import ARCHITECTURE, MEAN, SIZE, STD, fill


class Timeline(Callback):
    """Note the validation accuracy after each epoch and what had been used by then."""

    order = 60  # after fastai's own recorder

    def __init__(self) -> None:
        """Start the clock."""
        self.start, self.history = now(), list[dict[str, float]]()

    def after_epoch(self) -> None:
        """Note one epoch."""
        spent = now() - self.start
        accuracy_now = float(self.learn.recorder.values[-1][-1])
        self.history.append({"validation_accuracy": accuracy_now, "cpu": spent.cpu, "wall": spent.wall})


def train(job: Job, watch: Watch, method: Callable[[Learner, int], None]) -> dict[str, Any]:
    """Build a learner, train it by one of fastai's methods, predict the test pictures."""
    set_seed(job.seed)
    collection = read(job.table)
    with watch.lap("train"):
        timeline = Timeline()
        learner = _learner(collection, job, timeline)
        with learner.no_bar(), learner.no_logging():
            method(learner, job.epochs)
        learner.remove_cb(timeline)  # It would take prediction for another epoch.
    items = collection.of("test")
    with watch.lap("test"), learner.no_bar():
        pictures = learner.dls.test_dl([collection.path(item) for item in items])
        guesses = learner.get_preds(dl=pictures)[0].argmax(1).tolist()
    names = list(learner.dls.vocab)
    named = {item.path: names[guess] for item, guess in zip(items, guesses, strict=True)}
    return {"predictions": named, "history": timeline.history}


def _learner(collection: Collection, job: Job, timeline: Timeline) -> Learner:
    """Return a frozen learner whose body has the shared weights; it keeps the epoch of best accuracy."""
    known = [item for item in collection.items if item.split != "test"]
    table = pandas.DataFrame(
        {
            "path": [str(collection.path(item)).removeprefix("/") for item in known],
            "label": [item.label for item in known],
            "valid": [item.split == "validation" for item in known],
        }
    )
    loaders = ImageDataLoaders.from_df(
        table,
        "/",
        valid_col="valid",
        item_tfms=Resize(SIZE),
        batch_tfms=Normalize.from_stats(MEAN, STD),
        bs=job.batch_size,
    )
    keep = SaveModelCallback(monitor="accuracy", fname="best")
    options = {"path": Path(job.folder), "cbs": [timeline, keep]}
    learner = vision_learner(loaders, ARCHITECTURE, pretrained=False, metrics=accuracy, **options)
    fill(learner.model[0].model)
    learner.freeze()
    return learner
