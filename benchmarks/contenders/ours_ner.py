"""Named entities by headstart's own defaults for tags; the test sentences are tagged outside the training lap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from benchmarks._measure import Job, Seconds, Watch, now
from benchmarks._tagged import without_test
from headstart import api
from headstart.core.machine import read_machine
from headstart.core.settings import Pretrained, Source
from headstart.data import open_dataset
from headstart.model import Model, open_encoder
from headstart.store import Store
from headstart.train.runtime import Context, Event

KEPT = 20
"""Test sentences that the fit itself scores; the whole test set is tagged afterwards, in a lap of its own."""


def run(job: Job, watch: Watch) -> dict[str, Any]:
    """Plan and run; everything from reading the files to the chosen model counts as training."""
    folder = Path(job.folder)
    data = without_test(job.table, folder / "data", kept=KEPT)
    machine = read_machine(store=folder / "store", threads=job.options["threads"])
    with watch.lap("open"):  # The peer's library and network are opened outside its training lap, too.
        open_encoder(Pretrained(name="minilm"))
    start, chosen = now(), Chosen()
    with watch.lap("fit"):
        opened = api.open_plan(
            str(data),
            settings={"seed": job.seed, "finetune.epochs": job.epochs, **job.options.get("settings", {})},
            machine=machine,
        )
        result = api.run(opened, output=folder / "model", machine=machine, progress=chosen)
    watch.laps["train"] = chosen.last - start
    with watch.lap("test"):
        tags = _tagged(api.load(folder / "model"), Path(job.table) / "test.conll", folder, machine.threads)
    return {
        "history": [dict(row) for row in result.history],
        "facts": {
            "tags": tags,
            "stages": dict(result.cost.by_stage),
            "race": [[row.name, row.score, row.chosen] for row in result.race],
            "notes": list(result.notes),
            "method": opened.plan.method.model_dump(mode="json"),
        },
    }


def _tagged(model: Model, path: Path, folder: Path, threads: int) -> dict[str, list[str]]:
    """Return the tags of every sentence of a file."""
    dataset = open_dataset(Source(uri=str(path)))
    encoded = model.encode(dataset, Context(Store(folder / "store"), torch.device("cpu"), threads, 0))
    answers = model.task.answers(model.probabilities(model.logits_of(encoded, model.head.form)))
    said = dict(zip(encoded.indices, answers, strict=True))
    return {name: _tags(said.get(row, ()), len(dataset[row].input)) for row, name in enumerate(dataset.ids)}


class Chosen:
    """Progress that notes what was used when the last epoch was validated."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.last = Seconds(0, 0)

    def __call__(self, event: Event) -> None:
        """Note what was used until the chosen model is saved."""
        if event.stage in ("finetune", "report"):
            self.last = now()


def _tags(spans: Any, count: int) -> list[str]:
    """Return the tag of each word from spans [first, behind the last, type, ...]."""
    tags = ["O"] * count
    for first, behind, kind, *_ in spans:
        tags[first:behind] = [f"B-{kind}", *[f"I-{kind}"] * (behind - first - 1)]
    return tags
