"""The truth that rankings are held against: every network of the zoo, fine-tuned in full on every set.

`python -m benchmarks._ground_truth [--minutes M]` adds what is missing to `benchmarks/results/ground_truth.json`, set
after set, the cheapest networks first; each run is written when it is done, and runs that are there stay. One run is a
noisy truth: with `--seeds 1 2 ...` rows that are there are fine-tuned again, in other orders, on any device (`--device
cuda`); a row's quality is the mean over its seeds, its seconds are those of the first. `--probe` probes rows anew.
"""

from __future__ import annotations

import argparse
import csv
import fcntl
import gc
import hashlib
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._claims import PACKAGES, RESULTS, machine_facts, package_version
from benchmarks._measure import now
from benchmarks._zoo import LABELLED, NETWORKS, SETS, SIDE, TESTED, Network, stage
from headstart import api
from headstart.core.machine import Machine, read_machine
from headstart.core.settings import Pretrained, Source, parse
from headstart.data import open_dataset
from headstart.model import open_encoder
from headstart.result import Result
from headstart.select.probe import look, probe, sampled, settled
from headstart.select.rank import UNLIMITED
from headstart.store import Store
from headstart.train.runtime import Context, Event

FILE = RESULTS / "ground_truth.json"
EPOCHS, BATCH_SIZE = 5, 16
FROZEN: Mapping[str, Any] = {"extract.depths": False}
"""The final features alone, which are what fine-tuning starts from."""
FINETUNED: Mapping[str, Any] = {
    **FROZEN,
    "extract.heads": ("logistic", "ridge"),
    "finetune.train_last": None,
    "finetune.epochs": EPOCHS,
    "finetune.patience": EPOCHS,
    "finetune.batch_size": BATCH_SIZE,
}
"""All layer groups, from a linear head, at the method's own rates; steps of 16 take a third less time than its 4."""
PROTOCOL = {"side": SIDE, "epochs": EPOCHS, "batch_size": BATCH_SIZE, "labelled": LABELLED, "tested": TESTED}
"""Rows that were measured otherwise are measured anew."""
ENCODED = 32
"""Pictures that the original classifier sees at a time."""
REFERENCE = {"name": "efficientnet-lite0", "image_size": 224}
"""The network whose seconds say how fast the machine was at that time."""
REFERENCE_ITEMS, REFERENCE_PASSES = 8, 5


@dataclass(frozen=True)
class Table:
    """A staged set: its table, its labels by split, and the test pictures in order."""

    name: str
    path: Path
    classes: tuple[str, ...]
    counts: Mapping[str, int]
    test: tuple[str, ...]

    @classmethod
    def read(cls, name: str, path: Path) -> Table:
        """Read it."""
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        counts = {
            split: sum(row["split"] == split for row in rows) for split in ("train", "validation", "test")
        }
        test = tuple(row["path"] for row in rows if row["split"] == "test")
        return cls(name, path, tuple(sorted({row["label"] for row in rows})), counts, test)

    def right(self, result: Result) -> str:
        """Return 1 for each test picture that was answered right, 0 for wrong, - for one that the audit dropped."""
        known = {item.id: "1" if item.is_right else "0" for item in result.predictions}
        return "".join(known.get(name, "-") for name in self.test)


