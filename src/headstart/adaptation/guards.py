"""What disqualifies a candidate whatever the votes say: it collapsed, or it forgot the source."""

from __future__ import annotations

import math

import numpy as np

from headstart.adaptation.candidates import Candidate, Field

LEAST_ENTROPY = 0.5
"""Of the entropy of the classes that doing nothing names: less, and a few classes have swallowed the others."""
COMMON, NEVER = 0.1, 0.002
"""A class that doing nothing names so often may not vanish (this often or less)."""
LEAST_RANK = 0.5
"""Of the effective rank of the untouched features."""
LEAST_SURE = 0.6
"""Of how sure the source head is of source items that it has not seen: a head that aligned domains are torn between was
aligned with classes that are not there."""
LOST_POINTS, LOST_ERRORS = 0.02, 2.0
"""Source accuracy may fall by two points and two standard errors of the difference."""


def objection(candidate: Candidate, field: Field, *, allow_prior: bool = False) -> str:
    """Say what speaks against a candidate in plain words; empty where nothing does.

    `allow_prior`: the shares of the classes may have changed, so that a class may well be rare in the target.
    """
    nothing = field.candidates[0]
    if candidate is nothing:
        return ""
    if not np.isfinite(candidate.target).all():
        return "its outputs are not finite"
    return (
        _collapsed(candidate.probabilities, nothing.probabilities, allow_prior=allow_prior)
        or _flattened(candidate, nothing)
        or _forgot(candidate, field)
        or _torn(candidate, field)
    )


def effective_rank(features: np.ndarray) -> float:
    """Return exp of the entropy of the singular values of features [n, D] (RankMe, Garrido et al. 2023)."""
    values = np.linalg.svd(features - features.mean(0), compute_uv=False)
    shares = values / max(float(values.sum()), 1e-12)
    return math.exp(-float((shares * np.log(shares + 1e-12)).sum()))


def _collapsed(said: np.ndarray, before: np.ndarray, *, allow_prior: bool) -> str:
    """Say whether classes vanished that the target should have."""
    count = said.shape[1]
    now, then = (np.bincount(part.argmax(1), minlength=count) / len(part) for part in (said, before))
    gone = np.flatnonzero((then > COMMON) & (now <= NEVER))
    if len(gone):
        return f"collapsed: {len(gone)} of the classes that were common are never named"
    if not allow_prior and _entropy(now) < LEAST_ENTROPY * _entropy(then):
        fewer, before_that = math.exp(_entropy(now)), math.exp(_entropy(then))
        return f"collapsed: it names {fewer:.1f} classes in effect, {before_that:.1f} before"
    return ""


def _flattened(candidate: Candidate, nothing: Candidate) -> str:
    """Say whether the features of a trained network lost their variety."""
    if candidate.features is None or nothing.features is None:
        return ""
    now, then = effective_rank(candidate.features), effective_rank(nothing.features)
    if now >= LEAST_RANK * then:
        return ""
    return f"collapsed: its features have an effective rank of {now:.0f}, {then:.0f} before"


def _forgot(candidate: Candidate, field: Field) -> str:
    """Say whether it does clearly worse on source items than the source head, neither having seen them."""
    if candidate.held_out is None or not len(field.truth):
        return ""
    right = (candidate.held_out.argmax(1) == field.truth).astype(float)
    wanted = (field.reference.argmax(1) == field.truth).astype(float)
    difference = right - wanted
    counted = np.ones(len(right)) if candidate.weights is None else candidate.weights.astype(float)
    counted /= counted.sum()
    lost = -float(counted @ difference)
    error = math.sqrt(float(counted**2 @ (difference + lost) ** 2))
    if lost <= LOST_POINTS + LOST_ERRORS * error:
        return ""
    return f"forgot the source: {100 * lost:.1f} points fewer right there (n={len(difference)})"


def _torn(candidate: Candidate, field: Field) -> str:
    """Say whether the head of the candidate's ground, before it taught itself, is far less sure than on the source."""
    if candidate.untaught is None or not len(field.reference):
        return ""
    now, then = (_certainty(outputs) for outputs in (candidate.untaught, field.reference))
    if now >= LEAST_SURE * then:
        return ""
    return f"torn: aligned, the head is {100 * now:.0f} % sure of the target, {100 * then:.0f} % of unseen source items"


def _certainty(outputs: np.ndarray) -> float:
    """Return the mean largest probability of outputs [n, C]."""
    raised = np.exp(outputs - outputs.max(1, keepdims=True))
    return float((raised.max(1) / raised.sum(1)).mean())


def _entropy(shares: np.ndarray) -> float:
    """Return the entropy of shares [C], in nats."""
    kept = shares[shares > 0]
    return -float((kept * np.log(kept)).sum())
