"""Eight labels a class on MiniLM: our few-shot recipe beside SetFit, on the same body, samples and test rows.

Each seed draws its own labelled (and, for ours, unlabelled) texts; the test rows are the same for every seed. Both run
in turn, each in a process of its own on one thread. Outcomes are kept by content (table, settings, code), so that a
run that was cut goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import headstart
from benchmarks import contenders
from benchmarks._claims import Claim, at_least, publish
from benchmarks._measure import Job, Outcome, Seconds, run_contender
from benchmarks._texts import few, write

PUBLISHED: Mapping[str, float] = {"ag_news": 83.1, "cr": 71.6, "sst5": 29.8}
"""SetFit's own mean accuracies (%) with this body, 8 labels a class, 10 seeds (its repository's final_results)."""
UNLABELLED: Mapping[str, int] = {"ag_news": 900, "cr": 0, "sst5": 0}
"""Texts without labels that ours sees, chosen on other draws: their encoding counts as training. Opinions gain nothing
from them, as the texts of one class are not what is most alike there."""
PER_CLASS, SEEDS, THREADS = 8, 10, 1
RESAMPLES = 10_000


@dataclass(frozen=True)
class Pair:
    """One seed: the shares of right answers, and the processor seconds of training."""

    name: str
    seed: int
    ours: float
    theirs: float
    ours_seconds: float
    theirs_seconds: float


def run(*, quick: bool) -> int:
    """Measure, judge, publish."""
    names, seeds = (("cr",), range(1)) if quick else (tuple(PUBLISHED), range(SEEDS))
    cache = Path(os.environ.get("HEADSTART_BENCH_CACHE", Path(tempfile.gettempdir()) / "headstart-fewshot"))
    cache.mkdir(parents=True, exist_ok=True)
    pairs: list[Pair] = []
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        for name in names:
            pair, both = _pair(name, seed, cache)
            pairs.append(pair)
            rows += both
            print(
                f"  {name}, seed {seed}: ours {pair.ours:.3f} in {pair.ours_seconds:.1f} cpu-s, "
                f"SetFit {pair.theirs:.3f} in {pair.theirs_seconds:.1f}",
                flush=True,
            )
    claims = [
        claim for name in names for claim in _claims(name, [pair for pair in pairs if pair.name == name])
    ]
    return publish("fewshot", claims, rows=rows, quick=quick)


def _claims(name: str, pairs: Sequence[Pair]) -> list[Claim]:
    """Judge one set: against what is published, against SetFit beside, and the time."""
    ours, theirs = (np.array([getattr(pair, side) for pair in pairs]) for side in ("ours", "theirs"))
    spent = sum(pair.theirs_seconds for pair in pairs) / sum(pair.ours_seconds for pair in pairs)
    difference = 100 * (ours - theirs)
    draws = np.random.default_rng(0).integers(0, len(pairs), (RESAMPLES, len(pairs)))
    low, high = np.quantile(difference[draws].mean(1), (0.025, 0.975))
    first, second = (f"{100 * side.mean():.1f} (sd {100 * side.std():.1f})" for side in (ours, theirs))
    value = (
        f"{first} against {second}: {difference.mean():+.2f} [{low:+.2f}, {high:+.2f}], {len(pairs)} seeds"
    )
    return [
        at_least(f"{name}: mean accuracy, against SetFit's published", 100 * ours.mean(), PUBLISHED[name], "%"),
        Claim(f"{name}: accuracy against SetFit beside", value, "mean difference >= 0", difference.mean() >= 0),
        at_least(f"{name}: SetFit's training time in ours (cpu)", spent, 10),
    ]  # fmt: skip


def _pair(name: str, seed: int, cache: Path) -> tuple[Pair, list[dict[str, Any]]]:
    """Run both on one draw of labels, ours first with even seeds."""
    texts = few(name, per_class=PER_CLASS, seed=seed, unlabelled=UNLABELLED[name])
    truth = {item.number: item.label for item in texts if item.split == "test"}
    options = {"threads": THREADS, "graphs": str(cache / "graphs")}
    found: dict[str, Outcome] = {}
    with tempfile.TemporaryDirectory() as folder:
        turns = ("fewshot_ours", "setfit_few")
        for contender in turns if seed % 2 == 0 else turns[::-1]:
            seen = [item for item in texts if contender == "fewshot_ours" or item.split != "unlabelled"]
            table = write(seen, Path(folder) / f"{contender}.csv")
            job = Job(str(table), folder, seed=seed, options=options)
            found[contender] = _kept(contender, job, cache)
    right = {
        contender: float(np.mean([outcome.predictions[number] == label for number, label in truth.items()]))
        for contender, outcome in found.items()
    }
    spent = {contender: outcome.seconds("train").cpu for contender, outcome in found.items()}
    ours, theirs = turns
    rows = [
        {"set": name, "seed": seed, "accuracy": right[contender], **outcome.row()}
        for contender, outcome in found.items()
    ]
    return Pair(name, seed, right[ours], right[theirs], spent[ours], spent[theirs]), rows


def _kept(contender: str, job: Job, cache: Path) -> Outcome:
    """Run a contender, or read its outcome where this code has run on this table before."""
    given = (Path(job.table).read_bytes(), repr((contender, job.seed, THREADS)).encode(), _code(contender))
    path = cache / f"{contender}-{hashlib.sha256(b'|'.join(given)).hexdigest()[:24]}.json"
    if path.exists():
        values = json.loads(path.read_text())
        laps = {lap: Seconds(**seconds) for lap, seconds in values.pop("laps").items()}
        return Outcome(laps=laps, **values)
    outcome = run_contender(contender, job)
    staged = path.with_suffix(".part")
    staged.write_text(json.dumps(asdict(outcome)))
    staged.rename(path)
    return outcome


def _code(contender: str) -> bytes:
    """Return the hash of what decides an outcome: the contender's file, and our package or SetFit's version."""
    (folder,) = contenders.__path__
    files = [Path(folder) / f"{contender}.py"]
    if contender == "setfit_few":
        version = importlib.metadata.version("setfit")
    else:
        version = importlib.metadata.version("headstart")
        files += sorted(Path(headstart.__file__).parent.rglob("*.py"))
    whole = hashlib.sha256(version.encode())
    for file in files:
        whole.update(file.read_bytes())
    return whole.digest()
