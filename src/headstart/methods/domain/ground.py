"""The ground on which two domains meet: the features of both, standardised, in the axes along which they vary most.

What is learnt there leads back to a linear head over the target's own features. A few hundred axes hold what a linear
head can use, and every method behind costs seconds less for it; they are found by a randomised singular value
decomposition (Halko, Martinsson and Tropp 2011, arXiv 0909.4061).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from headstart.core.types import Form
from headstart.heads import LinearHead
from headstart.methods.heads.logistic import solve
from headstart.methods.heads.rows import Rows
from headstart.methods.heads.space import LEAST_DEVIATION, Space

AXES = 256
"""Directions that are kept, where there are more items and columns than that."""
STEPS = 60
"""Of a fit that starts from one like it."""
FIRST_STEPS = 100


@dataclass(frozen=True)
class Labelled:
    """The source: features [n, D] and class ids [n]; no row where the source is gone.

    An item counts as many times as `weights` [n] says, once where none are given.
    """

    features: Tensor
    truth: Tensor
    weights: Tensor | None = None

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.truth)


@dataclass(frozen=True)
class Ground:
    """Both domains as points: `source` [n, r] with its class ids `truth` and weights [n], and `target` [m, r].

    A target feature x became ((x - mean) * scale - centre) @ axes, with mean, scale and centre [D] and axes [D, r].
    """

    form: Form
    mean: Tensor
    scale: Tensor
    centre: Tensor
    axes: Tensor
    source: Tensor
    truth: Tensor
    target: Tensor
    num_classes: int
    weights: Tensor

    def part(self, rows: Tensor) -> Ground:
        """Return the same ground with some of the source's rows [n], a mask."""
        return replace(self, source=self.source[rows], truth=self.truth[rows], weights=self.weights[rows])

    def head(self, weight: Tensor) -> LinearHead:
        """Return the head over target features of a map [r + 1, C] of points, biases in the last row."""
        spread = (self.axes @ weight[:-1]).T.contiguous()
        bias = weight[-1] - spread @ self.centre
        return LinearHead.fitted(self.mean, self.scale, spread, bias, form=self.form)

    def outputs(self, weight: Tensor) -> Tensor:
        """Return what a map [r + 1, C] says of the target's points [m, C]."""
        return self.target @ weight[:-1] + weight[-1]

    def fit(
        self,
        labels: Tensor,
        shares: Tensor,
        *,
        penalty: float,
        source_weight: float,
        begin: Tensor | None = None,
    ) -> Tensor:
        """Fit logistic regression on source and target and return its map [r + 1, C].

        Target items have these `labels` [m] and count by `shares` [m], 0 to 1; source items count `source_weight` times
        their own weights.
        """
        points = torch.cat([self.source, self.target])
        space = _space(points, self.form)
        rows = Rows(
            space,
            torch.cat([self.truth, labels]),
            torch.zeros(len(points)).long(),
            self.num_classes,
            len(points),
        )
        included = torch.cat([source_weight * self.weights, shares.float()])[None]
        return solve(
            rows,
            penalties=torch.tensor([penalty]),
            included=included,
            steps=FIRST_STEPS if begin is None else STEPS,
            begin=None if begin is None else begin[None],
        )[0]

    def space(self) -> Space:
        """Return the source's points as solvers of heads take them."""
        return _space(self.source, self.form)

    def fit_source(self, *, penalty: float) -> Tensor:
        """Fit logistic regression on the source alone and return its map [r + 1, C]."""
        nothing = torch.zeros(len(self.target))
        return self.fit(nothing.long(), nothing, penalty=penalty, source_weight=1.0)

    def sureness(self, weight: Tensor) -> float:
        """Return how sure a map [r + 1, C] is of the target, as a share of how sure it is of the source it learnt from.

        Certainty is the mean largest probability.
        """
        known = (self.source @ weight[:-1] + weight[-1]).softmax(1).max(1).values
        there = float((self.weights * known).sum() / self.weights.sum())
        return float(self.outputs(weight).softmax(1).max(1).values.mean()) / max(there, 1e-6)


def joint(
    source: Labelled, target: Tensor, *, standards: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]], form: Form,
    num_classes: int, seed: int,
) -> Ground:  # fmt: skip
    """Return the ground of both domains, each standardised by its own pair of (mean [D], scale [D])."""
    (source_mean, source_scale), (mean, scale) = standards
    both = torch.cat([(source.features - source_mean) * source_scale, (target - mean) * scale])
    centre = both.mean(0)
    axes = principal_axes(both - centre, seed=seed)
    points = (both - centre) @ axes
    count = len(source)
    weights = torch.ones(count) if source.weights is None else source.weights
    return Ground(
        form, mean, scale, centre, axes, points[:count], source.truth, points[count:], num_classes, weights
    )


def standard(features: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return (mean [D], scale [D]) that standardise features [n, D], each counted by its weight [n].

    Nearly dead columns are not stretched.
    """
    if weights is None:
        mean, deviation = features.mean(0), features.std(0, correction=0)
    else:
        shares = weights / weights.sum()
        mean = shares @ features
        deviation = (shares @ (features - mean).square()).sqrt()
    return mean, 1 / deviation.clamp(min=LEAST_DEVIATION * float(deviation.median()) + 1e-12)


def principal_axes(centred: Tensor, *, seed: int) -> Tensor:
    """Return the axes [D, r] along which centred rows [n, D] vary most."""
    rank = min(AXES, *centred.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _, _, axes = torch.svd_lowrank(centred, q=rank, niter=1)
    return axes


def _space(points: Tensor, form: Form) -> Space:
    """Return points that are used as they are, with the mean square of each axis."""
    width = points.shape[1]
    return Space(
        form, torch.zeros(width), torch.ones(width), torch.eye(width), points.square().mean(0), points
    )
