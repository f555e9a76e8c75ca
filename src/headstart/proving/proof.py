"""The proof: every arm on the same split and seeds, within the minutes, then what that says.

Each arm with each seed on each budget is an entry of the store, so a proof that was interrupted goes on where it was,
and a second one is read. What is left to do follows from what the entries say they took, never from the clock of this
process: a proof that was cut comes to the same end.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, cast

import numpy as np

from headstart.core.errors import TrainingError
from headstart.core.hashing import digest
from headstart.core.settings import FineTune
from headstart.planning import pace
from headstart.proving.arms import (
    ARMS,
    BUCKET,
    SELF_SUPERVISED,
    TRIED_EPOCHS,
    epoch_seconds,
    learnt,
    pretraining_epochs,
)
from headstart.proving.bench import Bench, open_bench
from headstart.proving.budgets import budgets_of
from headstart.proving.conclude import concluded
from headstart.proving.outcome import Budget, Proof, Scored
from headstart.proving.schedule import (
    END_SECONDS,
    LEAST_SEEDS,
    Costs,
    Pace,
    Schedule,
    Wish,
    equal_seconds,
    scheduled,
)
from headstart.train.runtime import Event
from headstart.train.signals import Stop, stopping

if TYPE_CHECKING:
    from pathlib import Path

    from headstart.core.plan import Plan
    from headstart.core.protocols import Encoder
    from headstart.planning import Opened
    from headstart.train.runtime import Context

VERSION = 3
"""Version of a proof as a whole; bump when its numbers move."""
SPARE = 1.05
"""Training from scratch gets this much more than the time of the dearest other arm, so as not to get less; a further
seed is begun where this much of what the others took on average is left."""
TIMINGS = 3
START_SECONDS = 10.0
"""Imports, opening data and network, choosing the cut."""
TOLD = ("prove", "frozen", "trained")
"""Stages that are shown once the items are encoded."""
_PROOF = "proof.json"


@dataclass(frozen=True)
class Question:
    """What is to be proven: within how many minutes, with how many seeds, and which score is asked about."""

    title: str
    minutes: float
    seeds: int
    target: float
    selfsupervised: bool = False


@dataclass
class Done:
    """What was learnt so far: the runs of each arm on each budget by seed, and their answers [N] to the test items."""

    scored: dict[tuple[str, int], list[Scored]] = field(default_factory=dict)
    quality: dict[tuple[str, int], list[np.ndarray]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    failed: set[str] = field(default_factory=set)

    def add(self, scored: Scored, quality: np.ndarray) -> None:
        """Keep one run."""
        key = scored.arm, scored.budget.n
        self.scored.setdefault(key, []).append(scored)
        self.quality.setdefault(key, []).append(quality)

    def seconds(self, *arms: str) -> float:
        """Return what the runs of some arms took."""
        return sum(one.seconds for (arm, _), runs in self.scored.items() if arm in arms for one in runs)


def prove(opened: Opened, question: Question, context: Context) -> Proof:
    """Return what transfer gains on some data; a second proof of the same question is read from the store.

    `opened` is a plan of fine-tuning. DataError where the data cannot be split, PlanError where the network has learnt
    nothing, Interrupted where somebody asked to stop; the same call then goes on.
    """
    key = digest("proof", VERSION, opened.plan.key, asdict(question), context.device.type)
    kept, began = context.store.get(BUCKET, key), time.perf_counter()
    if kept is None:
        with stopping(context.command) as stop:
            inner = replace(context, seed=opened.plan.seed)
            bench = open_bench(opened, _telling(inner, stop, {"encode"}))
            # What single runs tell of themselves would bury how far the whole is.
            bench.context = _telling(inner, stop, TOLD)
            proof = _proven(bench, question, began)

        def write(folder: Path) -> None:
            (folder / _PROOF).write_text(proof.to_json(), encoding="utf-8")

        kept = context.store.put(BUCKET, key, write)
    return Proof.from_json((kept / _PROOF).read_text(encoding="utf-8"))


def _telling(context: Context, stop: Stop, stages: Collection[str]) -> Context:
    """Return the context of parts that tell only these stages, and that stop when somebody asks."""

    def progress(event: Event) -> None:
        stop.check()
        if event.stage in stages:
            context.progress(event)

    return replace(context, progress=progress)


def _proven(bench: Bench, question: Question, began: float) -> Proof:
    """Run the arms and conclude; `began` is when the proof did."""
    tell = bench.context.progress
    train, held_out = (bench.material.rows(name) for name in ("train", "validation"))
    budgets = budgets_of(bench.strata(train), len(held_out))
    done = Done()
    cheap = [arm for arm in ARMS.values() if not arm.trains]
    runs = [(arm, budget, seed) for arm in cheap for budget in budgets for seed in range(question.seeds)]
    for number, (arm, budget, seed) in enumerate(runs, start=1):
        done.add(*learnt(bench, arm, budget, seed))
        tell(Event("frozen", number, len(runs)))
    costs, spent = _costs(bench, budgets, done, began)
    # As it was measured first: a proof that goes on must come to the same schedule.
    bench.encode_seconds = costs.encode * len(bench.dataset)
    schedule = scheduled(costs, _wish(bench, question, budgets, spent))
    tell(Event("prove", message=_announced(schedule)))
    seeds = _trained(bench, question, schedule, costs, done, spent)
    if seeds < schedule.seeds and not schedule.scratch_cut:
        schedule = schedule.shortened(seeds, question.seeds)
    return concluded(bench, question, budgets, done, schedule)


def _announced(schedule: Schedule) -> str:
    """Say what will be trained."""
    labels = ", ".join(f"{budget.n:,}" for budget in schedule.budgets)
    if schedule.scratch_cut:
        return "only the frozen network fits"
    tuned = (
        f"{schedule.finetune_epochs} epochs of fine-tuning" if schedule.finetune_epochs else "no fine-tuning"
    )
    return f"{schedule.seeds} seeds, {labels} labels, {tuned}, and training from scratch for as long"


def _wish(bench: Bench, question: Question, budgets: tuple[Budget, ...], spent: float) -> Wish:
    """Return what is asked of the schedule."""
    method = cast("FineTune", bench.tuning.method)
    scratch = {
        budget.n: cast("FineTune", ARMS["scratch"].plan(bench, budget, None).method).epochs
        for budget in budgets
    }
    return Wish(
        seeds=question.seeds, epochs=method.epochs, scratch_least=scratch, budgets=budgets,
        seconds=60 * question.minutes, spent=spent, all_budgets=bench.context.device.type != "cpu",
        arms_more=0.5 if question.selfsupervised else 0.0,
    )  # fmt: skip


def _costs(bench: Bench, budgets: tuple[Budget, ...], done: Done, began: float) -> tuple[Costs, float]:
    """Return what the arms cost here, and the seconds that are gone when their training begins.

    Timed once and kept, so that a proof that goes on comes to the same schedule.
    """
    key = digest("pace", VERSION, bench.tuning.key, len(bench.dataset), bench.context.device.type)

    def write(folder: Path) -> None:
        bench.encoder.module.load_state_dict(bench.weights)
        scratch = ARMS["scratch"].plan(bench, budgets[-1], None)
        found = {
            "finetune": asdict(_pace_of(bench, bench.tuning, bench.encoder)),
            "scratch": asdict(_pace_of(bench, scratch, bench.untrained(scratch.encoder, 0))),
            "encode": bench.encode_seconds / len(bench.dataset),
        }
        found["spent"] = START_SECONDS + time.perf_counter() - began
        (folder / "pace.json").write_text(json.dumps(found), encoding="utf-8")

    folder, _ = bench.context.store.get_or(BUCKET, key, write)
    found = json.loads((folder / "pace.json").read_text(encoding="utf-8"))
    heads = {
        budget.n: float(np.mean([one.heads_seconds for one in done.scored["frozen", budget.n]]))
        for budget in budgets
    }
    tuned, scratch = Pace(**found["finetune"]), Pace(**found["scratch"])
    costs = Costs(tuned, scratch, heads, found["encode"], len(bench.material.rows("test")))
    known = found["encode"] * len(bench.dataset) + done.seconds("frozen")
    # The trial by which training from scratch is timed comes before it.
    return costs, max(known, found["spent"]) + costs.scratch_seconds(budgets[-1], TRIED_EPOCHS)


def _pace_of(bench: Bench, plan: Plan, encoder: Encoder) -> Pace:
    """Return a plan's seconds an item."""
    # What other programs take of the machine makes a timing longer, never shorter.
    found = [pace(plan, bench.dataset, encoder, bench.context, items=1) for _ in range(TIMINGS)]
    once, epoch = (min(getattr(one, name) for one in found) for name in ("once", "epoch"))
    return Pace(once, epoch, epoch / 3)


