"""Chains of tasks: resumed and repeated exactly, forgetting measured, and what guards against it keep and cost.

Pictures: ImageNet weights (EfficientNet-Lite0), then Caltech photos, PACS photos, PACS paintings. Texts: MiniLM, then
AG News, then question types (TREC). A sample of each set; a seed draws splits and orders. Every chain runs without a
guard and with each; all of them share the links before the first guard through the store. Earlier tasks are scored on
their test items by their own heads: by their own network then, and by the last one now.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from benchmarks._claims import Claim, at_most, publish
from benchmarks._data import data_folder
from benchmarks._kept import Kept
from headstart import api
from headstart.chaining.run import Chained
from headstart.core.machine import Machine
from headstart.core.settings import Source
from headstart.data import TableDataset, open_dataset
from headstart.train.runtime import Event, ignore

FLOOR = 0.95
GUARDS: Mapping[str, Mapping[str, Any]] = {
    "none": {},
    "l2_sp": {"retention.guards": {"l2_sp": None}},
    "ewc": {"retention.guards": {"ewc": None}, "retention.samples": 100},
    "lwf": {"retention.guards": {"lwf": None}},
    "replay": {"retention.guards": {"replay": None}},
    "floor": {"retention.floor": FLOOR},
    "replay + floor": {"retention.guards": {"replay": None}, "retention.floor": FLOOR},
}
SEEDS, RESAMPLES = 5, 10_000
SECOND_SECONDS = 20.0
"""A chain that the store holds is there in seconds; most of them are the opening of data and networks."""
KILLED_IN = 2
"""The epoch of link 2 in which the process is killed, in its third step."""


@dataclass(frozen=True)
class Family:
    """A chain: the network, its sets with their items, and the settings of every link."""

    name: str
    encoder: str
    sets: Mapping[str, tuple[str, int]]
    settings: Mapping[str, Any]


PICTURES = Family(
    "pictures", "efficientnet-lite0",
    {"caltech33": ("images/caltech33", 400), "photo": ("images/pacs/photo", 280),
     "art": ("images/pacs/art_painting", 280)},
    {"finetune.train_last": 3, "finetune.views": 1, "finetune.epochs": 4, "finetune.learning_rate": 1e-3,
     "finetune.batch_size": 16, "extract.heads": ["ridge"]},
)  # fmt: skip
TEXTS = Family(
    "texts", "minilm", {"ag_news": ("text/ag_news/all7600.csv", 400), "trec": ("text/trec", 400)},
    {"finetune.train_last": 2, "finetune.views": 1, "finetune.epochs": 4, "finetune.learning_rate": 5e-4,
     "finetune.batch_size": 16, "extract.heads": ["ridge"]},
)  # fmt: skip
QUICK = Family(
    "pictures", "efficientnet-lite0",
    {"photo": ("images/pacs/photo", 140), "art": ("images/pacs/art_painting", 140)},
    {**PICTURES.settings, "finetune.epochs": 2},
)  # fmt: skip
SIZE = 96
"""Pixels: small pictures leave room for seeds."""


def run(*, quick: bool) -> int:
    """Measure, judge, publish."""
    families = (QUICK,) if quick else (PICTURES, TEXTS)
    seeds = range(1 if quick else int(os.environ.get("HEADSTART_BENCH_SEEDS", SEEDS)))
    guards = ("none", "lwf", "floor") if quick else tuple(GUARDS)
    root = Path(os.environ.get("HEADSTART_BENCH_CACHE", Path(tempfile.gettempdir()) / "headstart-chain"))
    kept = Kept.read(root / f"rows{'-quick' if quick else ''}.json")
    claims: list[Claim] = []
    rows: list[dict[str, Any]] = []
    for family in families:
        claims += _exact(family, root)
        found = [
            kept.get(f"{family.name} {guard} {seed}", partial(_measured, family, guard, seed, root))
            for seed in seeds for guard in guards
        ]  # fmt: skip
        rows += found
        claims += _judged(family.name, found, guards)
    return publish("chain", claims, rows=rows, quick=quick)


def chain(
    family: Family, guard: str, seed: int, root: Path, progress: Any = ignore, *, store: str = "store"
) -> Chained:
    """Run a chain whose links behind the first are guarded."""
    links: list[dict[str, Any]] = []
    for name, (place, count) in family.sets.items():
        settings = {**family.settings, "seed": seed, **(GUARDS[guard] if links else {})}
        if not links and family.name == "pictures":
            settings["encoder.image_size"] = SIZE
        link = {"name": name, "data": _sample(place, count), "settings": settings}
        links.append(link if links else {**link, "encoder": family.encoder})
    machine = Machine(store=root / store, device="cpu", threads=len(os.sched_getaffinity(0)))
    output = root / "models" / f"{family.name} {guard} {seed}"
    return api.chain(links, output=output, machine=machine, progress=progress)


def _sample(place: str, count: int) -> TableDataset:
    """Return about `count` items of a set, the same ones each time, without its own splits."""
    dataset = open_dataset(Source(uri=str(data_folder() / place)))
    dataset = dataset.with_splits([None] * len(dataset))
    if len(dataset) <= count:
        return dataset
    chosen = np.random.default_rng(0).choice(len(dataset), count, replace=False)
    return dataset.subset(np.sort(chosen))


# Exactness


def _exact(family: Family, root: Path) -> list[Claim]:
    """Kill a chain in its second link, let it go on, compare it with one that was not cut, and run that again."""
    shutil.rmtree(root / "killed", ignore_errors=True)
    kept = chain(family, "none", 0, root)
    child = multiprocessing.get_context("spawn").Process(target=_die, args=(family, root))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL, f"the child was to be killed, it ended with {child.exitcode}"
    said: list[str] = []
    again = chain(family, "none", 0, root, lambda event: said.append(event.message), store="killed")
    names = list(family.sets)[1:]
    equal = all(_same(kept.results[name].folder, again.results[name].folder) for name in names)
    resumed = next((line for line in said if line.startswith("resumed after step")), "not resumed")
    events: list[Event] = []
    started = time.perf_counter()
    second = chain(family, "none", 0, root, events.append)
    seconds = time.perf_counter() - started
    runs = [event for event in events if event.stage != "chain"]
    is_hit = not runs and second.to_json() == kept.to_json()
    title = f"{family.name}: second run, everything from the store"
    return [
        Claim(f"{family.name}: killed in link 2 and run again, models of links 2 on", f"{resumed}, "
              + ("equal bits" if equal else "DIFFERENT"), "resumed, equal bits", equal and "resumed" in resumed),
        Claim(title, "yes" if is_hit else f"no: {len(runs)} events", "yes", is_hit),
        at_most(f"{family.name}: second run", seconds, SECOND_SECONDS, "s"),
    ]  # fmt: skip


def _die(family: Family, root: Path) -> None:
    """Run until a step of link 2, then be killed as if by kill -9."""
    begun: list[int] = []

    def progress(event: Event) -> None:
        if event.stage == "chain" and event.message.startswith("link 2"):
            begun.append(0)
        if begun and event.stage == "finetune" and not event.message:
            begun[0] += event.values.get("epoch") == KILLED_IN
            if begun[0] == 3:
                os.kill(os.getpid(), signal.SIGKILL)

    chain(family, "none", 0, root, progress, store="killed")


def _same(one: Path, other: Path) -> bool:
    """Tell whether two models have the same bits."""
    mine, theirs = (load_file(folder / "model.safetensors") for folder in (one, other))
    return mine.keys() == theirs.keys() and all(mine[name].equal(theirs[name]) for name in mine)


# Forgetting


def _measured(family: Family, guard: str, seed: int, root: Path) -> dict[str, Any]:
    """Run a chain under a guard and return its scores."""
    started = time.perf_counter()
    done = chain(family, guard, seed, root)
    lineage = done.lineage
    assert lineage is not None, "there are several links"
    return {
        "chain": family.name, "guard": guard, "seed": seed,
        "new": {name: result.evaluation.primary.value for name, result in done.results.items()},
        "then": {one.name: one.then for one in done.tested},
        "now": {one.name: one.now for one in done.tested},
        "kept_on_validation": _kept(done),
        "floor_missed_by": _missed(done),
        "alpha": [result.lineage.alpha for result in done.results.values() if result.lineage],
        "seconds": time.perf_counter() - started,
    }  # fmt: skip


def _kept(done: Chained) -> dict[str, dict[str, float]]:
    """Return the share of each earlier task's validation score that each link kept."""
    return {
        name: {one.name: one.share.value for one in result.lineage.kept if one.share}
        for name, result in done.results.items()
        if result.lineage
    }


