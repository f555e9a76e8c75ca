"""Decisions of a plan that rest on measuring this machine: where to cut a network that is fine-tuned."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import torch

from headstart.core.settings import FineTune
from headstart.features.prefix import choose, measure
from headstart.heads import LinearHead

if TYPE_CHECKING:
    from headstart.core.protocols import Encoder
    from headstart.data import TableDataset
    from headstart.train.runtime import Context

DISK_SHARE = 0.1
"""Share of the free disk that cached activations may take."""
TIMED_ITEMS = 8


def choose_cut(settings: FineTune, dataset: TableDataset, encoder: Encoder, context: Context) -> FineTune:
    """Return the settings with `train_last` and `views` chosen by measured time and free disk."""
    spec = encoder.spec
    blank = torch.zeros(TIMED_ITEMS, spec.contract.channels, *spec.contract.size, dtype=torch.uint8)
    head = LinearHead(spec.width["pooled"], max(2, len(dataset.labels)))
    figures = measure(encoder, head, blank, form="pooled", context=context)
    free = shutil.disk_usage(context.store.root).free
    choice = choose(figures, items=len(dataset), epochs=settings.epochs, most_bytes=int(DISK_SHARE * free))
    if choice is None:
        return settings
    last = len(encoder.layer_groups()) - choice.depth
    return settings.model_copy(update={"train_last": last, "views": settings.views or choice.views})
