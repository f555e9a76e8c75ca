"""Chains over small real digits that the tests share: as they are, inverted, and turned with one class renamed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from picture_parts import digit_folder, machine
from PIL import Image

from headstart import api
from headstart.chaining.run import Chained
from headstart.train.runtime import Event, ignore

QUICK: dict[str, Any] = {
    "finetune.epochs": 3, "finetune.train_last": 4, "finetune.learning_rate": 0.003, "finetune.augment": "none",
    "extract.heads": ["ridge"],
}  # fmt: skip


def invert(picture: np.ndarray) -> np.ndarray:
    return 255 - picture


def turn(picture: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(picture.T)


def data(root: Path, each: int = 20) -> dict[str, Path]:
    """Write three tasks as folders of classes."""
    plain = digit_folder(root / "plain", each)
    places = {"plain": plain, "inverted": root / "inverted", "turned": root / "turned"}
    for name, change in (("inverted", invert), ("turned", turn)):
        for path in sorted(plain.rglob("*.png")):
            label = "deux" if name == "turned" and path.parent.name == "two" else path.parent.name
            target = places[name] / label / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(change(np.asarray(Image.open(path)))).save(target)
    return places


def links(places: dict[str, Path], **last: Any) -> list[dict[str, Any]]:
    """Return the three links; `last` are more settings of the last one."""
    made: list[dict[str, Any]] = [
        {"data": str(place), "name": name, "settings": dict(QUICK)} for name, place in places.items()
    ]
    made[0]["encoder"] = "tiny-cnn"
    made[-1]["settings"] |= {name.replace("__", "."): value for name, value in last.items()}
    return made


def chained(asked: Any, root: Path, progress: Callable[[Event], None] = ignore, **values: Any) -> Chained:
    """Run a chain with its store and its folders below `root`."""
    return api.chain(asked, output=root / "out", machine=machine(root), progress=progress, **values)
