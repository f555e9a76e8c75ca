"""headstart itself, through its public functions; imports and the network's export are laps of their own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from benchmarks._data import subset
from benchmarks._measure import Job, Seconds, Watch, now
from headstart import api
from headstart.core.machine import read_machine
from headstart.train.runtime import Event


def run(job: Job, watch: Watch) -> dict[str, Any]:
    """Fit by `options["method"]`, twice where `options["again"]` asks for it; the store lies in the job's folder."""
    folder = Path(job.folder)
    machine = read_machine(store=folder / "store")
    if job.options.get("export", True):
        with watch.lap("export"):  # On few pictures: what is left afterwards is the graph in the store.
            _fit(job, subset(Path(job.table), 40), machine, folder / "first", Timeline())
        shutil.rmtree(folder / "store" / "features-v1")
    timeline = Timeline()
    with watch.lap("fit"):
        result = _fit(job, Path(job.table), machine, folder / "model", timeline)
    watch.laps["train"] = timeline.saved
    if job.options.get("again"):
        with watch.lap("again"):
            _fit(job, Path(job.table), machine, folder / "again", Timeline())
    return {
        "predictions": {item.id: item.label for item in result.predictions},
        "history": timeline.history,
        "facts": {"stages": dict(result.cost.by_stage), "notes": list(result.notes), "race": _race(result)},
    }


class Timeline:
    """Progress that notes what was used when each validation was done."""

    def __init__(self) -> None:
        """Start the clock."""
        self.start, self.saved, self.history = now(), Seconds(0, 0), list[dict[str, float]]()

    def __call__(self, event: Event) -> None:
        """Note an epoch, and when the model is saved and only the report is left."""
        if event.stage == "report":
            self.saved = now() - self.start
        if "validation_quality" in event.values:
            spent = now() - self.start
            accuracy = event.values["validation_quality"]
            self.history.append({"validation_accuracy": accuracy, "cpu": spent.cpu, "wall": spent.wall})


def _fit(job: Job, table: Path, machine: Any, output: Path, progress: Timeline) -> Any:
    """Plan and run, as `headstart fit` does."""
    opened = api.open_plan(
        str(table), method=job.options["method"], settings=job.options.get("settings", {}), machine=machine
    )
    return api.run(opened, output=output, machine=machine, progress=progress)


def _race(result: Any) -> list[list[Any]]:
    """Return name, score, seconds and choice of every head that was tried."""
    return [[head.name, head.score, head.seconds, head.chosen] for head in result.race]
