"""The pictures worth a look, as the network saw them, with heat maps, as data URIs."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from headstart.core.types import InputContract
from headstart.report.attention import look
from headstart.report.shelves import Shelf, explained_name, shelves_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headstart.model import Model
    from headstart.result import Predicted, Result

_SIDE = 176
_BATCH = 12
_HEAT = np.array([[24, 10, 80], [150, 30, 110], [236, 84, 40], [255, 214, 92]], np.float32)
"""Colours of the heat, faint to strong: dark violet, red, orange, yellow; readable for the colour-blind."""


@dataclass(frozen=True, slots=True)
class ShownPicture:
    """One picture of the report: data URIs of the picture and of its heat map (empty where there is none)."""

    item: Predicted
    picture: str
    heat: str


@dataclass(frozen=True, slots=True)
class PictureAlbum:
    """Shelves of pictures, and why heat maps or pictures are missing, if so."""

    shelves: tuple[Shelf, ...] = ()
    note: str = ""


def picture_album(result: Result, model: Model, inputs: Mapping[str, Any]) -> PictureAlbum:
    """Choose pictures and draw them; empty, with a note, where none are given."""
    shelves = shelves_of(result, [item for item in result.predictions if item.id in inputs])
    chosen = [item for shelf in shelves for item in shelf.items]
    if not chosen:
        return PictureAlbum(note="The test pictures were not at hand when this report was written.")
    columns = {label: index for index, label in enumerate(result.evaluation.labels)}
    shown: list[ShownPicture] = []
    reason = ""
    for start in range(0, len(chosen), _BATCH):
        part = chosen[start : start + _BATCH]
        drawn, reason = _draw(model, part, inputs, [columns.get(explained_name(item), 0) for item in part])
        shown.extend(drawn)
    parts = iter(shown)
    filled = tuple(replace(shelf, items=tuple(next(parts) for _ in shelf.items)) for shelf in shelves)
    return PictureAlbum(filled, f"{reason[0].upper()}{reason[1:]}." if reason else "")


def _draw(
    model: Model, items: Sequence[Predicted], inputs: Mapping[str, Any], columns: Sequence[int]
) -> tuple[list[ShownPicture], str]:
    """Draw one batch of pictures; return them and why there are no heat maps, if so."""
    batch = model.encoder.collate([inputs[item.id] for item in items])
    contract = model.encoder.spec.contract
    order = contract.order if isinstance(contract, InputContract) else "rgb"
    device = next(model.encoder.module.parameters()).device
    seen = look(model, batch.to(device), columns)
    heats = seen.heat if seen.heat is not None else [None] * len(items)
    shown: list[ShownPicture] = []
    for item, pixels, heat in zip(items, batch.numpy(), heats, strict=True):
        picture = _picture(pixels, order)
        warm = data_uri(_overlay(picture, heat)) if heat is not None else ""
        shown.append(ShownPicture(item, data_uri(picture), warm))
    return shown, seen.reason


def _picture(pixels: np.ndarray, order: str) -> Image.Image:
    """Turn what the network saw, uint8 [C, H, W], into a picture; other channels than 3 as their mean."""
    if pixels.shape[0] == 3:
        picture = Image.fromarray(
            np.ascontiguousarray(pixels[:: 1 if order == "rgb" else -1].transpose(1, 2, 0))
        )
    else:
        picture = Image.fromarray(pixels.mean(0).astype(np.uint8)).convert("RGB")
    scale = _SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.BILINEAR if scale < 4 else Image.Resampling.NEAREST)


def _overlay(picture: Image.Image, heat: np.ndarray) -> Image.Image:
    """Lay the heat [H, W] over the greyed picture."""
    smooth = Image.fromarray((heat * 255).astype(np.uint8)).resize(picture.size, Image.Resampling.BICUBIC)
    level = np.asarray(smooth, np.float32)[..., None] / 255
    steps = np.linspace(0, 1, len(_HEAT))
    colour = np.concatenate([np.interp(level, steps, _HEAT[:, channel]) for channel in range(3)], -1)
    grey = np.asarray(picture.convert("L"), np.float32)[..., None]
    share = 0.15 + 0.6 * level
    return Image.fromarray(((1 - share) * grey + share * colour).astype(np.uint8))


def data_uri(picture: Image.Image) -> str:
    """Return a picture as a JPEG data URI."""
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
