"""What fits into the minutes: how many epochs, budgets and seeds the trained arms get, and what has to be cut."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headstart.proving.outcome import Budget

MARGIN = 1.3
"""What is expected to take this much less than is left is begun: nine in ten expectations are that near."""
LEAST_EPOCHS = 3
"""A fine-tuning of fewer epochs is none."""
LEAST_SCRATCH_EPOCHS = 5
"""Nor does a network learn from nothing in fewer."""
SEEDS_TRAINED = "seeds were trained"
LEAST_SEEDS = 2
"""One seed says nothing of chance."""
END_SECONDS = 20.0
"""Differences, laws, page, and the look for causes."""
FEW_SHARES = ((0.1, 1.0), (1.0,))
"""Budgets of the trained arms where training is dear."""


@dataclass(frozen=True)
class Pace:
    """Seconds an item: once (cached views of the frozen part), of an epoch, and of scoring."""

    once: float
    epoch: float
    scoring: float


@dataclass(frozen=True)
class Costs:
    """What arms cost on this machine: `heads` are the seconds of racing heads on each budget, by its labels."""

    finetune: Pace
    scratch: Pace
    heads: Mapping[int, float]
    encode: float
    num_test: int

    def finetune_seconds(self, budget: Budget, epochs: int) -> float:
        """Return what one fine-tuning takes, its heads included."""
        return self.heads[budget.n] + _seconds(self.finetune, budget, epochs, self.num_test)

    def scratch_seconds(self, budget: Budget, epochs: int) -> float:
        """Return what one training from scratch takes."""
        return _seconds(self.scratch, budget, epochs, self.num_test)

    def scratch_epochs(self, budget: Budget, seconds: float, *, least: int) -> int:
        """Return the epochs from scratch that take at least so many seconds, and at least `least`."""
        rest = seconds - self.num_test * self.scratch.scoring
        each = budget.num_train * self.scratch.epoch + budget.num_validation * self.scratch.scoring
        return max(least, int(-(-rest // each)) if each > 0 else least)


def _seconds(pace: Pace, budget: Budget, epochs: int, num_test: int) -> float:
    """Sum a pace over training, validation after each epoch, and the test items."""
    train = budget.num_train * (pace.once + epochs * pace.epoch)
    return train + (budget.num_validation * (epochs + 1) + num_test) * pace.scoring


@dataclass(frozen=True)
class Schedule:
    """What the trained arms get; `finetune_epochs` None: that arm is cut; `scratch_cut`: so is training from scratch.

    `cuts` says what was cut and `least_minutes` in which nothing would be.
    """

    seeds: int
    budgets: tuple[Budget, ...]
    finetune_epochs: int | None
    scratch_least: int
    scratch_cut: bool
    cuts: tuple[str, ...]
    least_minutes: float | None

    def shortened(self, seeds: int, wished: int) -> Schedule:
        """Return it after fewer seeds than it has, as they took longer than was foreseen."""
        others = tuple(one for one in self.cuts if not one.endswith(SEEDS_TRAINED))
        said = f"{seeds} of {wished} {SEEDS_TRAINED}, as they took longer than was foreseen"
        return replace(self, seeds=seeds, cuts=(said, *others))


@dataclass(frozen=True)
class Wish:
    """What is asked for: seeds, epochs of fine-tuning, least epochs from scratch by budget, budgets, seconds."""

    seeds: int
    epochs: int
    scratch_least: Mapping[int, int]
    budgets: Sequence[Budget]
    seconds: float
    spent: float
    all_budgets: bool
    """Train on every budget where that fits (a GPU is there)."""
    arms_more: float = 0.0
    """What further arms take, in parts of what fine-tuning and training from scratch take together."""


def scheduled(costs: Costs, wish: Wish) -> Schedule:
    """Return the best that fits: all seeds before more epochs, more epochs before more budgets.

    Where the fine-tuning does not fit, it is cut; where training from scratch does not either, so is that.
    """
    choices = _choices(wish)
    room = wish.seconds - wish.spent - END_SECONDS
    for seeds in range(wish.seeds, LEAST_SEEDS - 1, -1):
        for epochs in range(wish.epochs, min(LEAST_EPOCHS, wish.epochs) - 1, -1):
            for budgets in choices:
                if MARGIN * seeds * _round(costs, wish, budgets, epochs, short=False) <= room:
                    return _made(costs, wish, seeds, budgets, epochs)
    full = choices[-1]
    for seeds in range(wish.seeds, LEAST_SEEDS - 1, -1):
        if MARGIN * seeds * _round(costs, wish, full, LEAST_EPOCHS, short=True) <= room:
            return _made(costs, wish, seeds, full, min(LEAST_EPOCHS, wish.epochs), short=True)
    for seeds in range(wish.seeds, LEAST_SEEDS - 1, -1):
        if MARGIN * seeds * _alone(costs, full[-1]) <= room:
            return _made(costs, wish, seeds, full, None, short=True)
    return _made(costs, wish, LEAST_SEEDS, full, None, short=True, scratch_cut=True)


def _choices(wish: Wish) -> list[tuple[Budget, ...]]:
    """Return the sets of budgets that the trained arms may get, the richest first."""
    every = tuple(wish.budgets)
    few = [tuple(budget for budget in every if budget.share in shares) for shares in FEW_SHARES]
    few[-1] = every[-1:]
    found = [every, *few] if wish.all_budgets else few
    return [budgets for place, budgets in enumerate(found) if budgets and budgets not in found[:place]]


def _round(costs: Costs, wish: Wish, budgets: Sequence[Budget], epochs: int, *, short: bool) -> float:
    """Return what one seed takes: each fine-tuning, and as long again from scratch with the encoding counted."""
    total = 0.0
    for budget in budgets:
        tuned = costs.finetune_seconds(budget, epochs)
        least = LEAST_SCRATCH_EPOCHS if short else wish.scratch_least[budget.n]
        longer = costs.scratch_epochs(budget, equal_seconds(costs, budget, tuned), least=least)
        total += tuned + costs.scratch_seconds(budget, longer)
    return total * (1 + wish.arms_more)


def _alone(costs: Costs, budget: Budget) -> float:
    """Return what one training from scratch takes where the frozen arm is the dearest other."""
    seconds = equal_seconds(costs, budget, costs.heads[budget.n])
    return costs.scratch_seconds(budget, costs.scratch_epochs(budget, seconds, least=LEAST_SCRATCH_EPOCHS))


def equal_seconds(costs: Costs, budget: Budget, other: float) -> float:
    """Return the time that training from scratch is given: that of the dearest other arm and of encoding its items."""
    return other + costs.encode * (budget.n + costs.num_test)


def _made(
    costs: Costs,
    wish: Wish,
    seeds: int,
    budgets: tuple[Budget, ...],
    epochs: int | None,
    *,
    short: bool = False,
    scratch_cut: bool = False,
) -> Schedule:
    """Return a schedule with what it cuts."""
    cuts: list[str] = []
    shortest = MARGIN * LEAST_SEEDS * _round(costs, wish, budgets, min(LEAST_EPOCHS, wish.epochs), short=True)
    keeps = f"(--minutes {minutes(wish.spent + END_SECONDS + shortest)} would keep every arm)"
    if scratch_cut:
        cuts.append(
            f"fine-tuning and training from scratch were cut {keeps}: there is nothing to compare the transfer with"
        )
    elif epochs is None:
        cuts.append(
            f"fine-tuning was cut {keeps}: only the frozen network is compared with training from scratch"
        )
    if not scratch_cut:
        if seeds < wish.seeds:
            cuts.append(f"{seeds} of {wish.seeds} {SEEDS_TRAINED}")
        if epochs is not None and epochs < wish.epochs:
            cuts.append(f"fine-tuning took {epochs} epochs instead of {wish.epochs}")
        if short:
            cuts.append(f"training from scratch got as few as {LEAST_SCRATCH_EPOCHS} epochs, which is little")
    least = None
    if cuts:
        whole = MARGIN * wish.seeds * _round(costs, wish, _choices(wish)[-1], wish.epochs, short=False)
        least = (wish.spent + END_SECONDS + whole) / 60
    scratch_least = LEAST_SCRATCH_EPOCHS if short else 0
    return Schedule(seeds, budgets, epochs, scratch_least, scratch_cut, tuple(cuts), least)


def minutes(seconds: float) -> str:
    """Write seconds as minutes that are enough, to a tenth below ten."""
    return f"{math.ceil(seconds / 6) / 10:.1f}" if seconds < 600 else f"{math.ceil(seconds / 60)}"
