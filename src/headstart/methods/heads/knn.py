"""Weighted vote, or weighted mean, of the nearest training items by cosine similarity (Wu et al., 2018)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from headstart.heads import NeighboursHead, answer
from headstart.methods.heads.rows import Link, Rows, Variant

LINKS: tuple[Link, ...] = ("softmax", "sigmoid", "identity")
NEIGHBOURS = (1, 5, 20)
TEMPERATURE = 0.07
CHUNK = 1024
"""Rows compared with all others at a time."""


def variants(rows: Rows) -> list[Variant]:
    """Return one variant a number of neighbours."""
    unit = torch.nn.functional.normalize(rows.space.points, dim=1)
    votes: list[list[Tensor]] = [[] for _ in NEIGHBOURS]
    for start in range(0, rows.num_scored, CHUNK):
        stop = min(start + CHUNK, rows.num_scored)
        similarity = unit[start:stop] @ unit.T
        similarity[rows.fold[start:stop, None] == rows.fold[None]] = -2.0
        for found, count in zip(votes, NEIGHBOURS, strict=True):
            found.append(
                answer(similarity, rows.targets, rows.num_classes, count, TEMPERATURE, link=rows.link)
            )
    return [
        Variant(
            f"knn, {count} neighbour{'s' if count > 1 else ''}",
            torch.cat(found),
            partial(_fit, neighbours=count),
        )
        for found, count in zip(votes, NEIGHBOURS, strict=True)
    ]


def _fit(rows: Rows, *, neighbours: int) -> NeighboursHead:
    """Remember every row in the space of the head's own features."""
    space = rows.space
    head = NeighboursHead(
        space.axes.shape[0], rows.num_classes, count=len(rows.targets), neighbours=neighbours,
        temperature=TEMPERATURE, form=space.form, link=rows.link,
    )  # fmt: skip
    memory = torch.nn.functional.normalize(space.points @ space.axes.T, dim=1)
    head.load_state_dict(
        {"mean": space.mean, "scale": space.scale, "memory": memory, "targets": rows.targets}
    )
    return head
