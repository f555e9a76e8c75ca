"""Fine-tuning: train the head and the last layer groups, starting from an extracted head, never ending below it.

Layer-wise rates and gradual unfreezing follow ULMFiT (Howard & Ruder 2018, arXiv 1801.06146); what stays frozen is a
prefix whose output is computed once per item and view, or at least outside the training step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from headstart.core.errors import PlanError
from headstart.features.feed import Feed, as_floats, training_feed, validation_feed, with_targets
from headstart.features.prefix import Cut, cut
from headstart.methods.lora import adapt
from headstart.train.batches import Batch, Items, prefetch
from headstart.train.guard import Part
from headstart.train.loop import train
from headstart.train.optim import ParameterGroup, freeze, parameter_groups
from headstart.train.position import LoopSettings, Trained, Validate, Validation
from headstart.train.runtime import Context, channels_last, choose_batch_size, device_memory, draw
from headstart.train.schedule import opening_epochs, slanted_triangular, warmup_cosine
from headstart.train.step import outputs_of

if TYPE_CHECKING:
    from headstart.core.protocols import Dataset, Encoder, Task
    from headstart.core.settings import FineTune
    from headstart.core.types import Form, LayerGroup
    from headstart.train.guard import Guard, Term

VERSION = 1
"""Version of this method; bump when its numbers move."""
VALIDATION_BATCH = 32
SCHEDULES = {"cosine": warmup_cosine, "slanted": slanted_triangular}


class Trainable(Protocol):
    """What is fine-tuned: an encoder, a head over its features (with the `form` that it takes) and a task."""

    @property
    def encoder(self) -> Encoder:
        """The pretrained network."""
        ...

    @property
    def head(self) -> Any:
        """A module from features [N, D] to outputs; its attribute `form` names the features."""
        ...

    @property
    def task(self) -> Task:
        """The goal."""
        ...


@dataclass(frozen=True)
class FineTuned:
    """How fine-tuning went; the model holds whichever of start and fine-tuned weights validates better.

    `depth` groups stayed frozen, with `views` cached views an item (0: nothing cached, new augmentation every epoch).
    """

    history: tuple[dict[str, float], ...]
    start: Validation
    best: Validation
    best_epoch: int
    kept: Literal["start", "finetuned"]
    depth: int
    views: int
    batch_size: int
    steps: int
    notes: tuple[str, ...]


def finetune(
    model: Trainable,
    *,
    training: Dataset,
    validation: Dataset,
    settings: FineTune,
    context: Context,
    guard: Guard | None = None,
) -> FineTuned:
    """Fine-tune `model` in place and keep the best of its start and every epoch on `validation`.

    `guard` adds a term to the loss, by which what was learnt before is kept. Resumes exactly from `context.folder`.
    PlanError where `train_last` exceeds the encoder's groups or there is nothing to validate on; else as
    `headstart.train.loop.train`.
    """
    _check(model, training, validation, settings)
    _check_guard(settings, guard)
    encoder, head, layers = model.encoder, model.head, model.encoder.layer_groups()
    depth = 0 if settings.train_last is None else len(layers) - settings.train_last
    encoder.module.to(context.device)
    head.to(context.device)
    form: Form = head.form
    place = cut(encoder, depth, form=form, context=context)
    views = settings.views or 0 if place else 0
    network = nn.Sequential(_body(encoder, place, form), head).to(context.device)
    memory = device_memory(context.device)
    batch_size = settings.batch_size or choose_batch_size(len(training), memory_bytes=memory)
    inputs = training_feed(training, encoder, place, views=views, strength=settings.augment, context=context)
    source = Items(
        len(training),
        batch_size,
        with_targets(inputs, model.task),
        lambda index: training[index].id,
        context.seed,
        lengths=inputs.lengths,
    )
    held_out = validation_feed(validation, encoder, place, context)
    loop = _loop_settings(settings, source, model, (training, validation), views=views)
    if guard:
        # A loss with more in it says nothing of chance.
        loop = replace(loop, chance=None, identity={**loop.identity, "guard": guard.identity})
    with _dropout(head, settings.dropout), _trained(encoder, network, depth, settings, context) as trained:
        part = _part(encoder, place, (network[0], trained), settings, context)
        done = train(
            network,
            loss=_loss(network, model.task, training, settings, context, guard.term(part) if guard else None),
            source=source,
            groups=_groups(trained, head, settings),
            validate=_validation(network, model.task, held_out, context),
            settings=loop,
            context=context,
        )
    encoder.module.requires_grad_(True)
    return _finetuned(done, depth=depth, views=views, batch_size=batch_size, wished=settings.views)


def _part(
    encoder: Encoder,
    place: Cut | None,
    trained: tuple[nn.Module, Sequence[LayerGroup]],
    settings: FineTune,
    context: Context,
) -> Part:
    """Return what a guard sees: what trains below the head, and how other items reach it."""
    body, groups = trained
    parameters = {name: tensor for group in groups for name, tensor in group.parameters.items()}
    opening: dict[str, Any] = {"strength": settings.augment, "context": context}
    opening["views"] = settings.views or 0 if place else 0
    return Part(
        body,
        parameters,
        lambda items: training_feed(items, encoder, place, **opening).open,
        lambda items: validation_feed(items, encoder, place, context).open,
        context,
    )


def _check(model: Trainable, training: Dataset, validation: Dataset, settings: FineTune) -> None:
    """Refuse what cannot work before anything is computed."""
    count = len(model.encoder.layer_groups())
    if settings.train_last is not None and settings.train_last > count:
        raise PlanError(
            f"finetune.train_last is {settings.train_last}, but {model.encoder.spec.name} has {count} layer groups",
            expected=f"0 (the head alone) to {count}, or nothing for all of them",
            fix=f"--set finetune.train_last={count}",
        )
    if not len(validation) or not len(training):
        raise PlanError(
            f"fine-tuning got {len(training)} training and {len(validation)} validation items",
            expected="at least one of each: validation decides which weights are kept",
            fix="give more data, or a larger split.validation",
        )


def _check_guard(settings: FineTune, guard: Guard | None) -> None:
    """Refuse a guard that would watch weights which low-rank updates replace."""
    if guard and settings.lora_rank:
        raise PlanError(
            "finetune.lora_rank together with retention.guards",
            expected="one of them: low-rank updates leave the weights that guards hold as they are",
            fix="leave one out, or keep what was learnt by retention.floor alone",
        )


def _body(encoder: Encoder, place: Cut | None, form: Form) -> nn.Module:
    """Return what trains below the head: the suffix of a cut, or the whole encoder."""
    body = place.suffix if place else encoder.network(form)
    return channels_last(body) if any(isinstance(part, nn.Conv2d) for part in body.modules()) else body


def _groups(layers: Sequence[Any], head: nn.Module, settings: FineTune) -> tuple[ParameterGroup, ...]:
    """Return the groups that train, with their rates and the epochs in which they open."""
    opens = opening_epochs(
        len(layers),
        epochs=settings.epochs,
        head_epochs=settings.head_epochs,
        gradual=settings.unfreeze == "gradual",
    )
    return parameter_groups(
        layers,
        head,
        learning_rate=settings.learning_rate,
        head_learning_rate=settings.head_learning_rate,
        layer_decay=settings.layer_decay,
        weight_decay=settings.weight_decay,
        opens=opens,
    )


def _loop_settings(
    settings: FineTune, source: Items, model: Trainable, datasets: tuple[Dataset, Dataset], *, views: int
) -> LoopSettings:
    """Translate the method's settings into the loop's."""
    training, validation = datasets
    epochs = settings.head_epochs + settings.epochs
    total, head = epochs * source.steps, settings.head_epochs * source.steps
    spec = model.encoder.spec
    factor = SCHEDULES[settings.schedule]
    identity = {
        "method": {"name": "finetune", "version": VERSION, "views": views, "batch_size": source.batch_size},
        "data": training.fingerprint,
        "validation": validation.fingerprint,
        "classes": list(model.task.labels),
        "encoder": {"name": spec.name, "weights": spec.weights_sha256},
        "settings": settings.model_copy(update={"stop_after": None}),
    }
    return LoopSettings(
        stage="finetune",
        epochs=epochs,
        factor=lambda step: factor(step, total=total, warmup=settings.warmup, head=head),
        micro=-(-source.batch_size // settings.accumulate),
        clip_norm=settings.clip_norm,
        ema=settings.ema,
        patience=settings.patience,
        precision=settings.precision,
        checkpoint_steps=settings.checkpoint_steps,
        freeze_statistics=settings.freeze_statistics,
        chance=model.task.chance([training[index].target for index in range(len(training))]),
        quality=model.task.quality_name,
        stop_after=settings.stop_after,
        identity=identity,
    )


def _loss(
    network: nn.Sequential,
    task: Task,
    training: Dataset,
    settings: FineTune,
    context: Context,
    term: Term | None = None,
) -> Callable[[Batch], Tensor]:
    """Return the mean loss of a batch: smoothed, weighted and mixed as the settings say, and a guard's term."""
    weights = _class_weights(task, training).to(context.device) if settings.class_weights else None
    extra = {"label_smoothing": settings.label_smoothing, "class_weights": weights}

    def answered(inputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor | float]:
        features = network[0](inputs)
        return network[1](features), term(inputs, features, batch) if term else 0.0

    def plain(batch: Batch) -> Tensor:
        inputs, targets = batch.tensors
        outputs, more = answered(as_floats(inputs), batch)
        return task.loss(outputs, targets, **extra) + more

    def mixed(batch: Batch) -> Tensor:
        # Mixup (Zhang et al. 2018, arXiv 1710.09412) on whatever enters the part that trains.
        inputs, targets = batch.tensors
        if inputs.dtype == torch.int64:
            raise PlanError(
                "finetune.mixup is set, but token ids cannot be mixed",
                expected="pictures, or activations of a cached prefix",
                fix="leave it out",
            )
        generator = draw(context.seed, "mixup", batch.step, batch.start)
        share = float(generator.beta(settings.mixup, settings.mixup))
        share = max(share, 1 - share)
        other = torch.from_numpy(generator.permutation(len(batch))).to(targets.device)
        floats = as_floats(inputs).float()
        outputs, more = answered(share * floats + (1 - share) * floats[other], batch)
        own, others = (task.loss(outputs, rows, **extra) for rows in (targets, targets[other]))
        return share * own + (1 - share) * others + more

    return mixed if settings.mixup else plain


