"""Named entities of WNUT-17 on MiniLM: ours by its defaults beside the transformers Trainer, same epochs and body.

All get the same sentences of the training set (a fixed subset, so that the peer ends in minutes); ours validates on
sentences of the development set after each epoch, in its time. Strict span F1 as seqeval counts, on the whole test set.
Runs come in turn, each in a process of its own on one thread, two of them at a time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from seqeval.scheme import IOB2, Entities

from benchmarks._claims import Claim, at_most, publish
from benchmarks._measure import Job, Outcome, run_contender
from benchmarks._tagged import Sentence, read, stage

SET = "wnut17"
TRAIN, DEV = 1500, 200
QUICK = 200, 60, 200
"""Training, development and test sentences of `--quick`: fixed costs hide the share of time there, so it asks for less,
and the Trainer at its own rate alone stands beside."""
SHARE, QUICK_SHARE = 0.5, 1.0
SEEDS = 2
EPOCHS = 5
BATCH = 16
THREADS = 1
"""One each, as threads that wait for one another would count as work."""
RATES = {"Trainer": 5e-5, "Trainer at a rate for MiniLM": 2e-4}
"""The Trainer's own default, and (for the first seed) one that did better on the development set."""
TUNED = tuple(RATES)[1]
AT_A_TIME = 2
RESAMPLES = 1000


def run(*, quick: bool) -> int:
    """Measure, judge, publish."""
    runs = [
        (name, seed)
        for seed in range(1 if quick else SEEDS)
        for name in ("ours", *RATES)
        if name != TUNED or (seed == 0 and not quick)
    ]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(AT_A_TIME) as pool:
        train, dev, test = QUICK if quick else (TRAIN, DEV, None)
        data = stage(SET, Path(folder) / "data", train=train, dev=dev, test=test)
        truth = read(data)["test"]
        waiting = [pool.submit(_contend, name, data, Path(folder), seed) for name, seed in runs]
        outcomes: list[tuple[str, Outcome]] = []
        for (name, seed), one in zip(runs, waiting, strict=True):
            outcomes.append((name, one.result()))
            print(f"  seed {seed}: {name}: {_said(outcomes[-1][1], truth)}", flush=True)
    claims = _claims(outcomes, truth, share_goal=QUICK_SHARE if quick else SHARE)
    rows = [
        {"what": name, "span_f1": span_f1(_counts(outcome, truth)), **_row(outcome)}
        for name, outcome in outcomes
    ]
    return publish("ner", claims, rows=rows, quick=quick)


def _contend(name: str, data: Path, folder: Path, seed: int) -> Outcome:
    """Run a contender in a folder and a process of its own."""
    work, options = tempfile.mkdtemp(dir=folder), {"threads": THREADS}
    if name == "ours":
        return run_contender("ours_ner", Job(str(data), work, EPOCHS, BATCH, seed, options))
    options = {**options, "learning_rate": RATES[name]}
    return run_contender("transformers_ner", Job(str(data), work, EPOCHS, BATCH, seed, options))


def _claims(
    outcomes: Sequence[tuple[str, Outcome]], truth: Sequence[Sentence], *, share_goal: float
) -> list[Claim]:
    """Judge F1, over sentences and seeds, and the processor seconds of training."""
    names = tuple(dict.fromkeys(name for name, _ in outcomes))
    of = {name: [outcome for found, outcome in outcomes if found == name] for name in names}
    counts = {name: np.stack([_counts(outcome, truth) for outcome in of[name]]) for name in names}
    plain, tuned = RATES
    _, low, high = interval(counts["ours"])
    ours = f"{mean_f1(counts['ours']):.3f} [{low:.3f}, {high:.3f}]"
    value, low, high = interval(counts["ours"], counts[plain])
    lead = f"{value:+.3f} [{low:+.3f}, {high:+.3f}], n={len(truth)}, {len(of['ours'])} seeds"
    claims = [
        Claim(
            f"strict span F1 at least that of the {plain} (rate {RATES[plain]:g})",
            f"{ours} against {mean_f1(counts[plain]):.3f}: {lead}",
            "difference >= 0",
            met=value >= 0,
        )
    ]
    if tuned in counts:
        value, low, high = interval(counts["ours"][:1], counts[tuned])
        both = f"{mean_f1(counts['ours'][:1]):.3f} against {mean_f1(counts[tuned]):.3f}"
        claims.append(
            Claim(
                f"strict span F1 beside the {tuned} (rate {RATES[tuned]:g})",
                f"{both}: {value:+.3f} [{low:+.3f}, {high:+.3f}], first seed",
                "difference not below 0 (paired 95 %)",
                met=high >= 0,
            )
        )
    share = _cpu(of["ours"]) / _cpu(of[plain])
    claims.append(at_most(f"share of the {plain}'s training time (cpu)", share, share_goal, ""))
    return claims


def _cpu(outcomes: Sequence[Outcome]) -> float:
    """Return the processor seconds of training."""
    return sum(outcome.seconds("train").cpu for outcome in outcomes)


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
