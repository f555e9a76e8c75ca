"""Regression: a number an item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from headstart.core.errors import DataError
from headstart.core.types import Form, Prediction, Sample, Target, ValuePrediction
from headstart.evaluation import Evaluation, evaluate_values
from headstart.heads import ValueHead

RANGES = 10
"""Equally filled ranges of numbers that splits keep in proportion."""


class Regression:
    """Implements Task: squared error of one number, in the units of the targets.

    The head holds their mean and spread, so steps of adaptive optimisers do not depend on the unit.
    """

    name = "regression"
    link: Literal["softmax", "sigmoid", "identity"] = "identity"
    form: Form = "pooled"
    quality_name = "r2"

    def __init__(self, labels: Sequence[str] = ()) -> None:
        """A number has no labels (DataError where some are given)."""
        if labels:
            raise DataError(
                f"regression was given the labels {', '.join(map(str, labels[:5]))}",
                expected="numbers, which have no labels",
                fix="fit task=classification, or read the data with data.task=regression",
            )

    @property
    def labels(self) -> tuple[str, ...]:
        """Nothing: a number has no names."""
        return ()

    def build_head(self, width: int, targets: Sequence[Target] = (), /) -> nn.Module:
        """Return a head of zeros, [N, width] to [N, 1], that answers the mean of the training `targets`, or 0."""
        head = ValueHead(width, form=self.form)
        if len(targets):
            values = self.encode(targets).astype(np.float64)
            head.centre.fill_(float(values.mean()))
            head.spread.fill_(float(values.std()) or 1.0)
        return head

    def encode(self, targets: Sequence[Target]) -> np.ndarray:
        """Return numbers [n] float32; DataError names what is none."""
        for target in targets:
            if isinstance(target, (str, tuple)) or not np.isfinite(target):
                raise DataError(
                    f"the target {target!r} is no finite number",
                    expected="a number an item",
                    fix="mend the label column, or fit task=classification",
                )
        return np.array(targets, dtype=np.float32)

    def flatten(
        self, features: Sequence[np.ndarray], targets: Sequence[Target]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return items as rows: each is one already."""
        return np.stack(features), self.encode(targets), np.arange(len(targets))

    def collate(self, targets: Sequence[Target]) -> Tensor:
        """Batch numbers [N] float32."""
        return torch.from_numpy(self.encode(targets))

    def loss(self, outputs: Tensor, targets: Tensor, **_: Any) -> Tensor:
        """Return the mean squared error of outputs [N, 1] against numbers [N]; smoothing and weights do not apply."""
        return nn.functional.mse_loss(outputs[..., 0], targets.to(outputs.dtype))

    def chance(self, targets: Sequence[Target]) -> float:
        """Return the loss of always answering the mean: the variance."""
        return float(self.encode(targets).astype(np.float64).var())

    def strata(self, targets: Sequence[Target]) -> list[str]:
        """Return which of RANGES equally filled ranges each number lies in; empty where there is no number."""
        known = np.array([target for target in targets if target is not None], dtype=np.float64)
        edges = np.unique(np.quantile(known, np.arange(1, RANGES) / RANGES)) if len(known) else known
        # Ranges of three digits sort as numbers do.
        return [
            "" if target is None else f"range {int(np.searchsorted(edges, float(str(target)), 'right')):03d}"
            for target in targets
        ]

    def measure(
        self,
        outputs: np.ndarray,
        targets: np.ndarray,
        items: np.ndarray | None = None,  # noqa: ARG002 - a row is an item
    ) -> tuple[float, float, float]:
        """Return R2, its jackknife standard error and the mean squared error of outputs [n, 1] against numbers [n]."""
        truth = targets.astype(np.float64)
        squared = (outputs.reshape(-1).astype(np.float64) - truth) ** 2
        n, around = len(truth), (truth - truth.mean()) ** 2
        spread = float(around.sum())
        if n < 3 or spread == 0:
            return 0.0, 0.0, float(squared.mean())
        # Without item i the mean moves, and the spread falls by n / (n - 1) times its square; without any, R2 is none.
        rest = spread - around * n / (n - 1)
        known = rest > 1e-9 * spread
        left = 1 - (squared.sum() - squared[known]) / rest[known]
        error = float(np.sqrt((n - 1) / n * ((left - left.mean()) ** 2).sum()))
        return float(1 - squared.sum() / spread), error, float(squared.mean())

    def score(self, outputs: np.ndarray, targets: Sequence[Target]) -> Mapping[str, float]:
        """Return R2 as `quality` (0 where all targets are equal) and the mean squared error of outputs [N, 1]."""
        quality, _, loss = self.measure(np.asarray(outputs), self.encode(targets))
        return {"quality": quality, "loss": loss}

    def probabilities(self, outputs: np.ndarray, temperature: float) -> np.ndarray:  # noqa: ARG002 - the Task's call
        """Return the numbers themselves [N] float64."""
        return np.asarray(outputs, np.float64).reshape(-1)

    def fit_temperature(self, outputs: np.ndarray, targets: Sequence[Target]) -> float:  # noqa: ARG002 - the Task's call
        """Return 1: a number has no probability to calibrate."""
        return 1.0

    def evaluate(
        self,
        probabilities: np.ndarray,
        targets: Sequence[Target],
        *,
        domains: Sequence[str] | None,
        groups: Sequence[str] | None,
        seed: int,
    ) -> Evaluation:
        """Return R2 and the other measures of predicted numbers [N], with intervals."""
        return evaluate_values(probabilities, self.encode(targets), domains=domains, groups=groups, seed=seed)

    def item_quality(self, probabilities: np.ndarray, targets: Sequence[Target]) -> np.ndarray:
        """Return minus the absolute error [N]."""
        return -np.abs(probabilities - self.encode(targets).astype(np.float64))

    def answers(self, probabilities: np.ndarray) -> list[float]:
        """Return the predicted numbers."""
        return [float(value) for value in probabilities]

    def truth(self, target: Target) -> float:
        """Return the number."""
        assert isinstance(target, (int, float))
        return float(target)

    def certainty(self, probabilities: np.ndarray) -> np.ndarray:
        """Return 1 for each: how sure a number is, its interval says."""
        return np.ones(len(probabilities))

    def decode(self, probabilities: np.ndarray, samples: Sequence[Sample]) -> list[Prediction]:
        """Turn numbers [N] into predictions, still without intervals."""
        pairs = zip(samples, probabilities.tolist(), strict=True)
        return [ValuePrediction(sample.id, value) for sample, value in pairs]
