"""Heads: from features to outputs (one a class, one a label, a number); modules of tensors, saved as safetensors."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from headstart.core.registry import resolve
from headstart.core.types import Form


class LinearHead(nn.Module):
    """Standardise the features, then a linear map: [..., D] to logits [..., C], of items or of words.

    Ridge, logistic and prototype heads all end in this form; fine-tuning trains `weight` and `bias`.
    """

    kind = "linear"
    mean: Tensor
    scale: Tensor

    def __init__(self, width: int, num_classes: int, *, form: Form = "pooled", dropout: float = 0.0) -> None:
        """Make a head with a zero map over all `width` columns of a form."""
        super().__init__()
        self.form: Form = form
        self.width, self.num_classes = width, num_classes
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


class ValueHead(LinearHead):
    """A linear head for a number: what the map gives is stretched by `spread` and shifted by `centre`.

    So its weights, and the steps that train them, do not depend on the unit of the targets. [N, D] to [N, 1].
    """

    kind = "value"
    centre: Tensor
    spread: Tensor

    def __init__(
        self, width: int, num_classes: int = 1, *, form: Form = "pooled", dropout: float = 0.0
    ) -> None:
        """Make a head that answers 0 in units of 1."""
        super().__init__(width, num_classes, form=form, dropout=dropout)
        self.register_buffer("centre", torch.zeros(num_classes))
        self.register_buffer("spread", torch.ones(num_classes))

    def forward(self, features: Tensor) -> Tensor:
        """Return numbers in the units of the targets."""
        return super().forward(features) * self.spread + self.centre

    @classmethod
    def of(cls, linear: LinearHead, centre: Tensor, spread: Tensor) -> ValueHead:
        """Make a head from a fitted one of standardised targets, and their mean and deviation [C]."""
        head = cls(linear.width, linear.num_classes, form=linear.form)
        head.load_state_dict({**linear.state_dict(), "centre": centre, "spread": spread})
        return head


class NeighboursHead(nn.Module):
    """Vote of the nearest training rows by cosine similarity, weighted by exp(similarity / temperature).

    Rows are items or words. With `link` sigmoid each label is voted on by itself, with identity the answer is a mean.
    """

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
        link: Literal["softmax", "sigmoid", "identity"] = "softmax",
    ) -> None:
        """Make room for `count` training items of `width` features."""
        super().__init__()
        self.form, self.width, self.num_classes = form, width, num_classes
        self.neighbours, self.temperature = neighbours, temperature
        self.link: Literal["softmax", "sigmoid", "identity"] = link
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.register_buffer("memory", torch.zeros(count, width))
        targets = (
            torch.zeros(count, dtype=torch.int64) if link == "softmax" else torch.zeros(count, num_classes)
        )
        self.register_buffer("targets", targets)

    def forward(self, features: Tensor) -> Tensor:
        """Return log-probabilities [..., C] of the smoothed vote; logits of labels, or numbers."""
        standard = nn.functional.normalize((features.float() - self.mean) * self.scale, dim=-1)
        similarity = standard.flatten(0, -2) @ self.memory.T
        found = answer(
            similarity, self.targets, self.num_classes, self.neighbours, self.temperature, link=self.link
        )
        return found.unflatten(0, features.shape[:-1])

    def arguments(self) -> dict[str, Any]:
        """Return what, besides its tensors, rebuilds this head."""
        return {
            "width": self.width, "num_classes": self.num_classes, "count": len(self.memory),
            "neighbours": self.neighbours, "temperature": self.temperature, "form": self.form,
            "link": self.link,
        }  # fmt: skip


class CosineHead(nn.Module):
    """Cosine to one direction a class in standardised features, times a sharpness: [..., D] to logits [..., C]."""

    kind = "cosine"
    mean: Tensor
    scale: Tensor
    directions: Tensor

    def __init__(
        self, width: int, num_classes: int, *, sharpness: float = 1.0, form: Form = "pooled"
    ) -> None:
        """Make a head without directions yet."""
        super().__init__()
        self.form, self.width, self.num_classes, self.sharpness = form, width, num_classes, sharpness
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.register_buffer("directions", torch.zeros(num_classes, width))

    def forward(self, features: Tensor) -> Tensor:
        """Return logits."""
        unit = nn.functional.normalize((features.float() - self.mean) * self.scale, dim=-1)
        return self.sharpness * nn.functional.linear(unit, self.directions)

    def arguments(self) -> dict[str, Any]:
        """Return what, besides its tensors, rebuilds this head."""
        return {
            "width": self.width,
            "num_classes": self.num_classes,
            "sharpness": self.sharpness,
            "form": self.form,
        }


class BottleneckHead(nn.Module):
    """A new layer of its own below the classifier: features [..., D] to an embedding [..., K] to logits [..., C].

    Standardise, Linear-BatchNorm-ReLU, Linear: what domain adaptation moves where the encoder rests (as in Ganin et al.
    2016, arXiv 1505.07818, and most since).
    """

    kind = "bottleneck"
    mean: Tensor
    scale: Tensor

    def __init__(self, width: int, num_classes: int, *, bottleneck: int = 256, form: Form = "pooled") -> None:
        """Make a head of random numbers (drawn from torch) over all `width` columns of a form."""
        super().__init__()
        self.form: Form = form
        self.width, self.num_classes, self.bottleneck = width, num_classes, bottleneck
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.below = nn.Sequential(nn.Linear(width, bottleneck), nn.BatchNorm1d(bottleneck), nn.ReLU())
        self.classifier = nn.Linear(bottleneck, num_classes)

    def embed(self, features: Tensor) -> Tensor:
        """Return what the classifier sees, [N, K]."""
        return self.below((features.float() - self.mean) * self.scale)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits."""
        return self.classifier(self.embed(features))

    def arguments(self) -> dict[str, Any]:
        """Return what, besides its tensors, rebuilds this head."""
        return {
            "width": self.width,
            "num_classes": self.num_classes,
            "bottleneck": self.bottleneck,
            "form": self.form,
        }


