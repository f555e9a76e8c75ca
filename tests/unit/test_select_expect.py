"""What fine-tuning is expected to come to, and how far off that may be: by hand and by simulated histories."""

from __future__ import annotations

import math

import numpy as np
import pytest

from headstart.select.catalog import Entry
from headstart.select.expect import (
    CONFIDENCE,
    FAR,
    RIDGE,
    USUAL_SPREAD,
    Reach,
    expected,
    gain_of,
    reach_of,
    residuals,
    spread_of,
)
from headstart.select.history import History, Run, Traits, read, shipped

ITEMS = 300
NETWORKS = {f"n{index}": Traits(10.0 + index, 2.0, math.nan, "in1k") for index in range(8)}


def _history(num_sets: int, *, gain: float = 0.3, noise: float = 0.01, seed: int = 0) -> History:
    """Return runs whose fine-tuning closes a share of the gap to 1, give or take some noise."""
    draw = np.random.default_rng(seed)
    skill = draw.normal(0, 0.03, len(NETWORKS))
    runs: list[Run] = []
    for data in range(num_sets):
        frozen = draw.uniform(0.6, 0.8) + skill + draw.normal(0, 0.01, len(NETWORKS))
        tuned = frozen + gain * (1 - frozen) + draw.normal(0, noise, len(NETWORKS))
        runs += [
            Run(name, f"set {data}", float(after), float(before), 0.01, ITEMS, 500)
            for name, before, after in zip(NETWORKS, frozen, tuned, strict=True)
        ]
    return History(tuple(runs), NETWORKS)


def test_the_gain_is_learnt_from_runs_and_is_nothing_without_any() -> None:
    assert gain_of(History()) == 0
    one = History((Run("n0", "a", 0.8, 0.6, 0.0, ITEMS),), NETWORKS)
    assert gain_of(one) == pytest.approx(0.4 * 0.2 / (0.4**2 + RIDGE))
    assert gain_of(_history(12)) == pytest.approx(0.3, abs=0.03)


def test_the_usual_spread_is_that_of_networks_on_recorded_data() -> None:
    assert spread_of(History()) == pytest.approx(USUAL_SPREAD)
    two = History((Run("n0", "a", 0.9, 0.5), Run("n1", "a", 0.9, 0.7)), NETWORKS)
    assert spread_of(two) == pytest.approx(math.sqrt((0.1**2 + USUAL_SPREAD**2) / 2))


def test_networks_that_were_not_probed_are_placed_by_their_prior() -> None:
    history = _history(8)
    quality = np.array([0.7] * 7 + [np.nan])
    found = expected(NETWORKS, quality, np.full(8, 0.01), history=history)
    assert np.isfinite(found.quality).all()
    assert found.posterior.prior_share[-1] == 1.0
    assert (np.sign(found.quality[-1] - found.quality[:-1].mean()) == np.sign(found.known.mean[-1])) or abs(
        found.known.mean[-1]
    ) < 0.2


def test_what_nobody_measured_is_never_expected_to_be_perfect() -> None:
    traits = {
        "here": Traits(5, 0.4, 60, ""),
        "far": Traits(500, 90, 88, ""),
        "farther": Traits(5000, 900, 95, ""),
    }
    found = expected(traits, np.array([0.95, np.nan, np.nan]), np.full(3, 0.01), history=History())
    assert found.quality[0] == pytest.approx(0.95)
    assert 0.95 < found.quality[1] < found.quality[2] < 1


def test_without_a_probe_or_a_history_the_order_is_still_that_of_the_prior() -> None:
    traits = {
        name: Traits(size, size, math.nan, "") for name, size in (("a", 1.0), ("b", 10.0), ("c", 100.0))
    }
    found = expected(traits, np.full(3, np.nan), np.full(3, np.nan), history=History())
    assert found.quality.tolist() == sorted(found.quality.tolist())


