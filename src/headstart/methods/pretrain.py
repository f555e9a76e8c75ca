"""Self-supervised pretraining: an encoder learns from inputs alone, by an objective that hides a part of each.

One function over the one loop. What is hidden, and the decoder that predicts it and is thrown away, is said in
`headstart.methods.objectives`. Each epoch the loss on held-out items, the rank of the features (RankMe: Garrido et al.
2023, arXiv 2210.02885) and, where there are labels, the accuracy of their nearest neighbours are measured; nothing is
chosen by them, the last epoch is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from headstart.core.errors import PlanError
from headstart.core.registry import resolve
from headstart.core.types import InputContract, TextContract
from headstart.features.feed import Feed, training_feed, validation_feed
from headstart.methods.collapse import Watched, alarm, is_collapsed, probed, watching
from headstart.methods.objectives import Objective, Seen
from headstart.train.batches import Batch, Items
from headstart.train.loop import train
from headstart.train.optim import ParameterGroup, freeze, parameter_groups
from headstart.train.position import LoopSettings, Validate, Validation
from headstart.train.runtime import Context, Event, autocast, channels_last, draw
from headstart.train.schedule import warmup_cosine

if TYPE_CHECKING:
    from headstart.core.protocols import Dataset, Encoder
    from headstart.core.settings import Pretrain
    from headstart.core.types import LayerGroup

VERSION = 2
"""Version of this method; bump when its numbers move."""
BATCH: Mapping[str, int] = {"image": 64, "text": 32}
STEPS_AN_EPOCH, LEAST_BATCH = 8, 8
"""Small data get smaller batches, so that an epoch has at least about so many steps, but not smaller than these."""
RATES, DECAYS = {True: 1e-4, False: 1e-3}, {True: 0.85, False: 1.0}
"""By whether the network starts pretrained."""
HELD_SHARE, HELD_MOST = 0.05, 256
"""Items that are kept out of training, to see the loss on."""
EVALUATION_BATCH, SHOWN = 64, 8


@dataclass(frozen=True)
class Pretrained:
    """How pretraining went; the encoder holds the last epoch's weights.

    `history` has a row an epoch with `train_loss`, `validation_loss`, `rank` and, with labels, `neighbours`.
    """

    objective: str
    history: tuple[dict[str, float], ...]
    start: Watched
    start_loss: float
    num_trained: int
    num_held_out: int
    batch_size: int
    steps: int
    seconds: float
    seen: tuple[Seen, ...]
    seen_items: tuple[int, ...]
    notes: tuple[str, ...]


def pretrain(
    encoder: Encoder,
    *,
    dataset: Dataset,
    settings: Pretrain,
    context: Context,
    is_pretrained: bool,
    labels: np.ndarray | None = None,
) -> Pretrained:
    """Pretrain `encoder` in place on the inputs of `dataset`.

    `labels` [n] are class ids, -1 where there is none, by which the features are watched and nothing is learnt.
    Resumes exactly from `context.folder`. PlanError where the network cannot serve the objective or there are fewer
    than four items; else as `headstart.train.loop.train`.
    """
    if len(dataset) < 4:
        raise PlanError(
            f"pretraining got {len(dataset)} items", expected="at least four, better thousands", fix="give more data"
        )  # fmt: skip
    name = choose_objective(encoder, settings)
    encoder.module.to(context.device)
    objective = _made(encoder, name, settings, context)
    depth = _depth(encoder, settings)
    layers = encoder.layer_groups()
    held_out, trained = _parts(len(dataset), context.seed)
    views = _views(dataset, encoder, objective, settings, context)
    source = _source(dataset, trained, encoder, views, settings, context)
    exact = validation_feed(dataset, encoder, None, context)
    watch = watching(encoder, exact, probed(labels, len(dataset), settings, context.seed), labels, context)
    with freeze(encoder.module, layers[:depth]):
        objective.eval()
        with torch.no_grad():
            start = watch(lambda: None)
        done = train(
            objective,
            loss=_loss(objective, context),
            source=source,
            groups=_groups(objective, layers[depth:], settings, is_pretrained=is_pretrained),
            validate=_validation(
                objective, views if objective.views > 1 else _one(exact), held_out, watch, start, context
            ),
            settings=_loop_settings(encoder, name, source, dataset, settings),
            context=context,
        )
    shown = held_out[:SHOWN]
    seen = _shown(objective, exact, shown, context)
    encoder.module.requires_grad_(True)
    encoder.module.eval()
    notes = (*done.notes, *alarm(start, done.history, is_pretrained=is_pretrained))
    return Pretrained(
        name, done.history, start, done.start.loss, len(trained), len(held_out), source.batch_size, done.steps,
        sum(row["seconds"] for row in done.history), tuple(seen), tuple(int(item) for item in shown),
        notes,
    )  # fmt: skip


def choose_objective(encoder: Any, settings: Pretrain) -> str:
    """Return the objective's name: as set, else what the network allows."""
    if settings.objective != "auto":
        return settings.objective
    contract = encoder.spec.contract
    if isinstance(contract, TextContract):
        return "causal_language" if contract.is_causal else "masked_language"
    if getattr(encoder, "visible", None) is not None:
        return "mae"
    return _convolutional(encoder, contract)


