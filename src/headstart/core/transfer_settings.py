"""The knobs of what goes beyond one labelled set: another domain, unlabelled items, chains of tasks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from headstart.core.errors import nearest
from headstart.core.registry import names
from headstart.core.schema import Settings


class Adapt(Settings):
    """Adaptation to a target without labels: the task on the source, and terms that draw the target nearer."""

    kind: Literal["adapt"] = "adapt"
    terms: dict[str, float | None] = Field(default={"mcc": None})
    """Terms by name with their weights in the loss; none given: the term's own. No terms: training on the source
    alone."""
    train_last: int | None = Field(default=0, ge=0)
    """How many layer groups train beside the head (0: the head alone, over cached features); None: all of them."""
    head: Literal["own", "bottleneck"] | None = None
    """`own` goes on from the model's head, `bottleneck` trains a new one with a layer below its classifier; none given:
    a new one where terms align features and the encoder rests, else the model's own."""
    bottleneck: int = Field(default=256, ge=1)
    """Width of that layer."""
    epochs: int = Field(default=20, ge=1, le=10_000)
    """Passes over the larger domain; the schedule is fixed and the last epoch is kept, as nothing can be chosen by."""
    batch_size: int = Field(default=32, ge=1)
    """Items a step of each domain."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Of the deepest layer group of the encoder."""
    head_learning_rate: float = Field(default=1e-3, gt=0)
    """Of the head, and of what the terms train themselves."""
    layer_decay: float = Field(default=0.75, gt=0, le=1)
    """Each shallower group's learning rate is this times the one above it."""
    weight_decay: float = Field(default=1e-3, ge=0)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps in which the rate rises linearly; it falls as a cosine afterwards."""
    augment: Literal["none", "light", "standard", "strong"] = "light"
    """How inputs vary from epoch to epoch where encoder layers train; consistency compares with `strong`."""
    views: int | None = Field(default=None, ge=1, le=64)
    """Cached views an item of the frozen prefix, the first of the item itself; None: augment and recompute every
    epoch."""
    style: Literal["none", "fourier", "colour", "both"] = "none"
    """Source pictures in the style of target pictures, where encoder layers train: the amplitudes of their low
    frequencies, their colours, or one of the two for each picture."""
    transport: bool = False
    """Try labels that optimal transport carries from source to target too (extra `transport`)."""
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    temperature: float = Field(default=2.5, gt=0)
    """Of the outputs in the class confusion (mcc)."""
    confidence: float = Field(default=0.9, ge=0, le=1)
    """How sure the teacher must be of a label (fixmatch)."""
    ema: float = Field(default=0.9, ge=0, lt=1)
    """Decay a step of the teacher's weights and statistics."""
    mask_ratio: float = Field(default=0.7, gt=0, lt=1)
    """Share of an input that is hidden (masked)."""
    clip_norm: float = Field(default=1.0, gt=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    checkpoint_steps: int | None = Field(default=None, ge=1)
    """Steps between checkpoints inside an epoch; None: by time (each minute). An epoch's end always saves."""

    @field_validator("terms")
    @classmethod
    def _are_known(cls, terms: dict[str, float | None]) -> dict[str, float | None]:
        """Refuse terms that do not exist and weights below zero."""
        known = names("term")
        for name, weight in terms.items():
            if name not in known:
                raise ValueError(f"unknown term '{name}'{nearest(name, known)}, there are {', '.join(known)}")
            if weight is not None and weight < 0:
                raise ValueError(f"the weight of {name} is {weight:g}, below zero")
        return terms


class Pretrain(Settings):
    """Self-supervised pretraining: a part of each input is hidden and predicted, or views of it are told to agree."""

    kind: Literal["pretrain"] = "pretrain"
    objective: str = "auto"
    """simmim, mae, spark or lejepa for pictures, masked_language or causal_language for texts; auto: what the network
    allows (mae for transformers that can drop patches, spark for convolutions, the language model that it is)."""
    mask_ratio: float | None = None
    """Share of an input that is hidden; none given: 0.6 of a picture (0.75 with mae), 0.15 of a text."""
    block: int | None = Field(default=None, ge=1)
    """Side of a hidden square in pixels (simmim); none given: one position of the network's last map, or less where
    that leaves fewer than four a side."""
    epochs: int = Field(default=20, ge=1, le=10_000)
    train_last: int | None = Field(default=None, ge=1)
    """How many layer groups train; None: all of them."""
    learning_rate: float | None = Field(default=None, gt=0)
    """None given: 1e-3 from random weights, 1e-4 from pretrained ones, which higher rates would erase."""
    layer_decay: float | None = Field(default=None, gt=0, le=1)
    """Each shallower group's learning rate is this times the one above it; none given: 0.85, or 1 from random ones."""
    weight_decay: float = Field(default=0.05, ge=0)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    batch_size: int | None = Field(default=None, ge=2)
    """Items a step; none given: 64 pictures or 32 texts, fewer where there are few."""
    augment: Literal["none", "light", "standard", "strong"] | None = None
    """How pictures vary from epoch to epoch; none given: lightly, with lejepa strongly."""
    views: int = Field(default=2, ge=2, le=16)
    """Views of an item that are told to agree (lejepa)."""
    decoder_width: int = Field(default=128, ge=8)
    """Width of the throw-away decoder (mae, spark) or projector (lejepa)."""
    decoder_depth: int = Field(default=2, ge=1, le=12)
    """Blocks of that decoder (mae, spark)."""
    normalise_pixels: bool = True
    """Predict each hidden patch with its own mean taken away and divided by its deviation."""
    regularisation: float = Field(default=0.05, gt=0, lt=1)
    """Weight of the distribution's distance to a normal one (lejepa); the agreement of the views has the rest."""
    probe: int = Field(default=512, ge=8)
    """Items, at most, by which the rank of the features, and with labels their neighbours, are watched each epoch."""
    clip_norm: float = Field(default=1.0, gt=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    checkpoint_steps: int | None = Field(default=None, ge=1)
    """Steps between checkpoints inside an epoch; None: by time (each minute). An epoch's end always saves."""

    @field_validator("mask_ratio")
    @classmethod
    def _leaves_some(cls, ratio: float | None) -> float | None:
        """Refuse to hide nothing or everything."""
        if ratio is not None and not 0 < ratio < 1:
            what = "nothing would be hidden" if ratio <= 0 else "nothing would be left to predict it from"
            raise ValueError(f"a mask ratio must lie between 0 and 1, as {what}")
        return ratio

    @field_validator("objective")
    @classmethod
    def _is_known(cls, objective: str) -> str:
        """Refuse an objective that does not exist."""
        known = ("auto", *names("objective"))
        if objective not in known:
            raise ValueError(
                f"unknown objective '{objective}'{nearest(objective, known)}, there are {', '.join(known)}"
            )
        return objective


class Retention(Settings):
    """How a link of a chain keeps what the links before it learnt (`retention.*`)."""

    guards: dict[str, float | None] = Field(default={})
    """Terms added to the loss, by name, with their weights: l2_sp, ewc, lwf, replay; none given: the usual weight."""
    floor: float | None = Field(default=None, gt=0, le=1)
    """Share of each earlier task's validation score that is kept by going back towards the start as far as needed."""
    points: int = Field(default=10, ge=2, le=100)
    """Steps between start and end at which that is looked at."""
    items: int = Field(default=500, ge=10)
    """Validation items of each earlier task that are scored again, at most."""
    samples: int = Field(default=200, ge=1)
    """Training items of each earlier task by which ewc finds what matters."""
    replay: int = Field(default=8, ge=1)
    """Training items of the earlier tasks in a step, with replay."""
    temperature: float = Field(default=2.0, gt=0)
    """Of the earlier heads' outputs, with lwf."""

    @field_validator("guards")
    @classmethod
    def _are_guards(cls, guards: dict[str, float | None]) -> dict[str, float | None]:
        """Refuse guards that do not exist and weights that are not above zero."""
        known = names("guard")
        for name, weight in guards.items():
            if name not in known:
                raise ValueError(
                    f"unknown guard '{name}'{nearest(name, known)}, there are {', '.join(known)}; "
                    "interpolation is asked for by retention.floor"
                )
            if weight is not None and weight <= 0:
                raise ValueError(f"the weight of {name} is {weight:g}, not above zero")
        return guards
