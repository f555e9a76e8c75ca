"""Racing the finalists of a ranking: successive halving by short real fine-tunes, judged on validation alone.

Every finalist trains a little, the better ones go on to the next rung, one reaches the last (Jamieson & Talwalkar 2016,
arXiv 1502.07943; the rungs are those of Hyperband, Li et al. 2018, arXiv 1603.06560). All rungs lie on one schedule, so
what a network has trained is carried on, never redone. Two networks are compared on the same items, in pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import TYPE_CHECKING, Protocol

import numpy as np

from headstart.core.errors import EncoderError, PlanError, TrainingError
from headstart.core.types import Score
from headstart.evaluation import CONFIDENCE, paired_gain
from headstart.result import Rung
from headstart.select.expect import CONFIDENCE as PROBE_CONFIDENCE

if TYPE_CHECKING:
    from headstart.select.rank import Ranked, Ranking

FINALISTS = 3
"""Networks that race."""
SHARES = (0.1, 0.3)
"""Shares of the schedule after which networks are compared; its end is the last rung: 1, 3 and 10 of ten epochs."""
LEAST_EPOCHS = 3
"""A shorter schedule than this is no race: its first rung would be its last."""
FEWEST_ITEMS = 10
"""With fewer validation items in common, no interval drops anyone."""
MARGIN = 1.3
"""What is expected to take this much less than is left is begun: nine in ten expectations are that near."""


@dataclass(frozen=True, eq=False)
class Round:
    """What a network came to after so many epochs, on validation.

    `quality` [n] says how well the better of its frozen and its fine-tuned self answers each of `items`, `score` and
    `loss` sum that up. `seconds` is what this round took.
    """

    network: str
    epochs: int
    items: tuple[str, ...]
    quality: np.ndarray
    score: float
    loss: float
    is_tuned: bool
    seconds: float

    @property
    def rank(self) -> tuple[float, float]:
        """What orders networks: the score, then the loss."""
        return self.score, -self.loss


class Entrant(Protocol):
    """A network that can be trained to one rung after another."""

    @property
    def name(self) -> str:
        """Its name in the ranking."""
        ...

    @property
    def cost(self) -> float:
        """What using it costs beside the others, in any unit."""
        ...

    @property
    def trains(self) -> bool:
        """Whether it is trained; else it competes as it is, frozen, and `train` only scores it."""
        ...

    def seconds(self, start: int, stop: int) -> float:
        """Return the seconds that training from `start` epochs to `stop` should take here."""
        ...

    def train(self, epochs: int) -> Round:
        """Train to so many epochs in all, going on from what is trained already."""
        ...


@dataclass
class Budget:
    """Seconds that may be spent, those that are, and those that the end takes (heads, scores and report)."""

    seconds: float
    spent: float = 0.0
    end: float = 0.0

    def allows(self, more: float) -> bool:
        """Tell whether so many more seconds fit."""
        return self.spent + MARGIN * more + self.end <= self.seconds


@dataclass
class Halved:
    """How a race went: the round that won (None where nobody could be trained), every rung, what is worth saying."""

    winner: Round | None = None
    rungs: list[Rung] = field(default_factory=list[Rung])
    notes: list[str] = field(default_factory=list[str])
    dropped: set[str] = field(default_factory=set[str])
    """Networks whose training failed."""

    def add(self, rows: Sequence[Rung], tell: Callable[[str], None]) -> None:
        """Add what became of the networks of a rung, and say it now."""
        self.rungs += rows
        for row in rows:
            trained = epochs_said(row.epochs) if row.epochs else "frozen"
            gap = row.behind
            apart = f", {gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}] behind" if gap else ""
            tell(f"{trained}: {row.network} {row.score:.3f}{apart}; {row.outcome}")


def finalists(ranking: Ranking, *, most: int = FINALISTS) -> tuple[Ranked, ...]:
    """Return the networks that race: the best `most` of those that could be probed, best first.

    The cheapest within one standard error of the best is always among them.
    """
    able = [row for row in ranking.rows if row.frozen is not None]
    chosen = able[:most]
    if not chosen:
        return ()
    near = [row for row in able if chosen[0].score - row.score <= _standard_error(chosen[0])]
    cheapest = min(near, key=lambda row: row.finetune_seconds)
    if cheapest not in chosen and most > 1:
        chosen[-1] = cheapest
    return tuple(chosen)


def _standard_error(row: Ranked) -> float:
    """Return the standard error of a network's probe."""
    assert row.frozen is not None, "it was probed"
    return (row.frozen.value - row.frozen.low) / NormalDist().inv_cdf((1 + PROBE_CONFIDENCE) / 2)


