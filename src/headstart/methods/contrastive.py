"""Contrastive tuning of the last layer groups: items of one class are drawn together, those of others apart.

SetFit (Tunstall et al. 2022, arXiv 2209.11055) regresses the cosine of two items on whether their classes are equal,
and runs the network on both items of every pair that it draws. Here one pass over the items of a batch, with features
z [B, D] and u = z / |z|, gives every pair at once in S = u u^T [B, B], and a step minimises

    1/2 mean over pairs of one class of (1 - S_ij)^2  +  1/2 mean over pairs of two classes of S_ij^2,

so that both kinds of pairs weigh the same, as in SetFit. Only a suffix of the network trains, on activations of the
frozen prefix that are computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from headstart.core.types import LayerGroup
from headstart.train.optim import ParameterGroup, build_optimizer
from headstart.train.runtime import Context, draw

BATCH = 64
"""Items a step: with fewer than that all of them, so that a step sees every pair."""
CHUNK = 8
"""Items that go through the suffix together: those of like length, as shorter ones are padded to the longest."""


@dataclass(frozen=True)
class Rows:
    """What trains: `open` turns indices into a batch of activations, `lengths` [n] say how long each item is."""

    open: Callable[[np.ndarray], Tensor]
    lengths: np.ndarray

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.lengths)

    def chunks(self, indices: np.ndarray) -> list[np.ndarray]:
        """Return the indices in chunks of like length."""
        order = indices[np.argsort(self.lengths[indices], kind="stable")]
        return [order[start : start + CHUNK] for start in range(0, len(order), CHUNK)]


def pair_loss(features: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of all pairs of items with features [B, D] and class ids [B]; 0 for a kind that has no pair."""
    unit = nn.functional.normalize(features, dim=1)
    similarity = unit @ unit.T
    same = targets[:, None] == targets[None]
    other = ~same
    same = same & ~torch.eye(len(targets), dtype=torch.bool, device=targets.device)
    together = ((1 - similarity).square() * same).sum() / same.sum().clamp(min=1)
    apart = (similarity.square() * other).sum() / other.sum().clamp(min=1)
    return (together + apart) / 2


def contrast(
    suffix: nn.Module,
    rows: Rows,
    targets: np.ndarray,
    *,
    layers: Sequence[LayerGroup],
    passes: int,
    learning_rate: float,
    context: Context,
) -> list[float]:
    """Train `layers` of `suffix` in place on items with class ids [n]; return the mean loss of each pass.

    The rate is constant, as few passes leave no time for a schedule. Without dropout, and with batches drawn by the
    seed, the same seed gives the same bits.
    """
    optimizer = build_optimizer(
        [ParameterGroup(layer.name, layer.modules, layer.parameters, learning_rate) for layer in layers]
    )
    suffix.eval()
    classes, history = torch.from_numpy(targets), list[float]()
    for number in range(passes):
        losses: list[float] = []
        order = draw(context.seed, "contrast", number, len(rows)).permutation(len(rows))
        for batch in np.array_split(order, -(-len(rows) // BATCH)):
            chunks = rows.chunks(batch)
            features = torch.cat([suffix(rows.open(chunk).to(context.device)) for chunk in chunks])
            loss = pair_loss(features, classes[np.concatenate(chunks)].to(context.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        history.append(float(np.mean(losses)))
    return history


def features_of(suffix: nn.Module, rows: Rows, context: Context) -> np.ndarray:
    """Return the suffix's features of every item, float32 [n, D]."""
    suffix.eval()
    found: dict[int, np.ndarray] = {}
    with torch.inference_mode():
        for chunk in rows.chunks(np.arange(len(rows))):
            values = suffix(rows.open(chunk).to(context.device)).float().cpu().numpy()
            found.update(zip(chunk.tolist(), values, strict=True))
    return np.stack([found[index] for index in range(len(rows))])