def _convolutional(encoder: Any, contract: InputContract) -> str:
    """Return the objective of a network of convolutions: sparse, where its last map has places enough."""
    from headstart.methods.objectives._pixels import LEAST_SIDE, map_size

    if "map" not in encoder.spec.width:
        return "lejepa"
    sparse = any(isinstance(part, nn.BatchNorm2d) for part in encoder.module.modules())
    return "spark" if sparse and min(map_size(encoder, contract)) >= LEAST_SIDE else "simmim"


def _made(encoder: Encoder, name: str, settings: Pretrain, context: Context) -> Any:
    """Make the objective, its decoder from numbers of the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.seed)
        objective = resolve("objective", name)(encoder, settings).to(context.device)
    if any(isinstance(part, nn.Conv2d) for part in objective.body.modules()):
        channels_last(objective.body)
    return objective


def _depth(encoder: Encoder, settings: Pretrain) -> int:
    """Return how many layer groups stay frozen."""
    count = len(encoder.layer_groups())
    if settings.train_last is not None and settings.train_last > count:
        raise PlanError(
            f"pretrain.train_last is {settings.train_last}, but {encoder.spec.name} has {count} layer groups",
            expected=f"1 to {count}, or nothing for all of them",
            fix=f"--set pretrain.train_last={count}",
        )
    return 0 if settings.train_last is None else count - settings.train_last


def _parts(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the items that are held out and those that train, drawn from the seed."""
    order = draw(seed, "held out", 0, 0).permutation(count)
    held = max(1, min(HELD_MOST, round(HELD_SHARE * count)))
    return np.sort(order[:held]), np.sort(order[held:])


@dataclass(frozen=True)
class _Views:
    """What opens items by index, one tensor a view; `lengths` [n] where items differ in length."""

    open: Callable[[np.ndarray, int], tuple[Tensor, ...]]
    lengths: np.ndarray | None = None


def _views(
    dataset: Dataset, encoder: Encoder, objective: Objective, settings: Pretrain, context: Context
) -> _Views:
    """Return items in as many views as the objective compares, newly varied in each epoch."""
    strength = settings.augment or ("strong" if objective.views > 1 else "light")
    feed = training_feed(dataset, encoder, None, views=0, strength=strength, context=context)
    count = objective.views
    return _Views(
        lambda indices, epoch: tuple(feed.open(indices, epoch * count + view) for view in range(count)),
        feed.lengths,
    )


def _one(exact: Feed) -> _Views:
    """Return items as they are, in a single view."""
    return _Views(lambda indices, epoch: (exact.open(indices, epoch),))


