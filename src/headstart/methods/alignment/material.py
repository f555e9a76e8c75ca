"""What adaptation works on: both domains as fixed features or as inputs of what trains, and a head that can adapt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from headstart.core.errors import DataError, PlanError
from headstart.features.encode import encode
from headstart.features.feed import training_feed, validation_feed
from headstart.features.prefix import Cut, cut
from headstart.heads import BottleneckHead
from headstart.methods.alignment import Needs
from headstart.methods.alignment.pairs import Open, Restyle
from headstart.train.runtime import Context

if TYPE_CHECKING:
    from headstart.core.protocols import Dataset, Encoder, Task
    from headstart.core.settings import Adapt


class Adaptable(Protocol):
    """What is adapted: an encoder, a task and a head over its features, which may be exchanged for a new one."""

    head: Any
    """A module from features [N, D] to outputs; its attribute `form` names the features."""

    @property
    def encoder(self) -> Encoder:
        """The pretrained network."""
        ...

    @property
    def task(self) -> Task:
        """The goal."""
        ...


@dataclass(frozen=True)
class Changes:
    """What only the modality and the caller know of inputs, for the terms and settings that ask for it.

    `hide(inputs, ratio=, generator=)` returns inputs of which that share is hidden (or a tuple that begins with them),
    `restyle(source, target, generator=)` the source's inputs in the style of the target's, and
    `language(inputs, generator=)` the masked-language loss of inputs (a module's own parameters train along). Inputs
    are tensors as the encoder batches them.
    """

    hide: Callable[..., Any] | None = None
    restyle: Restyle | None = None
    language: Callable[..., Tensor] | None = None


@dataclass(frozen=True)
class Request:
    """What is asked for: the domains (a source of None is gone), the settings, what their terms need, the callables."""

    source: Dataset | None
    target: Dataset
    settings: Adapt
    needs: Needs
    changes: Changes

    @property
    def datasets(self) -> dict[str, Dataset]:
        """The domains that there are, by name."""
        both = {"source": self.source, "target": self.target}
        return {name: data for name, data in both.items() if data is not None}

    @property
    def needs_inputs(self) -> bool:
        """Whether something must see inputs before the first layer."""
        return self.needs.hidden or self.needs.language or self.changes.restyle is not None


@dataclass(frozen=True)
class Material:
    """What reaches the part that trains, by name ("source", "target", and "varied": the target strongly varied).

    `indices` are the items that could be read, `features` those of the frozen encoder where they were needed; `depth`
    groups of the encoder rest, at which it is cut (`place`) where it can be.
    """

    opened: Mapping[str, Open]
    indices: Mapping[str, np.ndarray]
    features: Mapping[str, np.ndarray]
    place: Cut | None
    depth: int
    is_fixed: bool
    """The whole encoder rests."""


def refuse_misfits(model: Adaptable, request: Request) -> None:
    """Raise PlanError for what cannot work, before anything is computed."""
    settings, needs, changes = request.settings, request.needs, request.changes
    count, names = len(model.encoder.layer_groups()), ", ".join(settings.terms) or "none"
    source, is_fixed = request.source, settings.train_last == 0
    wrong = {
        f"the target has {len(request.target)} items": (
            not len(request.target), "at least one", "name a target that is not empty"),
        "the source has no items": (
            source is not None and not len(source), "labelled items, or no source at all", "leave the source out"),
        f"adapt.train_last is {settings.train_last}, but {model.encoder.spec.name} has {count} layer groups": (
            (settings.train_last or 0) > count, f"0 to {count}, or nothing for all", f"--set adapt.train_last={count}"),
        f"the terms {names} were asked for, but shot lets the classifier and the source rest": (
            needs.resting_head and needs.source, "terms that need no source beside shot", "leave one of them out"),
        f"the terms {names} were asked for without a source": (
            source is None and (needs.source or not settings.terms), "labelled source items",
            "give the source, or use terms that need none: shot, mcc, fixmatch, masked"),
        f"the terms {names} suit classes, but the task is {model.task.name}": (
            model.task.link != "softmax" or model.head.form == "sequence", "one class an item",
            "adapt a classification model"),
        f"inputs are to change (terms {names}), but the encoder rests": (
            is_fixed and request.needs_inputs, "an encoder of which some layers train",
            "--set adapt.train_last=null, or leave out masked, udalm and another style"),
        f"the terms {names} leave the classifier as it is, and the encoder rests too": (
            is_fixed and needs.resting_head and not isinstance(model.head, BottleneckHead),
            "something that trains", "--set adapt.train_last=null"),
        "the term masked was asked for, but nothing says how inputs are hidden": (
            needs.hidden and changes.hide is None, "a function of the modality", "pass Changes(hide=...)"),
        "the term udalm was asked for, but there is no masked-language loss": (
            needs.language and changes.language is None, "texts and a loss over them", "pass Changes(language=...)"),
    }  # fmt: skip
    for given, (is_wrong, expected, fix) in wrong.items():
        if is_wrong:
            raise PlanError(given, expected=expected, fix=fix)


def open_material(model: Adaptable, request: Request, context: Context) -> Material:
    """Open both domains as fixed features, or as inputs of what trains."""
    encoder, settings = model.encoder, request.settings
    count = len(encoder.layer_groups())
    depth = 0 if settings.train_last is None else count - settings.train_last
    if depth == count:
        return _fixed(model, request, context, depth=depth)
    encoder.module.to(context.device)
    place = None if request.needs_inputs else cut(encoder, depth, form=model.head.form, context=context)
    views = settings.views or 0 if place else 0
    wanted = {name: (data, settings.augment) for name, data in request.datasets.items()}
    if request.needs.strong:
        wanted["varied"] = (request.target, "strong")
    feeds = {
        name: training_feed(data, encoder, place, views=views, strength=strength, context=context)
        for name, (data, strength) in wanted.items()
    }
    if request.needs.sweep:
        feeds["whole"] = validation_feed(request.target, encoder, place, context)
    indices = {name: _usable(name, data, range(len(data))) for name, data in request.datasets.items()}
    opened = {
        name: partial(_items_of, feed.open, indices.get(name, indices["target"]))
        for name, feed in feeds.items()
    }
    return Material(opened, indices, {}, place, depth, is_fixed=False)


def _fixed(model: Adaptable, request: Request, context: Context, *, depth: int) -> Material:
    """Return both domains as features of the resting encoder."""
    features: dict[str, np.ndarray] = {}
    indices: dict[str, np.ndarray] = {}
    for name, data in request.datasets.items():
        found = encode(data, model.encoder, form=model.head.form, context=context)
        indices[name] = _usable(name, data, found.indices)
        features[name] = np.asarray(found.features)[np.isin(found.indices, indices[name])]
    opened = {name: partial(rows_of, rows) for name, rows in features.items()}
    return Material(opened, indices, features, None, depth, is_fixed=True)


def _usable(name: str, data: Dataset, indices: Sequence[int]) -> np.ndarray:
    """Return the items that can be learnt from, of the source those with a label; DataError where there are none."""
    found = [index for index in indices if name != "source" or data[index].target is not None]
    if not found:
        what = "labelled item that can be read" if name == "source" else "item that can be read"
        raise DataError(
            f"the {name} has no {what} ({len(data)} items)",
            expected="at least one",
            fix="check the paths and the label column" if name == "source" else "check the paths",
        )
    return np.array(found)


def _items_of(opened: Open, indices: np.ndarray, chosen: np.ndarray, lap: int) -> Tensor:
    """Return the inputs of usable items in a lap."""
    return opened(indices[chosen], lap)


def rows_of(features: np.ndarray, chosen: np.ndarray, _: int) -> Tensor:
    """Return rows of fixed features."""
    return torch.from_numpy(features[chosen])


def choose_head(model: Adaptable, request: Request, material: Material, context: Context) -> None:
    """Give the model a new head where it shall have one; PlanError where it needs one that cannot be trained."""
    head, needs, wished = model.head, request.needs, request.settings.head
    has_layer = isinstance(head, BottleneckHead)
    suits = has_layer or not (material.is_fixed and needs.features)
    if wished != "bottleneck" and suits and (needs.resting_head or any(True for _ in head.parameters())):
        return
    if request.source is None or wished == "own":
        raise PlanError(
            f"the model's own head ({head.kind}) cannot be adapted by the terms {', '.join(request.settings.terms)}",
            expected="a new head, and a source with labels to train it on",
            fix="leave adapt.head out and give the source, or train layers of the encoder (adapt.train_last)",
        )
    found = material.features or {
        name: encode(data, model.encoder, form=head.form, context=context).features
        for name, data in request.datasets.items()
    }
    rows = torch.from_numpy(np.concatenate([np.asarray(part) for part in found.values()])).double()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.seed)
        width, count = rows.shape[1], len(model.task.labels)
        new = BottleneckHead(width, count, bottleneck=request.settings.bottleneck, form=head.form)
    new.mean.copy_(rows.mean(0))
    new.scale.copy_(1 / rows.std(0, correction=0).clamp(min=1e-6))
    model.head = new
