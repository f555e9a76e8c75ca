"""Domain adaptation: the task on labelled source items, and terms that draw an unlabelled target nearer.

    loss = task(source) + sum over terms of weight x term(source, target)

through the one loop. What a term is and what it sees is said in `headstart.methods.alignment`. No label of the target
is looked at: the schedule is fixed, and the last epoch is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from headstart.core.hashing import digest
from headstart.core.registry import resolve
from headstart.core.types import LayerGroup
from headstart.features.encode import encode
from headstart.features.feed import validation_feed
from headstart.heads import BottleneckHead
from headstart.methods.alignment import Sizes
from headstart.methods.alignment.learner import (
    Course,
    Learner,
    Network,
    measured,
    needs_of,
    own_statistics,
)
from headstart.methods.alignment.material import (
    Adaptable,
    Changes,
    Material,
    Request,
    choose_head,
    open_material,
    refuse_misfits,
    rows_of,
)
from headstart.methods.alignment.pairs import Pairs, Side, even_batches
from headstart.methods.alignment.teacher import Teacher
from headstart.train.loop import train
from headstart.train.optim import ParameterGroup, freeze, parameter_groups
from headstart.train.position import LoopSettings, Validate, Validation
from headstart.train.runtime import Context, channels_last, draw
from headstart.train.schedule import warmup_cosine

if TYPE_CHECKING:
    from headstart.core.protocols import Dataset, Task
    from headstart.core.settings import Adapt
    from headstart.core.types import Target

VERSION = 1
"""Version of this method; bump when its numbers move."""
EVALUATION_BATCH = 64
UNKNOWN = Validation(math.nan, math.nan)
"""How good a model is where there is nothing to measure it on."""


@dataclass(frozen=True)
class Adapted:
    """How adaptation went; the model holds the last epoch's weights.

    `start` and `end` are measured on held-out source items (not a number where none were given), of which `held_out`
    [m, C] are the outputs in the end, of those that could be read. Where BatchNorm layers trained, these items go by
    their own statistics: those of the target, which the model is left with, would tell of the shift and not of what was
    forgotten. `weights` are those of the terms, `depth` groups of the encoder stayed frozen.
    """

    history: tuple[dict[str, float], ...]
    start: Validation
    end: Validation
    held_out: np.ndarray | None
    weights: Mapping[str, float]
    head: str
    depth: int
    steps: int
    seconds: float
    notes: tuple[str, ...]


def adapt(
    model: Adaptable,
    *,
    source: Dataset | None,
    target: Dataset,
    settings: Adapt,
    context: Context,
    held_out: Dataset | None = None,
    changes: Changes | None = None,
) -> Adapted:
    """Adapt `model` in place to the items of `target`, whose labels are never looked at.

    `source` has labels; None where it is gone, which terms such as shot, mcc and fixmatch allow. Resumes exactly from
    `context.folder`. PlanError where the terms ask for what is not there; else as `headstart.train.loop.train`.
    """
    layers = model.encoder.layer_groups()
    needs = needs_of([resolve("term", name) for name in settings.terms])
    source = None if needs.resting_head else source
    request = Request(source, target, settings, needs, changes or Changes())
    refuse_misfits(model, request)
    material = open_material(model, request, context)
    choose_head(model, request, material, context)
    pairs = _pairs(model.task, request, material, context)
    learner = _learner(model, request, material, pairs, context=context).to(context.device)
    with ExitStack() as frozen:
        frozen.enter_context(freeze(model.encoder.module, layers[: material.depth]))
        if needs.resting_head:
            frozen.enter_context(freeze(model.head, [_resting(model.head)]))
        groups = _groups(model, learner, settings, layers[material.depth :])
        if needs.teacher:
            learner.teacher = Teacher(learner.network, groups, settings.ema)
        measure = _measurement(model, learner.network, held_out, material, groups=groups, context=context)
        done = train(
            learner,
            loss=learner.loss,
            source=pairs,
            groups=groups,
            validate=_validation(model.task, measure),
            settings=_loop_settings(model, request, pairs),
            context=context,
        )
        with torch.no_grad():
            found = measure(lambda: None)[0] if measure else None
    model.encoder.module.requires_grad_(True)
    model.head = model.head.requires_grad_(True).cpu().eval()
    seconds = sum(row["seconds"] for row in done.history)
    return Adapted(
        done.history, done.start, done.best, found, learner.weights, model.head.kind, material.depth, done.steps,
        seconds, done.notes,
    )  # fmt: skip


def _pairs(task: Task, request: Request, material: Material, context: Context) -> Pairs:
    """Return the batches of both domains."""
    size, opened, indices = request.settings.batch_size, material.opened, material.indices

    def side(name: str, data: Dataset, **more: Any) -> Side:
        rows = indices[name]
        return Side(name, len(rows), size, opened[name], lambda index: data[int(rows[index])].id, **more)

    def truth(data: Dataset, chosen: np.ndarray) -> Tensor:
        return task.collate([data[int(index)].target for index in indices["source"][chosen]])

    source = request.source
    first = None if source is None else side("source", source, targets=partial(truth, source))
    second = side("target", request.target, varied=opened.get("varied"))
    return Pairs(first, second, context.seed, request.changes.restyle)


def _learner(
    model: Adaptable, request: Request, material: Material, pairs: Pairs, *, context: Context
) -> Learner:
    """Return the network with the terms, whose random numbers come from the seed."""
    settings, network = request.settings, Network(_body(model, material), model.head)
    embedding = model.head.bottleneck if isinstance(model.head, BottleneckHead) else model.head.width
    sizes = Sizes(embedding, len(model.task.labels), pairs.target.count, settings.batch_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.seed + 1)  # Not the numbers of a new head.
        terms = {name: resolve("term", name)(sizes, settings) for name in settings.terms}
    weights = {
        name: terms[name].weight if weight is None else weight for name, weight in settings.terms.items()
    }

    def sweep() -> Iterator[Tensor]:
        opened = material.opened.get("whole", material.opened["target"])
        for chosen in even_batches(pairs.target.count, EVALUATION_BATCH):
            yield opened(chosen, 0).to(context.device)

    course = Course(
        task=partial(model.task.loss, label_smoothing=settings.label_smoothing),
        sweep=sweep,
        epoch_steps=pairs.steps,
        total_steps=settings.epochs * pairs.steps,
        seed=context.seed,
        has_source=request.source is not None,
        mask_ratio=settings.mask_ratio,
        are_features=material.is_fixed,
        hide=request.changes.hide,
        language=request.changes.language,
    )
    return Learner(network, terms, weights, course)


def _body(model: Adaptable, material: Material) -> nn.Module:
    """Return what lies below the head: nothing over fixed features, the suffix of a cut, or the whole encoder."""
    if material.is_fixed:
        return nn.Identity()
    body = material.place.suffix if material.place else model.encoder.network(model.head.form)
    return channels_last(body) if any(isinstance(part, nn.Conv2d) for part in body.modules()) else body


def _resting(head: Any) -> LayerGroup:
    """Return the part of a head that shot leaves as it is: the classifier."""
    part = head.classifier if isinstance(head, BottleneckHead) else head
    return LayerGroup("classifier", (part,), dict(part.named_parameters()))


def _groups(
    model: Adaptable, learner: Learner, settings: Adapt, layers: Sequence[LayerGroup]
) -> tuple[ParameterGroup, ...]:
    """Return what trains: layers of the encoder, the head (or what of it lies below the classifier), the terms."""
    head = model.head
    if learner.needs.resting_head:
        head = head.below if isinstance(head, BottleneckHead) else nn.Identity()
    groups = parameter_groups(
        layers,
        head,
        learning_rate=settings.learning_rate,
        head_learning_rate=settings.head_learning_rate,
        layer_decay=settings.layer_decay,
        weight_decay=settings.weight_decay,
    )
    others = {"terms": (learner.terms,), "language": _own_parts(learner)}
    return (
        *groups,
        *(
            ParameterGroup(
                name, parts, _parameters(parts), settings.head_learning_rate, settings.weight_decay
            )
            for name, parts in others.items()
        ),
    )


def _own_parts(learner: Learner) -> tuple[nn.Module, ...]:
    """Return the parts of a masked-language loss that are its own and not the network's."""
    known = {id(parameter) for parameter in learner.network.parameters()}
    return tuple(
        part
        for part in (learner.language.children() if learner.language else ())
        if not any(id(parameter) in known for parameter in part.parameters())
    )


