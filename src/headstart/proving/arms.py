"""The arms of a proof: a name and one function each, from the same items to a trained run; each is kept in the store.

A further arm (say, self-supervised and then fine-tuned) is one function and one row of ARMS.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, cast

import numpy as np
from pydantic import TypeAdapter
from safetensors.numpy import load_file, save_file

from headstart.core.hashing import digest
from headstart.core.settings import FineTune, Pretrain
from headstart.methods.pretrain import pretrain
from headstart.pipeline import outputs_for, train
from headstart.proving.bench import Bench, seeded
from headstart.proving.outcome import Budget, Lap, Scored
from headstart.report.words import FINE_TUNED
from headstart.runs import scratch_plan
from headstart.store import drop_folder

if TYPE_CHECKING:
    from pathlib import Path

    from headstart.core.plan import Plan
    from headstart.pipeline import Begun
    from headstart.train.runtime import Context

VERSION = 3
"""Version of an arm's numbers; bump when they move."""
BUCKET = "proofs-v1"
TRIED_EPOCHS = 2
SELF_SUPERVISED, HEAD_RATE = "selfsupervised", 5e-3
"""The arm that runs only where it is asked for, and the rate of its head, which starts from nothing."""
_FACTS, _QUALITY = "scored.json", "quality.safetensors"

Learn = Callable[[Bench, "Plan", Budget, "Context"], "Begun"]
"""From the items of a budget to a run whose model is trained as the plan says."""


@dataclass(frozen=True)
class Arm:
    """One way to a model: what it is called, its plan (of so many epochs; None: the plan's own), how it learns.

    `is_transfer`: it starts from what the network learnt elsewhere. `trains`: it takes epochs.
    """

    name: str
    title: str
    is_transfer: bool
    trains: bool
    plan: Callable[[Bench, Budget, int | None], Plan]
    learn: Learn


def _with_epochs(plan: Plan, epochs: int | None) -> Plan:
    """Return a fine-tuning of so many epochs."""
    if epochs is None:
        return plan
    method = cast("FineTune", plan.method)
    views = min(method.views, epochs) if method.views else None
    return plan.model_copy(update={"method": method.model_copy(update={"epochs": epochs, "views": views})})


def _scratch_plan(bench: Bench, budget: Budget, epochs: int | None) -> Plan:
    """Return the plan of training from random weights: the one of `headstart fit --baseline`."""
    plan = scratch_plan(bench.tuning, budget.n, modality=bench.dataset.modality)
    longer = _with_epochs(plan, epochs)
    own = cast("FineTune", longer.method)
    # Equal cost: nothing ends early.
    return longer.model_copy(update={"method": own.model_copy(update={"patience": own.epochs})})


def _learn_frozen(bench: Bench, plan: Plan, budget: Budget, context: Context) -> Begun:
    """Race heads on the features at hand."""
    return bench.begun(plan, budget, context)


def _learn_tuned(bench: Bench, plan: Plan, budget: Budget, context: Context) -> Begun:
    """Race heads, then fine-tune from the best."""
    begun = bench.begun(plan, budget, context)
    begun.course = train(begun)
    return begun


def _halved_plan(bench: Bench, _: Budget, epochs: int | None) -> Plan:
    """Return the plan of fine-tuning in half of the epochs: the other half of the time is for pretraining.

    The network is another one by then, so that heads are not raced on the features at hand: the head learns first, in
    half of these epochs.
    """
    whole = cast("FineTune", _with_epochs(bench.tuning, epochs).method)
    half = max(2, whole.epochs // 2)
    changes = {
        "epochs": half - half // 2,
        "head_epochs": half // 2,
        "head_learning_rate": HEAD_RATE,
        "views": None,
    }
    method = whole.model_copy(update=changes)
    return bench.tuning.model_copy(update={"method": method, "start": None})


def _learn_selfsupervised(bench: Bench, plan: Plan, budget: Budget, context: Context) -> Begun:
    """Pretrain on all training inputs without their labels, then fine-tune on the budget's."""
    folder = context.folder / SELF_SUPERVISED if context.folder else None
    epochs = bench.pretraining.get(budget.n, 1)
    _pretrained(bench, Pretrain(epochs=epochs), replace(context, folder=folder))
    begun = bench.begun(plan, budget, context, encoder=bench.encoder)
    begun.course = train(begun)
    return begun


def _pretrained(bench: Bench, settings: Pretrain, context: Context) -> float:
    """Pretrain the bench's network on the training inputs from its own weights; return the seconds that it took."""
    bench.encoder.module.load_state_dict(bench.weights)
    inputs = bench.dataset.subset(bench.dataset.indices("train"))  # Those without a label too.
    done = pretrain(bench.encoder, dataset=inputs, settings=settings, context=context, is_pretrained=True)
    return done.seconds


def pretraining_epochs(bench: Bench, seconds: float) -> int:
    """Return the epochs of pretraining that take half of the seconds of fine-tuning, by training one (kept)."""
    key = digest(
        "pretraining epoch", VERSION, bench.tuning.key, len(bench.dataset), bench.context.device.type
    )

    def write(folder: Path) -> None:
        spent = _pretrained(bench, Pretrain(epochs=1), replace(bench.context, folder=None))
        (folder / _FACTS).write_text(json.dumps({"seconds": spent}), encoding="utf-8")

    folder, _ = bench.context.store.get_or(BUCKET, key, write)
    each = json.loads((folder / _FACTS).read_text(encoding="utf-8"))["seconds"]
    return max(1, round(seconds / 2 / each))


def _learn_scratch(bench: Bench, plan: Plan, budget: Budget, context: Context) -> Begun:
    """Train from random weights."""
    begun = bench.begun(plan, budget, context, encoder=bench.untrained(plan.encoder, context.seed))
    begun.course = train(begun)
    return begun


ARMS: Mapping[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("frozen", "frozen network, new head", True, False, lambda bench, *_: bench.extraction, _learn_frozen),
        Arm(
            "finetune", "new head, then fine-tuned", True, True,
            lambda bench, _, epochs: _with_epochs(bench.tuning, epochs), _learn_tuned,
        ),
        Arm("scratch", "from scratch", False, True, _scratch_plan, _learn_scratch),
        Arm(
            SELF_SUPERVISED, "pretrained further on these inputs, then fine-tuned", True, True, _halved_plan,
            _learn_selfsupervised,
        ),
    )
}  # fmt: skip
"""Arms by name, in the order in which they run."""


