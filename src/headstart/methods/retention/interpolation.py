"""Interpolation: between the weights at the start and at the end lie such that know both tasks.

Wortsman et al. 2022, "Robust fine-tuning of zero-shot models" (WiSE-FT; CVPR, arXiv 2109.01903).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Point:
    """A place on the way from start (0) to end (1): quality on the new task, and the share kept of each earlier one."""

    alpha: float
    quality: float
    kept: Mapping[str, float]


def between(start: Mapping[str, Tensor], end: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """Return (1 - alpha) * start + alpha * end of every tensor; whole numbers (counters) are the end's.

    At 0 and 1 the tensors are those of start and end, bit by bit.
    """
    if alpha in (0.0, 1.0):
        return dict(end if alpha else start)
    return {
        name: torch.lerp(start[name].to(tensor.device), tensor, alpha)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in end.items()
    }


def largest(look: Callable[[float], Point], *, floor: float, points: int) -> tuple[Point, tuple[Point, ...]]:
    """Return the point of the largest alpha at which every earlier task keeps the floor, and all that were looked at.

    `look` puts the weights of an alpha in place and scores them; it is called for the start, and from the end in
    `points` equal steps down to the first that will do. What lies below the floor at the start already is to become no
    less than it is there.
    """
    start = look(0.0)
    floors = {name: min(floor, share) for name, share in start.kept.items()}
    seen = [start]
    for step in range(points, 0, -1):
        point = look(step / points)
        seen.insert(1, point)
        if all(share >= floors[name] for name, share in point.kept.items()):
            return point, tuple(seen)
    return look(0.0), tuple(seen)