def test_an_expectation_knows_nothing_of_the_data_set_that_is_left_out() -> None:
    history = _history(4)
    spoilt = tuple(
        Run(run.model, run.data, 0.0, run.frozen, run.frozen_error, run.n_train)
        if run.data == "set 0"
        else run
        for run in history.runs
    )
    clean, other = (
        {run.model: value for run, value in residuals(one) if run.data == "set 0"}
        for one in (history, History(spoilt, NETWORKS))
    )
    assert clean == other


def test_intervals_cover_what_they_promise_on_new_data_sets() -> None:
    whole = _history(18, noise=0.02, seed=3)
    names = [f"set {index}" for index in range(10)]
    reach = reach_of(History(tuple(run for run in whole.runs if run.data in names), NETWORKS))
    assert reach is not None
    assert (reach.num_sets, reach.num_runs) == (10, 80)
    inside = [
        (around := reach.around(value, 1)).low <= run.fine_tuned <= around.high
        for run, value in residuals(whole)
        if run.data not in names
    ]
    assert CONFIDENCE - 0.07 < np.mean(inside) < CONFIDENCE + 0.07


def test_runs_say_nothing_of_far_more_or_fewer_items_than_theirs() -> None:
    reach = reach_of(_history(4))
    assert reach is not None and reach.items == (ITEMS, ITEMS)
    assert reach.covers(ITEMS) and reach.covers(FAR * ITEMS) and reach.covers(ITEMS // FAR)
    assert not reach.covers(FAR * ITEMS + 1) and not reach.covers(ITEMS // FAR - 1)


def test_perfect_probes_promise_no_more_than_perfection() -> None:
    quality = np.linspace(0.99, 1.0, 8)
    found = expected(NETWORKS, quality, np.full(8, 0.01), history=_history(8))
    assert found.quality.max() <= 1
    around = Reach(0.5, 0.6, 100, 10).around(1.0, 7)
    assert around.low <= around.value <= around.high == 1


def test_too_little_history_gives_no_interval() -> None:
    assert reach_of(History()) is None
    assert reach_of(_history(3)) is None
    assert reach_of(_history(4)) is not None


def test_an_interval_is_narrower_near_one_and_never_passes_it() -> None:
    reach = Reach(-0.1, 0.2, 100, 10)
    middle, high = reach.around(0.5, 7), reach.around(0.98, 7)
    assert (middle.low, middle.high, middle.n) == (pytest.approx(0.45), pytest.approx(0.6), 7)
    assert high.high == pytest.approx(1.0)
    assert high.value - high.low < middle.value - middle.low


def test_the_shipped_runs_can_be_read_and_are_kept_apart_by_task() -> None:
    history = shipped("image", "classification")
    assert {run.model for run in history.runs} <= set(history.traits)
    assert shipped("image", "no such task").runs == ()


def test_gmacs_are_compared_at_one_size_of_the_items() -> None:
    def entry(side: int, gmacs: float) -> Entry:
        return Entry(
            "n", "image", ("pooled",), 5.0, gmacs, 1.0, side, "in1k", {"imagenet": 75.0}, "MIT", {"name": "n"}
        )

    assert Traits.of(entry(112, 0.1)).gmacs == pytest.approx(0.4)
    assert Traits.of(entry(224, 0.4)) == Traits(5.0, 0.4, 75.0, "in1k")


def test_runs_are_read_by_the_names_of_their_columns() -> None:
    values = {
        "networks": {"n": {"parameters_m": 1.0, "gmacs": 0.1, "pretraining": "in1k"}},
        "columns": ["modality", "task", "model", "data", "fine_tuned", "frozen"],
        "runs": [
            ["image", "classification", "n", "a", 0.9, 0.8],
            ["text", "classification", "n", "b", 0.7, 0.6],
        ],
    }
    found = read(values, "image", "classification")
    assert found.runs == (Run("n", "a", 0.9, 0.8),)
    assert math.isnan(found.traits["n"].imagenet)