def _validation(network: nn.Module, task: Task, inputs: Feed, context: Context) -> Validate:
    """Return what evaluates the network on the validation items, in batches of one fixed size."""
    dataset = inputs.dataset
    source = Items(
        len(dataset),
        VALIDATION_BATCH,
        lambda indices, epoch: (inputs.open(indices, epoch),),
        lambda index: dataset[index].id,
        shuffle=False,
        lengths=inputs.lengths,
    )
    targets = [dataset[index].target for index in range(len(dataset))]

    def validate(check: Callable[[], None]) -> Validation:
        outputs: dict[int, np.ndarray] = {}
        batches = prefetch(
            source,
            ((0, step) for step in range(source.steps)),
            workers=context.workers,
            timeout=context.timeout,
            check=check,
            progress=context.progress,
        )
        for step, batch in enumerate(batches):
            check()
            rows = outputs_of(lambda inputs: network(as_floats(inputs)), batch, context.device)
            for index, row in zip(source.indices(0, step).tolist(), rows, strict=True):
                # Words are padded to the longest text of the batch.
                outputs[index] = (row if row.dim() == 1 else row[: len(targets[index])]).numpy()
        found = task.score(joined([outputs[index] for index in range(len(dataset))]), targets)
        return Validation(found["loss"], found["quality"])

    return validate


