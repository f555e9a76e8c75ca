"""What every arm works on: the same audited items in the same split, encoded once, and the networks as they were."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import torch

from headstart.core.errors import PlanError
from headstart.core.settings import Extract
from headstart.model import Model, open_encoder
from headstart.pipeline import Begun, gather
from headstart.pipeline.course import Course, Ledger
from headstart.pipeline.heads import extract_heads
from headstart.pipeline.material import Material, with_suspects
from headstart.planning import sample_values
from headstart.proving.budgets import nested
from headstart.train.runtime import Context, draw

if TYPE_CHECKING:
    from torch import Tensor

    from headstart.core.plan import Plan
    from headstart.core.protocols import Encoder, Task
    from headstart.core.settings import Pretrained
    from headstart.core.types import Form, SplitName
    from headstart.data import TableDataset
    from headstart.planning import Opened
    from headstart.proving.outcome import Budget

TIMED = 8
"""Items that are encoded one after another to foresee what all take, where the store held most of them."""


@dataclass
class Bench:
    """What arms work on. `tuning` is the plan of fine-tuning, `extraction` the one that it starts from.

    `encode_seconds` is what encoding all items takes where the store holds none.
    """

    tuning: Plan
    extraction: Plan
    task: Task
    material: Material
    form: Form
    context: Context
    encoder: Encoder
    encode_seconds: float
    weights: Mapping[str, Tensor]
    pretraining: dict[int, int] = field(default_factory=dict[int, int])
    """Epochs of self-supervised pretraining by the number of labels, where that arm runs."""
    _untrained: tuple[Encoder, Mapping[str, Tensor]] | None = None

    @property
    def dataset(self) -> TableDataset:
        """The items, each with its split."""
        return self.material.dataset

    def strata(self, rows: Sequence[int]) -> list[str]:
        """Return what budgets keep in proportion."""
        return self.task.strata(self.material.targets(rows))

    def rows(self, budget: Budget, seed: int) -> list[int]:
        """Return the items that a budget gives with a seed, and all test items, rising."""
        taken = list(self.material.rows("test"))
        wanted: list[tuple[SplitName, int]] = [
            ("train", budget.num_train), ("validation", budget.num_validation)
        ]  # fmt: skip
        for name, size in wanted:
            rows = self.material.rows(name)
            order = nested(self.strata(rows), seed=seed, stream=f"labels of {name}")
            taken += [rows[place] for place in order[:size]]
        return sorted(taken)

    def begun(self, plan: Plan, budget: Budget, context: Context, *, encoder: Encoder | None = None) -> Begun:
        """Return a run over a budget's items up to its heads, which race where the plan extracts or starts so."""
        if encoder is None:
            encoder = self.encoder
            encoder.module.load_state_dict(self.weights)
        whole, rows = self.material, self.rows(budget, context.seed)
        part = Material(
            whole.dataset.subset(rows), whole.part(rows), [whole.groups[row] for row in rows], whole.audit
        )
        model = Model(encoder, self.task, None, plan.encoder)
        ledger, course = Ledger(context), Course()
        first = plan.extraction or plan
        extraction = first.method if isinstance(first.method, Extract) else Extract(depths=False)
        if first.method is extraction:
            with ledger.stage("heads"):
                race, suspects = extract_heads(model, part, extraction, self.form, context, ledger)
                course, part = Course(race), with_suspects(part, suspects)
        return Begun(plan, model, part, self.form, extraction, ledger, course)

    def untrained(self, settings: Pretrained, seed: int) -> Encoder:
        """Return the network with random weights, other ones for each seed.

        Its weights are drawn alike within each tensor, so to put them in another order is to draw them anew.
        """
        if self._untrained is None:
            made = open_encoder(settings, limits=self.tuning.data.limits)
            self._untrained = made, copy.deepcopy(made.module.state_dict())
        opened, first = self._untrained
        state = dict(first)
        if seed and not opened.receipt.transferred:
            for name, tensor in state.items():
                if tensor.dim() > 1 and tensor.is_floating_point():
                    order = draw(seed, "weights", 0, name).permutation(tensor.numel())
                    state[name] = tensor.flatten()[torch.from_numpy(order)].reshape(tensor.shape)
        opened.module.load_state_dict(state)
        return opened


def open_bench(opened: Opened, context: Context) -> Bench:
    """Encode, audit and split the items once; PlanError where the network has learnt nothing to transfer."""
    plan, encoder = opened.plan, opened.encoder
    if plan.encoder.weights == "random" or plan.extraction is None or encoder is None:
        raise PlanError(
            f"{plan.encoder.name} is not pretrained, so there is no transfer to prove",
            expected="a pretrained network",
            fix="name one with --encoder (`headstart models` lists them), or leave encoder.weights out",
        )
    method = cast("Extract", plan.extraction.method).model_copy(update={"views": 1})
    ledger = Ledger(context)
    task, form, material = gather(plan, opened.dataset, encoder, method, ledger, strict=False)
    seconds = _encode_seconds(material, ledger.stages["encode"], encoder, form)
    start = plan.extraction.model_copy(update={"method": method})
    alone = start.model_copy(update={"method": method.model_copy(update={"use_validation": True})})
    weights = {name: tensor.clone() for name, tensor in encoder.module.state_dict().items()}
    tuning = plan.model_copy(update={"start": start})
    return Bench(tuning, alone, task, material, form, context, encoder, seconds, weights)


def _encode_seconds(material: Material, wall: float, encoder: Encoder, form: Form) -> float:
    """Return what encoding all items takes: as it took, or by a few items where most came from the store."""
    count, encoded = len(material.dataset), material.encoded.num_encoded
    if encoded >= count / 2:
        return wall * count / max(1, encoded)
    began = time.perf_counter()
    values = sample_values(material.dataset, encoder, TIMED)
    if not values:
        return 0.0
    encoder.module.eval()
    with torch.inference_mode():
        encoder.network(form)(encoder.batch(values))
    return (time.perf_counter() - began) * count / len(values)


def seeded(context: Context, seed: int) -> Context:
    """Return the context of one seed."""
    return replace(context, seed=context.seed + seed)
