"""Picking a pretrained network: our ranking beside the usual scores, on public tables and on a zoo of our own.

The zoo's truth is `results/ground_truth.json` (`python -m benchmarks._ground_truth`): every network fine-tuned in full
on every set. Each set is ranked with the runs on the *other* sets as its history. In full the product probes each set
anew, which is timed; `--quick` takes the probes that were recorded with the truth, and has no LogME, H-score and cost.
"""

from __future__ import annotations

import csv
import math
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from benchmarks import _ground_truth, _public_tables
from benchmarks._claims import Claim, at_least, at_most, publish
from benchmarks._data import data_folder
from benchmarks._history import history_of
from benchmarks._kept import Kept
from benchmarks._zoo import NETWORKS, stage
from headstart.core.settings import FineTune, Source
from headstart.data import open_dataset
from headstart.select.expect import expected, reach_of
from headstart.select.history import History, Traits
from headstart.select.rank import rank
from headstart.select.timing import EXPONENTS, TRAINING_STEP, VALIDATED, log_cost
from headstart.store import Store
from headstart.train.runtime import Context

FEWEST = 4
"""Networks that a set's truth must hold, for its ranking to count."""
REGRET_POINTS, TAU, COST, TIME_FACTOR, COVERAGE = 0.5, 0.8, 0.15, 1.4, (0.85, 0.95)
WAYS = (
    "ours",
    "prior",
    "frozen",
    "knn",
    "logme",
    "h_score",
    "leep",
    "imagenet",
    "size",
    "validated",
    "again",
)
"""What orders networks: our ranking, then each single thing; higher is better. The last two take what ranking is to
save, all networks fine-tuned: by their validation items, and half of the fine-tunes, by the very test items, held
against the other half (mean over all halves). That says how far a truth of so much chance agrees with itself."""
ENTRIES = {network.name: network.entry() for network in NETWORKS}
PUBLISHED_TIMES = "timm/benchmark-infer-fp32-nchw-pt240-cpu-i7_12700h-dynamo.csv"


@dataclass(frozen=True)
class _Place:
    """Where features are kept from run to run (HEADSTART_BENCH_CACHE), and what ranking took the first time."""

    store: Store
    kept: Kept


def run(*, quick: bool) -> int:
    """Judge the rankings, print the tables, write the results."""
    public = _public_tables.rows()
    truth = _ground_truth.read()
    cache = Path(os.environ.get("HEADSTART_BENCH_CACHE", Path(tempfile.gettempdir()) / "headstart-rank"))
    place = None if quick else _Place(Store(cache / "store"), Kept.read(cache / "rows.json"))
    found = [row for name in _sets(truth) for row in _ranked(name, truth, place)]
    ways = _ways(found)
    claims = [*_public_tables.claims(public), *_zoo_claims(found, ways, truth), *_time_claims(found)]
    _show(ways)
    rows = [*({"kind": "public", **row} for row in public), *({"kind": "way", **row} for row in ways),
            *({"kind": "network", **row} for row in found)]  # fmt: skip
    return publish("rank", claims, rows=rows, quick=quick)


