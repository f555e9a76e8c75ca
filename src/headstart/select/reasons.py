"""A ranking in words: three lines that say why the pick is the pick, and what else is worth knowing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

from headstart.core.registry import resolve
from headstart.report.metrics import decimal, metric
from headstart.report.words import count, duration
from headstart.select.expect import CONFIDENCE, FEWEST_SETS, Estimate, Reach

if TYPE_CHECKING:
    from headstart.select.rank import Ranked

NAMED = 3
"""Candidates that one sentence names."""
DEAR = 4
"""Candidates that are not here and take more than so many times as long as those that are come last among their like:
that the largest network of all might be better helps nobody."""
ABSENT, FAILED = "not probed", "cannot be used"
"""How the notes of candidates begin whose weights are elsewhere, and of those that failed."""


@dataclass(frozen=True, slots=True)
class Grounds:
    """What a ranking rests on: the data, the recorded runs, and for the pick the share of the prior in its place and
    the data sets that its prior rests on.
    """

    modality: str
    task: str
    quality: str
    recorded_sets: int
    num_trained: int
    reach: Reach | None
    prior_share: float
    prior_sets: int

    @property
    def nouns(self) -> tuple[str, str]:
        """What an item and several are called."""
        return resolve("modality", self.modality).NOUN


def reasons(usable: Sequence[Ranked], grounds: Grounds) -> tuple[str, str, str]:
    """Return three lines on the first of the candidates that can be used: what it should reach, why, at what cost."""
    pick = usable[0]
    return _expectation(pick, grounds), _lead(usable, grounds), _cost(usable, grounds)


def _expectation(pick: Ranked, grounds: Grounds) -> str:
    """Say what the pick should come to."""
    title = metric(grounds.quality).title
    if pick.frozen is None:
        return f"{pick.entry.name}: no candidate could be probed here, so the prior alone decides"
    frozen = f"{interval(pick.frozen)} frozen, cross-validated on {count(pick.frozen.n, grounds.nouns[0])}"
    if pick.fine_tuned is None:
        return f"{pick.entry.name}: {title} {frozen}"
    return f"{pick.entry.name}: {title} {interval(pick.fine_tuned)} expected after fine-tuning; {frozen}"


def _lead(usable: Sequence[Ranked], grounds: Grounds) -> str:
    """Say how far the next is, and how much the probe and the prior had to say."""
    known = (
        f"its runs on {count(grounds.prior_sets, 'other data set')}"
        if grounds.prior_sets
        else (
            "its size, ImageNet score and pretraining"
            if grounds.modality == "image"
            else "its size and pretraining"
        )
    )
    share = grounds.prior_share
    weight = f"the probe counts {1 - share:.0%}, the prior ({known}) {share:.0%}"
    if len(usable) == 1:
        return f"No other candidate could be probed; {weight}"
    ahead = usable[0].score - usable[1].score
    return f"{decimal(ahead)} ahead of {usable[1].entry.name} in expectation; {weight}"


def _cost(usable: Sequence[Ranked], grounds: Grounds) -> str:
    """Say what the pick costs here, and which cheaper one would nearly do."""
    pick = usable[0]
    takes = (
        f"About {duration(pick.extract_seconds)} to use it frozen, {duration(pick.finetune_seconds)} to fine-tune all "
        f"of it, {_milliseconds(pick.latency_ms)} to answer one {grounds.nouns[0]}"
    )
    near = [row for row in usable if pick.score - row.score <= standard_error(pick)]
    cheapest = min(near, key=lambda row: row.finetune_seconds)
    if pick.frozen is None or cheapest is pick:
        return takes
    less = pick.finetune_seconds / cheapest.finetune_seconds
    return f"{takes}; {cheapest.entry.name} is {less:.1f} times as fast and within one standard error"


def standard_error(row: Ranked) -> float:
    """Return the standard error of a probe; 0 where there is none."""
    if row.frozen is None:
        return 0.0
    return (row.frozen.value - row.frozen.low) / NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


def notes(rows: Sequence[Ranked], pick: Ranked, grounds: Grounds) -> tuple[str, ...]:
    """Return what else is worth saying: what was not probed, what nobody has recorded yet, how sure the order is."""
    said = [_history(grounds)]
    failed = [row for row in rows if row.note.startswith(FAILED)]
    said += [f"{row.entry.name} {row.note}" for row in failed[:NAMED]]
    if len(failed) > NAMED:
        said.append(f"{len(failed) - NAMED} more cannot be used; the table says why")
    absent = [row for row in rows if row.note.startswith(ABSENT)]
    if absent:
        are = "is" if len(absent) == 1 else "are"
        said.append(
            f"{count(len(absent), 'candidate')} {are} placed by the prior alone, without weights on this machine: "
            f"{named(absent)}"
        )
    better = [
        row
        for row in absent
        if row.score > pick.score and row.finetune_seconds <= DEAR * pick.finetune_seconds
    ]
    if pick.frozen and better:
        said.append(
            f"The prior alone expects more of {named(better)} than of the pick, at no more than {DEAR} times its cost"
        )
    return tuple(one for one in said if one)


def named(rows: Sequence[Ranked]) -> str:
    """Name a few candidates and count the others."""
    more = f" and {len(rows) - NAMED:,} more" if len(rows) > NAMED else ""
    return ", ".join(row.entry.name for row in rows[:NAMED]) + more


def _history(grounds: Grounds) -> str:
    """Say where too little is recorded for what fine-tuning adds."""
    if grounds.reach and grounds.reach.covers(grounds.num_trained):
        return ""
    if grounds.reach:
        least, most = grounds.reach.items
        return (
            f"What fine-tuning adds is not foreseen: the recorded runs had {least:,} to {most:,} items to train on, "
            f"here are {grounds.num_trained:,}; the order is by frozen quality and the prior"
        )
    recorded = count(grounds.recorded_sets, "data set") if grounds.recorded_sets else "no data set"
    return (
        f"Too little history to say what fine-tuning adds: runs of {grounds.task} on {grounds.nouns[1]} are recorded "
        f"for {recorded}, {FEWEST_SETS} are needed; the order is by frozen quality and the prior"
    )


def interval(estimate: Estimate) -> str:
    """Write an estimate with its interval."""
    return f"{decimal(estimate.value)} [{decimal(estimate.low)}, {decimal(estimate.high)}]"


def _milliseconds(value: float) -> str:
    """Write a short time."""
    return f"{value:.1f} ms" if value < 10 else f"{value:.0f} ms"
