"""The choice among candidates without a label of the target: by the kind of shift, guards and votes.

1. The kind of shift says which ways may be chosen at all, and which first: alignment helps where the whole picture of
   the data moved, and harms by as much where the classes occur in other shares or each class moved in its own way.
2. Guards reject what collapsed, forgot the source, or was left torn.
3. Votes among those that are meant for the shift: a rival takes the place of the first choice only by winning all of
   them, and whoever holds it gives way to doing nothing where no vote prefers it, or where it changes no answer.

A few labels of the target, where there are any, overrule the votes: they are worth more than any of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import comb
from typing import Protocol

import numpy as np

from headstart.adaptation.candidates import NOTHING, Candidate, Field
from headstart.adaptation.guards import objection
from headstart.adaptation.votes import cluster_agreement, ensemble_agreement, peer_agreement

LEAST_CONFUSION = "trained: mcc"
"""The trained way that is tried unasked; it weighs how classes are confused in pairs, so it takes three of them."""
STANDARD, TAUGHT = "standardised, self-training", "self-training"
FIRST: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "label": ("prior by EM",),
    "mixed": (TAUGHT,),
    "appearance": (LEAST_CONFUSION, STANDARD),
    "both": (),
}
"""What is chosen first under each kind of shift: the first of them that was tried and that nothing speaks against.

Set on photographs, scans, digits and reviews, also darkened, blurred and resampled. Where another appearance and wholly
other shares seem to have come together, nothing but labels can tell whether the head is right about the shares, or
misled by the appearance: the same way won 41 points there with one draw of the classes and lost 26 with another."""
UNALIGNED: Mapping[str, tuple[str, ...]] = {"appearance": (TAUGHT,)}
"""What takes their place where the source is gone, or where aligning would match classes of other shares."""
UNEVEN = 0.25
"""Total variation of the source's shares of the classes from even ones from which on nothing is aligned: a target whose
classes are even lost up to 44 points to it, and self-training gained 7 over doing nothing, over 24 draws of both."""
OTHERWISE, SURER = 0.35, 0.14
"""Total variation of the shares that EM finds in the target from the source's, from which on they may be other ones.
MCC, which draws them to even ones, is not tried then; and where a head is also surer of the target by SURER once the
source has the shares that self-training found there, nothing is aligned."""
PLAIN = 1.25
"""So many times better must clusters of the target agree with the aligned head for these shares to be the work of one
that was misled: a few classes then swallow the others. Over 86 draws less or more of it cost points."""
MEANT: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "label": ("prior",),
    "mixed": ("self-training", "propagation"),
    "appearance": ("cached", "statistics", "trained"),
    "both": (),
}
"""Families, or single candidates, that vote under each kind of shift."""
RIVALS = ("statistics", "trained")
"""Families that may take the place of the first choice."""
IDLE: Mapping[str, str] = {
    "none": "the target looks like the source: nothing needs to be adapted",
    "both": "appearance and shares of the classes both seem to have changed: only labels can tell which way helps",
}
UNSETTLED = 0.03
"""By so much less sure of the target than of unseen source items must the model be before a shift of part of the items
is answered: where it is as sure as ever there is nothing to win, and self-training lost a point or two."""
CONVINCED = 0.2
"""One-sided p value of the labels' paired test below which they elect whom the votes did not."""


class Shares(Protocol):
    """The shares of the classes in the source [C], and how far those that EM finds in the target lie from them."""

    @property
    def source_shares(self) -> Sequence[float] | np.ndarray:
        """The source's."""
        ...

    @property
    def share_distance(self) -> float:
        """The total variation between both sides' shares."""
        ...


@dataclass(frozen=True)
class Verdict:
    """What was found about a candidate: why it could not be chosen (empty: it could), and its votes.

    `labelled` is how many of the labelled items it alone got right, and doing nothing alone.
    """

    name: str
    objection: str = ""
    votes: Mapping[str, float] = field(default_factory=dict)
    labelled: tuple[int, int] | None = None


