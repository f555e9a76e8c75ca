"""Our prior and its combination with a probe on public tables of fine-tuned accuracies, each data set left out once.

The same code as the product's decides (`select.prior`); where a table has scores of features, one of them stands for
the probe. The tables lie under `research/tables` beside the benchmark data, and are read, never shipped.
"""

from __future__ import annotations

import csv
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import weightedtau

from benchmarks._claims import Claim, at_least
from benchmarks._data import data_folder
from headstart.select.history import Run, Traits
from headstart.select.prior import combine, discrepancy_of, prior

Table = Mapping[str, Mapping[str, float]]
"""Data set -> network -> number."""

TORCHVISION: Mapping[str, tuple[float, float, float]] = {
    "densenet121": (7.98, 2.83, 74.43),
    "densenet169": (14.15, 3.36, 75.60),
    "densenet201": (20.01, 4.29, 76.90),
    "googlenet": (6.62, 1.50, 69.78),
    "inception_v3": (27.16, 5.71, 77.29),
    "mnasnet1_0": (4.38, 0.31, 73.46),
    "mobilenet_v2": (3.50, 0.30, 71.88),
    "resnet34": (21.80, 3.66, 73.31),
    "resnet50": (25.56, 4.09, 76.13),
    "resnet101": (44.55, 7.80, 77.37),
    "resnet152": (60.19, 11.51, 78.31),
}
"""Millions of parameters, GMACs and ImageNet top-1 of torchvision's first weights, by its documentation."""
PARC = {
    "alexnet": (61.1, 0.71),
    "googlenet": (6.62, 1.50),
    "resnet18": (11.69, 1.81),
    "resnet50": (25.56, 4.09),
}
"""Millions of parameters and GMACs of PARC's architectures."""
PUBLISHED = {
    "SFDA, 11 CNNs": ("SFDA", "tau", 0.710),
    "SFDA, 12 self-supervised": ("PED", "tau", 0.63),
    "Model Spider, 10 CNNs": (
        "LogME .676, H-score .648 (Model Spider, which is learned, .800)",
        "tau",
        0.676,
    ),
    "PARC, 28 networks": ("PARC", "pearson", 0.70),
}
"""The best closed-form score of each table and its mean weighted tau (or Pearson's r), as authors report them."""
OURS, SCORE = "ours", "score "
PROBE = "LogME"
"""The column that stands for a probe, named before looking."""


@dataclass(frozen=True)
class Public:
    """A table: fine-tuned accuracies, what is known of the networks, and scores of features by name."""

    name: str
    accuracy: Table
    traits: Mapping[str, Traits]
    scores: Mapping[str, Table] = field(default_factory=dict[str, Table])


def rows() -> list[dict[str, Any]]:
    """Return a row a table and way to rank: mean and least weighted tau over its data sets, and regret in points."""
    found: list[dict[str, Any]] = []
    for table in tables():
        ways = [*_ours(table), *_alone(table), *_scores(table)]
        found += [{"table": table.name, **row} for row in ways]
    return found


def claims(found: Sequence[Mapping[str, Any]]) -> list[Claim]:
    """Judge our rows against the best score of each table: as published, and on the truth at hand where it is."""
    ours = {row["table"]: row for row in found if row["way"] == OURS}
    judged = [
        at_least(f"{table}: {measure} of ours; {score} published", ours[table][measure], goal, "")
        for table, (score, measure, goal) in PUBLISHED.items()
    ]
    for table in ours:
        theirs = [row for row in found if row["table"] == table and row["way"].startswith(SCORE)]
        if theirs:
            best = max(theirs, key=lambda row: row["tau"])
            judged.append(
                at_least(
                    f"{table}: tau of ours; {best['way']} on this truth", ours[table]["tau"], best["tau"], ""
                )
            )
    return judged


def tables() -> list[Public]:
    """Read the tables."""
    folder = data_folder().parent / "research" / "tables"
    cnn = json.loads((folder / "sfda_11_cnn_x_11.json").read_text())
    ssl = json.loads((folder / "sfda_12_ssl_resnet50_x_11.json").read_text())
    known = {name: Traits(*facts, "in1k") for name, facts in TORCHVISION.items()}
    own = {name: Traits(25.56, 4.09, math.nan, name) for name in ssl["aircraft"]}
    return [
        Public("SFDA, 11 CNNs", cnn, known),
        Public("SFDA, 12 self-supervised", ssl, own),
        _spider(folder / "model_spider_scores_10_cnn_x_8.csv", cnn, known),
        _parc(folder / "parc_controlled.csv"),
        _graph(folder / "transfergraph_records.csv"),
    ]


