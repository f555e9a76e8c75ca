"""Proving: budgets, paired differences, laws, and the measures that name a cause, against hand values."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headstart.core.settings import Pretrained
from headstart.core.types import Score
from headstart.encoders.tiny import open_tiny_cnn
from headstart.proving.budgets import budgets_of, nested
from headstart.proving.causes import Traced, _of_domain, _of_labels, _of_statistics, _of_tuning
from headstart.proving.conclude import _deciding, _verdict
from headstart.proving.differences import crossed_gain
from headstart.proving.growth import fit_power_law, growth_of, needed
from headstart.proving.measures import drift, group_features, linear_cka, statistics_gap
from headstart.proving.outcome import ArmFound, Budget, Difference, Growth, Lap, Point

FULL = Budget(1.0, 800, 200)


# -- budgets -----------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from("abcd"), min_size=3, max_size=120), st.integers(1, 30), st.integers(0, 3))
def test_budgets_rise_and_hold_each_class(strata: list[str], held_out: int, seed: int):
    budgets = budgets_of(strata, held_out)
    sizes = [(budget.num_train, budget.num_validation) for budget in budgets]
    assert sizes == sorted(set(sizes)) and sizes[-1] == (len(strata), held_out)
    order = nested(strata, seed=seed, stream="train")
    assert sorted(order) == list(range(len(strata)))
    for train, _ in sizes:
        assert {strata[row] for row in order[:train]} == set(strata)


def test_items_join_in_proportion_and_seeds_differ():
    strata = ["often"] * 90 + ["seldom"] * 10
    order = nested(strata, seed=0, stream="train")
    for size in (20, 50):
        assert abs(Counter(strata[row] for row in order[:size])["seldom"] - size / 10) <= 1
    assert order != nested(strata, seed=1, stream="train") and order == nested(strata, seed=0, stream="train")


def test_budgets_that_would_be_equal_are_one():
    assert [budget.num_train for budget in budgets_of(["a", "b", "c"] * 4, 3)] == [3, 6, 12]
    assert [budget.share for budget in budgets_of(["a", "b"] * 500, 200)] == [
        0.01,
        0.02,
        0.05,
        0.1,
        0.25,
        0.5,
        1.0,
    ]


# -- differences ---------------------------------------------------------------------------------------------------


def test_a_difference_is_the_mean_over_seeds_and_items():
    gain = np.random.default_rng(0).normal(0.1, 0.5, (5, 400))
    found = crossed_gain(gain, name="difference")
    assert found.value == pytest.approx(gain.mean())
    half = 1.96 * 0.5 / math.sqrt(gain.size)
    assert found.low < gain.mean() - 0.8 * half and found.high > gain.mean() + 0.8 * half
    assert crossed_gain(gain, name="difference") == found


def test_seeds_that_disagree_widen_the_interval():
    alike = np.tile(np.random.default_rng(0).normal(0.1, 0.5, (1, 300)), (5, 1))
    apart = alike + np.array([-0.3, -0.1, 0.0, 0.1, 0.3])[:, None]
    first, second = (crossed_gain(gain, name="difference") for gain in (alike, apart))
    assert first.value == pytest.approx(second.value)
    assert second.high - second.low > 1.5 * (first.high - first.low)


def test_two_seeds_that_disagree_decide_nothing():
    alone = crossed_gain(np.array([[0.02], [0.08]]).repeat(2000, 1), name="d")
    deviation = math.sqrt((4 * 0.05**2 + 0.0018) / 5)
    half = 2.571 * deviation / math.sqrt(2)  # Student's t with five degrees of freedom.
    assert alone.low == pytest.approx(0.05 - half, abs=0.01) and alone.low < 0 < alone.high
    beyond = crossed_gain(np.array([[0.36], [0.48]]).repeat(60, 1), name="d")
    assert beyond.low > 0.2, "what no run would vary by is decided by two"
    beside = [np.array([[0.0], [0.06]]).repeat(2000, 1)] * 3
    more = crossed_gain(np.array([[0.02], [0.08]]).repeat(2000, 1), name="d", beside=beside)
    assert more.high - more.low < alone.high - alone.low


def test_no_gain_is_seldom_taken_for_one_where_runs_differ():
    draws = np.random.default_rng(0)
    wrong = Counter[float]()
    for number in range(200):
        for deviation in (0.02, 0.06):
            runs = draws.normal(0, deviation, (2, 1)) + draws.normal(0, 0.3, (2, 400))
            found = crossed_gain(runs, name="d", seed=number, resamples=400)
            wrong[deviation] += found.low > 0 or found.high < 0
    assert wrong[0.02] <= 4 and wrong[0.06] <= 24


def test_groups_are_drawn_as_wholes():
    gain = np.repeat(np.random.default_rng(0).normal(0, 1, 20), 10)[None]
    groups = [f"patient {row // 10}" for row in range(200)]
    alone, grouped = crossed_gain(gain, name="d"), crossed_gain(gain, name="d", groups=groups)
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)


# -- laws ----------------------------------------------------------------------------------------------------------

SIZES = (10, 20, 50, 100, 250, 500, 1000)


def arm_of(errors: Any, *, name: str = "frozen", validation: float = 0.5, sizes: Any = SIZES) -> ArmFound:
    """Return an arm with these errors [seeds, budgets]."""
    points = [
        Point(Budget(n / 1000, n - 1, 1), tuple(scores), float(np.mean(scores)), min(scores), max(scores))
        for n, scores in zip(sizes, (1 - np.atleast_2d(errors)).T.tolist(), strict=True)
    ]
    return ArmFound(name, name, name != "scratch", tuple(points), 1.0, validation, 0, (Lap(1.0, 0.5),), ())


def law(a: float, b: float, c: float, *, noise: float = 0.0, seeds: int = 5) -> np.ndarray:
    """Return errors by a law, with noise by seed."""
    clean = a + b * np.array(SIZES, dtype=float) ** -c
    return clean * np.exp(np.random.default_rng(0).normal(0, noise, (seeds, len(SIZES))))


def growth(errors: Any, target: float, *, sizes: Any = SIZES, items: int = 0) -> Growth:
    """Return the growth of an arm with these errors [seeds, budgets], of all items alike or of so many of chance."""
    arm = arm_of(errors, sizes=sizes)
    draws = np.random.default_rng(1)
    answers = [
        np.array(
            [draws.random(items) < score if items else np.full(9, score) for score in point.scores], float
        )
        for point in arm.points
    ]
    return growth_of(arm, target, answers, num_test=items or 1000)


@pytest.mark.parametrize(("a", "b", "c"), [(0.05, 1.5, 0.5), (0.0, 1.0, 0.3), (0.1, 3.0, 1.0)])
def test_a_law_without_noise_is_found(a: float, b: float, c: float):
    found = [float(value[0]) for value in fit_power_law(np.array(SIZES, float), law(a, b, c, seeds=1))]
    assert found == pytest.approx([a, b, c], abs=0.01)
    one, two, three = (np.array([value]) for value in (a, b, c))
    assert float(needed(one, two, three, a + b * 300**-c)[0]) == pytest.approx(300)


def test_it_says_how_many_more_labels_a_score_takes():
    found = growth(law(0.0, 1.0, 0.4, noise=0.02), 1 - 3000**-0.4)
    assert found.labels == pytest.approx(3000, rel=0.3)
    assert found.low and found.high and found.low < 3000 < found.high
    assert found.words.startswith("about ") and "more labels" in found.words


def test_a_score_that_was_reached_says_with_how_many():
    found = growth(law(0.0, 1.0, 0.4, noise=0.02), 1 - 300**-0.4)
    assert found.labels == pytest.approx(300, rel=0.3) and found.words.startswith("reached with about")
    assert growth(law(0.0, 1.0, 0.4), 0.1).words == "reached with 10 labels or fewer"


def test_few_test_items_widen_what_is_said_of_labels():
    errors, target = law(0.0, 1.0, 0.4, noise=0.02), 1 - 2000**-0.4
    sure, unsure = growth(errors, target), growth(errors, target, items=4000)
    assert sure.low and sure.high and unsure.low and unsure.high
    assert unsure.low < sure.low < sure.high < unsure.high
    assert growth(errors, target, items=50).words.startswith("cannot tell")


@pytest.mark.parametrize(
    ("errors", "target", "words"),
    [
        (law(0.2, 1.0, 0.8, noise=0.01), 0.9, "may never reach it"),
        (law(0.0, 1.0, 0.1), 0.95, "too far to foresee"),
    ],
)
def test_it_says_when_it_cannot_tell(errors: np.ndarray, target: float, words: str):
    found = growth(errors, target)
    assert found.labels is None and found.words.startswith("cannot tell") and words in found.words


def test_a_perfect_score_on_few_items_does_not_bend_the_law():
    errors = np.array([0.375, 0.292, 0.167, 0.125, 0.0])
    sizes = (4, 5, 12, 24, 48)
    arm = arm_of(np.tile(errors, (2, 1)), sizes=sizes)
    draws = np.random.default_rng(0)
    answers = [(draws.random((2, 24)) < 1 - error).astype(float) for error in errors]
    found = growth_of(arm, 0.9, answers, num_test=24)
    law_at_four = found.floor + found.factor * 4**-found.power
    assert law_at_four == pytest.approx(0.375, abs=0.15)
    said = found.words.removeprefix("reached with ").removeprefix("about ").split()[0]
    assert 24 <= float(said) <= 48


def test_a_score_that_is_no_mean_over_items_draws_seeds_alone():
    arm = arm_of(law(0.0, 1.0, 0.4, noise=0.02))
    found = growth_of(arm, 1 - 300**-0.4, None, num_test=50)
    assert found.low and found.high and found.low <= 300 <= found.high * 1.3
    assert found.high - found.low < 300


def test_three_budgets_are_too_few_for_a_law():
    found = growth(law(0, 1, 0.5)[:, :3], 0.99, sizes=SIZES[:3])
    assert found.words.startswith("cannot tell: 3 budgets are too few")


# -- verdict -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.01, 0.2, "worth it"), (-0.2, -0.01, "not worth it"), (-0.1, 0.1, "undecided")],
)
def test_the_interval_decides(low: float, high: float, verdict: str):
    arms = [arm_of(law(0, 1, 0.5), name="frozen"), arm_of(law(0, 1, 0.5), name="scratch")]
    one = Difference("frozen", "scratch", FULL, 5, Score("difference", (low + high) / 2, low, high, 300))
    assert _verdict(arms, one, blocks=300)[0] == verdict
    assert _verdict(arms, None, blocks=300)[0] == "undecided"
    assert _verdict(arms, one, blocks=9)[0] == "undecided"
    longer = [arms[0], replace(arms[1], seconds=4 * arms[0].seconds)]
    found, reason = _verdict(longer, one, blocks=300)
    assert found == ("undecided" if verdict == "not worth it" else verdict)
    assert "from scratch took 4.0 times as long" in reason
    shorter = [arms[0], replace(arms[1], seconds=0.5 * arms[0].seconds)]
    assert _verdict(shorter, one, blocks=300)[0] == ("undecided" if verdict == "worth it" else verdict)


def test_the_arm_that_is_judged_is_chosen_by_validation():
    arms = [
        arm_of(law(0, 1, 0.5), name=name, validation=value)
        for name, value in (("frozen", 0.7), ("finetune", 0.8))
    ]
    score = Score("difference", 0.1, 0.0, 0.2, 300)
    full = [Difference(name, "scratch", FULL, 5, score) for name in ("frozen", "finetune")]
    found = _deciding(arms, full)
    assert found and found.arm == "finetune"


# -- measures ------------------------------------------------------------------------------------------------------


def test_features_are_alike_whatever_their_rotation_and_scale():
    draws = np.random.default_rng(0)
    features = draws.normal(size=(60, 8))
    turned = 3 * features @ np.linalg.qr(draws.normal(size=(8, 8)))[0] + 1
    assert linear_cka(features, turned) == pytest.approx(1)
    assert abs(linear_cka(features, draws.normal(size=(60, 500)))) < 0.2, "wide noise is like nothing"
    assert math.isnan(linear_cka(features[:3], turned[:3])) and math.isnan(
        linear_cka(features, np.ones((60, 2)))
    )


def test_drift_names_the_layers_that_changed():
    encoder = open_tiny_cnn(Pretrained(name="tiny-cnn"))
    values = list(np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), dtype=np.uint8))
    before = group_features(encoder, values, "pooled")
    assert list(before) == [group.name for group in encoder.layer_groups()]
    assert all(value == pytest.approx(1) for value in drift(before, before).values())
    last = encoder.layer_groups()[-1]
    with torch.no_grad():
        for tensor in last.parameters.values():
            tensor.copy_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(3)))
    after = drift(before, group_features(encoder, values, "pooled"))
    assert min(after, key=after.__getitem__) == last.name
    assert after[encoder.layer_groups()[0].name] == pytest.approx(1)


def test_the_gap_of_statistics_is_in_running_deviations():
    encoder = open_tiny_cnn(Pretrained(name="tiny-cnn"))
    values = list(np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8))
    layer = next(part for part in encoder.module.modules() if isinstance(part, torch.nn.BatchNorm2d))
    kept: list[torch.Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _module, inputs: kept.append(inputs[0]))
    encoder.module.eval()
    encoder.network("pooled")(encoder.batch(values))
    handle.remove()
    for part in encoder.module.modules():
        if isinstance(part, torch.nn.BatchNorm2d) and part is not layer:
            part.running_mean = part.running_var = None
    mean = kept[0].mean((0, 2, 3)).detach()
    layer.running_mean, layer.running_var = mean + 2.0, torch.full_like(mean, 4.0)
    gap, layers = statistics_gap(encoder, values, "pooled")
    assert layers == 1 and gap == pytest.approx(1.0, abs=1e-3)


# -- causes --------------------------------------------------------------------------------------------------------


def likely(causes: Any) -> list[str]:
    """Return the names of the likely causes."""
    return [cause.name for cause in causes if cause.is_likely]


def test_causes_are_named_by_what_was_measured():
    sound = Traced({"stem": 0.98, "top": 0.9}, 0.95, 0.93, 0.90, 0.89)
    assert likely(_of_tuning(sound)) == []
    drifted = Traced({"stem": 0.4, "top": 0.3}, 0.95, 0.93, 0.90, 0.89)
    assert likely(_of_tuning(drifted)) == ["rates too high"] and "top" in _of_tuning(drifted)[0].measured
    assert likely(_of_tuning(Traced({}, 0.5, 0.5, 0.9, 0.89))) == ["rates too high"], (
        "even training items got worse"
    )
    assert likely(_of_tuning(Traced({"stem": 0.9}, 1.0, 0.7, 0.8, 0.75))) == ["overfitting"]
    assert likely(_of_tuning(Traced({}, 0, 0, 0, 0, failure="the loss explodes"))) == ["rates too high"]
    assert (
        likely(_of_statistics(0.9, 20)) and not likely(_of_statistics(0.1, 20)) and not _of_statistics(0.0, 0)
    )


def test_gaps_and_wrong_labels_are_told_from_the_runs():
    def runs(validation: float, suspects: int) -> Any:
        return [cast("Any", SimpleNamespace(validation=validation, suspects=suspects, budget=FULL))]

    assert _of_domain({"frozen": runs(0.5, 0), "scratch": runs(0.8, 0)}, 0.7, 10).is_likely
    assert not _of_domain({"frozen": runs(0.9, 0), "scratch": runs(0.8, 0)}, 0.7, 10).is_likely
    assert _of_labels(runs(0.5, 200)).is_likely and not _of_labels(runs(0.5, 10)).is_likely