def rungs_of(epochs: int) -> tuple[int, ...]:
    """Return the epochs after which networks are compared, the schedule's end last."""
    early = {math.ceil(round(share * epochs, 6)) for share in SHARES}
    return (*sorted(rung for rung in early if rung < epochs), epochs)


def _comparisons(epochs: int) -> tuple[int, ...]:
    """Return the rungs at which more than one network trains."""
    return rungs_of(epochs)[:-1] or (epochs,)


def num_kept(racing: int, *, is_last: bool) -> int:
    """Return how many go on from a rung: one from the last comparison, else the better half, but two at least."""
    return 1 if is_last else max(2, -(-racing // 2))


def expected_seconds(entrants: Sequence[Entrant], epochs: int) -> float:
    """Return what a race of these over so many epochs takes at most: the slowest always go on."""
    slowest = sorted(
        (entrant for entrant in entrants if entrant.trains), key=lambda entrant: -entrant.seconds(0, epochs)
    )
    total, before = sum(entrant.seconds(0, 0) for entrant in entrants if not entrant.trains), 0
    comparisons = _comparisons(epochs)
    for rung in comparisons:
        total += sum(entrant.seconds(before, rung) for entrant in slowest)
        slowest = slowest[: num_kept(len(slowest), is_last=rung == comparisons[-1])]
        before = rung
    return total + (slowest[0].seconds(before, epochs) if before < epochs else 0.0)


def longest(entrants: Sequence[Entrant], *, most_epochs: int, budget: Budget) -> int | None:
    """Return the longest schedule, at most `most_epochs`, whose race fits the budget; None where none does."""
    least = min(LEAST_EPOCHS, most_epochs)
    for epochs in range(most_epochs, least - 1, -1):
        if budget.allows(expected_seconds(entrants, epochs)):
            return epochs
    return None


def halve(
    entrants: Sequence[Entrant],
    *,
    epochs: int,
    budget: Budget,
    group_of: Mapping[str, str],
    seed: int = 0,
    tell: Callable[[str], None],
) -> Halved:
    """Race `entrants` (best guess first) over a schedule of so many epochs and return how it went.

    Before each round the budget is asked, so that it is exceeded by one round at most. An entrant that cannot be
    trained is dropped. The race ends early where the paired intervals exclude all but the leader. Entrants that are
    not trained are compared with the winner in the end.
    """
    done = Halved()
    resting = _rung([one for one in entrants if not one.trains], 0, epochs, budget, done, tell)
    racing = [entrant for entrant in entrants if entrant.trains]
    comparisons = _comparisons(epochs)
    for rung in comparisons:
        if len(racing) == 1 and done.winner:
            break  # Nobody is left to be compared with.
        rounds = _rung(racing, rung, epochs, budget, done, tell)
        if not rounds:
            break
        done.winner = max(rounds.values(), key=lambda one: one.rank)
        costs = {entrant.name: entrant.cost for entrant in racing}
        most = num_kept(len(rounds), is_last=rung == comparisons[-1])
        rows = judged(list(rounds.values()), costs, most=most, group_of=group_of, seed=seed)
        done.add(rows, tell)
        going_on = {row.network for row in rows if row.outcome in (LEADS, GOES_ON)}
        racing = sorted(
            (entrant for entrant in racing if entrant.name in going_on),
            key=lambda entrant: rounds[entrant.name].rank,
            reverse=True,
        )
    for entrant in entrants:
        if done.winner and entrant.name == done.winner.network and entrant.name not in done.dropped:
            _finish(entrant, epochs, budget, done, tell)
    if resting:
        last = [*([done.winner] if done.winner else []), *resting.values()]
        costs = {entrant.name: entrant.cost for entrant in entrants}
        before = {(one.network, one.epochs) for one in last}
        done.rungs = [row for row in done.rungs if (row.network, row.epochs) not in before]
        done.add(judged(last, costs, most=1, group_of=group_of, seed=seed), tell)
        done.winner = max(last, key=lambda one: one.rank)
    return done


def _finish(entrant: Entrant, epochs: int, budget: Budget, done: Halved, tell: Callable[[str], None]) -> None:
    """Train the winner to the schedule's end, or as far as time allows."""
    assert done.winner is not None, "it won"
    start = done.winner.epochs
    fitting = [stop for stop in range(start + 1, epochs + 1) if budget.allows(entrant.seconds(start, stop))]
    stop = max(fitting, default=start)
    if stop > start:
        try:
            done.winner = entrant.train(stop)
        except TrainingError as error:
            _note(done, f"{entrant.name} stayed at {start} of {epochs} epochs: {error.given}", tell)
            return
        budget.spent += done.winner.seconds
        rows = judged([done.winner], {entrant.name: entrant.cost}, most=1, group_of={})
        done.add(rows, tell)
    if stop < epochs:
        _note(done, f"{entrant.name} stayed at {stop} of {epochs} epochs: too little time is left", tell)


def _rung(
    racing: Sequence[Entrant],
    rung: int,
    epochs: int,
    budget: Budget,
    done: Halved,
    tell: Callable[[str], None],
) -> dict[str, Round]:
    """Train the racing to a rung, the leader first; those that time does not allow, or that fail, are told of."""
    rounds: dict[str, Round] = {}
    start = done.winner.epochs if done.winner else 0
    for entrant in racing:
        leading = max(rounds.values(), key=lambda one: one.rank, default=None)
        leader = next((one for one in racing if leading and one.name == leading.network), None)
        # What the leader still has to train goes before comparing it with more.
        reserve = leader.seconds(rung, epochs) if leader and leader.trains else 0.0
        if not budget.allows(entrant.seconds(start, rung) + reserve):
            if start and not rounds:
                break  # The leader cannot go on, so nobody else should.
            trained = f"stayed at {start} of {epochs} epochs" if start else "was not trained"
            _note(done, f"{entrant.name} {trained}: too little time is left", tell)
            continue
        try:
            rounds[entrant.name] = entrant.train(rung)
        except (EncoderError, PlanError, TrainingError) as error:
            done.dropped.add(entrant.name)
            _note(done, f"{entrant.name} was dropped: {error.given}", tell)
            continue
        budget.spent += rounds[entrant.name].seconds
    return rounds


LEADS, GOES_ON = "leads", "goes on"


def judged(
    rounds: Sequence[Round],
    costs: Mapping[str, float],
    *,
    most: int,
    group_of: Mapping[str, str],
    seed: int = 0,
) -> list[Rung]:
    """Return what becomes of each network of a rung, the leader first; at most `most` go on.

    Those whose paired interval leaves the leader ahead are dropped, then all but the best `most`. Of these the
    cheapest within one standard error of the leader is one, if more than one go on.
    """
    ordered = sorted(rounds, key=lambda one: one.rank, reverse=True)
    leader, *others = ordered
    behind = {other.network: gap(leader, other, group_of=group_of, seed=seed) for other in others}
    open_still = [other for other in others if not _is_excluded(behind[other.network])]
    going_on = open_still[: most - 1]
    near = [other for other in open_still if behind[other.network].value <= _spread(behind[other.network])]
    cheapest = min((leader, *near), key=lambda one: costs[one.network])
    if going_on and cheapest not in (leader, *going_on):
        going_on[-1] = cheapest
    rows: list[Rung] = []
    for one in ordered:
        outcome = LEADS if one is leader else GOES_ON if one in going_on else _why(behind[one.network], most)
        rows.append(
            Rung(
                one.network,
                one.epochs,
                one.score,
                one.is_tuned,
                behind.get(one.network),
                one.seconds,
                outcome,
            )
        )
    return rows


def gap(leader: Round, other: Round, *, group_of: Mapping[str, str], seed: int = 0) -> Score:
    """Return how much better the leader answered the items that both were validated on, with its 95 % interval.

    Networks see the same items unless their features led the audit to different twins; without any in common the
    difference is that of the scores, and rests on no item.
    """
    place = {item: row for row, item in enumerate(other.items)}
    rows = [row for row, item in enumerate(leader.items) if item in place]
    if not rows:
        apart = leader.score - other.score
        return Score("quality_difference", apart, apart, apart, 0)
    items = [leader.items[row] for row in rows]
    gain = leader.quality[rows] - other.quality[[place[item] for item in items]]
    groups = [group_of.get(item, "") for item in items]
    return paired_gain(gain, name="quality_difference", groups=groups, seed=seed)


def _is_excluded(behind: Score) -> bool:
    """Tell whether the leader's lead is proven on enough items."""
    return behind.n >= FEWEST_ITEMS and behind.low > 0


def _spread(behind: Score) -> float:
    """Return the standard error of a paired difference."""
    return (behind.high - behind.low) / (2 * NormalDist().inv_cdf((1 + CONFIDENCE) / 2))


def _why(behind: Score, most: int) -> str:
    """Say why a network does not go on."""
    if _is_excluded(behind):
        return "dropped: its interval excludes the lead"
    return "dropped: the leader alone goes on" if most == 1 else f"dropped: the best {most} go on"


def epochs_said(number: int) -> str:
    """Write a number of epochs."""
    return "1 epoch" if number == 1 else f"{number} epochs"


def _note(done: Halved, text: str, tell: Callable[[str], None]) -> None:
    """Keep a sentence for the report and say it now."""
    done.notes.append(text)
    tell(text)
