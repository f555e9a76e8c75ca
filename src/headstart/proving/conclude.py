"""What the runs of all arms say: curves, paired differences, times, laws, the verdict, and what went wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from headstart.proving.arms import ARMS, SELF_SUPERVISED
from headstart.proving.budgets import counted
from headstart.proving.causes import causes_of
from headstart.proving.differences import crossed_gain, num_blocks
from headstart.proving.growth import FEWEST_BUDGETS, growth_of
from headstart.proving.outcome import (
    ArmFound,
    Budget,
    Difference,
    Lap,
    Point,
    Proof,
    Reached,
    Scored,
    Verdict,
)

if TYPE_CHECKING:
    from headstart.proving.bench import Bench
    from headstart.proving.proof import Done, Question
    from headstart.proving.schedule import Schedule

TUNED_OVER_FROZEN = ("finetune", "frozen")
FURTHER_OVER_TUNED = (SELF_SUPERVISED, "finetune")
FEWEST_BLOCKS = 10
"""Fewer test items, or groups of them, that stand for themselves decide nothing, however alike they answer."""
FAIR = 1.1
"""Where one of two arms took more than so many times as long as the other, its being better proves nothing."""


def _pairs() -> list[tuple[str, str]]:
    """Return which arms are compared: each that transfers with training from scratch, the tuned with the frozen, and
    what was pretrained further with the tuned.
    """
    against_scratch = ((name, "scratch") for name, arm in ARMS.items() if arm.is_transfer)
    return [*against_scratch, TUNED_OVER_FROZEN, FURTHER_OVER_TUNED]


def concluded(
    bench: Bench, question: Question, budgets: Sequence[Budget], done: Done, schedule: Schedule
) -> Proof:
    """Return what the runs say."""
    arms = tuple(_arm(bench, name, budgets, done) for name in ARMS if _complete(done, name, budgets[-1]))
    differences = tuple(
        _difference(bench, pair, budget, budgets, done)
        for budget in budgets
        for pair in _pairs()
        if _both(done, pair, budget)
    )
    full = [one for one in differences if one.budget == budgets[-1]]
    deciding = _deciding(arms, full)
    groups = [bench.dataset.groups[row] for row in bench.material.rows("test")]
    verdict, reason = _verdict(arms, deciding, blocks=num_blocks(groups, len(groups)))
    negative = _negative(arms, full, done, budgets[-1])
    causes = ()
    if negative:
        runs = {name: done.scored.get((name, budgets[-1].n), []) for name in ARMS}
        lost = any(
            (one.arm, one.against) == TUNED_OVER_FROZEN for one in full if one.score.high < 0
        ) or _kept_heads(runs)
        causes = causes_of(bench, runs, epochs=schedule.finetune_epochs, lost_to_frozen=lost)
    trained = [arm for arm in arms if ARMS[arm.name].trains]
    targets = _targets(arms, question.target)
    return Proof(
        title=question.title, task=bench.task.name, modality=bench.dataset.modality,
        encoder=bench.tuning.encoder.name, quality=bench.task.quality_name,
        num_items=len(bench.dataset), num_test=len(bench.material.rows("test")),
        num_seeds=max((len(arm.final.scores) for arm in trained), default=question.seeds),
        minutes=question.minutes, seconds=bench.encode_seconds + done.seconds(*ARMS), verdict=verdict, reason=reason,
        arms=arms, differences=differences, deciding=deciding,
        reached=tuple(_reached(arm, target) for target in targets for arm in arms),
        growth=tuple(growth_of(arm, target, _answers(bench, arm, done), num_test=len(groups), groups=groups,
                               seed=bench.context.seed)
                     for arm in arms for target in _asked(arms, question.target) if len(arm.points) > 2),
        negative=negative, causes=causes, cuts=schedule.cuts, notes=_notes(bench, arms, done),
        least_minutes=schedule.least_minutes,
    )  # fmt: skip


def _complete(done: Done, name: str, budget: Budget) -> bool:
    """Tell whether an arm was run on all labels."""
    return bool(done.scored.get((name, budget.n))) and name not in done.failed


def _both(done: Done, pair: tuple[str, str], budget: Budget) -> bool:
    """Tell whether both arms were run on a budget."""
    return all(done.scored.get((name, budget.n)) and name not in done.failed for name in pair)


def _arm(bench: Bench, name: str, budgets: Sequence[Budget], done: Done) -> ArmFound:
    """Sum up an arm."""
    arm = ARMS[name]
    points = [_point(done.scored[name, budget.n]) for budget in budgets if (name, budget.n) in done.scored]
    runs = done.scored[name, budgets[-1].n]
    before = bench.encode_seconds if arm.is_transfer else 0.0
    seconds = before + float(np.mean([one.seconds for one in runs]))
    validation = float(np.mean([one.validation for one in runs]))
    course = _course(runs, before) if arm.trains else (Lap(seconds, validation),)
    return ArmFound(
        name=name, title=arm.title, is_transfer=arm.is_transfer, points=tuple(points), seconds=seconds,
        validation=validation, epochs=max(one.epochs for one in runs), course=course,
        kept=counted([one.chosen for one in runs]),
    )  # fmt: skip


def _answers(bench: Bench, arm: ArmFound, done: Done) -> list[np.ndarray] | None:
    """Return for each of an arm's budgets how well each seed's model answers each test item, [S, N].

    None where the score is no mean of these.
    """
    if bench.task.quality_name != "accuracy":
        return None
    return [np.stack(done.quality[arm.name, point.budget.n]) for point in arm.points]


def _point(runs: Sequence[Scored]) -> Point:
    """Sum up the seeds of a budget."""
    scores = tuple(one.score for one in runs)
    return Point(runs[0].budget, scores, float(np.mean(scores)), min(scores), max(scores))


def _course(runs: Sequence[Scored], before: float) -> tuple[Lap, ...]:
    """Return seconds and validation quality after each epoch, the mean over the seeds that came so far."""
    longest = max(len(one.laps) for one in runs)
    laps: list[Lap] = []
    for place in range(longest):
        there = [one.laps[place] for one in runs if len(one.laps) > place]
        if 2 * len(there) < len(runs):  # Of fewer, the mean would jump.
            break
        seconds = float(np.mean([lap.seconds for lap in there]))
        laps.append(Lap(before + seconds, float(np.mean([lap.quality for lap in there]))))
    return tuple(laps)


def _difference(
    bench: Bench, pair: tuple[str, str], budget: Budget, budgets: Sequence[Budget], done: Done
) -> Difference:
    """Compare two arms on the same test items, seed by seed."""
    gain = _gain(pair, budget, done)
    beside = [_gain(pair, other, done) for other in budgets if other != budget and _both(done, pair, other)]
    groups = [bench.dataset.groups[row] for row in bench.material.rows("test")]
    is_share, scale = bench.task.link != "identity", 1.0
    if not is_share:
        scale = float(np.ptp(bench.task.encode(bench.material.targets(bench.material.rows("test")))))
    score = crossed_gain(
        gain, name="difference", groups=groups, beside=beside, scale=scale, seed=bench.context.seed
    )
    if is_share:  # Shares of right answers differ by no more than 1.
        score = replace(score, low=max(score.low, -1.0), high=min(score.high, 1.0))
    return Difference(*pair, budget, len(gain), score)


def _gain(pair: tuple[str, str], budget: Budget, done: Done) -> np.ndarray:
    """Return how much better the first arm answers each test item than the second, for the seeds of both [S, N]."""
    ours, theirs = (done.quality[name, budget.n] for name in pair)
    num_seeds = min(len(ours), len(theirs))
    return np.stack(ours[:num_seeds]) - np.stack(theirs[:num_seeds])


def _deciding(arms: Sequence[ArmFound], full: Sequence[Difference]) -> Difference | None:
    """Return the difference between the transferred arm that validates best and training from scratch.

    Which arm that is, items decide that are not tested on.
    """
    transferred = [arm for arm in arms if arm.is_transfer]
    if not transferred:
        return None
    best = max(transferred, key=lambda arm: arm.validation)
    return next((one for one in full if (one.arm, one.against) == (best.name, "scratch")), None)


def _verdict(arms: Sequence[ArmFound], deciding: Difference | None, *, blocks: int) -> tuple[Verdict, str]:
    """Judge by the interval of the deciding difference; `blocks` test items, or groups, stand for themselves."""
    if deciding is None:
        return (
            "undecided",
            "training from scratch was cut or failed, so there is nothing to compare the transfer with",
        )
    if blocks < FEWEST_BLOCKS:
        return (
            "undecided",
            f"{blocks} test items or groups of them that stand for themselves are too few (at least {FEWEST_BLOCKS} "
            "are needed)",
        )
    title = next(arm.title for arm in arms if arm.name == deciding.arm)
    longer = _longer(arms, deciding.arm)
    cost = (
        "at an equal cost" if 1 / FAIR <= longer <= FAIR else f"from scratch took {longer:.1f} times as long"
    )
    seeds = f"{deciding.num_seeds} seeds, {cost}"
    if deciding.score.low > 0:
        better = f"{title} answers the same test items better than training from scratch ({seeds})"
        return (
            ("worth it", better)
            if longer >= 1 / FAIR
            else ("undecided", f"{better}: at an equal cost it may not")
        )
    if deciding.score.high < 0:
        better = f"training from scratch answers the same test items better than {title} ({seeds})"
        return (
            ("not worth it", better)
            if longer <= FAIR
            else ("undecided", f"{better}: at an equal cost it may not")
        )
    return (
        "undecided",
        f"{title} and training from scratch may be equally good: more seeds, or test items, would tell ({seeds})",
    )


def _longer(arms: Sequence[ArmFound], name: str) -> float:
    """Return how many times as long as an arm training from scratch took."""
    seconds = {arm.name: arm.seconds for arm in arms}
    return seconds["scratch"] / max(seconds[name], 1e-9)


def _kept_heads(runs: Mapping[str, Sequence[Scored]]) -> bool:
    """Tell whether fine-tuning lost to a frozen network's head, on validation items, with most seeds."""
    tuned = runs.get("finetune", [])
    return bool(tuned) and 2 * sum(not one.is_tuned for one in tuned) > len(tuned)


