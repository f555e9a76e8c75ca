"""The shift meter and its views on real digits: nothing moved, other shares, darkened, unknown classes."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from headstart.adaptation.shift import measure_shift
from headstart.adaptation.sides import Side
from headstart.adaptation.views import (
    Points,
    class_views,
    domain_views,
    estimated_accuracy,
    points_of,
    typical,
    unlike_every_class,
)
from headstart.data import from_arrays

CLASSES = 5


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return pixels [n, 64] and classes 0 to 9 of real digits, shuffled."""
    loaded = load_digits()
    order = np.random.default_rng(0).permutation(len(loaded.target))
    return loaded.data[order].astype(np.float32), loaded.target[order]


@pytest.fixture(scope="module")
def halves(digits: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return features and classes of two halves of the first classes."""
    features, truth = digits
    rows = np.flatnonzero(truth < CLASSES)
    one, other = rows[::2], rows[1::2]
    return features[one], truth[one], features[other], truth[other]


def said(features: np.ndarray, truth: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return probabilities of a plain model fitted on the source."""
    model = LogisticRegression(C=0.01, max_iter=300).fit(features, truth)
    return model.predict_proba(target)


def darkened(pixels: np.ndarray) -> np.ndarray:
    """Return digits with a third of the light and noise."""
    return (0.3 * pixels + np.random.default_rng(1).normal(0, 1, pixels.shape)).astype(np.float32)


def resampled(truth: np.ndarray) -> np.ndarray:
    """Return rows of which seven tenths are of class 0."""
    first, rest = np.flatnonzero(truth == 0), np.flatnonzero(truth != 0)
    return np.concatenate([first, rest[: int(len(first) * 0.43)]])


def test_halves_of_the_same_digits_show_no_shift(halves):
    features, truth, target, _ = halves
    found = measure_shift(features, truth, target, said(features, truth, target))
    assert found.kind == "none"
    assert abs(found.area - 0.5) < 0.12
    assert found.share_distance < 0.1


def test_other_shares_of_the_classes_are_a_label_shift_and_reweighting_undoes_them(halves):
    features, truth, target, answers = halves
    part = target[resampled(answers)]
    found = measure_shift(features, truth, part, said(features, truth, part))
    assert found.kind == "label"
    assert found.area > found.area_reweighted + 0.08
    assert found.shares[0] == pytest.approx(0.7, abs=0.06)


def test_darkened_digits_are_an_appearance_shift_in_whatever_shares(halves):
    features, truth, target, _ = halves
    dark = darkened(target)
    found = measure_shift(features, truth, dark, said(features, truth, dark))
    assert found.kind in ("appearance", "both")
    assert found.area_reweighted > 0.95
    assert found.gap > 0.4


def test_a_shift_is_the_same_twice_and_groups_stay_together(halves):
    features, truth, target, _ = halves
    probabilities = said(features, truth, target)
    first, second = (measure_shift(features, truth, target, probabilities, seed=3) for _ in range(2))
    assert (first.area, first.area_reweighted) == (second.area, second.area_reweighted)
    doubled = np.repeat(features[:60], 4, axis=0), np.repeat(truth[:60], 4)
    names = [str(row // 4) for row in range(240)]
    grouped = measure_shift(*doubled, target, probabilities, groups=names)
    assert grouped.area_chance < 0.75


def sides(source: np.ndarray, target: np.ndarray, domains: list[str] | None = None) -> tuple[Side, Side]:
    """Return two sides with these features."""

    def side(features: np.ndarray, names: list[str] | None) -> Side:
        pictures = [np.full((4, 4), row % 250, np.uint8) for row in range(len(features))]
        data = from_arrays(pictures, ["a", "b"] * (len(features) // 2) + ["a"] * (len(features) % 2))
        if names:
            data.domains[:] = names
        return Side(data, features, None, ())

    return side(source, None), side(target, domains)


def test_the_class_that_changed_and_the_domain_that_changed_stand_out(halves):
    features, truth, target, answers = halves
    moved = target.copy()
    moved[answers == 2] = darkened(target[answers == 2])
    source, other = sides(features, moved)
    views = class_views(points_of(source, other), truth, answers, [str(row) for row in range(CLASSES)])
    area = {view.name: view.area for view in views}
    assert area["2"] is not None and area["2"] > 0.95
    assert all(value is not None and value < 0.8 for name, value in area.items() if name != "2")
    half = len(target) // 2
    mixed = np.concatenate([target[:half], darkened(target[half:])])
    source, other = sides(features, mixed, ["day"] * half + ["night"] * (len(target) - half))
    by_name = {view.name: view for view in domain_views(points_of(source, other), other)}
    assert by_name["night"].area > 0.95 > 0.8 > by_name["day"].area  # type: ignore[operator]
    assert domain_views(points_of(source, sides(features, target)[1]), sides(features, target)[1]) == ()


def test_a_class_too_small_to_be_told_apart_has_no_numbers(halves):
    features, truth, target, _ = halves
    source, other = sides(features, target)
    views = class_views(
        points_of(source, other), truth, np.zeros(len(target), int), ["0", "1", "2", "3", "4"]
    )
    assert [view.area is None for view in views] == [False, True, True, True, True]


def test_the_most_typical_items_of_the_target_are_the_darkened_ones(halves):
    features, _, target, _ = halves
    mixed = target.copy()
    dark = np.arange(0, len(target), 2)
    mixed[dark] = darkened(target[dark])
    source, other = sides(features, mixed)
    _, found = typical(points_of(source, other))
    assert found and set(found) <= set(dark.tolist())


def test_classes_that_the_source_does_not_know_are_unlike_every_class(halves, digits):
    features, truth, target, _ = halves
    everything, labels = digits
    unknown = everything[labels >= CLASSES][: len(target)]
    known = unlike_every_class(points_of(*sides(features, target)), truth, own_mean=False)
    new = unlike_every_class(points_of(*sides(features, unknown)), truth, own_mean=False)
    assert known is not None and known < 0.12
    assert new is not None and new > 2 * known and new > 0.2
    few = Points(features[:20], target[:20])
    assert unlike_every_class(few, truth[:20], own_mean=False) is None


def test_estimated_accuracy_is_right_without_a_shift_and_has_a_band():
    draw = np.random.default_rng(0)

    def model(count: int) -> tuple[np.ndarray, np.ndarray]:
        sure = draw.uniform(0.5, 1, count)
        truth = draw.integers(0, 2, count)
        answers = np.where(draw.random(count) < sure, truth, 1 - truth)
        probabilities = np.where(np.arange(2) == answers[:, None], sure[:, None], 1 - sure[:, None])
        return probabilities, truth

    (known, truth), (unlabelled, hidden) = model(800), model(800)
    found = estimated_accuracy(known, truth, unlabelled)
    assert found is not None
    right = (unlabelled.argmax(1) == hidden).mean()
    assert found.low <= right <= found.high
    assert 0.02 < found.high - found.low < 0.25
    assert estimated_accuracy(known[:19], truth[:19], unlabelled) is None


def test_a_handful_of_items_of_the_same_world_are_no_label_shift(halves):
    features, truth, target, _ = halves
    kinds: list[str] = []
    for seed in range(10):
        rows = np.random.default_rng(seed).choice(len(target), 24, replace=False)
        found = measure_shift(features, truth, target[rows], said(features, truth, target[rows]), seed=seed)
        assert found.share_chance > 0.15
        assert min(found.area, found.area_reweighted, found.area_chance) >= 0.5
        kinds.append(found.kind)
    assert kinds.count("label") <= 1


def test_an_estimate_from_few_items_that_are_all_right_is_no_certainty():
    sure = np.tile([0.99, 0.01], (24, 1))
    found = estimated_accuracy(sure, np.zeros(24, np.int64), sure)
    assert found is not None
    assert found.value == 1.0
    assert found.low < 0.95


def test_items_of_the_source_do_not_count_as_unlike_every_class(halves):
    features, truth, target, _ = halves
    both = Points(features, np.concatenate([features[:100], 40 + target[:9]]))
    everything = unlike_every_class(both, truth, own_mean=False)
    new = unlike_every_class(both, truth, own_mean=False, unseen=np.arange(100, 109))
    assert everything is not None and everything < 0.5
    assert new == 1.0
    assert unlike_every_class(both, truth, own_mean=False, unseen=np.arange(100, 104)) is None
