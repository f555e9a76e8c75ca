"""Small parts that the training tests share: a network with BatchNorm and dropout, items, a run to repeat."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headstart.core.types import LayerGroup
from headstart.store import Store
from headstart.train.batches import Batch, Items
from headstart.train.loop import train
from headstart.train.optim import ParameterGroup, parameter_groups
from headstart.train.position import LoopSettings, Trained, Validation
from headstart.train.runtime import Context, Event, draw, ignore
from headstart.train.schedule import opening_epochs, warmup_cosine

COUNT, CLASSES = 26, 3


class SmallNet(nn.Module):
    """Two convolution groups with BatchNorm, a dropout and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(6, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2)
        )
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, pictures: Tensor) -> Tensor:
        """Classify float pictures [N, 3, H, W]."""
        return self.head(self.dropout(self.body(self.stem(pictures)).mean((2, 3))))


def small_net() -> SmallNet:
    """Return the same network each time."""
    torch.manual_seed(3)
    return SmallNet().eval()


def layers(net: SmallNet) -> tuple[LayerGroup, ...]:
    """Return its two layer groups."""
    return tuple(
        LayerGroup(name, (part,), dict(part.named_parameters()))
        for name, part in (("stem", net.stem), ("body", net.body))
    )


def pictures(count: int = COUNT) -> tuple[np.ndarray, np.ndarray]:
    """Return pictures whose brightest channel is their class."""
    generator = draw(0, "pictures", 0, 0)
    labels = np.arange(count) % CLASSES
    values = generator.normal(size=(count, 3, 8, 8)).astype(np.float32) * 0.7
    values[np.arange(count), labels] += 1.5
    return values, labels


def items(*, batch_size: int = 4, seed: int = 0, augment: bool = True, count: int = COUNT) -> Items:
    """Return the training items, with noise drawn by (seed, epoch, item) as augmentation."""
    values, labels = pictures(count)

    def open_items(indices: np.ndarray, epoch: int) -> tuple[Tensor, ...]:
        rows = values[indices].copy()
        if augment:
            for row, index in zip(rows, indices, strict=True):
                row += (
                    draw(seed, "augment", epoch, int(index)).normal(size=row.shape).astype(np.float32) * 0.1
                )
        return torch.from_numpy(rows), torch.from_numpy(labels[indices])

    return Items(count, batch_size, open_items, lambda index: f"item-{index}", seed=seed)


def context(folder: Path | None, progress: Callable[[Event], None] = ignore, **values: Any) -> Context:
    """Return a context with its own store."""
    root = folder if folder is not None else Path(values.pop("root"))
    return Context(
        Store(root.parent / "store"),
        torch.device("cpu"),
        1,
        values.pop("seed", 0),
        progress,
        folder,
        **values,
    )


def groups_of(
    net: SmallNet, *, gradual: bool = False, epochs: int = 3, learning_rate: float = 5e-3
) -> tuple[ParameterGroup, ...]:
    """Return the trained groups, at once or gradually."""
    opens = opening_epochs(2, epochs=epochs, gradual=True) if gradual else None
    return parameter_groups(
        layers(net), net.head, learning_rate=learning_rate, layer_decay=0.5, weight_decay=0.01, opens=opens
    )


def loss_of(net: nn.Module) -> Callable[[Batch], Tensor]:
    """Return the mean cross-entropy of a batch."""
    return lambda batch: nn.functional.cross_entropy(net(batch.tensors[0]), batch.tensors[1])


def validator(net: nn.Module) -> Callable[[Callable[[], None]], Validation]:
    """Return the validation of the first twelve items."""
    values, labels = (torch.from_numpy(array[:12]) for array in pictures())

    def validate(check: Callable[[], None]) -> Validation:
        check()
        outputs = net(values)
        return Validation(
            float(nn.functional.cross_entropy(outputs, labels)),
            float((outputs.argmax(1) == labels).float().mean()),
        )

    return validate


def settings(source: Items, **values: Any) -> LoopSettings:
    """Return loop settings of three epochs with warm-up and cosine, EMA, small passes and frequent checkpoints."""
    epochs = values.pop("epochs", 3)
    total = epochs * source.steps
    defaults: dict[str, Any] = {
        "stage": "finetune", "epochs": epochs, "micro": 4, "ema": 0.9, "checkpoint_steps": 2,
        "chance": float(np.log(CLASSES)),
        "factor": lambda step: warmup_cosine(step, total=total, warmup=0.2), "freeze_statistics": False,
    }  # fmt: skip
    return LoopSettings(**{**defaults, **values})


def run(
    folder: Path | None, progress: Callable[[Event], None] = ignore, **values: Any
) -> tuple[SmallNet, Trained]:
    """Train a fresh network through the loop; `values` go to source, groups, context and settings by name."""
    net = small_net()
    source = items(batch_size=values.pop("batch_size", 4), count=values.pop("count", COUNT))
    groups = groups_of(
        net, gradual=values.pop("gradual", False), learning_rate=values.pop("learning_rate", 5e-3)
    )
    workers = values.pop("workers", 0)
    extra = {name: values.pop(name) for name in ("seed", "root", "timeout", "command") if name in values}
    trained = train(
        net, loss=loss_of(net), source=source, groups=groups, validate=validator(net),
        settings=settings(source, **values), context=context(folder, progress, workers=workers, **extra),
    )  # fmt: skip
    return net, trained


def bits(net: nn.Module) -> dict[str, bytes]:
    """Return the bytes of everything in a network's state."""
    return {name: tensor.contiguous().numpy().tobytes() for name, tensor in net.state_dict().items()}
