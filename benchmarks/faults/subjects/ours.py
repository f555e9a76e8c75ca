"""headstart's one training loop."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.faults._process import Run
from benchmarks.faults.subjects.tiny import CLASSES, COUNT, SHAPE, TinyNet, items, opened
from headstart.core.types import LayerGroup
from headstart.store import Store
from headstart.train import loop
from headstart.train.batches import Batch, Items
from headstart.train.loop import LoopSettings, Validation
from headstart.train.optim import parameter_groups
from headstart.train.runtime import Context, Event, draw
from headstart.train.schedule import warmup_cosine

NAME = "headstart"


def train(run: Run) -> Mapping[str, Tensor]:
    """Train by the loop; it resumes by itself."""
    net = TinyNet(run)
    source = Items(COUNT, run.batch_size, _open(run), lambda index: f"item-{index}", seed=0)
    body = LayerGroup("body", (net.body,), dict(net.body.named_parameters()))
    rates: dict[str, Any] = {"learning_rate": run.learning_rate, "layer_decay": 0.5, "weight_decay": 0.01}
    groups = () if run.frozen else parameter_groups((body,), net.head, **rates)
    total = run.epochs * source.steps
    settings = LoopSettings(
        stage="finetune", epochs=run.epochs, micro=-(-run.batch_size // run.accumulate), checkpoint_steps=1,
        factor=lambda step: warmup_cosine(step, total=total, warmup=0.2), freeze_statistics=False,
        ema=0.9 if run.average else 0.0, patience=1 if run.stop_early else 100, chance=math.log(CLASSES),
    )  # fmt: skip
    context = Context(
        Store(run.folder / "store"), torch.device("cpu"), 1, 0, _progress(run), run.checkpoints,
        command="headstart fit ...", workers=run.workers, timeout=run.timeout,
    )  # fmt: skip
    validate = _validation(net, run)
    done = loop.train(
        net,
        loss=_loss(net),
        source=source,
        groups=groups,
        validate=validate,
        settings=settings,
        context=context,
    )
    for note in done.notes:
        run.note("remarks", note)
    return net.state_dict()


def _open(run: Run) -> Callable[[np.ndarray, int], tuple[Tensor, ...]]:
    """Return what opens items: each augmented by its own generator."""
    pictures, labels = items(run)

    def open_items(indices: np.ndarray, epoch: int) -> tuple[Tensor, ...]:
        rows = [
            opened(run, pictures[i], i, draw(0, "augment", epoch, i).standard_normal(SHAPE, np.float32))
            for i in map(int, indices)
        ]
        return torch.from_numpy(np.stack(rows)), torch.from_numpy(labels[indices])

    return open_items


def _loss(net: TinyNet) -> Callable[[Batch], Tensor]:
    """Return the mean cross-entropy of a batch."""
    return lambda batch: nn.functional.cross_entropy(net(batch.tensors[0]), batch.tensors[1])


def _validation(net: TinyNet, run: Run) -> Callable[[Callable[[], None]], Validation]:
    """Return the validation of the first twelve items, none of them spoilt."""
    pictures, labels = (torch.from_numpy(values[:12]) for values in items(run))

    def validate(check: Callable[[], None]) -> Validation:
        check()
        outputs = net(pictures.nan_to_num())
        right = (outputs.argmax(1) == labels).float().mean()
        return Validation(float(nn.functional.cross_entropy(outputs, labels)), float(right))

    return validate


def _progress(run: Run) -> Callable[[Event], None]:
    """Return what hears the loop: acknowledged saves and the first step are noted, a phase may be deadly."""
    begun: list[int] = []

    def hear(event: Event) -> None:
        if event.stage == "checkpoint":
            if event.message == run.phase and event.values["number"] >= 3:
                os.kill(os.getpid(), signal.SIGKILL)
            if event.message == "acknowledged":
                run.note("acknowledged", int(event.values["number"]))
            return
        if "loss" in event.values and not begun:
            begun.append(event.done)
            run.note("starts", event.done)
        if event.message:
            run.note("remarks", event.message)
        if run.action == "log" and event.done == run.at:
            raise OSError(28, "No space left on device")

    return hear