def main() -> int:
    """Run what is missing within the minutes given."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks._ground_truth", description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="start no run after so many minutes"
    )
    parser.add_argument("--networks", nargs="*", default=[network.name for network in NETWORKS])
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seeds", nargs="*", type=int, default=[], help="repeat rows that are there")
    parser.add_argument("--device", default="cpu", help="of the repeats")
    parser.add_argument("--probe", action="store_true", help="probe rows that are there anew")
    folder = Path(tempfile.gettempdir()) / "headstart-ground-truth"
    parser.add_argument("--folder", type=Path, default=folder, help="where pictures and features are kept")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    ends = time.monotonic() + 60 * given.minutes
    device = given.device if given.seeds else "cpu"
    machine = read_machine(store=given.folder / "store", threads=given.threads, device=device)
    cells = [(network, name) for name in given.sets for network in NETWORKS if network.name in given.networks]
    for network, name in cells:
        there = next((row for row in read() if _is_of(row, network.name, name)), None)
        missing = [seed for seed in given.seeds if there and str(seed) not in there.get("repeats", {})]
        if there and given.probe:
            table = Table.read(name, stage(name, given.folder))
            change(network.name, name, "probe", probed(network, table, machine))
        if there and not missing:
            continue
        if time.monotonic() > ends:
            print("out of time; call again to go on", flush=True)
            return 0
        table = Table.read(name, stage(name, given.folder))
        output = given.folder / f"model-{os.getpid()}"
        if there:
            found = repeated(network, table, machine, output, missing)
            change(network.name, name, "repeats", found)
            print(f"{time.strftime('%H:%M:%S')} {network.name} {name} {found}"[:150], flush=True)
        else:
            row = measure(network, table, machine, output)
            add(row)
            print(_line(row), flush=True)
    return 0


def read() -> list[dict[str, Any]]:
    """Return the rows that were measured so far."""
    return json.loads(FILE.read_text())["rows"] if FILE.exists() else []


def runs(row: Mapping[str, Any]) -> list[float]:
    """Return the test quality of each fine-tune of a row, the first seed first."""
    return [row["test"], *(one["test"] for one in row.get("repeats", {}).values())]


def quality(row: Mapping[str, Any]) -> float:
    """Return the test quality of a row: the mean over its seeds."""
    return statistics.fmean(runs(row))


def add(row: Mapping[str, Any]) -> None:
    """Put a row in the place of an older one, all of the file or nothing; several processes may add."""
    FILE.parent.mkdir(exist_ok=True)
    with _alone():
        _write([one for one in read() if (one["model"], one["data"]) != (row["model"], row["data"])] + [row])


def change(model: str, data: str, part: str, found: Mapping[str, Any]) -> None:
    """Add what was found to a part of a row that is there, over what that held of the same names."""
    with _alone():
        rows = read()
        row = next(row for row in rows if _is_of(row, model, data))
        row[part] = {**row.get(part, {}), **found}
        _write(rows)


@contextmanager
def _alone() -> Iterator[None]:
    """Keep other processes from the file."""
    with (Path(tempfile.gettempdir()) / "headstart-ground-truth.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the file anew."""
    versions = {package: package_version(package) for package in PACKAGES}
    whole = {"benchmark": "ground_truth", "machine": machine_facts(), "versions": versions, "rows": rows}
    staged = FILE.with_suffix(f".{os.getpid()}")
    staged.write_text(json.dumps(whole, indent=1) + "\n")
    staged.replace(FILE)


def repeated(
    network: Network, table: Table, machine: Machine, output: Path, seeds: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """Fine-tune all of a network again with other seeds; return by seed what the test items came to."""
    found: dict[str, dict[str, Any]] = {}
    for seed in seeds:
        reference = reference_seconds()
        tuned, seconds = _fit(network, table, machine, output, "finetune", {**FINETUNED, "seed": seed})
        shutil.rmtree(output, ignore_errors=True)
        found[str(seed)] = {
            "test": tuned.evaluation.primary.value,
            "right": table.right(tuned),
            "kept": next(row.name for row in tuned.race if row.chosen),
            "seconds": seconds,
            "reference_seconds": reference,
            "device": machine.device,
            "torch": package_version("torch"),
        }
    return found


def measure(network: Network, table: Table, machine: Machine, output: Path) -> dict[str, Any]:
    """Race heads on the frozen network, then fine-tune all of it, and return the row."""
    reference = reference_seconds()
    _clear(machine, output)  # A run that goes on from a checkpoint would not say what it takes.
    frozen, frozen_seconds = _fit(network, table, machine, output, "extract", FROZEN)
    tuned, tuned_seconds = _fit(network, table, machine, output, "finetune", FINETUNED)
    _clear(machine, output)  # Their networks are of no further use.
    leep, classes = source_score(network, table)
    return {
        "model": network.name,
        "data": table.name,
        "protocol": PROTOCOL,
        "n_train": table.counts["train"],
        "n_validation": table.counts["validation"],
        "n_test": table.counts["test"],
        "n_classes": len(table.classes),
        "probe": probed(network, table, machine),
        "frozen_test": frozen.evaluation.primary.value,
        "frozen_right": table.right(frozen),
        "test": tuned.evaluation.primary.value,
        "right": table.right(tuned),
        "test_sha256": hashlib.sha256("\n".join(table.test).encode()).hexdigest(),
        "quality": tuned.evaluation.primary.name,
        "validation": next(row.score for row in tuned.race if row.chosen),
        "kept": next(row.name for row in tuned.race if row.chosen),
        "history": [dict(row) for row in tuned.history],
        "method": tuned.plan.method.model_dump(mode="json"),
        "leep": leep,
        "source_classes": classes,
        "seconds": {
            "frozen": frozen_seconds,
            "finetuned": tuned_seconds,
            "frozen_stages": dict(frozen.cost.by_stage),
            "finetuned_stages": dict(tuned.cost.by_stage),
        },
        "reference_seconds": reference,
        "threads": machine.threads,
        "load": os.getloadavg()[0],
        "notes": list(tuned.notes),
        "versions": {
            package: package_version(package) for package in ("headstart", "torch", "timm", "torchvision")
        },
    }


def _clear(machine: Machine, output: Path) -> None:
    """Delete models and checkpoints; features stay."""
    for place in (output, machine.store / "models-v1", machine.store / "checkpoints-v1"):
        shutil.rmtree(place, ignore_errors=True)
    gc.collect()


def _fit(
    network: Network, table: Table, machine: Machine, output: Path, method: Any, settings: Mapping[str, Any]
) -> tuple[Result, dict[str, float]]:
    """Plan and run as a user would; return the result and its seconds, those of the epochs too."""
    columns = {"data.path_column": "path", "data.label_column": "label", "data.group_column": "group"}
    settings = {**columns, "data.split_column": "split", **network.settings, **settings}
    start = now()
    opened = api.open_plan(
        str(table.path), encoder=network.opened["name"], method=method, settings=settings, machine=machine
    )
    watch = Training()
    result = api.run(opened, output=output, machine=machine, progress=watch)
    return result, {"cpu": (now() - start).cpu, "wall": (now() - start).wall, "training_cpu": watch.cpu}


class Training:
    """Progress that notes the processor seconds from the first step of training to the last, validation among them."""

    def __init__(self) -> None:
        """Start with none."""
        self.began, self.cpu = 0.0, 0.0

    def __call__(self, event: Event) -> None:
        """Note a step."""
        if event.stage == "finetune":
            self.began = self.began or now().cpu
            self.cpu = now().cpu - self.began


def probed(network: Network, table: Table, machine: Machine) -> dict[str, float | None]:
    """Return what the product's probe says of a network on the labelled pictures of a set."""
    source = Source(uri=str(table.path), path_column="path", label_column="label", group_column="group")
    context = Context(Store(machine.store), torch.device("cpu"), machine.threads, 0)
    sample = sampled(open_dataset(source), most=UNLIMITED.sample, seed=0)
    seen = look(network.entry(), sample, source, context)
    found = probe(seen, settled(sample, seen.encoded, source), context)
    return {"quality": found.quality, "error": found.error, "knn": found.knn}


def reference_seconds() -> float:
    """Return the seconds a picture that one pass of the reference network takes here and now (median)."""
    encoder = open_encoder(parse(Pretrained, REFERENCE, what="the reference"))
    pictures = torch.zeros(REFERENCE_ITEMS, 3, 224, 224, dtype=torch.uint8)
    seconds: list[float] = []
    with torch.inference_mode():
        encoder(pictures, "pooled")
        for _ in range(REFERENCE_PASSES):
            start = time.perf_counter()
            encoder(pictures, "pooled")
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds) / REFERENCE_ITEMS


