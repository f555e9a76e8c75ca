"""Nearest class mean in standardised features, as a linear map (Snell, Swersky and Zemel, 2017)."""

from __future__ import annotations

import torch

from headstart.heads import LinearHead
from headstart.methods.heads.rows import Link, Rows, Variant

LINKS: tuple[Link, ...] = ("softmax",)


def variants(rows: Rows) -> list[Variant]:
    """Return the one variant: logits are negative squared distances, scaled by the mean variance."""
    points, folds = rows.space.points, rows.num_folds
    truth = rows.truth
    by_fold = torch.nn.functional.one_hot(rows.fold, folds).float()
    sums = torch.einsum("nf,nc,nr->fcr", by_fold, truth, points) if folds * rows.num_classes <= 512 else None
    if sums is None:
        sums = torch.stack([(truth * by_fold[:, fold : fold + 1]).T @ points for fold in range(folds)])
    counts = by_fold.T @ truth
    others = (sums.sum(0) - sums) / (counts.sum(0) - counts).clamp(min=1)[:, :, None]
    fold = rows.fold[: rows.num_scored]
    scored = points[: rows.num_scored]
    scale = 1 / float(rows.space.variances.sum())
    logits = torch.stack([scored @ mean.T - mean.square().sum(1) / 2 for mean in others])
    held_out = logits[fold, torch.arange(len(fold))] * scale
    return [Variant("prototype", held_out, _fit)]


def _fit(rows: Rows) -> LinearHead:
    """Write distances to the class means [C, r] of every row as a linear head."""
    truth = rows.truth
    mean = truth.T @ rows.space.points / truth.sum(0).clamp(min=1)[:, None]
    scale = 1 / float(rows.space.variances.sum())
    spread = rows.space.spread(scale * mean.T)
    return LinearHead.fitted(*spread, -scale * mean.square().sum(1) / 2, form=rows.space.form)