def _trained(
    bench: Bench, question: Question, schedule: Schedule, costs: Costs, done: Done, before: float
) -> int:
    """Run the trained arms seed by seed while the minutes allow it; return the number of seeds."""
    if schedule.scratch_cut:
        return 0
    limit = 60 * question.minutes
    arms = ("finetune", "scratch") if schedule.finetune_epochs else ("scratch",)
    if question.selfsupervised and schedule.finetune_epochs:
        arms = (*arms, SELF_SUPERVISED)
    epochs: dict[int, int] = {}
    total = schedule.seeds * len(schedule.budgets) * len(arms)
    for seed in range(schedule.seeds):
        spent = done.seconds(*arms)
        if seed >= LEAST_SEEDS and before + spent * (1 + SPARE / seed) + END_SECONDS > limit:
            return seed
        for place, budget in enumerate(schedule.budgets):
            if schedule.finetune_epochs:
                _run(bench, "finetune", budget, seed, schedule.finetune_epochs, done)
            if SELF_SUPERVISED in arms and ("finetune", budget.n) in done.scored:
                assert schedule.finetune_epochs is not None, "there is an arm of fine-tuning"
                with _dropping(SELF_SUPERVISED, seed, done):
                    first = done.scored["finetune", budget.n][0]
                    bench.pretraining[budget.n] = pretraining_epochs(bench, first.seconds)
                _run(bench, SELF_SUPERVISED, budget, seed, schedule.finetune_epochs, done)
            if seed == 0:
                with _dropping("scratch", seed, done):
                    epochs[budget.n] = _scratch_epochs(bench, costs, schedule, budget, done)
            _run(bench, "scratch", budget, seed, epochs.get(budget.n, 0), done)
            now = (seed * len(schedule.budgets) + place + 1) * len(arms)
            bench.context.progress(Event("trained", now, total))
    return schedule.seeds


