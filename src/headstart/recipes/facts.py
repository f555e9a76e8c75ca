"""What a recipe needs to know of data and machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """Labelled items, classes, whether a GPU computes, modality, task, and whether the network is pretrained."""

    num_items: int
    num_classes: int
    has_gpu: bool
    modality: str = "image"
    task: str = "classification"
    is_pretrained: bool = True
