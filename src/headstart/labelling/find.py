"""Look through the labels of some data: which are likely wrong, and which items to label next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np

from headstart.core.registry import resolve
from headstart.core.types import Finding, Target
from headstart.data import require_targets
from headstart.labelling.choose import Pick, covering, label_doubt, margin, unsure
from headstart.labelling.found import LabelReport, NextLabel, Way, WrongLabel
from headstart.labelling.pool import Learnt, Pool, learn, open_pool
from headstart.labelling.wrong import require_library, wrong_labels
from headstart.planning import Opened
from headstart.train.runtime import Context, Event, draw

LEAST = 20
"""Labelled items, below which what held-out heads say is too rough to call a label wrong."""
FEW_A_CLASS = 10
"""Labels a class from which a head's doubt chooses; below, what is not covered (`benchmarks labels` measures both)."""
MOST_CHOSEN_FROM = 20_000
"""Unlabelled items that are looked through at most, a seeded part of more."""
TOLD = (
    "conflicting-labels",
    "conflicting-labels-near",
    "answers",
    "answers-blank",
    "columns-guessed",
    "task-guessed",
)
"""Findings of the audit and of the readers that a person who mends labels should see."""


def find(opened: Opened, context: Context, *, count: int) -> LabelReport:
    """Return the labels that are likely wrong and up to `count` items worth labelling next.

    Data without any labels give only the second, data without unlabelled items only the first. DataError where both
    are out of reach, PlanError for tagged words or where the extra `labels` is not installed.
    """
    require_library()
    context.progress(Event("labels"))
    pool = open_pool(opened, context)
    labelled = pool.rows(labelled=True, with_test=True)
    others = pool.rows(labelled=False, with_test=False)
    if not others:
        require_targets(pool.dataset, source=opened.plan.data.uri)
    taught = pool.rows(labelled=True, with_test=False)
    obstacle = _obstacle(pool, labelled)
    learnt = None if obstacle else learn(pool, labelled)
    wrong = _wrong(pool, learnt) if learnt else []
    if taught != labelled:
        learnt = None if _obstacle(pool, taught) else learn(pool, taught, hold_out=False)
    way, chosen = _next(pool, learnt, taught, others, count)
    spec = opened.encoder.spec if opened.encoder else None
    inputs = dict(zip(pool.dataset.ids, pool.dataset.inputs, strict=True))
    shown = {item.id: inputs[item.id] for item in (*wrong, *chosen)}
    return LabelReport(
        task=pool.dataset.task, modality=pool.dataset.modality, encoder=spec.name if spec else "",
        labels=pool.dataset.labels, num_labelled=len(labelled), num_unlabelled=len(others),
        has_looked=not obstacle and len(labelled) >= LEAST, wrong=tuple(wrong),
        next=tuple(chosen), way=way, head=learnt.winner.name if learnt else "",
        quality=learnt.winner.score if learnt else None,
        standard_error=learnt.winner.standard_error if learnt else None,
        notes=tuple(_notes(pool, obstacle, others, count, way)), findings=_told(pool),
        num_encoded=pool.encoded.num_encoded, num_stored=pool.encoded.num_stored, inputs=shown,
    )  # fmt: skip


def _obstacle(pool: Pool, rows: list[int]) -> str:
    """Say why no head can be trained on some labelled items; nothing where one can."""
    targets = pool.targets(rows)
    if not targets:
        return "no item has a label yet"
    if pool.dataset.task == "multilabel":
        return "" if any(targets) else "no item has any label"
    if len(set(targets)) < 2:
        return f"all {len(targets)} labels are '{targets[0]}'"
    return ""


def _wrong(pool: Pool, learnt: Learnt) -> list[WrongLabel]:
    """Return the likely wrong labels; none where too few are there to tell."""
    if len(learnt.rows) < LEAST:
        return []
    ids, targets = [pool.dataset.ids[row] for row in learnt.rows], pool.targets(learnt.rows)
    found = wrong_labels(learnt.model.task, ids, targets, learnt.held_out)
    if learnt.model.task.link != "softmax":
        return found
    # The head that judged an item whose class has no other had never heard of that class.
    held = Counter(
        target
        for target, _ in {
            (target, pool.groups[row]) for target, row in zip(targets, learnt.rows, strict=True)
        }
    )
    return [item for item in found if held[item.given] > 1]