def joined(outputs: Sequence[np.ndarray]) -> np.ndarray | list[np.ndarray]:
    """Return outputs of items as one array [N, C]; those of words stay a list of [L, C]."""
    return np.stack(outputs) if outputs[0].ndim == 1 else list(outputs)


def _class_weights(task: Task, dataset: Dataset) -> Tensor:
    """Return weights that let every class count alike: n / (number of classes x items of the class)."""
    ids = task.collate([dataset[index].target for index in range(len(dataset))])
    if ids.is_floating_point():
        raise PlanError(
            f"finetune.class_weights is set, but {task.name} has no classes that exclude each other",
            expected="classification or tagging",
            fix="leave it out",
        )
    counts = torch.bincount(ids[ids >= 0], minlength=len(task.labels)).float()
    return torch.where(counts > 0, counts.sum() / (counts > 0).sum() / counts.clamp(min=1), 0.0)


@contextmanager
def _trained(
    encoder: Encoder, network: nn.Module, depth: int, settings: FineTune, context: Context
) -> Iterator[Sequence[LayerGroup]]:
    """Give the groups that train: those behind `depth`, or their low-rank updates, which are merged at the end.

    The weights of everything else are proven not to have moved.
    """
    layers = encoder.layer_groups()
    if not settings.lora_rank:
        with freeze(encoder.module, layers[:depth]):
            yield layers[depth:]
        return
    resting = [replace(group, modules=()) for group in layers[depth:]]
    with freeze(encoder.module, [*layers[:depth], *resting]):
        adapted = adapt(network, layers[depth:], rank=settings.lora_rank, seed=context.seed)
        try:
            yield adapted.groups
        finally:
            adapted.restore()
    adapted.merge()


@contextmanager
def _dropout(head: nn.Module, rate: float) -> Iterator[None]:
    """Let the head drop features at this rate inside the block."""
    parts = [(part, part.p) for part in head.modules() if isinstance(part, nn.Dropout)]
    for part, _ in parts:
        part.p = rate
    try:
        yield
    finally:
        for part, before in parts:
            part.p = before


def _finetuned(done: Trained, *, depth: int, views: int, batch_size: int, wished: int | None) -> FineTuned:
    """Say how it went."""
    notes = list(done.notes)
    if wished and not views:
        notes.append("nothing was cached: this encoder cannot be cut where its frozen layers end")
    if done.best_epoch == 0:
        notes.append("no epoch was better than the start on validation: the start was kept")
    return FineTuned(
        done.history,
        done.start,
        done.best,
        done.best_epoch,
        "finetuned" if done.best_epoch else "start",
        depth,
        views,
        batch_size,
        done.steps,
        tuple(notes),
    )
