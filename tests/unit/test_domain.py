"""Closed-form domain adaptation on features: each way against hand values, or on Gaussians that moved."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from headstart.core.errors import PlanError
from headstart.methods.domain.as_is import as_is
from headstart.methods.domain.centroids import nearest_centroids
from headstart.methods.domain.ground import Ground, Labelled, principal_axes, standard
from headstart.methods.domain.prior import bbse_shares, corrected, em_shares
from headstart.methods.domain.propagate import propagate
from headstart.methods.domain.recolour import power, recolour, shrunk_covariance
from headstart.methods.domain.self_training import self_train, surest
from headstart.methods.domain.standardise import MOST, standardise, with_shares

WIDTH, CLASSES = 12, 3


def blobs(
    count: int, seed: int, *, shares: tuple[float, ...] = (1 / 3, 1 / 3, 1 / 3)
) -> tuple[Tensor, Tensor]:
    """Draw `count` points [n, WIDTH] of CLASSES Gaussians, and their classes [n]."""
    draw = np.random.default_rng(seed)
    means = np.random.default_rng(0).normal(0, 1.2, (CLASSES, WIDTH))
    truth = draw.choice(CLASSES, count, p=shares)
    points = means[truth] + draw.normal(0, 1, (count, WIDTH))
    return torch.from_numpy(points).float(), torch.from_numpy(truth)


def on(make: object, target: Tensor, *, seed: int = 1) -> Ground:
    """Return a ground between 300 source points and a target."""
    source = Labelled(*blobs(300, seed))
    return make(source, target, form="pooled", num_classes=CLASSES, seed=0)  # type: ignore[operator]


def right(outputs: Tensor, truth: Tensor) -> float:
    """Return the share of right answers."""
    return float((outputs.argmax(1) == truth).float().mean())


def test_a_head_says_of_raw_features_what_the_map_says_of_points() -> None:
    target, _ = blobs(200, 2)
    ground = on(as_is, target)
    weight = ground.fit_source(penalty=0.03)
    torch.testing.assert_close(ground.head(weight)(target), ground.outputs(weight), atol=1e-4, rtol=1e-4)


def test_standardising_undoes_a_shift_and_a_stretch_of_every_column() -> None:
    target, truth = blobs(400, 2)
    moved = target * torch.linspace(0.3, 4, WIDTH) + 6 * torch.tensor([1.0, -1.0]).repeat(WIDTH // 2)
    plain, own = on(as_is, moved), on(standardise, moved)
    before = right(plain.outputs(plain.fit_source(penalty=0.03)), truth)
    after = right(own.outputs(own.fit_source(penalty=0.03)), truth)
    assert after > before + 0.2
    assert right(own.head(own.fit_source(penalty=0.03))(moved), truth) == pytest.approx(after)


def test_a_source_with_the_shares_of_the_target_lets_it_be_standardised_where_both_changed() -> None:
    shares = (0.8, 0.1, 0.1)
    target, truth = blobs(400, 2, shares=shares)
    moved = 3 * target + 5
    source = Labelled(*blobs(300, 1))
    alike = with_shares(source, torch.tensor(shares))
    assert alike.weights is not None
    for label, share in enumerate(shares):
        assert float(alike.weights[source.truth == label].sum()) == pytest.approx(300 * share, rel=1e-4)
    grounds = [
        standardise(side, moved, form="pooled", num_classes=CLASSES, seed=0) for side in (source, alike)
    ]
    weights = [ground.fit_source(penalty=0.03) for ground in grounds]
    before, after = (
        right(ground.outputs(weight), truth) for ground, weight in zip(grounds, weights, strict=True)
    )
    assert after > before + 0.1
    surer = [ground.sureness(weight) for ground, weight in zip(grounds, weights, strict=True)]
    assert surer[1] > surer[0] + 0.05


def test_no_class_is_weighted_up_without_bound() -> None:
    truth = torch.tensor([0] * 99 + [1])
    found = with_shares(Labelled(torch.zeros(100, 2), truth), torch.tensor([0.5, 0.5]))
    assert found.weights is not None
    assert float(found.weights[-1] / found.weights[0]) == pytest.approx(MOST / (50 / 99), rel=1e-4)


def test_weighted_standards_are_those_of_repeated_rows() -> None:
    features, _ = blobs(50, 3)
    counts = torch.arange(50) % 3 + 1
    for ours, theirs in zip(
        standard(features, counts.float()), standard(features.repeat_interleave(counts, 0)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_nearly_dead_columns_are_not_stretched() -> None:
    features = torch.randn(50, 5, generator=torch.Generator().manual_seed(0))
    features[:, 2] *= 1e-6
    assert float(standard(features)[1][2]) <= 2 / float(features.std(0, correction=0).median()) * 1.001


def test_the_axes_are_orthonormal_and_depend_on_the_seed_alone() -> None:
    points = torch.randn(40, 10, generator=torch.Generator().manual_seed(0))
    axes = principal_axes(points, seed=3)
    torch.testing.assert_close(axes.T @ axes, torch.eye(axes.shape[1]), atol=1e-5, rtol=0)
    torch.manual_seed(99)
    assert torch.equal(axes, principal_axes(points, seed=3))


def test_recolouring_gives_the_source_the_mean_and_covariance_of_the_target() -> None:
    target, _ = blobs(3000, 2)
    ground = on(as_is, target @ torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(1)) + 2)
    ground = recolour(ground)
    torch.testing.assert_close(ground.source.mean(0), ground.target.mean(0), atol=1e-3, rtol=1e-3)
    ours, theirs = shrunk_covariance(ground.source), shrunk_covariance(ground.target)
    assert float((ours - theirs).norm() / theirs.norm()) < 0.2


def test_a_covariance_is_shrunk_the_more_the_fewer_the_points() -> None:
    draw = torch.Generator().manual_seed(0)
    points = torch.randn(2000, 6, generator=draw) * torch.tensor([3.0, 1, 1, 1, 1, 0.3])
    few, many = shrunk_covariance(points[:12]), shrunk_covariance(points)
    exact = torch.cov(points.T, correction=0)
    assert float((many - exact).norm()) < 0.05 * float(exact.norm())
    raw = torch.cov(points[:12].T, correction=0)
    assert float(few.diag().max()) < float(raw.diag().max())
    torch.testing.assert_close(power(many, 0.5) @ power(many, 0.5), many, atol=1e-4, rtol=1e-4)


def test_em_finds_the_shares_of_calibrated_probabilities_and_bbse_agrees() -> None:
    shares, source = np.array([0.7, 0.2, 0.1]), np.full(3, 1 / 3)
    draw = np.random.default_rng(0)

    def said(truth: np.ndarray) -> np.ndarray:
        # Likelihoods of a known confusion: says its class with .8, another with .1 each.
        heard = np.where(draw.random(len(truth)) < 0.7, truth, draw.integers(0, 3, len(truth)))
        likelihood = np.where(np.arange(3)[None] == heard[:, None], 0.8, 0.1)
        return likelihood / likelihood.sum(1, keepdims=True)

    truth = draw.choice(3, 4000, p=shares)
    held_truth = draw.choice(3, 4000)
    found = em_shares(said(truth), source)
    other = bbse_shares(said(truth), said(held_truth), held_truth)
    np.testing.assert_allclose(found, shares, atol=0.04)
    np.testing.assert_allclose(other, shares, atol=0.04)


def test_corrected_probabilities_follow_bayes_by_hand() -> None:
    np.testing.assert_allclose(
        corrected(np.array([[0.5, 0.5]]), np.array([0.5, 0.5]), np.array([0.9, 0.1])), [[0.9, 0.1]]
    )


def test_the_surest_are_taken_from_each_class_at_least_one() -> None:
    said = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4], [0.45, 0.55]])
    assert surest(said, 0.5).tolist() == [True, True, False, False, True]


def test_self_training_mends_a_head_whose_target_moved_a_little() -> None:
    target, truth = blobs(600, 2)
    moved = target + 0.9 * torch.randn(WIDTH, generator=torch.Generator().manual_seed(4))
    ground = on(as_is, moved)
    first = ground.fit_source(penalty=0.03)
    before = ground.outputs(first)
    after = ground.outputs(self_train(ground, before.softmax(1), penalty=0.03, begin=first))
    assert right(after, truth) > right(before, truth)


def test_it_also_trains_itself_where_the_source_is_gone() -> None:
    target, truth = blobs(300, 2)
    gone = Labelled(torch.zeros(0, WIDTH), torch.zeros(0).long())
    ground = as_is(gone, target, form="pooled", num_classes=CLASSES, seed=0)
    said = torch.nn.functional.one_hot(truth, CLASSES).float() * 0.6 + 0.2
    assert right(ground.outputs(self_train(ground, said, penalty=0.03)), truth) > 0.9


def test_neighbours_outvote_a_lone_mistake() -> None:
    points = torch.cat([torch.tensor([[1.0, 0.0]]).repeat(15, 1), torch.tensor([[-1.0, 0.1]]).repeat(15, 1)])
    points = points + 0.05 * torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
    said = torch.full((30, 2), 0.1)
    said[:15, 0], said[15:, 1] = 0.9, 0.9
    said[3] = torch.tensor([0.4, 0.6])
    spread = propagate(points, said)
    assert spread.argmax(1).tolist() == [0] * 15 + [1] * 15
    torch.testing.assert_close(spread.sum(1), torch.ones(30))


def test_two_items_or_one_have_few_neighbours_and_keep_their_labels() -> None:
    said = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    assert propagate(torch.eye(2), said).argmax(1).tolist() == [0, 1]
    assert propagate(torch.ones(1, 2), said[:1]).argmax(1).tolist() == [0]


def test_centroids_label_by_the_nearest_and_nobody_joins_an_empty_class() -> None:
    target, truth = blobs(300, 2)
    said = torch.nn.functional.one_hot(truth, CLASSES).float() * 0.4 + 0.2
    said = torch.cat([said, torch.zeros(300, 1)], dim=1)
    found = nearest_centroids(target, said)
    assert right(found, truth) > 0.85
    assert not (found.argmax(1) == CLASSES).any()


def test_labels_travel_with_the_transport_or_the_package_is_named() -> None:
    from importlib.util import find_spec

    from headstart.methods.domain.transport import transport

    target, truth = blobs(150, 2)
    ground = on(as_is, target)
    if find_spec("ot") is None:
        with pytest.raises(PlanError, match="POT"):
            transport(ground, seed=0)
    else:
        assert right(transport(ground, seed=0), truth) > 0.7
