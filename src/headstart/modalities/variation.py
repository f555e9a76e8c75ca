"""Random changes of uint8 pixels [H, W, C] that a picture's class survives."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True, slots=True)
class Strength:
    """How far a view may go: least share of the area, shift of brightness, contrast and colour, degrees, erasing."""

    least_area: float
    shift: float = 0.0
    degrees: float = 0.0
    erase: float = 0.0


STRENGTHS = {
    "light": Strength(0.6),
    "standard": Strength(0.35, shift=0.2),
    "strong": Strength(0.2, shift=0.4, degrees=15, erase=0.25),
}


def vary(view: np.ndarray, draw: np.random.Generator, recipe: Strength) -> np.ndarray:
    """Shift brightness, contrast and colour, turn, erase; always the same number of draws for a recipe."""
    if recipe.shift:
        brightness, contrast, colour = 1 + recipe.shift * draw.uniform(-1, 1, 3)
        view = _shift(view, brightness, contrast, colour)
    if recipe.degrees:
        view = _turn(view, draw.uniform(-recipe.degrees, recipe.degrees))
    if recipe.erase:
        chance, area, top, left = draw.random(4)
        if chance < recipe.erase:
            view = _erase(view, 0.02 + 0.2 * area, top, left)
    return view


def _shift(view: np.ndarray, brightness: float, contrast: float, colour: float) -> np.ndarray:
    """Scale brightness, contrast around the mean, and (three channels) saturation."""
    mean = float(view.mean())
    table = ((np.arange(256) - mean) * contrast + mean) * brightness
    view = np.rint(table).clip(0, 255).astype(np.uint8)[view]
    if view.shape[2] != 3:
        return view
    picture = Image.fromarray(view)
    return np.asarray(Image.blend(picture.convert("L").convert("RGB"), picture, colour))


def _turn(view: np.ndarray, degrees: float) -> np.ndarray:
    """Rotate around the centre; what comes into sight is the picture's mean."""
    if view.shape[2] not in (1, 3):
        return np.concatenate(
            [_turn(plane, degrees) for plane in np.split(view, view.shape[2], axis=2)], axis=2
        )
    fill = [int(value) for value in view.mean(axis=(0, 1))]
    picture = Image.fromarray(np.ascontiguousarray(view.squeeze(2) if view.shape[2] == 1 else view))
    fillcolor = fill[0] if len(fill) == 1 else tuple(fill)
    turned = picture.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=fillcolor)
    return np.asarray(turned).reshape(view.shape)


def _erase(view: np.ndarray, area: float, top: float, left: float) -> np.ndarray:
    """Paint a square patch of this share of the area with the picture's mean."""
    height, width = view.shape[:2]
    high, wide = max(1, round(height * math.sqrt(area))), max(1, round(width * math.sqrt(area)))
    y, x = int(top * (height - high + 1)), int(left * (width - wide + 1))
    view = view.copy()
    view[y : y + high, x : x + wide] = np.rint(view.mean(axis=(0, 1))).astype(np.uint8)
    return view
