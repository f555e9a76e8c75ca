"""Parts that the fine-tuning tests share: coloured pictures in memory, tiny encoders, a model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart.core.hashing import digest
from headstart.core.settings import FineTune, Pretrained
from headstart.core.types import Sample
from headstart.encoders.tiny import open_tiny_cnn, open_tiny_transformer
from headstart.heads import LinearHead
from headstart.methods.finetune import FineTuned, finetune
from headstart.store import Store
from headstart.tasks.classification import Classification
from headstart.train.runtime import Context, Event, draw, ignore

LABELS = ("blue", "green", "red")
ENCODERS = {"cnn": open_tiny_cnn, "transformer": open_tiny_transformer}


class Coloured:
    """Noisy pictures whose strongest channel is their class; implements Dataset."""

    labels = LABELS

    def __init__(self, count: int, *, name: str, inputs: Sequence[Any] | None = None) -> None:
        self.name = name
        self.pictures = [picture(name, index) for index in range(count)]
        self.inputs = list(inputs) if inputs is not None else self.pictures

    @property
    def fingerprint(self) -> str:
        return digest(self.name, len(self))

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.inputs[index], LABELS[index % 3], id=f"{self.name}-{index}")

    def item_hash(self, index: int) -> str:
        return hashlib.sha256(self.pictures[index].tobytes()).hexdigest()


def picture(name: str, index: int) -> np.ndarray:
    """Return one picture, uint8 [40, 36, 3]."""
    noise = draw(0, f"picture {name}", 0, index).integers(0, 180, (40, 36, 3))
    return (noise + 50 * np.eye(3, dtype=np.int64)[index % 3]).astype(np.uint8)


@dataclass
class Parts:
    """A model as fine-tuning wants it."""

    encoder: Any
    head: Any
    task: Any


def model(kind: str = "transformer") -> Parts:
    """Return a fresh model with a head of zeros: always the same one."""
    torch.manual_seed(0)
    encoder = ENCODERS[kind](Pretrained(name=f"tiny-{kind}"))
    return Parts(encoder, LinearHead(encoder.spec.width["pooled"], len(LABELS)), Classification(LABELS))


def context(
    root: Path, progress: Callable[[Event], None] = ignore, *, folder: str | None = "run", **values: Any
) -> Context:
    """Return a context with a store and perhaps a checkpoint folder under `root`."""
    place = root / folder if folder else None
    return Context(
        Store(root / "store"), torch.device("cpu"), 1, 0, progress, place, **{"workers": 1, **values}
    )


def tune(
    root: Path,
    progress: Callable[[Event], None] = ignore,
    *,
    kind: str = "transformer",
    count: int = 24,
    **settings: Any,
) -> tuple[Parts, FineTuned]:
    """Fine-tune a fresh model for two epochs; keywords are settings."""
    parts = model(kind)
    values = {"epochs": 2, "learning_rate": 5e-3, "batch_size": 4, "checkpoint_steps": 2, **settings}
    done = finetune(
        parts, training=Coloured(count, name="train"), validation=Coloured(12, name="validation"),
        settings=FineTune(**values), context=context(root, progress),
    )  # fmt: skip
    return parts, done


def state(parts: Parts) -> dict[str, bytes]:
    """Return the bytes of encoder and head."""
    both = {
        **parts.encoder.module.state_dict(),
        **{f"head.{k}": v for k, v in parts.head.state_dict().items()},
    }
    return {name: tensor.contiguous().numpy().tobytes() for name, tensor in both.items()}
