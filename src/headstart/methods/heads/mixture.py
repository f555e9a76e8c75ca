"""Class means refined by unlabelled items: expectation-maximisation of a mixture with one direction a class.

A mixture of von Mises-Fisher distributions of one concentration (Banerjee et al. 2005) over unit features, begun from
the labelled items and held by them, as in Nigam et al. 2000 (text classification from labelled and unlabelled
documents). With labelled features L [n, D] of one-hot classes T [n, C], unlabelled ones U [m, D], sharpness k and the
weight w of an unlabelled item:

    means P = unit(T^T L),  then repeat:  R = softmax(k U P^T) [m, C],  P = unit(T^T L + w R^T U).

Before, each block of columns (the last layer, the mean of all layers) is scaled to the same mean length, and what all
items share is taken away: cosines of raw features are all near one.

It gains much where the classes are what the items differ in most, and harms where they are not, so that it must prove
itself on labelled items that were left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from headstart.core.types import Form
from headstart.heads import CosineHead

WEIGHT = 0.3
"""Of an unlabelled item beside a labelled one."""
ROUNDS = 10
"""Rounds of expectation and maximisation; the means hardly move after these."""
MOST_FOLDS = 32
"""Labelled items are left out in up to so many parts: one by one where there are no more of them than that."""


@dataclass(frozen=True)
class HeldOut:
    """Outputs [n, C] for labelled items that were left out, of means with and without the unlabelled items.

    `agreement` is the share of unlabelled items on whose class two halves of the labelled ones agree, each with the
    unlabelled items to help; the mean over several ways to halve them.
    """

    plain: np.ndarray
    refined: np.ndarray
    agreement: float


def refine(labelled: Tensor, truth: Tensor, unlabelled: Tensor, sharpness: float) -> Tensor:
    """Return class directions [F, C, D] of F problems on unit rows L [n, D] and U [m, D].

    `truth` [F, n, C] is one-hot, and zero for the items that a problem leaves out.
    """
    sums = truth.transpose(1, 2) @ labelled
    means = normalize(sums, dim=-1)
    for _ in range(ROUNDS if len(unlabelled) else 0):
        shares = (sharpness * unlabelled @ means.transpose(1, 2)).softmax(-1)
        means = normalize(sums + WEIGHT * shares.transpose(1, 2) @ unlabelled, dim=-1)
    return means


@dataclass(frozen=True)
class Space:
    """Features on one footing: (x - mean) * scale with both [D], then of length one; the items [n, D] and [m, D] so."""

    mean: Tensor
    scale: Tensor
    labelled: Tensor
    unlabelled: Tensor


def space(labelled: np.ndarray, unlabelled: np.ndarray, blocks: Sequence[int] = ()) -> Space:
    """Bring features [n, D] and [m, D] on one footing; `blocks` are the widths of their column blocks, none: one."""
    every = torch.from_numpy(np.concatenate([labelled, unlabelled])).float()
    parts = every.split(list(blocks) or [every.shape[1]], dim=1)
    scale = torch.cat([torch.full((part.shape[1],), 1 / _length(part)) for part in parts])
    mean = every.mean(0)
    unit = normalize((every - mean) * scale, dim=-1)
    return Space(mean, scale, unit[: len(labelled)], unit[len(labelled) :])


def fit(
    space: Space, targets: np.ndarray, *, num_classes: int, sharpness: float, form: Form = "pooled"
) -> CosineHead:
    """Return the head for labelled items with class ids [n], refined by the unlabelled ones (if any)."""
    truth = one_hot(torch.from_numpy(targets), num_classes).float()
    means = refine(space.labelled, truth[None], space.unlabelled, sharpness)[0]
    head = CosineHead(len(space.mean), num_classes, sharpness=sharpness, form=form)
    head.load_state_dict({"mean": space.mean, "scale": space.scale, "directions": means})
    return head.eval()


def left_out(
    space: Space,
    targets: np.ndarray,
    folds: np.ndarray,
    halves: np.ndarray,
    *,
    num_classes: int,
    sharpness: float,
) -> HeldOut:
    """Return what class means say of the labelled items of each fold (class ids [n]) when they are left out.

    `folds` [n] are the folds' numbers, `halves` [H, n] of 0 and 1 are H ways to halve the items.
    """
    rows, others = space.labelled, space.unlabelled
    truth = one_hot(torch.from_numpy(targets), num_classes).float()
    fold = torch.from_numpy(folds)
    kept = (fold[None] != torch.arange(int(fold.max()) + 1)[:, None]).float()
    seen = truth[None] * kept[:, :, None]

    def outputs(means: Tensor) -> np.ndarray:
        return (sharpness * torch.einsum("nd,ncd->nc", rows, means[fold])).numpy()

    plain = outputs(refine(rows, seen, others[:0], sharpness))
    if not len(others):
        return HeldOut(plain, plain, 0.0)
    half = torch.from_numpy(halves).float()
    parts = truth[None] * torch.cat([half, 1 - half])[:, :, None]
    guesses = (others @ refine(rows, parts, others, sharpness).transpose(1, 2)).argmax(-1)
    first, second = guesses.chunk(2)
    agreement = float((first == second).float().mean())
    return HeldOut(plain, outputs(refine(rows, seen, others, sharpness)), agreement)


def _length(features: Tensor) -> float:
    """Return the root mean square length of rows [n, D]."""
    return max(float(features.square().sum(1).mean().sqrt()), torch.finfo(torch.float32).tiny)