def _negative(
    arms: Sequence[ArmFound], full: Sequence[Difference], done: Done, budget: Budget
) -> tuple[str, ...]:
    """Name every transfer that made things worse, at no less cost than it had itself."""
    lost = [
        f"{ARMS[one.arm].title} is worse than {ARMS[one.against].title} on the same test items"
        for one in full
        if one.score.high < 0 and (one.against != "scratch" or _longer(arms, one.arm) <= FAIR)
    ]
    runs = {"finetune": done.scored.get(("finetune", budget.n), [])}
    if _kept_heads(runs):
        kept = [one.chosen for one in runs["finetune"] if not one.is_tuned]
        lost.append(
            f"fine-tuning lost to a frozen network's head on validation items with {len(kept)} of "
            f"{len(runs['finetune'])} seeds, and that was kept ({', '.join(dict.fromkeys(kept))})"
        )
    return tuple(lost)


def _targets(arms: Sequence[ArmFound], target: float) -> tuple[float, ...]:
    """Return the scores that are asked about: the last of training from scratch, and the chosen one."""
    scratch = next((arm for arm in arms if arm.name == "scratch"), None)
    last = [max(lap.quality for lap in scratch.course)] if scratch and scratch.course else []
    return tuple(dict.fromkeys([*last, target]))


