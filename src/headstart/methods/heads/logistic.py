"""Multinomial logistic regression, all penalties and folds solved as one batch.

Minimises mean cross-entropy + penalty / 2 * |W|^2 by accelerated majorise-minimise steps: the curvature of the softmax
is at most 1/2 X^T X (Boehning, 1992), which is diagonal in principal axes, so one division replaces a linear solve and
every step is safe for every problem of the batch. Acceleration and restart after Nesterov (1983) and O'Donoghue and
Candes (2015).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from headstart.heads import LinearHead
from headstart.methods.heads.rows import Rows, Variant

PENALTIES = (1e-3, 6e-3, 3e-2, 1.5e-1, 6e-1)
RACE_STEPS, MAX_STEPS = 60, 400
"""Steps while racing, where order is all that matters, and for the head that is kept."""
TOLERANCE = 1e-3
"""Stop when no problem's preconditioned step moves its weights by more than this share."""


@dataclass(frozen=True)
class Solution:
    """Weights [B, r, C] and biases [B, C] of a batch of B problems."""

    weight: Tensor
    bias: Tensor

    def logits(self, points: Tensor) -> Tensor:
        """Return logits [B, n, C] for points [n, r]."""
        return torch.einsum("nr,brc->bnc", points, self.weight) + self.bias[:, None]


def variants(rows: Rows) -> list[Variant]:
    """Return one variant a penalty, cross-validated over the rows' folds in one batch."""
    penalties = torch.tensor(PENALTIES)
    folds = torch.arange(rows.num_folds)
    included = (rows.fold[None] != folds[:, None]).float()
    solution = solve(
        rows,
        penalties=penalties.repeat(len(folds)),
        included=included.repeat_interleave(len(penalties), 0),
        steps=RACE_STEPS,
    )
    fold = rows.fold[: rows.num_scored]
    logits = solution.logits(rows.space.points[: rows.num_scored]).view(
        len(folds), len(penalties), len(fold), -1
    )
    held_out = logits[fold, :, torch.arange(len(fold))]
    return [
        Variant(
            f"logistic, penalty {penalty:g}", held_out[:, index], lambda penalty=penalty: _fit(rows, penalty)
        )
        for index, penalty in enumerate(PENALTIES)
    ]


def _fit(rows: Rows, penalty: float) -> LinearHead:
    """Fit one penalty on every row."""
    included = torch.ones(1, len(rows.targets))
    solution = solve(rows, penalties=torch.tensor([penalty]), included=included, steps=MAX_STEPS)
    return LinearHead.fitted(*rows.space.spread(solution.weight[0]), solution.bias[0], form=rows.space.form)


def solve(rows: Rows, *, penalties: Tensor, included: Tensor, steps: int) -> Solution:
    """Solve B problems: penalties [B], included [B, n] in 0..1 (which rows each problem sees, and their weights)."""
    space, num_classes = rows.space, rows.num_classes
    points, count = space.points, len(penalties)
    rank = points.shape[1]
    truth = torch.nn.functional.one_hot(rows.targets, num_classes).to(points.dtype)
    share = included / included.sum(1, keepdim=True)
    # The bound over the included items is at most the one over all of them, scaled to the problem's own mean.
    growth = share.max(1).values * len(points)
    curvature = 0.5 * space.variances * growth[:, None] + penalties[:, None]
    step = torch.cat([1 / curvature, 2 / growth[:, None]], 1)[:, :, None]
    weight = torch.zeros(count, rank + 1, num_classes, dtype=points.dtype)
    padded = torch.cat([points, torch.ones_like(points[:, :1])], 1)
    ridge = torch.cat([penalties[:, None].expand(-1, rank), torch.zeros(count, 1)], 1)[:, :, None]
    ahead, momentum = weight, torch.ones(count, 1, 1)
    for _ in range(steps):
        flat = padded @ ahead.permute(1, 0, 2).reshape(rank + 1, -1)
        residual = flat.view(-1, count, num_classes).softmax(2).sub_(truth[:, None]).mul_(share.T[:, :, None])
        gradient = (
            (padded.T @ residual.view(len(points), -1)).view(rank + 1, count, num_classes).transpose(0, 1)
        )
        move = step * (gradient + ridge * ahead)
        following = ahead - move
        change = following - weight
        uphill = (move * change).sum((1, 2), keepdim=True) > 0
        momentum = torch.where(uphill, torch.ones_like(momentum), momentum)
        grown = (1 + (1 + 4 * momentum**2).sqrt()) / 2
        ahead = following + torch.where(uphill, torch.zeros_like(grown), (momentum - 1) / grown) * change
        weight, momentum = following, grown
        if (change.norm(dim=(1, 2)) <= TOLERANCE * weight.norm(dim=(1, 2)).clamp(min=1e-9)).all():
            break
    return Solution(weight[:, :-1], weight[:, -1])