def _sets(truth: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the sets of whose truth enough is there."""
    names = sorted({row["data"] for row in truth})
    return [name for name in names if sum(row["data"] == name for row in truth) >= FEWEST]


def _ranked(name: str, truth: Sequence[Mapping[str, Any]], place: _Place | None) -> list[dict[str, Any]]:
    """Return a row a network: what ours and the other ways say of it on a set, and what it came to.

    Without a place, by the recorded probes.
    """
    here = [row for row in truth if row["data"] == name]
    history = history_of([row for row in truth if row["data"] != name])
    said = _probed(name, here, history, place) if place else _recorded(here, history)
    modelled = {row["model"]: _modelled_seconds(row, truth) for row in here}
    return [
        {
            "expected_seconds": modelled[row["model"]],
            **said[row["model"]],
            "training_seconds": _training_seconds(row)[0],
            "data": name,
            "model": row["model"],
            "truth": _ground_truth.quality(row),
            "runs": _ground_truth.runs(row),
            "validated": row["validation"],
            "leep": row["leep"],
            "imagenet": ENTRIES[row["model"]].scores.get("imagenet"),
            "size": ENTRIES[row["model"]].parameters_m,
            "finetune_seconds": row["seconds"]["finetuned"]["cpu"],
        }
        for row in here
    ]


def _recorded(here: Sequence[Mapping[str, Any]], history: History) -> dict[str, dict[str, Any]]:
    """Return what the product's formula says of the probes that were recorded with the truth."""
    runs = history_of(here).runs
    quality, error = (np.array([getattr(run, part) for run in runs]) for part in ("frozen", "frozen_error"))
    traits = {run.model: Traits.of(ENTRIES[run.model]) for run in runs}
    result = expected(traits, quality, error, history=history)
    reach = reach_of(history)
    rows: dict[str, dict[str, Any]] = {}
    for place, (run, row) in enumerate(zip(runs, here, strict=True)):
        value = float(result.quality[place])
        around = reach.around(value, row["n_train"]) if reach else None
        rows[run.model] = {
            "ours": value,
            "low": around.low if around else None,
            "high": around.high if around else None,
            "prior": float(result.known.mean[place]),
            "frozen": run.frozen,
            "knn": row["probe"]["knn"],
            "logme": None,
            "h_score": None,
            "rank_seconds": None,
        }
    return rows


def _probed(
    name: str, here: Sequence[Mapping[str, Any]], history: History, place: _Place
) -> dict[str, dict[str, Any]]:
    """Return what the product says of a set, and the processor seconds that it takes.

    The seconds are those of the first time, when the store held nothing of the set; networks are exported and timed on
    the first set that meets them.
    """
    folder = Path(tempfile.gettempdir()) / "headstart-ground-truth"
    table = stage(name, folder)
    source = Source(uri=str(table), path_column="path", label_column="label", group_column="group")
    entries = [ENTRIES[row["model"]] for row in here]
    context = Context(place.store, torch.device("cpu"), 1, 0)
    start = time.process_time()
    found = rank(open_dataset(source), entries, source=source, context=context, history=history)
    seconds = place.kept.get(f"seconds {name}", lambda: time.process_time() - start)
    epochs = here[0]["method"]["epochs"]
    print(f"{name}: {found.pick}; {'; '.join(found.reasons)}", flush=True)
    return {
        row.entry.name: {
            "ours": row.score,
            "low": row.fine_tuned.low if row.fine_tuned else None,
            "high": row.fine_tuned.high if row.fine_tuned else None,
            "expected_seconds": row.finetune_seconds * epochs / FineTune().epochs,
            "prior": row.prior,
            "frozen": row.frozen.value if row.frozen else None,
            "knn": row.knn,
            "logme": row.logme,
            "h_score": row.h_score,
            "rank_seconds": seconds / len(found.rows),
        }
        for row in found.rows
    }


def _ways(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row a way to rank: mean regret of its pick in points, mean weighted tau, both over sets."""
    rows: list[dict[str, Any]] = []
    for way in WAYS:
        regrets, taus = [], []
        for name in sorted({row["data"] for row in found}):
            here = [row for row in found if row["data"] == name]
            if way == "again":
                judged = _halves(here)
            elif all(row[way] is None for row in here):
                continue
            else:
                # A network of which a way knows nothing comes last.
                said = np.array([math.nan if row[way] is None else row[way] for row in here])
                said = np.where(np.isnan(said), np.nanmin(said) - 1, said)
                judged = [(said, np.array([row["truth"] for row in here]))]
            if judged:
                regrets.append(
                    fmean(100 * float(truth.max() - truth[said.argmax()]) for said, truth in judged)
                )
                taus.append(fmean(_public_tables.tau_of(said, truth) for said, truth in judged))
        if taus:
            rows.append({"way": way, "regret": fmean(regrets), "worst_regret": max(regrets), "tau": fmean(taus),
                         "sets": len(taus)})  # fmt: skip
    return rows


def _halves(here: Sequence[Mapping[str, Any]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the mean of half of the runs of each network, and of the other half, for all halves; none of one run."""
    num_runs = min(len(row["runs"]) for row in here)
    runs = np.array([row["runs"][:num_runs] for row in here])
    chosen = [list(places) for places in combinations(range(num_runs), num_runs // 2) if places]
    return [(runs[:, some].mean(1), np.delete(runs, some, axis=1).mean(1)) for some in chosen]


def _zoo_claims(
    found: Sequence[Mapping[str, Any]], ways: Sequence[Mapping[str, Any]], truth: Sequence[Mapping[str, Any]]
) -> list[Claim]:
    """Judge our ranking on the zoo: regret, order, intervals, cost; nothing where no truth is there yet."""
    if not found:
        return [
            Claim("the zoo's truth is there", f"{len(truth)} runs", f">= {FEWEST} networks on a set", False)
        ]
    ours = next(row for row in ways if row["way"] == "ours")
    sets = ours["sets"]
    known = [row for row in found if row["low"] is not None]
    inside = fmean(row["low"] <= row["truth"] <= row["high"] for row in known) if known else math.nan
    low, high = COVERAGE
    claims = [
        at_most(f"mean regret of the pick, {sets} sets", ours["regret"], REGRET_POINTS, "points"),
        at_least(f"mean weighted tau, {sets} sets", ours["tau"], TAU, ""),
        Claim(
            "accuracy intervals, each set left out", f"{inside:.1%} of {len(known)} inside",
            f"{low:.0%} to {high:.0%}",
            bool(known) and low <= inside <= high,
        ),
    ]  # fmt: skip
    if any(row["rank_seconds"] is None for row in found):
        return claims
    cost = sum(row["rank_seconds"] for row in found) / sum(row["finetune_seconds"] for row in found)
    return [*claims, at_most("ranking beside fine-tuning all, processor time", cost, COST, "")]


def _time_claims(found: Sequence[Mapping[str, Any]]) -> list[Claim]:
    """Judge the expected seconds of the zoo's fine-tunes, and the exponents of the model."""
    claims = [_published_fit()]
    off = [abs(math.log(row["expected_seconds"] / row["training_seconds"])) for row in found]
    if off:
        within = math.exp(float(np.quantile(off, 0.9)))
        claims.append(
            at_most(f"nine in ten fine-tunes take what is expected, of {len(off)}", within, TIME_FACTOR, "x")
        )
    return claims


def _training_seconds(row: Mapping[str, Any]) -> tuple[float, float]:
    """Return the processor seconds that the training of a row took when it was last timed, and those of the reference
    then: other programs ran beside both.
    """
    again = [one for one in row.get("repeats", {}).values() if "seconds" in one]
    if again:
        return again[-1]["seconds"]["training_cpu"], again[-1]["reference_seconds"]
    return row["seconds"]["finetuned"]["training_cpu"], row["reference_seconds"]


def _modelled_seconds(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> float:
    """Return what the model says that training takes, from the reference network's seconds with nothing beside it."""
    reference = ENTRIES["efficientnet-lite0"]
    as_timed = replace(
        reference, encoder={**reference.encoder, "image_size": _ground_truth.REFERENCE["image_size"]}
    )
    alone = min(_training_seconds(other)[1] for other in rows if other["threads"] == row["threads"])
    forward = alone * math.exp(log_cost(ENTRIES[row["model"]]) - log_cost(as_timed))
    return forward * TRAINING_STEP * VALIDATED * row["n_train"] * row["method"]["epochs"]


def _published_fit() -> Claim:
    """Fit the exponents anew to timm's published times, and hold the constants in the code against them."""
    facts, times = [], []
    with (data_folder().parent / "research" / "tables" / PUBLISHED_TIMES).open(newline="") as stream:
        for row in csv.DictReader(stream):
            numbers = [float(row[name]) for name in ("infer_gmacs", "infer_macts", "param_count")]
            if min(numbers) > 0:
                facts.append([1.0, *np.log(numbers)])
                times.append(-math.log(float(row["infer_samples_per_sec"])))
    fitted = np.linalg.lstsq(np.array(facts), np.array(times), rcond=None)[0]
    off = float(np.abs(fitted[1:] - EXPONENTS["cpu"]).max())
    said = ", ".join(f"{value:.3f}" for value in fitted[1:])
    return Claim(
        f"exponents of the time model, fitted to {len(times)} published times",
        said,
        "as in the code",
        off < 1e-3,
    )


def _show(ways: Sequence[Mapping[str, Any]]) -> None:
    """Print how each way to rank does on the zoo."""
    print("| way | mean regret, points | worst | weighted tau | sets |\n|---|---|---|---|---|")
    for row in ways:
        print(
            f"| {row['way']} | {row['regret']:.2f} | {row['worst_regret']:.2f} | {row['tau']:.3f} | {row['sets']} |"
        )