def _run(bench: Bench, arm: str, budget: Budget, seed: int, epochs: int, done: Done) -> None:
    """Run one arm; where its training fails, that is noted and it drops out."""
    if arm in done.failed:
        return
    with _dropping(arm, seed, done):
        done.add(*learnt(bench, ARMS[arm], budget, seed, epochs))


@contextmanager
def _dropping(arm: str, seed: int, done: Done) -> Iterator[None]:
    """Let an arm drop out, with a note, where its training fails inside the block."""
    try:
        yield
    except TrainingError as error:
        done.failed.add(arm)
        done.notes.append(f"{ARMS[arm].title} failed with seed {seed}: {error.given}; {error.fix}")


def _scratch_epochs(bench: Bench, costs: Costs, schedule: Schedule, budget: Budget, done: Done) -> int:
    """Return the epochs from scratch that take as long as the dearest other arm took with the first seed."""
    others = [done.scored.get((name, budget.n)) for name, arm in ARMS.items() if arm.is_transfer]
    wanted = SPARE * equal_seconds(costs, budget, max(runs[0].seconds for runs in others if runs))
    least = schedule.scratch_least or _epochs(ARMS["scratch"].plan(bench, budget, None))
    return max(least, math.ceil(wanted / epoch_seconds(bench, ARMS["scratch"], budget)))


def _epochs(plan: Plan) -> int:
    """Return the epochs of a fine-tuning."""
    return cast("FineTune", plan.method).epochs
