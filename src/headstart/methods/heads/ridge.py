"""Ridge regression on numbers or on indicators of classes and labels, every penalty and fold in closed form.

With H = Z (Z^T Z + n penalty I)^-1 Z^T + 1 1^T / n, the predictions for a held-out fold F follow from one fit on all
rows: residual_F = (I - H_FF)^-1 (Y - H Y)_F, the block form of the leave-one-out formula (Golub et al., 1979).
Where a fold has more rows than there are axes, the matrix inversion lemma gives the same from a smaller system.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from headstart.heads import LinearHead, ValueHead
from headstart.methods.heads.rows import Link, Rows, Variant

LINKS: tuple[Link, ...] = ("softmax", "sigmoid", "identity")
PENALTIES = (1e-2, 1e-1, 1.0, 10.0)
"""In units of the mean variance of the axes."""
SHARPNESS = 10.0
"""Indicator predictions lie around 0 and 1; logits are this many times steeper before calibration."""


def variants(rows: Rows) -> list[Variant]:
    """Return one variant a penalty."""
    held_out = [_outputs(rows, _held_out(rows, _penalty(rows, name))) for name in PENALTIES]
    return [
        Variant(f"ridge, penalty {name:g}", outputs, partial(_fit, name=name))
        for name, outputs in zip(PENALTIES, held_out, strict=True)
    ]


def _penalty(rows: Rows, name: float) -> float:
    """Return a penalty in the units of the axes' variances."""
    return name * float(rows.space.variances.mean())


def _wanted(rows: Rows) -> Tensor:
    """Return what is fitted [n, C]: indicators, or numbers in units of their deviation around their mean."""
    if rows.link != "identity":
        return rows.truth
    centre, spread = _unit(rows)
    return (rows.truth - centre) / spread


def _unit(rows: Rows) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of the numbers."""
    deviation = rows.truth.std(0, correction=0)
    return rows.truth.mean(0), torch.where(deviation > 0, deviation, 1.0)


def _outputs(rows: Rows, predictions: Tensor) -> Tensor:
    """Turn predicted indicators into logits (a label is given from one half on), or predictions into numbers."""
    if rows.link == "identity":
        centre, spread = _unit(rows)
        return predictions * spread + centre
    return SHARPNESS * (predictions - 0.5) if rows.link == "sigmoid" else SHARPNESS * predictions


def _weights(rows: Rows, penalty: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return (what is fitted Y [n, C], weights [r, C], intercept [C]) of a fit on all rows."""
    truth, space = _wanted(rows), rows.space
    weight = space.points.T @ truth / (len(truth) * (space.variances + penalty))[:, None]
    return truth, weight, truth.mean(0)


def _held_out(rows: Rows, penalty: float) -> Tensor:
    """Return predictions [num_scored, C] for each item by a fit without its fold."""
    truth, weight, intercept = _weights(rows, penalty)
    points = rows.space.points
    shrunk = 1 / (len(truth) * (rows.space.variances + penalty))
    residual = truth - points @ weight - intercept
    predictions = torch.empty_like(truth)
    for fold in range(rows.num_folds):
        here = rows.fold == fold
        block = points[here]
        if len(block) > points.shape[1] + 1:
            left = _residual_by_axes(block, residual[here], shrunk, len(truth))
        else:
            hat = (block * shrunk) @ block.T + 1 / len(truth)
            left = torch.linalg.solve(torch.eye(len(block)) - hat, residual[here])
        predictions[here] = truth[here] - left
    return predictions[: rows.num_scored]


def _residual_by_axes(block: Tensor, residual: Tensor, shrunk: Tensor, count: int) -> Tensor:
    """Return (I - A A^T)^-1 residual by the matrix inversion lemma, A = [block sqrt(shrunk), 1 / sqrt(count)]."""
    scaled = torch.cat([block * shrunk.sqrt(), torch.full((len(block), 1), count**-0.5)], 1)
    inner = torch.eye(scaled.shape[1]) - scaled.T @ scaled
    return residual + scaled @ torch.linalg.solve(inner, scaled.T @ residual)


def _fit(rows: Rows, *, name: float) -> LinearHead:
    """Fit one penalty on every row."""
    _, weight, intercept = _weights(rows, _penalty(rows, name))
    if rows.link == "identity":
        centre, spread = _unit(rows)
        mean, scale, spread_weight = rows.space.spread(weight)
        return ValueHead.of(
            LinearHead.fitted(mean, scale, spread_weight, intercept, form=rows.space.form), centre, spread
        )
    offset = 0.5 if rows.link == "sigmoid" else 0.0
    spread = rows.space.spread(SHARPNESS * weight)
    return LinearHead.fitted(*spread, SHARPNESS * (intercept - offset), form=rows.space.form)
