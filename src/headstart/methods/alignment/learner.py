"""What is trained: a network and its head, the terms and the teacher, and the loss of a batch of both domains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from headstart.core.errors import TrainingError
from headstart.features.feed import as_floats
from headstart.methods.alignment import Needs, Rows
from headstart.methods.alignment.teacher import Teacher, resting
from headstart.train.batches import Batch
from headstart.train.runtime import draw

CHUNK = 16
"""Texts that go through the network together: those of like length, as shorter ones are padded to the longest."""
FEATURE_DROPOUT = 0.5
"""A strong view of fixed features leaves out this share of them (UniMatch: Yang et al. 2023, arXiv 2208.09910)."""


class Network(nn.Module):
    """Inputs to what the classifier sees [N, K] and its outputs [N, C]: the part of an encoder that trains, a head."""

    def __init__(self, body: nn.Module, head: Any) -> None:
        """Join the two."""
        super().__init__()
        self.body, self.head = body, head

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return features and outputs."""
        features = self.encode(inputs)
        embed: Callable[[Tensor], Tensor] | None = getattr(self.head, "embed", None)
        if embed is None:
            return features, self.head(features)
        embedded = embed(features)
        return embedded, self.head.classifier(embedded)

    def encode(self, inputs: Tensor) -> Tensor:
        """Return the body's features; padded inputs go through it in chunks of like length, cut to their own."""
        if inputs.is_floating_point() or inputs.dtype == torch.uint8 or len(inputs) <= CHUNK:
            return self.body(as_floats(trimmed(inputs)))
        order = (inputs != -1).flatten(1).sum(1).argsort(stable=True)
        found = torch.cat([self.body(trimmed(inputs[rows])) for rows in order.split(CHUNK)])
        return found[order.argsort()]


def trimmed(inputs: Tensor) -> Tensor:
    """Leave out the ends of whole-number inputs [N, ...] that are padding (-1) in every row."""
    if inputs.dtype != torch.int64:
        return inputs
    used = (inputs != -1).any(0)
    for axis in range(used.dim()):
        others = [other for other in range(used.dim()) if other != axis]
        held = used.amax(others) if others else used
        inputs = inputs.narrow(axis + 1, 0, max(1, int(held.nonzero().amax()) + 1) if held.any() else 1)
        used = used.narrow(axis, 0, inputs.shape[axis + 1])
    return inputs


@dataclass(frozen=True)
class Course:
    """What the loss of a batch depends on beside the batch: steps of the run and of an epoch, the seed, the callables.

    `task` is the mean loss of source outputs against targets; `sweep` gives the target's inputs in their order.
    """

    task: Callable[[Tensor, Tensor], Tensor]
    sweep: Callable[[], Iterable[Tensor]]
    epoch_steps: int
    total_steps: int
    seed: int
    has_source: bool
    mask_ratio: float
    are_features: bool
    """Inputs are fixed features, whose strong view leaves some of them out."""
    hide: Callable[..., Any] | None = None
    language: Callable[..., Tensor] | None = None


