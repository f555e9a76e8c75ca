"""Which labels: planted errors found again, and what labels chosen by `headstart labels` gain over labels at random.

Wrong labels: a share of the labels of a sound set is moved to another class, drawn evenly; precision is the share of
the named items that were moved (what was wrong before counts against it), recall the share of moved items named.
Next labels: from none, labels are asked for in rounds up to 2, 5, 10 and 20 times the number of classes; after each,
heads race on what is labelled and answer test items that took no part. Random choice does the same, several times a
seed. A seed draws the errors, or the test items, the order of random choice, and the starts of clusters.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks._claims import Claim, at_least, publish
from benchmarks._data import data_folder
from headstart.core.settings import Source
from headstart.core.types import SplitName
from headstart.data import TableDataset, open_dataset
from headstart.labelling.find import find
from headstart.labelling.pool import Pool, learn, open_pool
from headstart.planning import Opened, proposed
from headstart.store import Store
from headstart.train.runtime import Context, choose_device

SETS: Mapping[str, str] = {
    "caltech33": "images/caltech33",
    "weather4": "images/weather4",
    "trec": "text/trec",
    "ag_news": "text/ag_news/all7600.csv",
}
NOISY, RATES = ("caltech33", "ag_news"), (0.05, 0.1)
CHOSEN, BUDGETS = ("caltech33", "weather4", "trec"), (2, 5, 10, 20)
"""Labels a class, on average: nobody knows the class of an item before it is labelled."""
SEEDS, RANDOM_DRAWS = 5, 3
MOST_ITEMS, TEST_SHARE = 2500, 0.3
"""Items of a set at most, a fixed part of larger ones, and the share kept for testing where there is no test split."""
LEAST_PRECISION, LEAST_RECALL = 0.5, 0.7
"""Every second label that a person looks at is to be wrong, though one in ten or twenty was moved."""
RESAMPLES = 10_000


@dataclass(frozen=True)
class Gain:
    """One seed of one set: accuracy after each budget, chosen and at random (the mean of several draws)."""

    name: str
    seed: int
    chosen: tuple[float, ...]
    random: tuple[float, ...]


def run(*, quick: bool) -> int:
    """Measure, judge, publish."""
    seeds = range(1 if quick else SEEDS)
    cache = Path(os.environ.get("HEADSTART_BENCH_CACHE", Path(tempfile.gettempdir()) / "headstart-labels"))
    context = Context(Store(cache / "store"), choose_device("cpu"), len(os.sched_getaffinity(0)), 0)
    noisy, chosen = (("caltech33",), ("weather4",)) if quick else (NOISY, CHOSEN)
    opened = {name: _open(name, context) for name in dict.fromkeys((*noisy, *chosen))}
    rows: list[dict[str, Any]] = []
    claims: list[Claim] = []
    for name in noisy:
        for rate in RATES[-1:] if quick else RATES:
            found = [_planted(opened[name], context, rate=rate, seed=seed) for seed in seeds]
            rows += [{"set": name, "rate": rate, **row} for row in found]
            claims += _found_again(name, rate, found)
    for name in chosen:
        gains = [_gain(name, opened[name], context, seed) for seed in seeds]
        rows += [
            {"set": name, "seed": gain.seed, "chosen": gain.chosen, "random": gain.random} for gain in gains
        ]
        claims += [_better(name, place, gains) for place in range(len(BUDGETS))]
    return publish("labels", claims, rows=rows, quick=quick)


def _open(name: str, context: Context) -> Opened:
    """Open a set with its network, at most MOST_ITEMS of it (all of a test split)."""
    source = Source(uri=str(data_folder() / SETS[name]))
    dataset = open_dataset(source)
    taught = [
        row
        for row, split in enumerate(dataset.splits)
        if split != "test" and dataset.targets[row] is not None
    ]
    if len(taught) > MOST_ITEMS:
        taught = sorted(np.random.default_rng(0).choice(taught, MOST_ITEMS, replace=False).tolist())
    dataset = dataset.subset([*taught, *dataset.indices("test")])
    return proposed(dataset, source, encoder=None, method="extract", given={}, context=context)


# Wrong labels


def _planted(opened: Opened, context: Context, *, rate: float, seed: int) -> dict[str, Any]:
    """Move a share of the labels and see how many of them are named."""
    dataset, draws = opened.dataset, np.random.default_rng(seed)
    labels, targets = dataset.labels, list(dataset.targets)
    moved = draws.choice(len(dataset), round(rate * len(dataset)), replace=False).tolist()
    for row in moved:
        others = [label for label in labels if label != targets[row]]
        targets[row] = others[int(draws.integers(len(others)))]
    wrong = {dataset.ids[row] for row in moved}
    noisy = Opened(opened.plan, replace(dataset, targets=targets), opened.encoder)
    named = [item.id for item in find(noisy, replace(context, seed=seed), count=0).wrong]
    hits = len(wrong.intersection(named))
    row = {"seed": seed, "planted": len(wrong), "named": len(named), "hits": hits}
    print(f"  {opened.plan.data.uri}, {rate:.0%}: {row}", flush=True)
    return row


def _found_again(name: str, rate: float, rows: Sequence[Mapping[str, int]]) -> list[Claim]:
    """Judge precision and recall, the means over seeds."""
    precision = float(np.mean([row["hits"] / max(1, row["named"]) for row in rows]))
    recall = float(np.mean([row["hits"] / row["planted"] for row in rows]))
    what = f"{name}, {rate:.0%} of labels moved"
    return [
        at_least(f"{what}: precision of the named", precision, LEAST_PRECISION, ""),
        at_least(f"{what}: recall of the moved", recall, LEAST_RECALL, ""),
    ]


# Next labels


def _gain(name: str, opened: Opened, context: Context, seed: int) -> Gain:
    """Label in rounds, by choice and at random, and score the heads on the same test items."""
    tested = Opened(opened.plan, _with_test(opened.dataset, seed), opened.encoder)
    whole = open_pool(tested, replace(context, seed=seed))
    pool = whole.rows(labelled=True, with_test=False)
    sizes = [budget * len(whole.dataset.labels) for budget in BUDGETS]
    labelled: list[int] = []
    chosen: list[float] = []
    for size in sizes:
        labelled = [*labelled, *_asked(whole, labelled, size - len(labelled))]
        chosen.append(_accuracy(whole, labelled))
    orders = [np.random.default_rng((seed, turn)).permutation(pool).tolist() for turn in range(RANDOM_DRAWS)]
    random = [float(np.mean([_accuracy(whole, order[:size]) for order in orders])) for size in sizes]
    print(f"  {name}, seed {seed}: chosen {np.round(chosen, 3)}, random {np.round(random, 3)}", flush=True)
    return Gain(name, seed, tuple(chosen), tuple(random))


def _with_test(dataset: TableDataset, seed: int) -> TableDataset:
    """Return the data with a test split: its own, else one drawn by the seed."""
    if dataset.indices("test"):
        return dataset
    test = set(
        np.random.default_rng(seed).permutation(len(dataset))[: round(TEST_SHARE * len(dataset))].tolist()
    )
    splits = ["test" if row in test else "train" for row in range(len(dataset))]
    return dataset.with_splits(cast("list[SplitName]", splits))


def _asked(whole: Pool, labelled: Sequence[int], count: int) -> list[int]:
    """Return the items that are asked for next where only these are labelled."""
    known = set(labelled)
    targets = [target if row in known else None for row, target in enumerate(whole.dataset.targets)]
    hidden = Opened(whole.opened.plan, replace(whole.dataset, targets=targets), whole.opened.encoder)
    row_of = {name: row for row, name in enumerate(whole.dataset.ids)}
    return [row_of[item.id] for item in find(hidden, whole.context, count=count).next]


def _accuracy(whole: Pool, labelled: Sequence[int]) -> float:
    """Return the share of test items that the best head on these labels answers right."""
    rows = sorted(labelled)
    test = [row for row, split in enumerate(whole.dataset.splits) if split == "test"]
    truth = np.array(whole.targets(test))
    present = set(whole.targets(rows))
    if len(present) == 1:
        return float(np.mean(truth == present.pop()))
    learnt = learn(whole, rows, hold_out=False)
    outputs = learnt.model.logits_of(whole.part(test), whole.form)
    return float(np.mean(np.array(learnt.labels)[np.asarray(outputs).argmax(1)] == truth))


def _better(name: str, place: int, gains: Sequence[Gain]) -> Claim:
    """Judge the mean gain over random choice: clear of zero at the smallest budget, not below it at others."""
    gain = 100 * np.array([item.chosen[place] - item.random[place] for item in gains])
    draws = np.random.default_rng(0).integers(0, len(gain), (RESAMPLES, len(gain)))
    low, high = np.quantile(gain[draws].mean(1), (0.025, 0.975))
    ours, theirs = (
        100 * np.mean([getattr(item, side)[place] for item in gains]) for side in ("chosen", "random")
    )
    value = (
        f"{ours:.1f} against {theirs:.1f}: {gain.mean():+.1f} [{low:+.1f}, {high:+.1f}], {len(gain)} seeds"
    )
    goal = "above 0 (95 %)" if place == 0 else "not below 0 (95 %)"
    claim = f"{name}: accuracy with {BUDGETS[place]} labels a class, chosen against random"
    return Claim(claim, value, goal, low > 0 if place == 0 else high >= 0)