def _missed(done: Chained) -> float:
    """Return by how much a link lies below the floor, or below what it began with where that was less."""
    missed = 0.0
    for result in done.results.values():
        lineage = result.lineage
        if lineage is None or lineage.floor is None or not lineage.way:
            continue
        for one in lineage.kept:
            least = min(lineage.floor, lineage.way[0].kept[one.name])
            missed = max(missed, least - (one.share.value if one.share else 1.0))
    return missed


def _judged(name: str, rows: Sequence[Mapping[str, Any]], guards: Sequence[str]) -> list[Claim]:
    """Judge forgetting without a guard, what each guard keeps beside that, and the floor."""
    by_guard = {guard: [row for row in rows if row["guard"] == guard] for guard in guards}
    lost = [_change(row) for row in by_guard["none"]]
    claims = [
        Claim(f"{name}: forgetting without a guard, earlier tasks on their test items", _spread(lost),
              "measured", True),
    ]  # fmt: skip
    for guard in guards[1:]:
        pairs = list(zip(by_guard[guard], by_guard["none"], strict=True))
        gain = [_change(ours) - _change(theirs) for ours, theirs in pairs]
        cost = [100 * (_new(ours) - _new(theirs)) for ours, theirs in pairs]
        words = f"earlier {_spread(gain)}, new task {_spread(cost)}"
        claims.append(
            Claim(
                f"{name}: {guard} against no guard",
                words,
                "earlier not below 0 (95 %)",
                _interval(gain)[1] >= 0,
            )
        )
    for guard in (guard for guard in guards if "floor" in guard):
        worst = max(row["floor_missed_by"] for row in by_guard[guard])
        claims.append(
            at_most(f"{name}: {guard}, share by which the floor of {FLOOR:.0%} was missed", worst, 0.0, "")
        )
    return claims


def _change(row: Mapping[str, Any]) -> float:
    """Return the mean change of the earlier tasks' test scores, in points."""
    return 100 * float(np.mean([row["now"][name] - row["then"][name] for name in row["now"]]))


def _new(row: Mapping[str, Any]) -> float:
    """Return the test score of the last link's own task."""
    return float(list(row["new"].values())[-1])


def _interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean over seeds."""
    draws = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.quantile(np.asarray(values)[draws].mean(1), (0.025, 0.975))
    return float(low), float(high)


def _spread(values: Sequence[float]) -> str:
    """Say a mean over seeds with its interval, in points."""
    low, high = _interval(values)
    return f"{np.mean(values):+.1f} [{low:+.1f}, {high:+.1f}] points, {len(values)} seeds"
