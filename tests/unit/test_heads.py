"""Head solvers against scikit-learn and against explicit refits; heads as modules of tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from torch import nn

from headstart.heads import LinearHead, NeighboursHead, vote
from headstart.methods.heads import knn, logistic, prototype, ridge
from headstart.methods.heads.folds import assign_folds
from headstart.methods.heads.rows import Rows
from headstart.methods.heads.space import LEAST_DEVIATION, principal_space

CLASSES = 3


def data(
    count: int = 90, width: int = 8, *, seed: int = 0, noise: float = 1.5
) -> tuple[np.ndarray, np.ndarray]:
    """Return overlapping clouds of different scales, float32 [count, width], and class ids."""
    generator = np.random.default_rng(seed)
    targets = np.arange(count) % CLASSES
    centres = np.random.default_rng(99).normal(size=(CLASSES, width))
    features = centres[targets] + noise * generator.normal(size=(count, width))
    return (features * np.linspace(0.5, 5, width) + 3).astype(np.float32), targets


def rows(count: int = 90, width: int = 8, *, views: int = 1, folds: int = 5) -> Rows:
    """Return the data as the solvers take them."""
    features, targets = data(count, width)
    stacked = np.concatenate([features + 0.1 * view for view in range(views)])
    fold = assign_folds(targets.tolist(), [""] * count, folds=folds, seed=0)
    return Rows(
        principal_space(torch.from_numpy(stacked), "pooled"),
        torch.from_numpy(targets).repeat(views),
        torch.from_numpy(fold).repeat(views),
        CLASSES,
        count,
    )


def standardised(features: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Return features on the scale of the training features; columns that vary little are not stretched further."""
    deviation = like.std(0)
    least = LEAST_DEVIATION * np.sort(deviation)[(len(deviation) - 1) // 2]
    return (features - like.mean(0)) / np.maximum(deviation, least)


# -- the space ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "width"), [(90, 8), (20, 30)])
def test_principal_axes_keep_every_distance_and_product(count: int, width: int) -> None:
    features, _ = data(count, width)
    space = principal_space(torch.from_numpy(features), "pooled")
    expected = standardised(features, features)
    points = space.points.numpy()
    assert np.allclose(points @ points.T, expected @ expected.T, rtol=1e-2, atol=0.3)
    covariance = points.T @ points / count
    assert np.allclose(covariance, np.diag(space.variances.numpy()), atol=1e-3)


def test_a_constant_column_is_left_out_without_a_division_by_zero() -> None:
    features, _ = data()
    features[:, 2] = 7
    space = principal_space(torch.from_numpy(features), "pooled")
    assert torch.isfinite(space.scale).all()
    assert torch.isfinite(space.points).all()
    _, _, weight = space.spread(torch.ones(space.points.shape[1], CLASSES))
    assert torch.allclose(weight[:, 2], torch.zeros(CLASSES), atol=1e-5)


def test_a_nearly_dead_column_is_not_magnified() -> None:
    features, _ = data()
    features[:, 2] = 7 + 1e-4 * features[:, 2]
    space = principal_space(torch.from_numpy(features), "pooled")
    usual = float(np.sort(1 / features.std(0))[4])
    assert float(space.scale.max()) <= 1.01 * usual / LEAST_DEVIATION


# -- logistic -------------------------------------------------------------------------------------------------


def sklearn_logistic(points: np.ndarray, targets: np.ndarray, penalty: float) -> LogisticRegression:
    """Return scikit-learn's solution of: mean cross-entropy + penalty / 2 * |W|^2."""
    return LogisticRegression(C=1 / (penalty * len(points)), max_iter=5000, tol=1e-8).fit(points, targets)


@pytest.mark.parametrize(("count", "width"), [(90, 8), (24, 200)])
@pytest.mark.parametrize("index", range(len(logistic.PENALTIES)))
def test_logistic_regression_is_scikit_learn_s(count: int, width: int, index: int) -> None:
    features, targets = data(count, width)
    given = rows(count, width)
    head = logistic.variants(given)[index].fit(given).eval()
    oracle = sklearn_logistic(standardised(features, features), targets, logistic.PENALTIES[index])
    with torch.no_grad():
        found = head(torch.from_numpy(features)).softmax(1).numpy()
    assert np.allclose(found, oracle.predict_proba(standardised(features, features)), atol=0.015)


def test_all_penalties_and_folds_in_one_batch_are_the_problems_alone() -> None:
    given = rows(folds=3)
    points, targets, fold = given.space.points.numpy(), given.targets.numpy(), given.fold.numpy()
    variants = logistic.variants(given)
    assert [variant.name for variant in variants] == [f"logistic, penalty {p:g}" for p in logistic.PENALTIES]
    for penalty, variant in zip(logistic.PENALTIES[2:], variants[2:], strict=True):
        for number in range(3):
            here = fold == number
            oracle = sklearn_logistic(points[~here], targets[~here], penalty)
            expected = oracle.predict_proba(points[here])
            assert np.allclose(variant.logits.softmax(1).numpy()[here], expected, atol=0.03)


def test_a_fitted_logistic_head_takes_raw_features() -> None:
    features, targets = data()
    given = rows()
    head = logistic.variants(given)[2].fit(given).eval()
    oracle = sklearn_logistic(standardised(features, features), targets, logistic.PENALTIES[2])
    fresh, _ = data(30, seed=5)
    expected = oracle.predict_proba(standardised(fresh, features))
    with torch.no_grad():
        assert np.allclose(head(torch.from_numpy(fresh)).softmax(1).numpy(), expected, atol=0.02)


# -- ridge ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "width", "views"), [(90, 8, 1), (24, 60, 1), (30, 8, 3)])
@pytest.mark.parametrize("penalty", [0.05, 2.0])
def test_ridge_s_closed_form_folds_are_explicit_refits(
    count: int, width: int, views: int, penalty: float
) -> None:
    given = rows(count, width, views=views)
    points, fold = given.space.points.double().numpy(), given.fold.numpy()
    truth = np.eye(CLASSES)[given.targets.numpy()]
    found = ridge._held_out(given, penalty).numpy()
    assert found.shape == (count, CLASSES)
    for number in range(given.num_folds):
        here = fold == number
        oracle = Ridge(alpha=penalty * len(points)).fit(points[~here], truth[~here])
        scored = np.flatnonzero(here[:count])
        assert np.allclose(found[scored], oracle.predict(points[scored]), atol=2e-4)


def test_a_fitted_ridge_head_is_scikit_learn_s() -> None:
    features, targets = data()
    given = rows()
    penalty = ridge.PENALTIES[1] * float(given.space.variances.mean())
    standard = standardised(features, features)
    oracle = Ridge(alpha=penalty * len(features)).fit(standard, np.eye(CLASSES)[targets])
    head = ridge.variants(given)[1].fit(given)
    fresh, _ = data(30, seed=5)
    expected = ridge.SHARPNESS * oracle.predict(standardised(fresh, features))
    with torch.no_grad():
        assert np.allclose(head(torch.from_numpy(fresh)).numpy(), expected, atol=5e-3)


# -- prototype ------------------------------------------------------------------------------------------------


def test_prototypes_are_the_nearest_class_means_of_the_other_folds() -> None:
    given = rows()
    points, targets, fold = given.space.points.numpy(), given.targets.numpy(), given.fold.numpy()
    (variant,) = prototype.variants(given)
    for number in range(given.num_folds):
        here = fold == number
        oracle = NearestCentroid().fit(points[~here], targets[~here])
        assert np.array_equal(variant.logits.argmax(1).numpy()[here], oracle.predict(points[here]))


def test_a_fitted_prototype_head_measures_distances_in_raw_features() -> None:
    features, targets = data()
    given = rows()
    head = prototype.variants(given)[0].fit(given)
    oracle = NearestCentroid().fit(standardised(features, features), targets)
    fresh, _ = data(60, seed=5)
    with torch.no_grad():
        found = head(torch.from_numpy(fresh)).argmax(1).numpy()
    assert np.array_equal(found, oracle.predict(standardised(fresh, features)))


# -- nearest neighbours ---------------------------------------------------------------------------------------


def sklearn_neighbours(points: np.ndarray, targets: np.ndarray, count: int) -> KNeighborsClassifier:
    """Return scikit-learn's vote by cosine similarity with our weights."""
    return KNeighborsClassifier(
        count, metric="cosine", weights=lambda distance: np.exp(-distance / knn.TEMPERATURE)
    ).fit(points, targets)


def test_neighbours_vote_as_scikit_learn_s_and_never_from_their_own_fold() -> None:
    given = rows()
    points, targets, fold = given.space.points.numpy(), given.targets.numpy(), given.fold.numpy()
    for count, variant in zip(knn.NEIGHBOURS, knn.variants(given), strict=True):
        for number in range(given.num_folds):
            here = fold == number
            expected = sklearn_neighbours(points[~here], targets[~here], count).predict(points[here])
            assert np.array_equal(variant.logits.argmax(1).numpy()[here], expected)


def test_a_fitted_neighbours_head_votes_on_raw_features() -> None:
    features, targets = data()
    fresh, _ = data(60, seed=5)
    standard, other = standardised(features, features), standardised(fresh, features)
    given = rows()
    for count, variant in zip(knn.NEIGHBOURS, knn.variants(given), strict=True):
        head = variant.fit(given)
        found = head(torch.from_numpy(fresh))
        expected = sklearn_neighbours(standard, targets, count).predict_proba(other)
        # One pseudo-vote, shared by the classes, of the neighbours' mean weight.
        smoothed = (expected + 1 / (count * CLASSES)) / (1 + 1 / count)
        assert np.allclose(found.exp().numpy(), smoothed, atol=2e-3)


def test_a_vote_by_hand() -> None:
    similarity = torch.tensor([[1.0, 0.9, -1.0]])
    found = vote(similarity, torch.tensor([0, 1, 1]), 2, 2, 0.1).exp()[0]
    weights = np.array([1.0, np.exp(-1.0)])
    expected = (weights + weights.sum() / 4) / (weights.sum() * 1.5)
    assert np.allclose(found.numpy(), expected, atol=1e-6)


# -- modules --------------------------------------------------------------------------------------------------


def test_a_linear_head_standardises_then_maps() -> None:
    head = LinearHead.fitted(
        torch.tensor([1.0, 2.0]),
        torch.tensor([2.0, 0.0]),
        torch.tensor([[1.0, 5.0], [-1.0, 5.0]]),
        torch.tensor([0.5, 0.0]),
        form="pooled",
    )
    assert head(torch.tensor([[2.0, 9.0]])).tolist() == [[2.5, -2.0]]


@pytest.mark.parametrize("solver", [logistic, ridge, prototype, knn])
def test_a_head_is_rebuilt_from_its_arguments_and_tensors(solver) -> None:
    features, _ = data()
    given = rows()
    head: nn.Module = solver.variants(given)[0].fit(given).eval()
    again = type(head)(**head.arguments()).eval()  # type: ignore[operator]
    again.load_state_dict(head.state_dict())
    with torch.no_grad():
        expected = head(torch.from_numpy(features))
        assert torch.equal(again(torch.from_numpy(features)), expected)
    assert isinstance(again, (LinearHead, NeighboursHead))


# -- folds ----------------------------------------------------------------------------------------------------


def test_folds_are_stratified_seeded_and_keep_groups_together() -> None:
    targets = [row % 3 for row in range(90)]
    groups = [f"patient {row // 6}" if row < 60 else "" for row in range(90)]
    fold = assign_folds(targets, groups, folds=5, seed=0)
    assert np.array_equal(fold, assign_folds(targets, groups, folds=5, seed=0))
    assert not np.array_equal(fold, assign_folds(targets, groups, folds=5, seed=1))
    for group in set(groups) - {""}:
        assert len({fold[row] for row in range(90) if groups[row] == group}) == 1
    for number in range(5):
        counts = np.bincount(np.array(targets)[fold == number], minlength=3)
        assert counts.min() >= 4 and counts.max() <= 8


def test_a_rare_class_lowers_the_number_of_folds_to_two_at_the_least() -> None:
    assert assign_folds([0] * 20 + [1] * 3, [""] * 23, folds=5, seed=0).max() == 2
    assert assign_folds([0] * 20 + [1], [""] * 21, folds=5, seed=0).max() == 1