@dataclass(frozen=True)
class Choice:
    """The name of the chosen candidate, what was found about each, and why in plain words."""

    chosen: str
    verdicts: tuple[Verdict, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Labels:
    """Some labelled items of the target: their rows [k] and class ids [k]."""

    rows: np.ndarray
    truth: np.ndarray


def choose(
    contest: Field,
    kind: str,
    *,
    clusters: np.ndarray,
    shares: Shares | None = None,
    labels: Labels | None = None,
) -> Choice:
    """Choose among the candidates of a contest, the first of which does nothing.

    `kind` is that of the shift, `shares` what was measured of the classes' shares, `clusters` [m] are clusters of the
    target's features (as many as classes, or more).
    """
    allow_prior = kind in ("label", "both")
    guarded = {one.name: objection(one, contest, allow_prior=allow_prior) for one in contest.candidates}
    sound = [one for one in contest.candidates if not guarded[one.name]]
    votes = _votes([one for one in sound if not _not_meant(one, kind)], clusters)
    verdicts = [
        Verdict(one.name, guarded[one.name] or _not_meant(one, kind), votes.get(one.name, {}))
        for one in contest.candidates
    ]
    chosen, reasons = _elected(contest, verdicts, kind, shares)
    if labels is not None and len(labels.rows):
        counted = _counted(sound, labels, NOTHING)
        chosen, reason = _by_labels(sound, chosen, labels, counted)
        reasons.append(reason)
        verdicts = [replace(row, labelled=counted.get(row.name)) for row in verdicts]
    return Choice(chosen, tuple(verdicts), tuple(reasons))


def _not_meant(candidate: Candidate, kind: str) -> str:
    """Say why a way is not meant for a kind of shift."""
    if candidate.name == NOTHING or {candidate.family, candidate.name} & set(MEANT[kind]):
        return ""
    return f"not meant for this shift ({kind})"


def _votes(sound: Sequence[Candidate], clusters: np.ndarray) -> dict[str, dict[str, float]]:
    """Return the votes on each candidate that passed the guards and is meant for the shift."""
    found = {
        "the mean of all": ensemble_agreement(sound),
        "the others": peer_agreement(sound),
        "clusters": cluster_agreement(sound, clusters),
    }
    return {
        one.name: {name: float(values[place]) for name, values in found.items()}
        for place, one in enumerate(sound)
    }


def is_trained_unasked(contest: Field, kind: str, shares: Shares | None) -> bool:
    """Tell whether MCC is trained without being asked for: the looks changed, and nothing says that the shares did."""
    if LEAST_CONFUSION not in FIRST[kind] or contest.candidates[0].target.shape[1] < 3 or shares is None:
        return False
    return not _is_uneven(shares) and shares.share_distance < OTHERWISE


def _ways(contest: Field, of: Mapping[str, Verdict], kind: str, shares: Shares | None) -> list[str]:
    """Return the ways for a kind of shift that were tried, the first choice first."""
    sureness = {one.name: one.sureness for one in contest.candidates}
    aligned = [name for name in FIRST[kind] if name in sureness]
    unaligned = [name for name in UNALIGNED.get(kind, ()) if name in sureness]
    if not aligned or not unaligned or shares is None:
        return aligned or unaligned
    plain, by_shares = (sureness.get(name) or 0.0 for name in ("standardised", "standardised by shares"))
    seem_other = shares.share_distance >= OTHERWISE and by_shares - plain >= SURER
    if seem_other and of[STANDARD].votes.get("clusters", 0.0) > PLAIN * of[TAUGHT].votes.get("clusters", 0.0):
        seem_other = False
    return unaligned if seem_other or _is_uneven(shares) else aligned


def _is_uneven(shares: Shares) -> bool:
    """Tell whether the source's classes occur in quite other shares than even ones."""
    found = np.asarray(shares.source_shares)
    return float(np.abs(found - 1 / len(found)).sum() / 2) >= UNEVEN


def _elected(
    contest: Field, verdicts: Sequence[Verdict], kind: str, shares: Shares | None
) -> tuple[str, list[str]]:
    """Return who is chosen without labels, and why."""
    of = {row.name: row for row in verdicts}
    ways = _ways(contest, of, kind, shares)
    if not ways:
        return NOTHING, [IDLE.get(kind, f"no way for this shift ({kind}) could be tried")]
    first = next((name for name in ways if not of[name].objection), None)
    if first is None:
        said = "; ".join(f"{name} was rejected: {of[name].objection}" for name in ways)
        return NOTHING, [f"of the ways for this shift ({kind}), {said}"]
    if kind == "mixed" and not _is_unsettled(contest.candidates[0]):
        return NOTHING, [
            "the model is as sure of the target as of source items that it had not seen: nothing is to win"
        ]
    best = first
    for one in contest.candidates:
        row = of[one.name]
        if one.family in RIVALS and not row.objection and _wins_all(row, of[best]):
            best = one.name
    answers = {one.name: one.target.argmax(1) for one in contest.candidates}
    if (answers[best] == answers[NOTHING]).all():
        return NOTHING, [f"{best} was tried, but it changes no answer"]
    if all(value <= of[NOTHING].votes[name] for name, value in of[best].votes.items()):
        return NOTHING, [f"{best} was tried, but no vote prefers it to doing nothing"]
    why = (
        f"{best} is the way for this shift ({kind})"
        if best == first
        else f"{best} wins every vote against {first}"
    )
    return best, [f"{why}; no guard and not every vote speaks against it"]


def _is_unsettled(nothing: Candidate) -> bool:
    """Tell whether the model is less sure of the target than of the held-out source items of its calibration."""
    held = nothing.model.calibration
    if not len(held.get("targets", ())):
        return True
    before = float(nothing.model.probabilities(held["logits"].numpy()).max(1).mean())
    return before - float(nothing.probabilities.max(1).mean()) >= UNSETTLED


def _wins_all(one: Verdict, other: Verdict) -> bool:
    """Tell whether one candidate has the better of another in every vote."""
    return all(one.votes[name] > other.votes[name] for name in one.votes)


def _counted(sound: Sequence[Candidate], labels: Labels, rival: str) -> dict[str, tuple[int, int]]:
    """Return for each candidate how many labelled items it got right where a rival did not, and the other way round."""
    right = {one.name: one.target[labels.rows].argmax(1) == labels.truth for one in sound}
    before = right[rival]
    return {name: (int((row & ~before).sum()), int((~row & before).sum())) for name, row in right.items()}


def _by_labels(
    sound: Sequence[Candidate], elected: str, labels: Labels, counted: Mapping[str, tuple[int, int]]
) -> tuple[str, str]:
    """Return whom the labels are for: whoever convinces them, else the one elected unless they speak against it.

    To take the place of the one elected takes more than chance against that one and against doing nothing.
    """
    gain = {name: won - lost for name, (won, lost) in counted.items()}
    best = max(sound, key=lambda one: (gain[one.name], one.name == elected, one.name == NOTHING)).name
    count = len(labels.rows)
    against = _counted(sound, labels, elected)[best]
    if gain[best] > gain[elected] and max(paired_p(*counted[best]), paired_p(*against)) < CONVINCED:
        return best, f"{count} labels are for {best}: {_score(counted[best])}"
    if gain[elected] < 0:
        return NOTHING, f"{count} labels speak against {elected}: {_score(counted[elected])}"
    return elected, f"{count} labels do not speak against {elected}: {_score(counted[elected])}"


def _score(counted: tuple[int, int]) -> str:
    """Say a paired count."""
    return f"it alone is right on {counted[0]}, doing nothing alone on {counted[1]}"


def paired_p(won: int, lost: int) -> float:
    """Return the one-sided p value of so many wins among the disagreements by chance (exact McNemar test)."""
    total = won + lost
    return sum(comb(total, k) for k in range(won, total + 1)) / 2**total if total else 1.0
