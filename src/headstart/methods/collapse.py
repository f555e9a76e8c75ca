"""Collapse: how much the features of a network in training still tell of the items: their rank, neighbours' labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from headstart.features.feed import Feed
from headstart.train.runtime import Context, draw

if TYPE_CHECKING:
    from headstart.core.protocols import Encoder
    from headstart.core.settings import Pretrain

BATCH, NEIGHBOURS = 64, 5
RANKED = 256
"""Items by which the rank of the features is watched where there are no labels: more would cost a share of an epoch."""
COLLAPSED_RANK, COLLAPSED_SHARE = 2.0, 0.1
"""Features of a rank below either (a number, a share of the rank at the start) say next to nothing of an item."""


@dataclass(frozen=True)
class Watched:
    """What an epoch is watched by: rank of the features, and accuracy of neighbours (not a number without labels)."""

    rank: float
    neighbours: float


def probed(labels: np.ndarray | None, count: int, settings: Pretrain, seed: int) -> np.ndarray:
    """Return the items by which the features are watched: labelled ones where there are enough of them."""
    order = draw(seed, "probe", 0, 0).permutation(count)
    if labels is None or int((labels >= 0).sum()) <= 2 * NEIGHBOURS:
        return np.sort(order[: min(settings.probe, RANKED)])
    return np.sort(order[labels[order] >= 0][: settings.probe])


def watching(
    encoder: Encoder, exact: Feed, items: np.ndarray, labels: np.ndarray | None, context: Context
) -> Callable[[Callable[[], None]], Watched]:
    """Return what measures the features of some items as they are now."""
    network = encoder.network("pooled")
    known = labels[items] if labels is not None else np.full(len(items), -1)
    is_known = bool((known >= 0).all()) and len(np.unique(known)) > 1 and len(items) > 2 * NEIGHBOURS

    def watch(check: Callable[[], None]) -> Watched:
        rows: list[Tensor] = []
        for start in range(0, len(items), BATCH):
            check()
            inputs = exact.open(items[start : start + BATCH], 0).to(context.device)
            rows.append(network(inputs).float().cpu())
        features = torch.cat(rows)
        return Watched(rank_of(features), neighbour_accuracy(features, known) if is_known else math.nan)

    return watch


def rank_of(features: Tensor) -> float:
    """Return how many directions features [n, D] really use: the exponential of the entropy of their singular values.

    RankMe (Garrido et al. 2023, arXiv 2210.02885), of features with their mean taken away.
    """
    centred = features.double() - features.double().mean(0)
    values = torch.linalg.svdvals(centred)
    total = float(values.sum())
    if total <= 1e-12:
        return 1.0
    shares = values / total
    return float((-(shares * (shares + 1e-12).log()).sum()).exp())


def neighbour_accuracy(features: Tensor, labels: np.ndarray) -> float:
    """Return the share of items [n, D] whose class is that of most of their NEIGHBOURS nearest others, by cosine."""
    units = nn.functional.normalize(features - features.mean(0), dim=1)
    likeness = units @ units.t()
    likeness.fill_diagonal_(-torch.inf)
    closeness, nearest = likeness.topk(min(NEIGHBOURS, len(labels) - 1), dim=1)
    classes = torch.from_numpy(labels)[nearest]
    votes = torch.zeros(len(labels), int(labels.max()) + 1)
    # A tie goes to the nearer ones.
    votes.scatter_add_(1, classes, 1 + 0.001 * closeness)
    return float((votes.argmax(1).numpy() == labels).mean())


def is_collapsed(rank: float, start: Watched) -> bool:
    """Tell whether the features use fewer directions than anything could be told by, or a small share of before."""
    return rank < max(COLLAPSED_RANK, COLLAPSED_SHARE * start.rank)


def alarm(start: Watched, history: Sequence[Mapping[str, float]], *, is_pretrained: bool) -> tuple[str, ...]:
    """Say where the features collapsed, or where those of a pretrained network say less of the labels than before."""
    if not history:
        return ()
    notes: list[str] = []
    last = history[-1]
    if start.rank <= 1:
        notes.append(
            "the network tells none of the items watched from another (rank 1 at the start): are they all alike?"
        )
    elif is_collapsed(last["rank"], start):
        notes.append(
            f"the features collapsed: their rank is {last['rank']:.1f}, at the start {start.rank:.1f}; lower "
            "pretrain.learning_rate, or choose another pretrain.objective"
        )
    if is_pretrained and "neighbours" in last and last["neighbours"] < start.neighbours - 0.05:
        notes.append(
            f"the labels of neighbours agree less than at the start ({last['neighbours']:.0%} instead of "
            f"{start.neighbours:.0%}): what was learnt before may have been lost"
        )
    return tuple(notes)
