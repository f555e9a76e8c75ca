"""LogME and the regularised H-score against slow formulas that share no step with them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.covariance import ledoit_wolf

from headstart.select.scores import h_score, logme


def _problem(count: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return features with one informative direction and class ids of three classes."""
    draw = np.random.default_rng(seed)
    classes = draw.integers(0, 3, count)
    features = draw.normal(size=(count, width)) + 1.5 * np.eye(3)[classes] @ draw.normal(size=(3, width))
    return features, classes


@pytest.mark.parametrize(("count", "width"), [(40, 5), (12, 30)])
def test_logme_is_the_greatest_density_of_the_targets_over_both_precisions(count: int, width: int) -> None:
    features, classes = _problem(count, width)
    column = (classes == 1).astype(float)

    def surprise(logs: np.ndarray) -> float:
        prior, noise = np.exp(np.clip(logs, -15, 15))
        covariance = features @ features.T / prior + np.eye(count) / noise
        return -float(multivariate_normal(np.zeros(count), covariance).logpdf(column))

    starts = [np.array([prior, noise]) for prior in (-1.0, 2.0, 5.0) for noise in (0.0, 3.0)]
    best = min(minimize(surprise, start, method="Nelder-Mead", tol=1e-8).fun for start in starts)
    assert logme(features, column[:, None]) == pytest.approx(-best / count, abs=1e-4)


def test_logme_is_the_mean_over_outputs() -> None:
    features, classes = _problem(30, 4)
    truth = np.eye(3)[classes]
    each = [logme(features, truth[:, [index]]) for index in range(3)]
    assert logme(features, truth) == pytest.approx(float(np.mean(each)))


@pytest.mark.parametrize(("count", "width"), [(60, 7), (20, 35)])
def test_the_h_score_is_the_trace_of_class_means_in_units_of_the_shrunk_covariance(
    count: int, width: int
) -> None:
    features, classes = _problem(count, width)
    shrunk, share = ledoit_wolf(features)
    means = np.stack([features[classes == label].mean(0) for label in classes])
    between = np.cov(means.T, bias=True)
    slow = float(np.trace(np.linalg.inv(shrunk) @ ((1 - share) * between)))
    assert h_score(features, classes) == pytest.approx(slow, rel=1e-6)


def test_both_scores_fall_when_the_targets_are_shuffled() -> None:
    features, classes = _problem(90, 6)
    shuffled = np.random.default_rng(1).permutation(classes)
    assert logme(features, np.eye(3)[classes]) > logme(features, np.eye(3)[shuffled])
    assert h_score(features, classes) > 3 * h_score(features, shuffled)


def test_features_that_never_vary_score_nothing() -> None:
    assert h_score(np.ones((6, 3)), np.array([0, 1, 0, 1, 0, 1])) == 0.0
