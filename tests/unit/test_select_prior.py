"""The prior over networks and how a probe corrects it: by hand where there is little, by simulation where much."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from headstart.select.history import Run, Traits
from headstart.select.prior import (
    BELIEFS,
    BETWEEN,
    DEVIATIONS,
    DISCREPANCY,
    LEAST_RELIABILITY,
    WITHIN,
    Prior,
    combine,
    discrepancy_of,
    prior,
    scale_of,
    standings,
)

SMALL, MIDDLE, LARGE = (
    Traits(size, size / 5, score, "in1k") for size, score in ((1, 60), (10, 70), (100, 80))
)
THREE = {"small": SMALL, "middle": MIDDLE, "large": LARGE}


def _runs(qualities: dict[str, dict[str, float]]) -> list[Run]:
    """Return runs of fine-tuned qualities by data set and network."""
    return [Run(model, data, value) for data, row in qualities.items() for model, value in row.items()]


def test_z_scores_compare_networks_on_one_data_set() -> None:
    found = standings(_runs({"a": {"x": 0.7, "y": 0.8, "z": 0.9}, "b": {"x": 0.1, "y": 0.2}}))
    assert found["a"].scores == pytest.approx({"x": -math.sqrt(1.5), "y": 0.0, "z": math.sqrt(1.5)})
    assert (found["a"].noise, found["a"].reliability) == (0.0, 1.0)
    assert "b" not in found  # Two networks are too few.


@pytest.mark.parametrize(("n_test", "error"), [(0, 0.0), (1000, 0.0), (0, 0.008), (1000, 0.008), (10, 0.0)])
def test_chance_of_test_items_and_of_training_is_no_spread(n_test: int, error: float) -> None:
    runs = [
        Run(name, "a", value, n_test=n_test, fine_tuned_error=error)
        for name, value in (("x", 0.70), ("y", 0.72), ("z", 0.74))
    ]
    variance = 2 / 3 * 0.02**2
    chance = error**2 + ((0.7 * 0.3 + 0.72 * 0.28 + 0.74 * 0.26) / 3 * 0.5 / n_test if n_test else 0)
    share = max(LEAST_RELIABILITY, 1 - chance / variance)
    found = standings(runs)["a"]
    assert found.reliability == pytest.approx(share)
    assert found.scores["z"] == pytest.approx(math.sqrt(1.5 / share))


def test_data_sets_whose_runs_vary_count_for_less() -> None:
    draw = np.random.default_rng(0)
    traits = {f"n{index}": Traits(10, 2, math.nan, "") for index in range(12)}
    said: list[float] = []
    for known in (0.0, 1.0):
        found: list[float] = []
        for _ in range(40):
            true = draw.normal(size=12)
            errors = [0.3, 3.0] * 4
            runs = [
                Run(name, f"set {place}", float(value), fine_tuned_error=known * error)
                for place, error in enumerate(errors)
                for name, value in zip(traits, true + error * draw.normal(size=12), strict=True)
            ]
            rank: Any = spearmanr(prior(traits, runs).mean, true)
            found.append(rank.statistic)
        said.append(float(np.mean(found)))
    assert said[1] > said[0] + 0.05


def test_networks_that_are_all_alike_have_a_z_score_of_zero() -> None:
    assert set(standings(_runs({"a": {"x": 0.9, "y": 0.9, "z": 0.9}}))["a"].scores.values()) == {0.0}


def test_without_runs_size_and_imagenet_score_decide() -> None:
    found = prior(THREE, [])
    assert found.mean.tolist() == sorted(found.mean.tolist())
    steps = {"parameters": math.log(10), "gmacs": math.log(10), "imagenet": 10}
    by_hand = sum(BELIEFS[name] * step / DEVIATIONS[name] for name, step in steps.items())
    assert found.mean == pytest.approx([-by_hand, 0, by_hand])
    assert found.variance == pytest.approx([BETWEEN + WITHIN] * 3)
    assert found.num_sets.tolist() == [0, 0, 0]


def test_what_a_size_counts_for_does_not_depend_on_the_other_candidates() -> None:
    giant = Traits(1000, 200, 90, "in1k")
    few, many = prior(THREE, []).mean, prior({**THREE, "giant": giant}, []).mean
    assert few[2] - few[0] == pytest.approx(many[2] - many[0])


def test_an_unknown_imagenet_score_counts_as_the_mean_of_the_known() -> None:
    unknown = Traits(10, 2, math.nan, "own")
    found = prior({**THREE, "unknown": unknown}, [])
    assert found.mean[3] == pytest.approx(found.mean[1], abs=0.02)


def test_runs_on_other_data_outweigh_what_size_says() -> None:
    runs = _runs({f"set {index}": {"small": 0.9, "middle": 0.8, "large": 0.7} for index in range(8)})
    found = prior(THREE, runs)
    assert found.mean[0] > found.mean[1] > found.mean[2]
    assert found.variance.max() < BETWEEN + WITHIN
    assert found.num_sets.tolist() == [8, 8, 8]


def test_kinds_of_pretraining_are_learnt_for_networks_that_never_ran() -> None:
    kinds = {f"{kind} {index}": Traits(10, 2, 70, kind) for kind in ("good", "bad") for index in range(4)}
    ran = {name: (0.9 if name.startswith("good") else 0.6) for name in kinds if not name.endswith("3")}
    found = prior(kinds, _runs({f"set {index}": ran for index in range(5)}))
    by_name = dict(zip(kinds, found.mean, strict=True))
    assert by_name["good 3"] - by_name["bad 3"] > 0.8


def test_the_prior_recovers_simulated_networks_from_noisy_data_sets() -> None:
    draw = np.random.default_rng(0)
    traits = {f"n{index}": Traits(10, 2, math.nan, "") for index in range(20)}
    true = draw.normal(size=20)
    sets = {
        f"set {index}": dict(zip(traits, (true + draw.normal(size=20)).tolist(), strict=True))
        for index in range(10)
    }
    found: Any = spearmanr(prior(traits, _runs(sets)).mean, true)
    assert found.statistic > 0.9


def _known(mean: list[float], variance: float = 0.5) -> Prior:
    """Return a prior that is equally sure of each network."""
    return Prior(np.array(mean), np.full(len(mean), variance), np.zeros(len(mean), int), np.zeros(len(mean)))


def test_a_probe_is_weighed_against_the_prior_by_the_inverse_of_their_variances() -> None:
    known, quality = _known([1.0, 0.0, -1.0]), np.array([0.7, 0.8, 0.9])
    error = np.full(3, 0.02)
    scale = scale_of(known, quality, error, discrepancy=0.5, spread=0.05)
    found = combine(known, quality, error, discrepancy=0.5, spread=0.05)
    noise = 0.5 + (0.02 / scale) ** 2
    share = noise / (noise + 0.5)
    assert found.prior_share == pytest.approx([share] * 3)
    assert found.mean[2] == pytest.approx(-share + (1 - share) * 0.1 / scale)
    assert found.variance == pytest.approx([share * 0.5] * 3)


def test_the_scale_takes_noise_off_the_spread_of_the_probe() -> None:
    known, quality = _known([0.0, 0.0]), np.array([0.6, 0.8])
    by_hand = math.sqrt((max(0.02 - 0.01, 0) / (0.5 + 0.5) + 2 * 0.05**2) / 3)
    assert scale_of(known, quality, np.full(2, 0.1), discrepancy=0.5, spread=0.05) == pytest.approx(by_hand)


def test_a_coarse_probe_leaves_the_order_to_the_prior_and_a_fine_one_turns_it() -> None:
    known, quality = _known([1.0, 0.0, -1.0]), np.array([0.80, 0.82, 0.84])
    coarse = combine(known, quality, np.full(3, 0.10), discrepancy=0.1, spread=0.02)
    fine = combine(known, quality, np.full(3, 0.002), discrepancy=0.1, spread=0.02)
    assert coarse.mean.argmax() == 0
    assert fine.mean.argmax() == 2
    assert (coarse.prior_share > fine.prior_share).all()


def test_a_network_that_was_not_probed_keeps_its_prior() -> None:
    known = _known([1.0, 0.0, -1.0])
    found = combine(
        known, np.array([np.nan, 0.7, 0.8]), np.array([np.nan, 0.01, 0.01]), discrepancy=0.2, spread=0.05
    )
    assert found.mean[0] == 1.0
    assert found.prior_share[0] == 1.0


def test_a_probe_counts_less_for_a_network_whose_features_serve_as_they_are() -> None:
    traits = {name: Traits(10, 2, math.nan, "") for name in ("ready", "raw", "other", "last")}
    draw = np.random.default_rng(0)
    runs: list[Run] = []
    for data in range(6):
        came = {"ready": 0.8, "raw": 0.8, "other": 0.8, "last": 0.8}
        frozen = {"ready": 0.75, "raw": 0.65, "other": 0.7, "last": 0.7}
        runs += [Run(name, str(data), came[name] + 0.01 * draw.normal(), frozen[name]) for name in traits]
    known = prior(traits, runs)
    habit = dict(zip(traits, known.habit.tolist(), strict=True))
    assert habit["ready"] > 0.5 > -0.5 > habit["raw"]
    same = np.array([0.70, 0.70, 0.70, 0.66])
    found = combine(known, same, np.full(4, 0.01), discrepancy=0.2, spread=0.05)
    by_name = dict(zip(traits, found.mean - known.mean, strict=True))
    assert by_name["raw"] > by_name["other"] > by_name["ready"]


def test_networks_without_recorded_probes_have_no_habit() -> None:
    traits = {f"n{index}": Traits(10, 2, math.nan, "") for index in range(3)}
    assert prior(traits, _runs({"a": {"n0": 0.5, "n1": 0.6, "n2": 0.7}})).habit.tolist() == [0.0] * 3


def test_without_any_probe_the_prior_stands() -> None:
    known = _known([1.0, 0.0])
    found = combine(known, np.full(2, np.nan), np.full(2, np.nan), discrepancy=0.2, spread=0.05)
    assert found.mean.tolist() == [1.0, 0.0]


def test_the_discrepancy_of_a_probe_is_believed_until_runs_tell_it() -> None:
    traits = {f"n{index}": Traits(10, 2, math.nan, "") for index in range(12)}
    assert discrepancy_of(traits, []) == pytest.approx(DISCREPANCY)
    draw = np.random.default_rng(0)

    def runs(noise: float) -> list[Run]:
        rows: list[Run] = []
        for data in range(8):
            true = draw.normal(size=12)
            probe = true + noise * draw.normal(size=12)
            rows += [
                Run(name, str(data), *pair)
                for name, *pair in zip(traits, true.tolist(), probe.tolist(), strict=True)
            ]
        return rows

    assert discrepancy_of(traits, runs(0.1)) < 0.15 < discrepancy_of(traits, runs(3.0))
