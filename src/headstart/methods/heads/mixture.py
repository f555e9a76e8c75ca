"""Class means refined by unlabelled items: expectation-maximisation of a mixture with one direction a class.

A mixture of von Mises-Fisher distributions of one concentration (Banerjee et al. 2005) over unit features, begun from
the labelled items and held by them, as in Nigam et al. 2000 (text classification from labelled and unlabelled
documents). With labelled features L [n, D] of one-hot classes T [n, C], unlabelled ones U [m, D] and sharpness k:

    means P = unit(T^T L),  then repeat:  R = softmax(k U P^T) [m, C],  P = unit(T^T L + R^T U).

It gains much where the classes are what the items differ in most, and harms where they are not, so that it must prove
itself on labelled items that were left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from headstart.core.types import Form
from headstart.heads import CosineHead

ROUNDS = 10
"""Rounds of expectation and maximisation; the means hardly move after these."""
MOST_FOLDS = 32
"""Labelled items are left out in up to so many parts: one by one where there are no more of them than that."""


@dataclass(frozen=True)
class HeldOut:
    """Outputs [n, C] for labelled items that were left out, of means with and without the unlabelled items.

    `agreement` is the share of unlabelled items on whose class the two halves of the labelled ones agree, each with the
    unlabelled items to help.
    """

    plain: np.ndarray
    refined: np.ndarray
    agreement: float


def refine(labelled: Tensor, truth: Tensor, unlabelled: Tensor, sharpness: float) -> Tensor:
    """Return class directions [F, C, D] of F problems on unit rows L [n, D] and U [m, D].

    `truth` [F, n, C] is one-hot, and zero for the items that a problem leaves out.
    """
    sums = truth.transpose(1, 2) @ labelled
    means = torch.nn.functional.normalize(sums, dim=-1)
    for _ in range(ROUNDS if len(unlabelled) else 0):
        shares = (sharpness * unlabelled @ means.transpose(1, 2)).softmax(-1)
        means = torch.nn.functional.normalize(sums + shares.transpose(1, 2) @ unlabelled, dim=-1)
    return means


def fit(
    labelled: np.ndarray,
    targets: np.ndarray,
    unlabelled: np.ndarray,
    *,
    num_classes: int,
    sharpness: float,
    form: Form = "pooled",
) -> CosineHead:
    """Return the head of features [n, D] with class ids [n], refined by unlabelled features [m, D] (or none)."""
    truth = torch.nn.functional.one_hot(torch.from_numpy(targets), num_classes).float()
    means = refine(_unit(labelled), truth[None], _unit(unlabelled), sharpness)[0]
    head = CosineHead(labelled.shape[1], num_classes, sharpness=sharpness, form=form)
    head.load_state_dict({"directions": means})
    return head.eval()


def left_out(
    labelled: np.ndarray,
    targets: np.ndarray,
    unlabelled: np.ndarray,
    folds: np.ndarray,
    *,
    num_classes: int,
    sharpness: float,
) -> HeldOut:
    """Return what class means say of the labelled items [n, D] of each fold (ids [n]) when they are left out."""
    rows, others = _unit(labelled), _unit(unlabelled)
    truth = torch.nn.functional.one_hot(torch.from_numpy(targets), num_classes).float()
    fold = torch.from_numpy(folds)
    kept = (fold[None] != torch.arange(int(fold.max()) + 1)[:, None]).float()
    seen = truth[None] * kept[:, :, None]

    def outputs(means: Tensor) -> np.ndarray:
        return (sharpness * torch.einsum("nd,ncd->nc", rows, means[fold])).numpy()

    plain = outputs(refine(rows, seen, others[:0], sharpness))
    if not len(others):
        return HeldOut(plain, plain, 0.0)
    half = (fold % 2 == 0).float()
    halves = truth[None] * torch.stack([half, 1 - half])[:, :, None]
    first, second = (others @ refine(rows, halves, others, sharpness).transpose(1, 2)).argmax(-1)
    agreement = float((first == second).float().mean())
    return HeldOut(plain, outputs(refine(rows, seen, others, sharpness)), agreement)


def _unit(features: np.ndarray) -> Tensor:
    """Return features of length one."""
    return torch.nn.functional.normalize(torch.from_numpy(np.ascontiguousarray(features)).float(), dim=-1)
