"""Logistic regression, multinomial or of each label by itself, all penalties and folds solved as one batch.

Minimises mean cross-entropy + penalty / 2 * |W|^2 by accelerated majorise-minimise steps: the curvature of the softmax
is at most 1/2 X^T X (Boehning, 1992), that of a sigmoid 1/4 X^T X, which is diagonal in principal axes, so one division
replaces a linear solve and every step is safe for every problem of the batch. Acceleration and restart after Nesterov
(1983) and O'Donoghue and Candes (2015).
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from headstart.heads import LinearHead
from headstart.methods.heads.rows import Link, Rows, Variant

LINKS: tuple[Link, ...] = ("softmax", "sigmoid")
PENALTIES = (6e-3, 3e-2, 1.5e-1, 6e-1)
RACE_STEPS, MAX_STEPS = 40, 400
"""Steps while racing, where order is all that matters, and for the head that is kept."""
TOLERANCE = 1e-3
"""Stop when no problem's preconditioned step moves its weights by more than this share."""


def variants(rows: Rows) -> list[Variant]:
    """Return one variant a penalty, cross-validated over the rows' folds in one batch."""
    penalties = torch.tensor(PENALTIES)
    folds = torch.arange(rows.num_folds)
    included = (rows.fold[None] != folds[:, None]).float()
    weights = solve(
        rows,
        penalties=penalties.repeat(len(folds)),
        included=included.repeat_interleave(len(penalties), 0),
        steps=RACE_STEPS,
    ).unflatten(0, (len(folds), len(penalties)))
    held_out = torch.empty(len(penalties), rows.num_scored, rows.num_classes)
    for fold in folds:
        here = rows.fold[: rows.num_scored] == fold
        points = rows.space.points[: rows.num_scored][here]
        held_out[:, here] = points @ weights[fold, :, :-1] + weights[fold, :, -1:]
    return [
        Variant(
            f"logistic, penalty {penalty:g}", logits, partial(_fit, raced=rows, penalty=penalty, found=found)
        )
        for penalty, logits, found in zip(PENALTIES, held_out, weights.mean(0), strict=True)
    ]


def _fit(rows: Rows, *, raced: Rows, penalty: float, found: Tensor) -> LinearHead:
    """Fit one penalty on every row, from the mean of the weights [r + 1, C] that its folds found in the race."""
    begin = found if rows is raced else _moved(found, raced, rows)
    everything = torch.ones(1, len(rows.targets))
    (weight,) = solve(
        rows, penalties=torch.tensor([penalty]), included=everything, steps=MAX_STEPS, begin=begin[None]
    )
    return LinearHead.fitted(*rows.space.spread(weight[:-1]), weight[-1], form=rows.space.form)


def _moved(weight: Tensor, old: Rows, new: Rows) -> Tensor:
    """Return the weights in the axes of other rows of the same features."""
    mean, scale, spread = old.space.spread(weight[:-1])
    raw = spread * scale
    bias = weight[-1] + raw @ (new.space.mean - mean)
    return torch.cat([new.space.axes.T @ (raw / new.space.scale).T, bias[None]])


def solve(
    rows: Rows, *, penalties: Tensor, included: Tensor, steps: int, begin: Tensor | None = None
) -> Tensor:
    """Return weights [B, r + 1, C], biases in the last row, of B problems.

    `penalties` [B]; `included` [B, n] in 0..1 says which rows each problem sees; `begin` is where to start from.
    """
    space, num_classes = rows.space, rows.num_classes
    points, count = space.points, len(penalties)
    rank = points.shape[1]
    truth = rows.truth.to(points.dtype)
    bound = 0.5 if rows.link == "softmax" else 0.25
    share = included / included.sum(1, keepdim=True)
    # The bound over the included items is at most the one over all of them, scaled to the problem's own mean.
    growth = share.max(1).values * len(points)
    curvature = bound * space.variances * growth[:, None] + penalties[:, None]
    step = torch.cat([1 / curvature, 1 / (bound * growth[:, None])], 1)[:, :, None]
    weight = torch.zeros(count, rank + 1, num_classes) if begin is None else begin
    padded = torch.cat([points, torch.ones_like(points[:, :1])], 1)
    ridge = torch.cat([penalties[:, None].expand(-1, rank), torch.zeros(count, 1)], 1)[:, :, None]
    ahead, momentum = weight, torch.ones(count, 1, 1)
    for _ in range(steps):
        flat = padded @ ahead.permute(1, 0, 2).reshape(rank + 1, -1)
        logits = flat.view(-1, count, num_classes)
        probability = logits.softmax(2) if rows.link == "softmax" else logits.sigmoid_()
        residual = probability.sub_(truth[:, None]).mul_(share.T[:, :, None])
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
    return weight
