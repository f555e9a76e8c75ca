"""Multi-label classification: any number of labels an item, each true or not by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from headstart.core.errors import DataError
from headstart.core.types import Form, LabelsPrediction, Prediction, Sample, Target
from headstart.evaluation import THRESHOLD, Evaluation, evaluate_labels, fit_label_temperature, sigmoid
from headstart.heads import LinearHead
from headstart.tasks.classification import ids_of

_LOGIT = 0.0
"""Where a label's probability is one half, whatever the temperature."""
NO_LABEL = ""
"""Stratum of items without labels."""


class MultiLabel:
    """Implements Task: binary cross-entropy of each of `labels`; a target is a tuple of them, possibly empty."""

    name = "multilabel"
    link: Literal["softmax", "sigmoid", "identity"] = "sigmoid"
    form: Form = "pooled"
    quality_name = "macro_f1"

    def __init__(self, labels: Sequence[str]) -> None:
        """Fix the label names; columns follow their order."""
        self._labels = tuple(labels)
        self._id = {label: index for index, label in enumerate(self._labels)}

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names in the order of the head's outputs."""
        return self._labels

    def build_head(self, width: int, _targets: Sequence[Target] = (), /) -> nn.Module:
        """Return a linear head of zeros: [N, width] to [N, labels]."""
        return LinearHead(width, len(self._labels), form=self.form)

    def encode(self, targets: Sequence[Target]) -> np.ndarray:
        """Return 1 where an item has a label, else 0, float32 [n, C]; DataError names an unknown label."""
        shares = np.zeros((len(targets), len(self._labels)), np.float32)
        for row, target in enumerate(targets):
            shares[row, ids_of(_tuple(target), self._id)] = 1
        return shares

    def flatten(
        self, features: Sequence[np.ndarray], targets: Sequence[Target]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return items as rows: each is one already."""
        return np.stack(features), self.encode(targets), np.arange(len(targets))

    def collate(self, targets: Sequence[Target]) -> Tensor:
        """Turn tuples of labels into shares [N, C] float32; DataError names a label that the model does not have."""
        return torch.from_numpy(self.encode(targets))

    def loss(self, outputs: Tensor, targets: Tensor, *, label_smoothing: float = 0.0, **_: Any) -> Tensor:
        """Return the mean binary cross-entropy of logits [N, C] against shares [N, C]; class weights do not apply.

        Smoothing takes its share of a label that is true and spreads it over all, so that many false labels stay
        near 0.
        """
        wanted = targets.to(outputs.dtype)
        if label_smoothing:
            wanted = wanted * (1 - label_smoothing) + label_smoothing / targets.shape[1]
        return nn.functional.binary_cross_entropy_with_logits(outputs, wanted)

    def chance(self, targets: Sequence[Target]) -> float:
        """Return the loss of predicting how often each label occurs, whatever the input."""
        share = np.clip(self.encode(targets).mean(0, dtype=np.float64), 1e-12, 1 - 1e-12)
        return float(-(share * np.log(share) + (1 - share) * np.log1p(-share)).mean())

    def strata(self, targets: Sequence[Target]) -> list[str]:
        """Return each item's rarest label, which splits keep in proportion first; empty without one."""
        count = Counter(label for target in targets for label in _tuple(target))
        return [
            min(_tuple(target), key=lambda label: (count[label], label), default=NO_LABEL)
            for target in targets
        ]

    def measure(
        self,
        outputs: np.ndarray,
        targets: np.ndarray,
        items: np.ndarray | None = None,  # noqa: ARG002 - a row is an item
    ) -> tuple[float, float, float]:
        """Return macro-F1, its jackknife standard error and the log-loss of logits [n, C] against shares [n, C]."""
        said, true = outputs >= _LOGIT, targets > 0.5
        right, sizes = said & true, said.astype(np.int64) + true
        rest_right, rest = right.sum(0) - right, sizes.sum(0) - sizes
        occurs = sizes.sum(0) > 0
        left = (2 * rest_right / np.maximum(rest, 1))[:, occurs].mean(1) if occurs.any() else np.zeros(1)
        quality = (
            float((2 * right.sum(0) / np.maximum(sizes.sum(0), 1))[occurs].mean()) if occurs.any() else 0.0
        )
        error = float(np.sqrt((len(left) - 1) / len(left) * ((left - left.mean()) ** 2).sum()))
        signed = np.where(true, -1.0, 1.0) * outputs.astype(np.float64)
        return quality, error, float(np.logaddexp(0, signed).mean())

    def score(self, outputs: np.ndarray, targets: Sequence[Target]) -> Mapping[str, float]:
        """Return macro-F1 over the labels that occur as `quality` and the mean log-loss of logits [N, C]."""
        quality, _, loss = self.measure(np.asarray(outputs), self.encode(targets))
        return {"quality": quality, "loss": loss}

    def probabilities(self, outputs: np.ndarray, temperature: float) -> np.ndarray:
        """Return the calibrated probability of each label [N, C]."""
        return sigmoid(outputs, temperature)

    def fit_temperature(self, outputs: np.ndarray, targets: Sequence[Target]) -> float:
        """Return the temperature of least log-loss on held-out logits [N, C]."""
        return fit_label_temperature(outputs, self.encode(targets))

    def evaluate(
        self,
        probabilities: np.ndarray,
        targets: Sequence[Target],
        *,
        domains: Sequence[str] | None,
        groups: Sequence[str] | None,
        seed: int,
    ) -> Evaluation:
        """Return macro-F1 and the other measures of probabilities [N, C], with intervals."""
        return evaluate_labels(
            probabilities,
            self.encode(targets),
            labels=self._labels,
            domains=domains,
            groups=groups,
            seed=seed,
        )

    def item_quality(self, probabilities: np.ndarray, targets: Sequence[Target]) -> np.ndarray:
        """Return the share of common labels among given and true ones (Jaccard); 1 where there are none of either."""
        said, true = probabilities >= THRESHOLD, self.encode(targets) > 0.5
        union = (said | true).sum(1)
        return np.where(union > 0, (said & true).sum(1) / np.maximum(union, 1), 1.0)

    def answers(self, probabilities: np.ndarray) -> list[tuple[str, ...]]:
        """Return the labels given to each item."""
        return [
            tuple(self._labels[index] for index in np.flatnonzero(row >= THRESHOLD)) for row in probabilities
        ]

    def truth(self, target: Target) -> tuple[str, ...]:
        """Return the labels, in the order of the model's."""
        return tuple(sorted(_tuple(target), key=lambda label: self._id.get(label, len(self._id))))

    def certainty(self, probabilities: np.ndarray) -> np.ndarray:
        """Return how sure the least sure label is to be right, given or not [N]."""
        return np.maximum(probabilities, 1 - probabilities).min(1)

    def decode(self, probabilities: np.ndarray, samples: Sequence[Sample]) -> list[Prediction]:
        """Turn probabilities [N, C] into predictions."""
        return [
            LabelsPrediction(sample.id, labels, dict(zip(self._labels, row.tolist(), strict=True)))
            for sample, labels, row in zip(samples, self.answers(probabilities), probabilities, strict=True)
        ]


def _tuple(target: Target | None) -> tuple[str, ...]:
    """Return the labels of a target; none of an item that is not labelled."""
    if target is None:
        return ()
    if not isinstance(target, tuple):
        raise DataError(
            f"the target {target!r} is no tuple of labels",
            expected="several labels an item, such as ('red', 'round'), or ()",
            fix="read the data with data.task=multilabel, or fit task=classification",
        )
    return target