def _spider(path: Path, truth: Table, known: Mapping[str, Traits]) -> Public:
    """Read Model Spider's scores of ten networks on eight data sets; the accuracies are SFDA's of the same networks."""
    scores: defaultdict[str, defaultdict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    with path.open(newline="") as stream:
        for row in csv.DictReader(stream):
            data = {"Pet": "pets"}.get(row["Dataset"], row["Dataset"].lower())
            for name in row.keys() - {"Dataset", "Model"}:
                scores[name][data][row["Model"]] = float(row[name])
    some = next(iter(scores.values()))
    accuracy = {data: {name: truth[data][name] for name in row} for data, row in some.items()}
    traits = {name: known[name] for name in next(iter(some.values()))}
    return Public("Model Spider, 10 CNNs", accuracy, traits, scores)


def _parc(path: Path) -> Public:
    """Read PARC's networks: an architecture and the data set that it was trained on; on that itself it is no rival."""
    accuracy: defaultdict[str, dict[str, float]] = defaultdict(dict)
    traits: dict[str, Traits] = {}
    with path.open(newline="") as stream:
        for row in csv.DictReader(stream):
            architecture, source, target = row["Architecture"], row["Source Dataset"], row["Target Dataset"]
            traits[f"{architecture} of {source}"] = Traits(*PARC[architecture], math.nan, source)
            if source != target:
                accuracy[target][f"{architecture} of {source}"] = float(row["Oracle"])
    return Public("PARC, 28 networks", accuracy, traits)


def _graph(path: Path) -> Public:
    """Read TransferGraph's networks, of which nothing is known but how they did; food101 there are failed runs."""
    accuracy: defaultdict[str, dict[str, float]] = defaultdict(dict)
    with path.open(newline="") as stream:
        for row in csv.DictReader(stream):
            if row["test_accuracy"] and row["finetuned_dataset"] != "food101":
                accuracy[row["finetuned_dataset"]][row["model"]] = 100 * float(row["test_accuracy"])
    names = {name for row in accuracy.values() for name in row}
    return Public(
        "TransferGraph, 180 of a hub", accuracy, {name: Traits(86.0, 17.0) for name in sorted(names)}
    )


def _ours(table: Public) -> list[dict[str, Any]]:
    """Rank by the product's prior, and where there are scores by its combination with one; each data set left out."""
    prior_alone, combined = dict[str, np.ndarray](), dict[str, np.ndarray]()
    probe = table.scores.get(PROBE)
    runs = [
        Run(model, data, value, probe[data][model] if probe else math.nan)
        for data, row in table.accuracy.items()
        for model, value in row.items()
    ]
    names = list(table.traits)
    for data, row in table.accuracy.items():
        others = [run for run in runs if run.data != data]
        known, places = prior(table.traits, others), [names.index(model) for model in row]
        prior_alone[data] = known.mean[places]
        if probe:
            values = np.array([probe[data][model] for model in row])
            combined[data] = combine(
                known.at(places), values, np.zeros(len(values)), discrepancy=discrepancy_of(table.traits, others),
                spread=float(values.std()),
            ).mean  # fmt: skip
    if not probe:
        return [_judged(OURS, table, prior_alone)]
    return [_judged(OURS, table, combined), _judged("our prior alone", table, prior_alone)]


def _alone(table: Public) -> list[dict[str, Any]]:
    """Rank by what needs no look at the data: ImageNet's score, size, and the mean accuracy on the other data sets."""
    found: list[dict[str, Any]] = []
    for way in ("imagenet", "gmacs", "parameters_m"):
        facts = {name: getattr(traits, way) for name, traits in table.traits.items()}
        if len(set(facts.values())) > 1 and all(math.isfinite(value) for value in facts.values()):
            by_set = {data: np.array([facts[name] for name in row]) for data, row in table.accuracy.items()}
            found.append(_judged(f"{way} alone", table, by_set))
    means: dict[str, np.ndarray] = {}
    for data, row in table.accuracy.items():
        others = [one for name, one in table.accuracy.items() if name != data]
        means[data] = np.array([np.mean([one[name] for one in others if name in one] or [0]) for name in row])
    return [*found, _judged("mean accuracy elsewhere", table, means)]


def _scores(table: Public) -> list[dict[str, Any]]:
    """Rank by each score of features that the table has."""
    return [
        _judged(f"{SCORE}{name}", table, {data: np.array([row[data][model] for model in models])
                                          for data, models in table.accuracy.items()})
        for name, row in table.scores.items()
    ]  # fmt: skip


def tau_of(said: np.ndarray, truth: np.ndarray) -> float:
    """Return Kendall's tau of an order [M], in which the top counts most; 0 where all are said to be alike."""
    found: Any = weightedtau(said, truth)
    return float(found.statistic) if len(set(said.tolist())) > 1 else 0.0


def _judged(way: str, table: Public, said: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return how well a way to rank does over the data sets: weighted tau, Pearson's r, regret of its pick (points)."""
    truth = {data: np.array(list(row.values())) for data, row in table.accuracy.items()}
    taus = [tau_of(said[data], truth[data]) for data in truth]
    regrets = [float(truth[data].max() - truth[data][said[data].argmax()]) for data in truth]
    linear = [float(np.corrcoef(said[data], truth[data])[0, 1]) for data in truth]
    return {
        "way": way,
        "tau": statistics.fmean(taus),
        "least_tau": min(taus),
        "pearson": statistics.fmean(linear),
        "regret": statistics.fmean(regrets),
        "sets": len(taus),
    }
