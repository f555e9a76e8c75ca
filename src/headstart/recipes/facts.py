"""What a recipe needs to know of data and machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """Labelled items, classes, whether a GPU computes, modality, task, and whether the network is pretrained.

    `num_taught` of the labelled items are not kept for testing by the data themselves; None: all of them.
    """

    num_items: int
    num_classes: int
    has_gpu: bool
    modality: str = "image"
    task: str = "classification"
    is_pretrained: bool = True
    num_taught: int | None = None

    @property
    def per_class(self) -> float:
        """Labelled items a class from which a model may learn."""
        return (self.num_items if self.num_taught is None else self.num_taught) / max(1, self.num_classes)