def _parameters(parts: Sequence[nn.Module]) -> dict[str, nn.Parameter]:
    """Return the parameters of several modules."""
    named = (pair for part in parts for pair in part.named_parameters())
    return {f"{number}.{name}": parameter for number, (name, parameter) in enumerate(named)}


def _loop_settings(model: Adaptable, request: Request, pairs: Pairs) -> LoopSettings:
    """Translate the method's settings into the loop's."""
    settings, spec, target = request.settings, model.encoder.spec, request.target
    total = settings.epochs * pairs.steps
    identity = {
        "method": {"name": "adapt", "version": VERSION},
        "source": request.source.fingerprint if request.source is not None else None,
        # Not the fingerprint, which holds labels: they must not even decide whether a run goes on.
        "target": digest("items", [target.item_hash(index) for index in range(len(target))]),
        "classes": list(model.task.labels),
        "encoder": {"name": spec.name, "weights": spec.weights_sha256},
        "settings": settings,
    }
    return LoopSettings(
        stage="adapt",
        epochs=settings.epochs,
        factor=lambda step: warmup_cosine(step, total=total, warmup=settings.warmup),
        micro=pairs.rows,
        clip_norm=settings.clip_norm,
        keep="last",
        precision=settings.precision,
        checkpoint_steps=settings.checkpoint_steps,
        # The running statistics of a pretrained network know nothing of the target.
        freeze_statistics=False,
        quality=model.task.quality_name,
        identity=identity,
    )


