"""A proof in plain words, for the terminal and the page."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from headstart.report.metrics import amount, figure, metric
from headstart.report.words import duration, points

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headstart.proving.outcome import Difference, Proof

UNITS = {
    "classification": "points of items named rightly",
    "multilabel": "points of overlap between the labels given and the true ones",
    "regression": "less mean absolute error, in the target's units",
    "tagging": "points of texts with every entity right",
}
"""What a paired difference counts, item by item."""


def title_of(proof: Proof, name: str) -> str:
    """Return what an arm is called."""
    arm = proof.arm(name)
    return arm.title if arm else name


def gain(proof: Proof, value: float) -> str:
    """Write a paired difference: of numbers in the units of the target, else in percentage points."""
    if proof.task == "regression":
        return f"{'+' if value > 0 else ''}{amount(value)}"
    return points(value)


def difference_line(proof: Proof, one: Difference) -> str:
    """Say one difference with its interval."""
    score = one.score
    span = f"[{gain(proof, score.low)}, {gain(proof, score.high)}]"
    return (
        f"{title_of(proof, one.arm)} over {title_of(proof, one.against)}, {one.budget.n:,} labels: "
        f"{gain(proof, score.value)} {span} {UNITS.get(proof.task, '')}"
    ).rstrip()


def difference_lines(proof: Proof) -> list[str]:
    """Say every difference, all labels first."""
    ordered = sorted(proof.differences, key=lambda one: -one.budget.n)
    trained = [one for one in ordered if one.against == "scratch" or one.budget == ordered[0].budget]
    return [difference_line(proof, one) for one in trained]


def arm_rows(proof: Proof) -> list[Sequence[str]]:
    """Return the arms as a table: its head, then a row an arm, a column a budget that it was scored on."""
    budgets = sorted({point.budget.n for arm in proof.arms for point in arm.points})
    rows: list[Sequence[str]] = [("arm", *(f"{n:,} labels" for n in budgets), "time a run")]
    for arm in proof.arms:
        by_size = {point.budget.n: point for point in arm.points}
        cells = [figure(proof.quality, by_size[n].value) if n in by_size else "" for n in budgets]
        rows.append((arm.title, *cells, duration(arm.seconds)))
    return rows


def target_words(proof: Proof, target: float) -> str:
    """Name a score that is asked about."""
    scratch = proof.arm("scratch")
    best = max((lap.quality for lap in scratch.course), default=math.nan) if scratch else math.nan
    last = scratch.final.value if scratch else math.nan
    is_theirs = any(math.isclose(one, target, abs_tol=1e-9) for one in (best, last))
    written = f"{metric(proof.quality).title} {figure(proof.quality, target)}"
    return f"{written} (training from scratch)" if is_theirs else written


def reached_lines(proof: Proof) -> list[str]:
    """Say when each arm first reaches each score."""
    lines: list[str] = []
    for target in dict.fromkeys(one.target for one in proof.reached):
        said = [
            f"{title_of(proof, one.arm)} "
            + (f"after {duration(one.seconds)}" if one.seconds is not None else "never")
            for one in proof.reached
            if one.target == target
        ]
        lines.append(f"{target_words(proof, target)} on validation items: {', '.join(said)}")
    return lines


def growth_lines(proof: Proof) -> list[str]:
    """Say about how many labels each score takes."""
    return [
        f"{title_of(proof, one.arm)}, {target_words(proof, one.target)}: {one.words}" for one in proof.growth
    ]