class OffsetHead(nn.Module):
    """Another head with an offset of its own for each output: answers corrected for other shares of the classes."""

    kind = "offset"
    offset: Tensor

    def __init__(self, inner: Any) -> None:
        """Wrap a head, given as a module or as its kind and arguments, with offsets of 0."""
        super().__init__()
        head: Any = inner
        if not isinstance(inner, nn.Module):
            head = resolve("head", inner["kind"])(**inner["arguments"])
        self.inner = head
        self.form: Form = head.form
        self.width, self.num_classes = head.width, head.num_classes
        self.register_buffer("offset", torch.zeros(head.num_classes))

    def forward(self, features: Tensor) -> Tensor:
        """Return the inner head's outputs with the offsets added."""
        return self.inner(features) + self.offset

    def arguments(self) -> dict[str, Any]:
        """Return what, besides its tensors, rebuilds this head."""
        inner: Any = self.inner
        return {"inner": {"kind": inner.kind, "arguments": inner.arguments()}}

    @classmethod
    def of(cls, inner: nn.Module, offset: Tensor) -> OffsetHead:
        """Return a head with these offsets [C]."""
        head = cls(inner)
        head.offset.copy_(offset)
        return head


def answer(
    similarity: Tensor,
    targets: Tensor,
    num_classes: int,
    neighbours: int,
    temperature: float,
    *,
    link: Literal["softmax", "sigmoid", "identity"],
) -> Tensor:
    """Turn similarities [N, M] to rows with targets into a head's outputs [N, C], as their link wants them."""
    if link == "softmax":
        return vote(similarity, targets, num_classes, neighbours, temperature)
    top, index = similarity.topk(min(neighbours, similarity.shape[1]), dim=1)
    # Relative to the nearest, so that the weights of far neighbours do not vanish together.
    weight = ((top - top[:, :1]) / temperature).exp()[:, :, None]
    total, found = weight.sum(1), (weight * targets[index]).sum(1)
    if link == "identity":
        return found / total
    # One more neighbour of mean weight that is of two minds.
    extra = total / weight.shape[1]
    return ((found + extra / 2) / (total + extra)).logit()


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