Measure = Callable[[Callable[[], None]], tuple[np.ndarray, list["Target"]]]
"""Gives outputs [m, C] and targets of held-out items; calls the function it is given between batches."""


def _measurement(
    model: Adaptable,
    network: Network,
    held_out: Dataset | None,
    material: Material,
    *,
    groups: Sequence[ParameterGroup],
    context: Context,
) -> Measure | None:
    """Return what runs held-out source items, by their own statistics; None where there are none."""
    if held_out is None or not len(held_out):
        return None
    indices = np.arange(len(held_out))
    if material.is_fixed:
        found = encode(held_out, model.encoder, form=model.head.form, context=context)
        indices, opened = np.array(found.indices), partial(rows_of, np.asarray(found.features))
    else:
        opened = validation_feed(held_out, model.encoder, material.place, context).open
    targets = [held_out[int(index)].target for index in indices]
    # Drawn, as items in the order of a folder are of one class for long.
    order = draw(context.seed, "held out", 0, 0).permutation(len(indices))
    trained = [part for group in groups for top in group.modules for part in top.modules()]

    def measure(check: Callable[[], None]) -> tuple[np.ndarray, list[Target]]:
        rows: list[Tensor] = []
        with measured(network, trained):
            for places in even_batches(len(order), EVALUATION_BATCH):
                check()
                inputs = opened(order[places], 0).to(context.device)
                with own_statistics(network, count=len(places), is_recorded=False):
                    rows.append(network(inputs)[1].float().cpu())
        outputs = torch.cat(rows)[torch.from_numpy(order.argsort())]
        return outputs.numpy(), targets

    return measure


def _validation(task: Task, measure: Measure | None) -> Validate:
    """Return what scores the network on held-out items; nothing is chosen by it."""
    if measure is None:
        return lambda _: UNKNOWN

    def validate(check: Callable[[], None]) -> Validation:
        score = task.score(*measure(check))
        return Validation(score["loss"], score["quality"])

    return validate