def source_score(network: Network, table: Table) -> tuple[float, int]:
    """Return LEEP of the labelled pictures under the network's original classifier, and how many classes that has."""
    dataset = open_dataset(Source(uri=str(table.path), path_column="path", label_column="label"))
    rows = [*dataset.indices("train"), *dataset.indices("validation")]
    encoder = open_encoder(parse(Pretrained, network.opened, what=network.name))
    parts: list[np.ndarray] = []
    with torch.inference_mode():
        for start in range(0, len(rows), ENCODED):
            pictures = encoder.collate([dataset[row].input for row in rows[start : start + ENCODED]])
            parts.append(network.source_probabilities(encoder, pictures).numpy())
    ids = np.array([table.classes.index(str(dataset.targets[row])) for row in rows])
    whole = np.concatenate(parts)
    return leep(whole, ids), whole.shape[1]


def leep(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Return the log expected empirical prediction of source classes [n, Z] for targets [n] (Nguyen et al. 2020).

    arXiv 2002.12462: the mean log of sum_z P(y | z) P(z | x), P(y | z) from the joint of both on the same items.
    """
    truth = np.eye(targets.max() + 1)[targets]
    joint = truth.T @ probabilities.astype(np.float64) / len(targets)
    conditional = joint / np.maximum(joint.sum(axis=0, keepdims=True), np.finfo(np.float64).tiny)
    expected = probabilities @ conditional.T
    return float(np.log(expected[np.arange(len(targets)), targets]).mean())


def _is_of(row: Mapping[str, Any], model: str, data: str) -> bool:
    """Tell whether a row is of this network and set, measured as we measure now."""
    return (row["model"], row["data"], row["protocol"]) == (model, data, PROTOCOL)


def _line(row: Mapping[str, Any]) -> str:
    """Say a row in one line."""
    found = row["probe"]
    spent = row["seconds"]["frozen"]["cpu"] + row["seconds"]["finetuned"]["cpu"]
    return (
        f"{time.strftime('%H:%M:%S')} {row['model']:22} {row['data']:10} train {row['n_train']} "
        f"test {row['n_test']} probe {found['quality']:.3f} knn {found['knn']:.3f} "
        f"frozen {row['frozen_test']:.3f} tuned {row['test']:.3f} ({row['kept']}) leep {row['leep']:.2f} "
        f"{spent:.0f} cpu-s, reference {1000 * row['reference_seconds']:.1f} ms"
    )


if __name__ == "__main__":
    raise SystemExit(main())