def learnt(
    bench: Bench, arm: Arm, budget: Budget, seed: int, epochs: int | None = None
) -> tuple[Scored, np.ndarray]:
    """Return what an arm comes to with a seed on a budget, and how well it answers each test item [N].

    From the store where it is there; else the arm learns, going on from checkpoints that an earlier try left.
    """
    context = seeded(bench.context, seed)
    plan = arm.plan(bench, budget, epochs).model_copy(update={"seed": context.seed})
    split = list(zip(bench.dataset.ids, bench.dataset.splits, strict=True))
    beside = (bench.pretraining.get(budget.n),) if arm.name == SELF_SUPERVISED else ()
    key = digest("arm", VERSION, arm.name, plan.key, asdict(budget), split, *beside)
    checkpoints = context.store.root / "checkpoints-v1" / key

    def write(folder: Path) -> None:
        began = time.perf_counter()
        inner = replace(context, folder=checkpoints)
        begun = arm.learn(bench, plan, budget, inner)
        scored, quality = _scored(begun, arm, budget, seed, time.perf_counter() - began)
        (folder / _FACTS).write_text(json.dumps(asdict(scored), ensure_ascii=False), encoding="utf-8")
        save_file({"quality": quality}, folder / _QUALITY)

    folder, _ = context.store.get_or(BUCKET, key, write)
    if checkpoints.exists():
        drop_folder(checkpoints)
    facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    return TypeAdapter(Scored).validate_python(facts), load_file(folder / _QUALITY)["quality"]


def epoch_seconds(bench: Bench, arm: Arm, budget: Budget) -> float:
    """Return what an epoch of an arm takes on a budget, checkpoint and validation counted, by training a little."""
    plan = arm.plan(bench, budget, TRIED_EPOCHS)
    key = digest("epoch", VERSION, arm.name, plan.key, asdict(budget), bench.context.device.type)

    def write(folder: Path) -> None:
        checkpoints = folder / "checkpoints"
        begun = arm.learn(bench, plan, budget, replace(bench.context, folder=checkpoints))
        drop_folder(checkpoints)
        seconds = min(row["seconds"] for row in begun.course.history)
        (folder / _FACTS).write_text(json.dumps({"seconds": seconds}), encoding="utf-8")

    folder, _ = bench.context.store.get_or(BUCKET, key, write)
    return json.loads((folder / _FACTS).read_text(encoding="utf-8"))["seconds"]


def _scored(begun: Begun, arm: Arm, budget: Budget, seed: int, seconds: float) -> tuple[Scored, np.ndarray]:
    """Score the test items once, with the model that was chosen without them."""
    model, rows, course = begun.model, begun.material.rows("test"), begun.course
    targets = begun.material.targets(rows)
    outputs = outputs_for(begun, rows)
    quality = np.asarray(model.task.item_quality(model.probabilities(outputs), targets), dtype=np.float64)
    winner = next(row for row in course.race if row.chosen)
    heads = begun.ledger.stages.get("heads", 0.0)
    each = [row["seconds"] for row in course.history]
    # A training that was cut and went on took what its history says, not what this process saw of it.
    seconds = max(seconds, heads + math.fsum(each))
    before = max(0.0, seconds - math.fsum(each)) if arm.trains else seconds
    laps = [
        Lap(before + spent, row["validation_quality"])
        for spent, row in zip(accumulate(each), course.history, strict=True)
    ]
    return (
        Scored(
            arm=arm.name, seed=seed, budget=budget, score=float(model.task.score(outputs, targets)["quality"]),
            validation=winner.score, chosen=winner.name, seconds=seconds, heads_seconds=heads,
            epochs=len(course.history), laps=tuple(laps), is_tuned=arm.trains and winner.name == FINE_TUNED,
            suspects=sum(len(one.items) for one in begun.material.audit.by_code("label-suspect")), notes=course.notes,
        ),
        quality,
    )  # fmt: skip