class Learner(nn.Module):
    """Everything that trains or is remembered, and the loss: task on the source + sum of weight x term."""

    def __init__(
        self, network: Network, terms: Mapping[str, Any], weights: Mapping[str, float], course: Course
    ) -> None:
        """Join the parts; a teacher is added once it is known what trains."""
        super().__init__()
        self.network, self.weights, self.course = network, dict(weights), course
        self.terms = nn.ModuleDict(dict(terms))
        self.needs = needs_of(terms.values())
        self.sweepers = tuple(term for term in terms.values() if term.needs.sweep)
        self.teacher: Teacher | None = None
        self.language = course.language if isinstance(course.language, nn.Module) else None

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of a batch, or of a part of it."""
        inputs, targets, items, is_source, *varied = batch.tensors
        is_training, own = torch.is_grad_enabled(), ~is_source
        if is_training and batch.start == 0:
            self._open_step(batch.step)
        if self.course.has_source != bool(is_source.any()) or not own.any():
            return self._half(batch, is_training=is_training)
        source = self._source_rows(inputs[is_source], targets[is_source], items[is_source])
        features, outputs = self._answers(inputs[own], is_met=True)
        views = self._views(inputs[own], varied[0][own] if varied else None, batch)
        target = Rows(features, outputs, items=items[own], **views)
        total = self.course.task(source.outputs, targets[is_source]) if len(source) else outputs.sum() * 0
        progress = batch.step / max(1, self.course.total_steps - 1)
        for name, term in self.terms.items():
            total = total + self.weights[name] * term(source, target, progress=progress)
        return total

    def _source_rows(self, inputs: Tensor, truth: Tensor, items: Tensor) -> Rows:
        """Return the source's side of a batch, or one without rows."""
        if not len(inputs):
            nothing = torch.zeros(0, 0, device=inputs.device)
            return Rows(nothing, nothing, truth=truth, items=items)
        features, outputs = self._answers(inputs)
        return Rows(features, outputs, truth=truth, items=items)

    def _answers(self, inputs: Tensor, *, is_met: bool = False) -> tuple[Tensor, Tensor]:
        """Return features and outputs of inputs of one kind, normalised by their own statistics.

        Domain-specific statistics (Chang et al. 2019, arXiv 1906.03950): each kind goes through BatchNorm by itself,
        and only inputs that the network will meet (the target as it is) move the running statistics.
        """
        with own_statistics(self.network, count=len(inputs), is_recorded=is_met):
            return self.network(inputs)

    def _half(self, batch: Batch, *, is_training: bool) -> Tensor:
        """Return what a part of one domain alone tells; in training that is too little (TrainingError)."""
        if is_training:
            raise TrainingError(
                f"memory ran out, and {len(batch)} items a pass do not hold both domains",
                expected="memory for at least one item of each domain",
                fix="use a smaller picture size, train fewer layer groups, or a smaller network",
            )
        outputs, is_source = self.network(batch.tensors[0])[1], batch.tensors[3]
        return self.course.task(outputs, batch.tensors[1]) if is_source.any() else outputs.sum() * 0

    def _open_step(self, step: int) -> None:
        """Move the teacher, and let terms look at the whole target before an epoch."""
        if self.teacher is not None:
            self.teacher.update(self.network, step)
        if self.needs.sweep and step % self.course.epoch_steps == 0:
            with resting(self.network), torch.no_grad():
                rows = [self.network(inputs) for inputs in self.course.sweep()]
            features, outputs = (torch.cat(part) for part in zip(*rows, strict=True))
            for term in self.sweepers:
                term.refresh(features, outputs)

    def _views(self, inputs: Tensor, varied: Tensor | None, batch: Batch) -> dict[str, Tensor]:
        """Return what else terms ask for, of the target's inputs."""
        course, found = self.course, dict[str, Tensor]()
        if self.teacher is not None:
            found["teacher"] = self.teacher.answer(self.network, inputs)[1]
        if self.needs.strong:
            strong = (
                nn.functional.dropout(as_floats(inputs), FEATURE_DROPOUT) if course.are_features else varied
            )
            assert strong is not None, "strong views were opened"
            found["strong"] = self._answers(strong)[1]
        if self.needs.hidden:
            assert course.hide is not None, "the caller handed in how inputs are hidden"
            generator = draw(course.seed, "hide", batch.step, batch.start)
            hidden = _first(course.hide(inputs, ratio=course.mask_ratio, generator=generator))
            found["hidden"] = self._answers(hidden)[1]
        if self.needs.language:
            assert course.language is not None, "the caller handed in the masked-language loss"
            generator = draw(course.seed, "language", batch.step, batch.start)
            found["language"] = course.language(inputs, generator=generator)
        return found


def _first(given: Any) -> Tensor:
    """Return the hidden inputs of what a modality's function gives (it may say too which parts are hidden)."""
    return given[0] if isinstance(given, tuple) else given


@contextmanager
def own_statistics(module: nn.Module, *, count: int, is_recorded: bool) -> Iterator[None]:
    """Let BatchNorm layers that train use the statistics of `count` rows, and record them only where that is wanted.

    A single row has no statistics: it is normalised by the running ones.
    """
    norms = [part for part in module.modules() if isinstance(part, BatchNorm) and part.training]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.training = count > 1
        norm.momentum = norm.momentum if is_recorded else 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, kept, strict=True):
            norm.training, norm.momentum = True, momentum


@contextmanager
def measured(network: nn.Module, trained: Iterable[nn.Module]) -> Iterator[None]:
    """Put the BatchNorm layers among what trains (of a network at rest) into training mode inside the block."""
    inside = {id(part) for part in network.modules()}
    norms = [part for part in trained if isinstance(part, BatchNorm) and id(part) in inside]
    for norm in norms:
        norm.training = True
    try:
        yield
    finally:
        for norm in norms:
            norm.training = False


def needs_of(terms: Iterable[Any]) -> Needs:
    """Return what several terms ask for together."""
    needs = [term.needs for term in terms]
    return Needs(**{name: any(getattr(one, name) for one in needs) for name in Needs.__dataclass_fields__})
