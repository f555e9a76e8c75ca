"""Ridge regression on class indicators, every penalty and fold in closed form.

With H = Z (Z^T Z + n penalty I)^-1 Z^T + 1 1^T / n, the predictions for a held-out fold F follow from one fit on all
rows: residual_F = (I - H_FF)^-1 (Y - H Y)_F, the block form of the leave-one-out formula (Golub et al., 1979).
"""

from __future__ import annotations

import torch
from torch import Tensor

from headstart.heads import LinearHead
from headstart.methods.heads.rows import Rows, Variant

PENALTIES = (1e-2, 1e-1, 1.0, 10.0)
"""In units of the mean variance of the axes."""
SHARPNESS = 10.0
"""Indicator predictions lie around 0 and 1; logits are this many times steeper before calibration."""


def variants(rows: Rows) -> list[Variant]:
    """Return one variant a penalty."""
    penalties = [penalty * float(rows.space.variances.mean()) for penalty in PENALTIES]
    return [
        Variant(
            f"ridge, penalty {name:g}", SHARPNESS * _held_out(rows, penalty), lambda p=penalty: _fit(rows, p)
        )
        for name, penalty in zip(PENALTIES, penalties, strict=True)
    ]


def _weights(rows: Rows, penalty: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return (indicators Y [n, C], weights [r, C], intercept [C]) of a fit on all rows."""
    truth = torch.nn.functional.one_hot(rows.targets, rows.num_classes).float()
    space = rows.space
    weight = space.points.T @ truth / (len(truth) * (space.variances + penalty))[:, None]
    return truth, weight, truth.mean(0)


def _held_out(rows: Rows, penalty: float) -> Tensor:
    """Return predictions [num_scored, C] for each item by a fit without its fold."""
    truth, weight, intercept = _weights(rows, penalty)
    points = rows.space.points
    residual = truth - points @ weight - intercept
    shrunk = 1 / (len(truth) * (rows.space.variances + penalty))
    predictions = torch.empty_like(truth)
    for fold in range(rows.num_folds):
        here = rows.fold == fold
        block = points[here]
        hat = (block * shrunk) @ block.T + 1 / len(truth)
        left = torch.linalg.solve(torch.eye(len(block)) - hat, residual[here])
        predictions[here] = truth[here] - left
    return predictions[: rows.num_scored]


def _fit(rows: Rows, penalty: float) -> LinearHead:
    """Fit one penalty on every row."""
    _, weight, intercept = _weights(rows, penalty)
    spread = rows.space.spread(SHARPNESS * weight)
    return LinearHead.fitted(*spread, SHARPNESS * intercept, form=rows.space.form)
