"""Single-label classification: one of several classes an item."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from headstart.core.errors import DataError, nearest
from headstart.core.types import Form, LabelPrediction, Prediction, Sample, Target
from headstart.evaluation import Evaluation, evaluate, fit_temperature, softmax
from headstart.heads import LinearHead


class Classification:
    """Implements Task: cross-entropy over `labels`, in this order."""

    name = "classification"
    link: Literal["softmax", "sigmoid", "identity"] = "softmax"
    form: Form = "pooled"
    quality_name = "accuracy"

    def __init__(self, labels: Sequence[str]) -> None:
        """Fix the class names; ids are derived from their order and never written by hand."""
        self._labels = tuple(labels)
        self._id = {label: index for index, label in enumerate(self._labels)}

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the head's outputs."""
        return self._labels

    def build_head(self, width: int, _targets: Sequence[Target] = (), /) -> nn.Module:
        """Return a linear head of zeros: [N, width] to [N, classes]."""
        return LinearHead(width, len(self._labels), form=self.form)

    def collate(self, targets: Sequence[Target]) -> Tensor:
        """Turn class names into ids [N] int64; DataError names a class that the model does not have."""
        return torch.tensor(ids_of(targets, self._id), dtype=torch.int64)

    def loss(
        self,
        outputs: Tensor,
        targets: Tensor,
        *,
        label_smoothing: float = 0.0,
        class_weights: Tensor | None = None,
    ) -> Tensor:
        """Return the mean cross-entropy of logits [N, C] against ids [N] or against class shares [N, C]."""
        return nn.functional.cross_entropy(
            outputs, targets, weight=class_weights, label_smoothing=label_smoothing
        )

    def chance(self, targets: Sequence[Target]) -> float:
        """Return the loss of predicting the classes' shares whatever the input."""
        shares = np.array(list(Counter(targets).values())) / len(targets)
        return float(-(shares * np.log(shares)).sum())

    def strata(self, targets: Sequence[Target]) -> list[str]:
        """Return the classes."""
        return ["" if target is None else str(target) for target in targets]

    def encode(self, targets: Sequence[Target]) -> np.ndarray:
        """Return class ids [n] int64; DataError names a class that the model does not have."""
        return np.array(ids_of(targets, self._id), dtype=np.int64)

    def flatten(
        self, features: Sequence[np.ndarray], targets: Sequence[Target]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return items as rows: each is one already."""
        return np.stack(features), self.encode(targets), np.arange(len(targets))

    def probabilities(self, outputs: np.ndarray, temperature: float) -> np.ndarray:
        """Return calibrated probabilities [N, C] of logits."""
        return softmax(outputs, temperature)

    def fit_temperature(self, outputs: np.ndarray, targets: Sequence[Target]) -> float:
        """Return the temperature of least log-loss on held-out logits [N, C]."""
        return fit_temperature(outputs, self.encode(targets))

    def evaluate(
        self,
        probabilities: np.ndarray,
        targets: Sequence[Target],
        *,
        domains: Sequence[str] | None,
        groups: Sequence[str] | None,
        seed: int,
    ) -> Evaluation:
        """Return accuracy and the other measures of probabilities [N, C], with intervals."""
        return evaluate(
            probabilities,
            self.encode(targets),
            labels=self._labels,
            domains=domains,
            groups=groups,
            seed=seed,
        )

    def item_quality(self, probabilities: np.ndarray, targets: Sequence[Target]) -> np.ndarray:
        """Return 1 where the class is right, else 0."""
        return (probabilities.argmax(1) == self.encode(targets)).astype(np.float64)

    def answers(self, probabilities: np.ndarray) -> list[str]:
        """Return the most probable classes."""
        return [self._labels[index] for index in probabilities.argmax(1)]

    def truth(self, target: Target) -> str:
        """Return the class."""
        return str(target)

    def certainty(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the top probabilities."""
        return probabilities.max(1)

    def decode(self, probabilities: np.ndarray, samples: Sequence[Sample]) -> list[Prediction]:
        """Turn probabilities [N, C] into predictions."""
        rows = [dict(zip(self._labels, row.tolist(), strict=True)) for row in probabilities]
        tops = [max(row, key=row.__getitem__) for row in rows]
        triples = zip(samples, tops, rows, strict=True)
        return [LabelPrediction(sample.id, top, row[top], row) for sample, top, row in triples]

    def measure(
        self,
        outputs: np.ndarray,
        targets: np.ndarray,
        items: np.ndarray | None = None,  # noqa: ARG002 - a row is an item
    ) -> tuple[float, float, float]:
        """Return accuracy, its standard error and the log-loss of logits [n, C] against ids [n]."""
        truth, logits = torch.from_numpy(targets), torch.as_tensor(outputs)
        accuracy = float((logits.argmax(1) == truth).double().mean())
        error = math.sqrt(max(accuracy * (1 - accuracy), 0.25 / len(truth)) / len(truth))
        return accuracy, error, float(self.loss(logits.double(), truth))

    def score(self, outputs: np.ndarray, targets: Sequence[Target]) -> Mapping[str, float]:
        """Return accuracy as `quality` and the mean log-loss of logits [N, C] as `loss`."""
        quality, _, loss = self.measure(outputs, self.encode(targets))
        return {"quality": quality, "loss": loss}


def ids_of(names: Sequence[Target], id_of: Mapping[str, int]) -> list[int]:
    """Return the ids of labels; a DataError names one that the model does not have."""
    unknown = next((name for name in names if name not in id_of), None)
    if unknown is not None:
        known = list(id_of)
        raise DataError(
            f"the class '{unknown}' is not one of the model's{nearest(str(unknown), known)}",
            expected=f"one of {', '.join(known[:10])}{', ...' if len(known) > 10 else ''}",
            fix="rename the class, or fit a model that has it",
        )
    return [id_of[str(name)] for name in names]
