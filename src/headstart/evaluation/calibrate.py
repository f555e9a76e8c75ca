"""Probabilities that mean what they say: temperature scaling, and a threshold for abstaining."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from headstart.core.errors import DataError

_TEMPERATURES = (0.05, 20.0)


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return probabilities [N, C] (float64) of logits divided by the temperature."""
    scaled = np.asarray(logits, np.float64) / temperature
    raised = np.exp(scaled - scaled.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


def sigmoid(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return the probability of each label by itself [N, C] (float64) of logits divided by the temperature."""
    return np.exp(-np.logaddexp(0, -np.asarray(logits, np.float64) / temperature))


def fit_temperature(logits: np.ndarray, targets: np.ndarray) -> float:
    """Return the temperature, 0.05 to 20, that calibrates held-out `logits` [N, C] best (Guo et al., 2017).

    Minimises the summed log-loss plus (log T)^2 / 2, a prior worth about one item: without it, items that are
    all right would drive T to 0. Golden-section search over log T can neither diverge nor leave the range.
    """
    values = np.asarray(logits, np.float64)
    centred = values - values[np.arange(len(values)), targets][:, None]
    top = centred.max(1, keepdims=True)

    def loss(log_temperature: float) -> float:
        scale = math.exp(-log_temperature)
        overflow_free = np.log(np.exp((centred - top) * scale).sum(1)) + top[:, 0] * scale
        return float(overflow_free.sum()) + log_temperature**2 / 2

    return _least(loss)


def fit_label_temperature(logits: np.ndarray, targets: np.ndarray) -> float:
    """Return the temperature that calibrates held-out `logits` [N, C] of labels that are each true or not.

    As `fit_temperature`, with the log-loss of every label of an item summed.
    """
    signed = np.where(targets > 0.5, -1.0, 1.0) * np.asarray(logits, np.float64)

    def loss(log_temperature: float) -> float:
        return float(np.logaddexp(0, signed * math.exp(-log_temperature)).sum()) + log_temperature**2 / 2

    return _least(loss)


def _least(loss: Callable[[float], float]) -> float:
    """Return the temperature where `loss`, a function of its logarithm with one valley, is least."""
    low, high = (math.log(bound) for bound in _TEMPERATURES)
    ratio = (math.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = loss(left), loss(right)
    while high - low > 1e-6:
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = loss(right)
    return math.exp((low + high) / 2)


def conformal_threshold(probabilities: np.ndarray, targets: np.ndarray, *, error_rate: float) -> float:
    """Return the top probability to abstain below, so that P(answered and wrong) <= `error_rate`.

    Split conformal (Vovk et al., 2005; Angelopoulos et al., 2022): `probabilities` [N, C] come from held-out
    items exchangeable with later ones; an item's score is its top probability if it is wrong, else 0. Answer
    where the top probability is >= the threshold. Raises DataError where N is too small for the promise.
    """
    wrong = probabilities.argmax(1) != targets
    rank = math.ceil((len(targets) + 1) * (1 - error_rate) - 1e-9)
    if not 0 < error_rate < 1 or rank > len(targets):
        needed = math.ceil(1 / error_rate - 1 - 1e-9) if 0 < error_rate < 1 else 0
        raise DataError(
            f"an error rate of {error_rate:g} with {len(targets)} calibration items",
            expected=f"at least {needed} held-out items" if needed else "an error rate between 0 and 1",
            fix="allow a higher error rate, or hold out more items (split.validation)",
        )
    worst = np.sort(np.where(wrong, probabilities.max(1), 0.0))[rank - 1]
    return float(np.nextafter(worst, 2.0)) if worst > 0 else 0.0


def conformal_reach(residuals: np.ndarray, *, error_rate: float) -> float | None:
    """Return r such that |truth - prediction| <= r for all but `error_rate` of items; None where N is too small.

    Split conformal on the absolute `residuals` [N] of held-out items (Lei et al., 2018, arXiv 1604.04173).
    """
    rank = math.ceil((len(residuals) + 1) * (1 - error_rate) - 1e-9)
    return None if rank > len(residuals) else float(np.sort(np.abs(residuals))[rank - 1])