def _next(
    pool: Pool, learnt: Learnt | None, taught: list[int], others: list[int], count: int
) -> tuple[Way, list[NextLabel]]:
    """Choose the next items: by what is not covered while labels are few, else by the head's doubt."""
    if not others or not count:
        return "", []
    seed = pool.context.seed
    if len(others) > MOST_CHOSEN_FROM:
        drawn = draw(seed, "next labels", 0, len(others)).choice(len(others), MOST_CHOSEN_FROM, replace=False)
        others = [others[place] for place in sorted(drawn)]
    points = pool.vectors()
    said = _said(pool, learnt, others) if learnt else None
    if learnt is None or said is None or not _knows_doubt(learnt, pool.targets(taught)):
        picks = covering(points, taught, others, count=count, seed=seed)
        return "coverage", _reasons(pool, picks, learnt, said, others)
    doubt = margin(said) if learnt.model.task.link == "softmax" else label_doubt(said)
    picks = unsure(points, others, doubt, count=count, seed=seed)
    return "uncertainty", _reasons(pool, picks, learnt, said, others, by_doubt=True)


def _knows_doubt(learnt: Learnt, targets: Sequence[Target]) -> bool:
    """Tell whether the head's doubt is worth anything: names, not numbers, and enough labels of most of them."""
    if learnt.model.task.link == "identity":
        return False
    held = Counter(
        name for target in targets for name in (target if isinstance(target, tuple) else (target,))
    )
    return median(held[name] for name in learnt.labels) >= FEW_A_CLASS


def _said(pool: Pool, learnt: Learnt, rows: list[int]) -> np.ndarray:
    """Return what the head says of unlabelled items: probabilities [n, C], or numbers [n]."""
    model = learnt.model
    return np.asarray(model.probabilities(model.logits_of(pool.part(rows), pool.form)))


def _reasons(
    pool: Pool,
    picks: Sequence[Pick],
    learnt: Learnt | None,
    said: np.ndarray | None,
    others: list[int],
    *,
    by_doubt: bool = False,
) -> list[NextLabel]:
    """Say of each item why it was chosen, and what the head would call it."""
    place_of = {row: place for place, row in enumerate(others)}
    noun = resolve("modality", pool.dataset.modality).NOUN[1]
    rows: list[NextLabel] = []
    for pick in picks:
        name = pool.dataset.ids[pick.row]
        why = f"in the middle of {pick.size} {noun} alike" if pick.size > 1 else "unlike all others"
        if learnt is None or said is None:
            rows.append(NextLabel(name, why))
            continue
        here: Any = said[[place_of[pick.row]]]
        task = learnt.model.task
        likely = task.answers(here)[0]
        if by_doubt:
            why = _doubt(learnt, here[0])
        if task.link == "identity":
            rows.append(NextLabel(name, why, float(likely)))
        else:
            rows.append(NextLabel(name, why, likely, float(task.certainty(here)[0])))
    return rows


def _doubt(learnt: Learnt, probabilities: np.ndarray) -> str:
    """Say between which classes, or about which label, the head is in doubt."""
    names = learnt.labels
    if learnt.model.task.link == "sigmoid":
        worst = int(np.abs(probabilities - 0.5).argmin())
        return f"unsure of {names[worst]} ({100 * probabilities[worst]:.0f}%)"
    first, second = np.argsort(-probabilities, kind="stable")[:2]
    return f"{names[first]} ({100 * probabilities[first]:.0f}%) or {names[second]} ({100 * probabilities[second]:.0f}%)"


def _notes(pool: Pool, obstacle: str, others: list[int], count: int, way: Way) -> list[str]:
    """Say what could not be done and why, and what the choice rests on."""
    many = resolve("modality", pool.dataset.modality).NOUN[1]
    labelled = len(pool.rows(labelled=True, with_test=True))
    notes: list[str] = []
    if obstacle:
        notes.append(f"wrong labels were not looked for: {obstacle}")
    elif labelled < LEAST:
        notes.append(
            f"wrong labels were not looked for: {labelled} labelled {many} are too few (at least {LEAST} are needed)"
        )
    if not others and count:
        notes.append(f"there is no unlabelled {many[:-1]}, so there is none to label next")
    elif 0 < len(others) < count:
        notes.append(f"there are only {len(others)} unlabelled {many}")
    if way == "coverage" and pool.dataset.task == "regression":
        notes.append(f"for numbers the next {many} are chosen by what is not covered, not by doubt")
    kept_back = len(pool.rows(labelled=False, with_test=True)) - len(others)
    if kept_back:
        notes.append(
            f"{kept_back} unlabelled {many} of the test split are not proposed: labelled, they teach nothing"
        )
    return notes


def _told(pool: Pool) -> tuple[Finding, ...]:
    """Return the findings that matter to a person who mends labels."""
    return tuple(finding for finding in pool.audit.findings if finding.code in TOLD)