def _source(
    dataset: Dataset,
    rows: np.ndarray,
    encoder: Encoder,
    views: _Views,
    settings: Pretrain,
    context: Context,
) -> Items:
    """Return batches of the items that train."""
    most = BATCH[encoder.spec.modality]
    few = 1 << max(LEAST_BATCH.bit_length(), (len(rows) // STEPS_AN_EPOCH).bit_length()) - 1
    return Items(
        len(rows),
        settings.batch_size or min(most, few),
        lambda indices, epoch: views.open(rows[indices], epoch),
        lambda index: dataset[int(rows[index])].id,
        context.seed,
        lengths=None if views.lengths is None else views.lengths[rows],
    )


def _loss(objective: Any, context: Context) -> Callable[[Batch], Tensor]:
    """Return the mean loss of a batch; what is hidden is drawn from the seed and the step."""

    def loss(batch: Batch) -> Tensor:
        return objective.loss(batch.tensors, draw(context.seed, "hide", batch.step, batch.start))

    return loss


def _groups(
    objective: Objective, layers: Sequence[LayerGroup], settings: Pretrain, *, is_pretrained: bool
) -> tuple[ParameterGroup, ...]:
    """Return what trains: layers of the encoder, at lower rates the shallower they are, and the decoder."""
    rate = settings.learning_rate or RATES[is_pretrained]
    return parameter_groups(
        layers,
        objective.decoder,
        learning_rate=rate,
        head_learning_rate=max(rate, RATES[False]),
        layer_decay=settings.layer_decay or DECAYS[is_pretrained],
        weight_decay=settings.weight_decay,
    )


def _loop_settings(
    encoder: Encoder, name: str, source: Items, dataset: Dataset, settings: Pretrain
) -> LoopSettings:
    """Translate the method's settings into the loop's."""
    spec, total = encoder.spec, settings.epochs * source.steps
    identity = {
        "method": {
            "name": "pretrain",
            "version": VERSION,
            "objective": name,
            "batch_size": source.batch_size,
        },
        "objective": resolve("objective", name).version,
        "data": [dataset.item_hash(index) for index in range(len(dataset))],
        "encoder": {"name": spec.name, "weights": spec.weights_sha256},
        "settings": settings,
    }
    return LoopSettings(
        stage="pretrain",
        epochs=settings.epochs,
        factor=lambda step: warmup_cosine(step, total=total, warmup=settings.warmup),
        micro=source.batch_size,
        clip_norm=settings.clip_norm,
        patience=settings.epochs,
        keep="last",
        precision=settings.precision,
        checkpoint_steps=settings.checkpoint_steps,
        freeze_statistics=False,
        # A regression begins far below 1 and a language model far above: neither knows a chance of its own.
        quality="feature rank",
        identity=identity,
    )


def _validation(
    objective: Any,
    views: _Views,
    held_out: np.ndarray,
    watch: Callable[[Callable[[], None]], Watched],
    begun: Watched,
    context: Context,
) -> Validate:
    """Return what measures loss on held-out items (the same parts hidden each time), rank and neighbours.

    A collapse is told when it is first seen: the rest of a long run would be for nothing.
    """
    told: list[float] = []

    def validate(check: Callable[[], None]) -> Validation:
        total = 0.0
        for start in range(0, len(held_out), EVALUATION_BATCH):
            check()
            chosen = held_out[start : start + EVALUATION_BATCH]
            placed = tuple(tensor.to(context.device) for tensor in views.open(chosen, 0))
            with autocast(context.device, "float32"):
                loss = objective.loss(placed, draw(context.seed, "hide held out", 0, start))
            total += float(loss) * len(chosen)
        found = watch(check)
        if not told and found.rank < begun.rank and is_collapsed(found.rank, begun):
            told.append(found.rank)
            words = f"the features are collapsing: their rank fell from {begun.rank:.1f} to {found.rank:.1f}"
            context.progress(Event("pretrain", message=words))
        more = {"rank": found.rank}
        if math.isfinite(found.neighbours):
            more["neighbours"] = found.neighbours
        return Validation(total / len(held_out), found.rank, more)

    return validate


def _shown(objective: Any, exact: Feed, items: np.ndarray, context: Context) -> list[Seen]:
    """Return held-out items with what was hidden of them and what was predicted."""
    objective.eval()
    with torch.no_grad():
        inputs = exact.open(items, 0).to(context.device)
        return objective.show((inputs,), draw(context.seed, "shown", 0, 0))
