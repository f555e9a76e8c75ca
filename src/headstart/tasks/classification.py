"""Single-label classification: one of several classes an item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from headstart.core.errors import DataError, nearest
from headstart.core.types import Form, LabelPrediction
from headstart.heads import LinearHead


class Classification:
    """Implements Task: cross-entropy over `labels`, in this order."""

    form: Form = "pooled"

    def __init__(self, labels: Sequence[str]) -> None:
        """Fix the class names; ids are derived from their order and never written by hand."""
        self._labels = tuple(labels)
        self._id = {label: index for index, label in enumerate(self._labels)}

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the head's outputs."""
        return self._labels

    def build_head(self, width: int) -> nn.Module:
        """Return a linear head of zeros: [N, width] to [N, classes]."""
        return LinearHead(width, len(self._labels), form=self.form)

    def collate(self, targets: Sequence[str]) -> Tensor:
        """Turn class names into ids [N] int64; DataError names a class that the model does not have."""
        unknown = next((target for target in targets if target not in self._id), None)
        if unknown is not None:
            raise DataError(
                f"the class '{unknown}' is not one of the model's{nearest(str(unknown), self._labels)}",
                expected=f"one of {', '.join(self._labels[:10])}{', ...' if len(self._labels) > 10 else ''}",
                fix="rename the class, or fit a model that has it",
            )
        return torch.tensor([self._id[target] for target in targets], dtype=torch.int64)

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

    def decode(self, outputs: Tensor, ids: Sequence[str]) -> list[LabelPrediction]:
        """Turn probabilities [N, C] into predictions."""
        rows = [dict(zip(self._labels, row.tolist(), strict=True)) for row in outputs]
        tops = [max(row, key=row.__getitem__) for row in rows]
        return [
            LabelPrediction(item, top, row[top], row) for item, top, row in zip(ids, tops, rows, strict=True)
        ]

    def score(self, outputs: np.ndarray, targets: Sequence[str]) -> Mapping[str, float]:
        """Return accuracy and mean log-loss of logits [N, C]."""
        truth = self.collate(targets)
        logits = torch.as_tensor(outputs)
        hits = (logits.argmax(1) == truth).double().mean()
        return {"accuracy": float(hits), "log_loss": float(self.loss(logits.double(), truth))}
