"""A finalist of a race: its plan, what training it costs here, and the rounds that it came to, kept in the store."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from safetensors.numpy import load_file, save_file

from headstart.core.errors import TrainingError
from headstart.core.hashing import digest
from headstart.pipeline import begin, outputs_for, train
from headstart.pipeline.tuning import GIVEN_UP
from headstart.report.words import FINE_TUNED
from headstart.runs import checkpoint_folder
from headstart.select.race import Round

if TYPE_CHECKING:
    from torch import Tensor

    from headstart.core.plan import Plan
    from headstart.core.protocols import Encoder
    from headstart.core.settings import FineTune
    from headstart.data import TableDataset
    from headstart.pipeline import Begun, Course
    from headstart.train.runtime import Context

VERSION = 1
"""Version of a round's numbers; bump when they move."""
BUCKET = "rounds-v1"
_FACTS, _QUALITY = "round.json", "quality.safetensors"


@dataclass(frozen=True, slots=True)
class Costs:
    """What a network costs, in seconds: its features, its heads and what is cached once; each epoch; scoring a round;
    and its use beside others.
    """

    start: float
    epoch: float
    scoring: float
    use: float


@dataclass
class Finalist:
    """A network that is trained to one rung of a race after another; its rounds come from the store where they can.

    `plan` is its fine-tuning to the end of the schedule. What was trained is carried on by the checkpoints of that
    plan's run, which the run itself goes on from in the end.
    """

    name: str
    plan: Plan
    costs: Costs
    dataset: TableDataset
    context: Context
    encoder: Encoder | None = field(default=None, repr=False)
    """Its network, where that is open already; training changes its weights."""
    trains: bool = True
    """Where training takes too long, it competes as it is: frozen, with new heads."""
    _kept: _Kept | None = field(default=None, repr=False)
    _trained: int = field(default=0, repr=False)

    @property
    def cost(self) -> float:
        """What using it costs beside the others."""
        return self.costs.use

    @property
    def folder(self) -> Path:
        """Where its checkpoints lie."""
        return checkpoint_folder(self.plan, self.context)

    def seconds(self, start: int, stop: int) -> float:
        """Return what training from `start` epochs to `stop` should take: as measured, once there is something."""
        begin = 0.0 if start else self.costs.start
        return begin + ((stop - start) * self.costs.epoch + self.costs.scoring if self.trains else 0.0)

    def train(self, epochs: int) -> Round:
        """Train to so many epochs in all and say how it answers the validation items; TrainingError where it fails."""
        plan = stopped(self.plan, epochs) if self.trains else None
        key = digest("round", VERSION, plan.key if plan else ("frozen", frozen(self.plan).key))
        folder, _ = self.context.store.get_or(BUCKET, key, lambda folder: self._write(plan, folder))
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        self._trained = facts["trained"]
        self.costs = replace(self.costs, epoch=facts["epoch_seconds"], scoring=facts["scoring_seconds"])
        quality = load_file(folder / _QUALITY)["quality"]
        values = {name: facts[name] for name in ("score", "loss", "is_tuned", "seconds")}
        return Round(self.name, epochs, tuple(facts["items"]), quality, **values)

    def drop_checkpoints(self) -> None:
        """Delete what would only serve to train it further."""
        from headstart.store import drop_folder

        if self.folder.exists():
            drop_folder(self.folder)

    def _write(self, plan: Plan | None, folder: Path) -> None:
        """Train as `plan` says (None: not at all), score the validation items and write what came out."""
        began = time.perf_counter()
        self._kept = self._kept or _Kept.of(self._begun())
        begun, started = self._kept.restored(plan or self.plan), time.perf_counter()
        if plan:
            begun.course = _trained(begun)
        model, rows = begun.model, begun.material.rows("validation")
        targets = begun.material.targets(rows)
        outputs = outputs_for(begun, rows)
        found = model.task.score(outputs, targets)
        quality = model.task.item_quality(model.probabilities(outputs), targets)
        epochs = [row["seconds"] for row in begun.course.history]
        each, ended = sum(epochs) / max(1, len(epochs)), time.perf_counter()
        facts = {
            "items": [begun.material.dataset.ids[row] for row in rows],
            "score": found["quality"],
            "loss": found["loss"],
            "is_tuned": plan is not None and (plan.start is None or _chosen(begun.course) == FINE_TUNED),
            "trained": len(epochs),
            "epoch_seconds": each,
            "scoring_seconds": max(0.0, ended - started - (len(epochs) - self._trained) * each),
            "seconds": ended - began,
        }
        save_file({"quality": np.asarray(quality, dtype=np.float64)}, folder / _QUALITY)
        (folder / _FACTS).write_text(json.dumps(facts, indent=1, ensure_ascii=False), encoding="utf-8")

    def _begun(self) -> Begun:
        """Encode the items and race heads; training keeps its checkpoints where the plan's run will look for them."""
        inner = replace(self.context, folder=self.folder)
        return begin(self.plan, self.dataset, inner, strict=False, encoder=self.encoder)


@dataclass
class _Kept:
    """A run up to its heads with the network's weights as they were, so that no rung does this part again."""

    begun: Begun
    head: Any
    course: Course
    weights: Mapping[str, Tensor]

    @classmethod
    def of(cls, begun: Begun) -> _Kept:
        """Copy the weights of a run that has its heads."""
        state = begun.model.encoder.module.state_dict()
        return cls(begun, begun.model.head, begun.course, {name: one.clone() for name, one in state.items()})

    def restored(self, plan: Plan) -> Begun:
        """Return the run as it was before any training, to train as `plan` says."""
        self.begun.model.encoder.module.load_state_dict(self.weights)
        self.begun.model.head = self.head
        return replace(self.begun, plan=plan, course=self.course)


def _trained(begun: Begun) -> Course:
    """Train a run's model; TrainingError where that failed."""
    course = train(begun)
    if not course.history:
        raise TrainingError(
            "; ".join(note.removeprefix(GIVEN_UP) for note in course.notes),
            expected="an epoch of training that ends",
            fix="leave it out of the candidates",
        )
    return course


def length(plan: Plan) -> int:
    """Return the epochs of a fine-tuning's schedule, those of the head alone counted."""
    method = cast("FineTune", plan.method)
    return method.head_epochs + method.epochs


def lengthened(plan: Plan, epochs: int) -> Plan:
    """Return a fine-tuning whose schedule takes so many epochs, those of the head alone counted."""
    method = cast("FineTune", plan.method)
    head = min(method.head_epochs, max(0, epochs - 1))
    own = max(1, epochs - head)
    changes = {"epochs": own, "head_epochs": head, "views": min(method.views, own) if method.views else None}
    return plan.model_copy(update={"method": method.model_copy(update=changes)})


def stopped(plan: Plan, epochs: int) -> Plan:
    """Return a fine-tuning that ends after so many epochs of its schedule."""
    after = epochs if epochs < length(plan) else None
    return plan.model_copy(update={"method": plan.method.model_copy(update={"stop_after": after})})


def frozen(plan: Plan) -> Plan:
    """Return the extraction that a fine-tuning starts from as a plan of its own: it may learn from validation too."""
    assert plan.extraction is not None, "it starts from an extraction"
    method = plan.extraction.method.model_copy(update={"use_validation": True})
    return plan.extraction.model_copy(update={"method": method})


def _chosen(course: Course) -> str:
    """Return the contender that was kept."""
    return next(row.name for row in course.race if row.chosen)
