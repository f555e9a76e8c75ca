"""What of an earlier head serves a new task: the rows of the classes that both name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from headstart.core.protocols import Encoder, Task
from headstart.heads import LinearHead, ValueHead

CARRIED = "head of the earlier link"
"""How the contender is called in a race."""


@dataclass(frozen=True)
class Carried:
    """A head for the new classes whose rows of `known` classes are the earlier head's; the others are zero."""

    head: LinearHead
    known: tuple[str, ...]
    fresh: tuple[str, ...]

    @property
    def said(self) -> str:
        """Say how many rows were carried over, by name."""
        total = len(self.known) + len(self.fresh)
        named = (
            f"; fresh: {', '.join(self.fresh[:6])}{', ...' if len(self.fresh) > 6 else ''}"
            if self.fresh
            else ""
        )
        return f"head rows of {len(self.known)} of {total} classes carried over by name{named}"


def carry(head: nn.Module | None, labels: Sequence[str], task: Task, encoder: Encoder) -> Carried | None:
    """Return the head that a task begins with, from an earlier one whose outputs are named `labels`.

    None where no class is known, or where the head has no row a class (neighbours, cosines, a number).
    """
    known = tuple(label for label in task.labels if label in labels)
    if not isinstance(head, LinearHead) or isinstance(head, ValueHead) or not known:
        return None
    if head.form not in (task.form, "depths", "layers") or (task.form == "sequence") != (
        head.form == "sequence"
    ):
        return None
    if head.width != encoder.spec.width[head.form]:
        return None
    made = LinearHead(head.width, len(task.labels), form=head.form)
    old = {label: row for row, label in enumerate(labels)}
    with torch.no_grad():
        made.mean.copy_(head.mean)
        made.scale.copy_(head.scale)
        for row, label in enumerate(task.labels):
            if label in old:
                made.weight[row].copy_(head.weight[old[label]])
                made.bias[row].copy_(head.bias[old[label]])
    return Carried(made.eval(), known, tuple(label for label in task.labels if label not in old))
