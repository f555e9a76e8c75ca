"""Named entities of WNUT-17 on MiniLM: ours by its defaults beside the transformers Trainer, same epochs and body.

Both get the same sentences of the training set (a fixed subset, so that the peer ends in minutes on two cores); ours
also validates on sentences of the development set after each epoch, in its time. Strict span F1 as seqeval counts, on
the whole test set; every seed is one run of each, in turn.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from seqeval.scheme import IOB2, Entities

from benchmarks._claims import Claim, at_most, publish
from benchmarks._measure import Job, Outcome, run_contender
from benchmarks._tagged import Sentence, read, stage

SET = "wnut17"
TRAIN, QUICK_TRAIN, DEV, QUICK_TEST = 1500, 300, 300, 300
SEEDS = 2
EPOCHS = 5
BATCH = 16
RATES = {"Trainer, rate 5e-5": 5e-5, "Trainer, rate 2e-4": 2e-4}
"""The Trainer's own default, and what suits a network as small as MiniLM better."""
RESAMPLES = 1000


def run(*, quick: bool) -> int:
    """Measure, judge, publish."""
    outcomes: list[tuple[str, Outcome]] = []
    with tempfile.TemporaryDirectory() as folder:
        train, test = (QUICK_TRAIN, QUICK_TEST) if quick else (TRAIN, None)
        data = stage(SET, Path(folder) / "data", train=train, dev=DEV if not quick else 100, test=test)
        truth = read(data)["test"]
        for seed in range(1 if quick else SEEDS):
            for name in ("ours", *RATES):
                outcomes.append((name, _contend(name, data, Path(folder), seed)))
                print(f"  seed {seed}: {name}: {_said(outcomes[-1][1], truth)}", flush=True)
    claims = _claims(outcomes, truth)
    rows = [
        {"what": name, "span_f1": span_f1(_counts(outcome, truth)), **_row(outcome)}
        for name, outcome in outcomes
    ]
    return publish("ner", claims, rows=rows, quick=quick)


def _contend(name: str, data: Path, folder: Path, seed: int) -> Outcome:
    """Run a contender in a folder and a process of its own."""
    work = tempfile.mkdtemp(dir=folder)
    if name == "ours":
        return run_contender("ours_ner", Job(str(data), work, EPOCHS, BATCH, seed))
    return run_contender(
        "transformers_ner", Job(str(data), work, EPOCHS, BATCH, seed, {"learning_rate": RATES[name]})
    )


def _claims(outcomes: Sequence[tuple[str, Outcome]], truth: Sequence[Sentence]) -> list[Claim]:
    """Judge F1 over all seeds by the paired interval, and processor seconds of training."""
    counts = {
        name: np.stack([_counts(outcome, truth) for found, outcome in outcomes if found == name])
        for name in ("ours", *RATES)
    }
    seconds = {
        name: sum(outcome.seconds("train").cpu for found, outcome in outcomes if found == name)
        for name in ("ours", *RATES)
    }
    best = max(RATES, key=lambda name: mean_f1(counts[name]))
    _, low, high = interval(counts["ours"])
    ours = f"{mean_f1(counts['ours']):.3f} [{low:.3f}, {high:.3f}]"
    claims: list[Claim] = []
    for name in RATES:
        value, low, high = interval(counts["ours"], counts[name])
        measured = f"{ours} against {mean_f1(counts[name]):.3f}: {value:+.3f} [{low:+.3f}, {high:+.3f}], n={len(truth)}"
        claims.append(
            Claim(f"span F1 at least that of the {name}", measured, "difference >= 0", met=value >= 0)
        )
    claims.append(at_most(f"training time of the {best} (cpu)", seconds["ours"] / seconds[best], 0.5))
    return claims


def _counts(outcome: Outcome, truth: Sequence[Sentence]) -> np.ndarray:
    """Return right, predicted and true spans of each sentence [n, 3]."""
    said = outcome.facts["tags"]
    rows = [(spans(said[sentence.number]), spans(sentence.tags)) for sentence in truth]
    return np.array([(len(found & true), len(found), len(true)) for found, true in rows])


def spans(tags: Sequence[str]) -> set[tuple[int, int, str]]:
    """Return first word, word behind the last and type of each span, strictly: it begins with B- (seqeval, IOB2)."""
    found = Entities([list(tags)], IOB2).entities[0]
    return {(entity.start, entity.end, entity.tag) for entity in found}


def span_f1(counts: np.ndarray) -> float:
    """Return micro F1 of sentences' counts [n, 3]."""
    right, said, true = counts.sum(0)
    return float(2 * right / max(said + true, 1))


def mean_f1(counts: np.ndarray) -> float:
    """Return the mean F1 of seeds [seeds, n, 3]."""
    return float(np.mean([span_f1(seed) for seed in counts]))


def interval(counts: np.ndarray, other: np.ndarray | None = None) -> tuple[float, float, float]:
    """Return the mean F1 over seeds, or its lead over another's, with its 95 % bootstrap interval over sentences."""

    def value(rows: np.ndarray) -> float:
        return mean_f1(counts[:, rows]) - (mean_f1(other[:, rows]) if other is not None else 0.0)

    n = counts.shape[1]
    draws = np.random.default_rng(0).integers(0, n, (RESAMPLES, n))
    low, high = np.quantile([value(rows) for rows in draws], (0.025, 0.975))
    return value(np.arange(n)), float(low), float(high)


def _said(outcome: Outcome, truth: Sequence[Sentence]) -> str:
    """Say how a run went."""
    return f"span F1 {span_f1(_counts(outcome, truth)):.3f}, {outcome.seconds('train').cpu:.1f} cpu-s"


def _row(outcome: Outcome) -> dict[str, object]:
    """Return what a result file keeps: everything but the tags."""
    row = outcome.row()
    return {**row, "facts": {name: value for name, value in outcome.facts.items() if name != "tags"}}
