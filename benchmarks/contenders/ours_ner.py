"""Named entities by headstart's own defaults for tags; the test sentences are tagged outside the training lap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks._measure import Job, Seconds, Watch, now
from benchmarks._tagged import read
from headstart import api
from headstart.core.machine import read_machine
from headstart.train.runtime import Event


def run(job: Job, watch: Watch) -> dict[str, Any]:
    """Plan and run on the folder; everything from reading the files to the chosen model counts as training."""
    folder = Path(job.folder)
    machine = read_machine(store=folder / "store")
    start, chosen = now(), Chosen()
    with watch.lap("fit"):
        opened = api.open_plan(
            job.table,
            settings={"seed": job.seed, "finetune.epochs": job.epochs, **job.options.get("settings", {})},
            machine=machine,
        )
        result = api.run(opened, output=folder / "model", machine=machine, progress=chosen)
    watch.laps["train"] = chosen.last - start
    said = {item.id: item.label for item in result.predictions}
    lengths = {sentence.number: len(sentence.words) for sentence in read(job.table)["test"]}
    return {
        "history": [dict(row) for row in result.history],
        "facts": {
            "tags": {number: _tags(said.get(number, ()), count) for number, count in lengths.items()},
            "left_out": sorted(set(lengths) - set(said)),
            "stages": dict(result.cost.by_stage),
            "race": [[row.name, row.score, row.chosen] for row in result.race],
            "notes": list(result.notes),
            "method": opened.plan.method.model_dump(mode="json"),
        },
    }


class Chosen:
    """Progress that notes what was used when the last epoch was validated."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.last = Seconds(0, 0)

    def __call__(self, event: Event) -> None:
        """Note the end of an epoch."""
        if event.stage == "finetune":
            self.last = now()


def _tags(spans: Any, count: int) -> list[str]:
    """Return the tag of each word from spans [first, behind the last, type, ...]."""
    tags = ["O"] * count
    for first, behind, kind, *_ in spans:
        tags[first:behind] = [f"B-{kind}", *[f"I-{kind}"] * (behind - first - 1)]
    return tags
