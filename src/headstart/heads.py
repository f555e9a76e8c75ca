"""Heads: from features to one number a class. Every one is a module of tensors, saved as safetensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from headstart.core.types import Form


class LinearHead(nn.Module):
    """Standardise chosen columns of the features, then a linear map: [N, D] to logits [N, C].

    Ridge, logistic and prototype heads all end in this form; fine-tuning trains `weight` and `bias`.
    """

    kind = "linear"
    mean: Tensor
    scale: Tensor

    def __init__(self, width: int, num_classes: int, *, form: Form = "pooled", dropout: float = 0.0) -> None:
        """Make a head with a zero map over all `width` columns of a form."""
        super().__init__()
        self.form, self.width, self.num_classes = form, width, num_classes
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.weight = nn.Parameter(torch.zeros(num_classes, width))
        self.bias = nn.Parameter(torch.zeros(num_classes))

    def forward(self, features: Tensor) -> Tensor:
        """Return logits."""
        standard = (features.float() - self.mean) * self.scale
        return nn.functional.linear(self.dropout(standard), self.weight, self.bias)

    def arguments(self) -> dict[str, Any]:
        """Return what, besides its tensors, rebuilds this head."""
        return {"width": self.width, "num_classes": self.num_classes, "form": self.form}

    @classmethod
    def fitted(cls, mean: Tensor, scale: Tensor, weight: Tensor, bias: Tensor, *, form: Form) -> LinearHead:
        """Make a head from its fitted tensors: mean, scale [D], weight [C, D], bias [C]."""
        head = cls(weight.shape[1], weight.shape[0], form=form)
        head.load_state_dict({"mean": mean, "scale": scale, "weight": weight, "bias": bias})
        return head


class NeighboursHead(nn.Module):
    """Vote of the nearest training items by cosine similarity, weighted by exp(similarity / temperature)."""

    kind = "neighbours"
    mean: Tensor
    scale: Tensor
    memory: Tensor
    targets: Tensor

    def __init__(
        self,
        width: int,
        num_classes: int,
        *,
        count: int,
        neighbours: int,
        temperature: float,
        form: Form = "pooled",
    ) -> None:
        """Make room for `count` training items of `width` features."""
        super().__init__()
        self.form, self.width, self.num_classes = form, width, num_classes
        self.neighbours, self.temperature = neighbours, temperature
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.register_buffer("memory", torch.zeros(count, width))
        self.register_buffer("targets", torch.zeros(count, dtype=torch.int64))

    def forward(self, features: Tensor) -> Tensor:
        """Return log-probabilities [N, C] of the smoothed vote."""
        standard = nn.functional.normalize((features.float() - self.mean) * self.scale, dim=1)
        return vote(
            standard @ self.memory.T, self.targets, self.num_classes, self.neighbours, self.temperature
        )

    def arguments(self) -> dict[str, Any]:
        """Return what, besides its tensors, rebuilds this head."""
        return {
            "width": self.width, "num_classes": self.num_classes, "count": len(self.memory),
            "neighbours": self.neighbours, "temperature": self.temperature, "form": self.form,
        }  # fmt: skip


def vote(
    similarity: Tensor, targets: Tensor, num_classes: int, neighbours: int, temperature: float
) -> Tensor:
    """Turn similarities [N, M] to labelled items into log-probabilities [N, C], smoothed by one shared vote."""
    top, index = similarity.topk(min(neighbours, similarity.shape[1]), dim=1)
    weight = ((top - 1) / temperature).exp()
    votes = torch.zeros(len(similarity), num_classes, dtype=weight.dtype, device=weight.device)
    votes.scatter_add_(1, targets[index], weight)
    smoothed = votes + weight.sum(1, keepdim=True) / (neighbours * num_classes)
    return (smoothed / smoothed.sum(1, keepdim=True)).log()
