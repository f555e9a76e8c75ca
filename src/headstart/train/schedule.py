"""What changes while a run goes on, each as a pure function of the step or the epoch."""

from __future__ import annotations

import math


def warmup_cosine(step: int, *, total: int, warmup: float, head: int = 0, floor: float = 0.0) -> float:
    """Return the factor on every learning rate at `step` (counted from 0) of `total`, 0 to 1.

    It rises linearly over the first `warmup` share of the steps, then falls as half a cosine to `floor`
    (Loshchilov & Hutter 2017, arXiv 1608.03983). The first `head` steps, in which the head trains alone, have a
    warm-up of their own and then stay at 1.
    """
    if step < head:
        return min(1.0, (step + 1) / max(1, round(warmup * head)))
    done, length = step - head, max(1, total - head)
    rising = round(warmup * length)
    if done < rising:
        return (done + 1) / rising
    share = (done - rising) / max(1, length - rising)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


def slanted_triangular(step: int, *, total: int, warmup: float, head: int = 0, ratio: float = 32.0) -> float:
    """Return the factor on every learning rate at `step` (counted from 0) of `total`, 1 / ratio to 1.

    With c = `warmup` x steps and p the share of the way up to c or down from it, the factor is
    (1 + p (ratio - 1)) / ratio (Howard & Ruder 2018, arXiv 1801.06146). The first `head` steps, in which the head
    trains alone, are a triangle of their own.
    """
    done, length = (step, head) if step < head else (step - head, max(1, total - head))
    cut = max(1, round(warmup * length))
    share = done / cut if done < cut else max(0.0, 1 - (done - cut) / max(1, length - cut))
    return (1 + share * (ratio - 1)) / ratio


def opening_epochs(
    groups: int, *, epochs: int, head_epochs: int = 0, gradual: bool = False
) -> tuple[int, ...]:
    """Return the epoch (from 0) in which each of `groups` layer groups, shallow to deep, begins to train.

    At once: all after the head's own epochs. Gradual: one more group at equal steps over the first half of the
    epochs, deep to shallow (Howard & Ruder 2018, arXiv 1801.06146).
    """
    if not gradual or groups < 2:
        return (head_epochs,) * groups
    span = epochs / 2
    return tuple(head_epochs + int(span * (groups - 1 - index) / groups) for index in range(groups))