def _asked(arms: Sequence[ArmFound], target: float) -> tuple[float, ...]:
    """Return the test scores whose labels are asked for: that of training from scratch, and the chosen one."""
    scratch = [arm.final.value for arm in arms if arm.name == "scratch"]
    return tuple(dict.fromkeys([*scratch, target]))


def _reached(arm: ArmFound, target: float) -> Reached:
    """Return when an arm first reaches a score."""
    seconds = next((lap.seconds for lap in arm.course if lap.quality >= target - 1e-9), None)
    return Reached(arm.name, target, seconds)


def _notes(bench: Bench, arms: Sequence[ArmFound], done: Done) -> tuple[str, ...]:
    """Say what a reader must know."""
    notes = list(done.notes)
    few = [arm for arm in arms if ARMS[arm.name].trains and len(arm.points) < FEWEST_BUDGETS]
    if few and bench.context.device.type == "cpu":
        titles = " and ".join(f"“{arm.title}”" for arm in few)
        notes.append(
            f"{titles} were trained on {len(few[0].points)} label budgets, too few for a law: without a GPU more would "
            "take too long"
        )
    scratch = next((arm for arm in arms if arm.name == "scratch"), None)
    if scratch:
        dearest = max((arm for arm in arms if arm.is_transfer), key=lambda arm: arm.seconds)
        size = ARMS["scratch"].plan(bench, dearest.final.budget, None).encoder.image_size
        where = f" at {size} px" if size else ""
        times = scratch.seconds / max(dearest.seconds, 1e-9)
        fair = "as long as" if 0.98 <= times <= FAIR else f"{times:.1f} times as long as"
        notes.append(
            f"training from scratch got {fair} the dearest other arm: {scratch.seconds:.0f} s a run "
            f"({scratch.epochs} epochs{where}) beside {dearest.seconds:.0f} s of “{dearest.title}”, encoding counted"
        )
    return (*notes, *(note for name, arm in ARMS.items() if arm.trains for note in _run_notes(name, done)))


def _run_notes(name: str, done: Done) -> list[str]:
    """Say what the runs of an arm said of themselves, alike ones once."""
    runs = [one for (arm, _), found in done.scored.items() if arm == name for one in found]
    said = [(one.partition("(")[0].partition(":")[0].strip(), one) for run in runs for one in run.notes]
    told = {kind: note for kind, note in reversed(said) if "stopped early" not in kind}
    often = dict(counted([kind for kind, _ in said]))
    return [
        f"{ARMS[name].title}, {often[kind]} of {len(runs)} runs: {note}"
        for kind, note in sorted(told.items())
    ]
