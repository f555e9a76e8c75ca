"""The time model: its formula by hand, and how timing this machine moves it."""

from __future__ import annotations

import math
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from headstart.core.settings import Pretrained
from headstart.model import open_encoder
from headstart.select import timing
from headstart.select.catalog import Entry
from headstart.select.timing import (
    EXPONENTS,
    INTERCEPTS,
    TRAINING_STEP,
    Pace,
    calibrated,
    log_cost,
    paces,
    timed,
    training_seconds,
)
from headstart.store import Store
from headstart.train.runtime import Context

TINY = Entry("tiny-cnn", "image", ("pooled",), 0.1, 0.01, 0.1, 32, "random", {}, "none", {"name": "tiny-cnn"})


def _entry(name: str, *, gmacs: float = 1.0, activations: float = 1.0, parameters: float = 1.0) -> Entry:
    """Return a candidate of these facts."""
    return Entry(
        name, "image", ("pooled",), parameters, gmacs, activations, 224, "in1k", {}, "MIT", {"name": name}
    )


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """Return one thread on the processor."""
    return Context(Store(tmp_path / "store"), torch.device("cpu"), 1, 0)


def test_the_log_of_the_time_is_linear_in_the_logs_of_the_facts() -> None:
    dear = _entry("dear", gmacs=4.0, activations=10.0, parameters=20.0)
    first, second, third = EXPONENTS["cpu"]
    assert log_cost(_entry("unit")) == 0
    assert log_cost(dear) == pytest.approx(first * math.log(4) + second * math.log(10) + third * math.log(20))


def test_a_graphics_card_has_exponents_of_its_own() -> None:
    dear = _entry("dear", activations=10.0)
    assert log_cost(dear, "cuda") == pytest.approx(EXPONENTS["cuda"][1] * math.log(10))


def test_a_larger_picture_costs_by_its_area() -> None:
    usual = _entry("net", gmacs=2.0, activations=3.0, parameters=5.0)
    larger = replace(usual, encoder={"name": "net", "image_size": 448})
    first, second, _ = EXPONENTS["cpu"]
    assert log_cost(larger) - log_cost(usual) == pytest.approx((first + second) * math.log(4))


def test_candidates_are_as_much_slower_than_the_reference_as_the_model_says(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "calibrated", lambda *_: Pace(0.01, 0.02))
    found = paces([_entry("a", gmacs=2.0)], {}, _entry("reference"), context)
    factor = 2 ** EXPONENTS["cpu"][0]
    assert astuple(found["a"]) == pytest.approx((0.01 * factor, 0.02 * factor))


def test_a_measured_candidate_keeps_its_time_and_moves_the_others(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "calibrated", lambda *_: Pace(0.01, 0.02))
    measured = Pace(0.03, 0.04)
    found = paces([_entry("a"), _entry("b")], {"a": measured}, _entry("reference"), context)
    assert found["a"] == measured
    assert astuple(found["b"]) == pytest.approx((0.03, 0.04))


def test_without_a_reference_the_time_is_that_of_the_published_machine(context: Context) -> None:
    found = paces([_entry("a")], {}, None, context)
    assert found["a"].latency == pytest.approx(math.exp(INTERCEPTS["cpu"]))


def test_the_reference_is_timed_once_and_kept_in_the_store(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "TIMED_SECONDS", 0.01)
    first = calibrated(TINY, context)
    monkeypatch.setattr(timing, "_measured", lambda *_: pytest.fail("it was timed already"))
    assert calibrated(TINY, context) == first
    assert min(first.latency, first.batch) > 0


def test_another_number_of_threads_is_timed_anew(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "TIMED_SECONDS", 0.01)
    calibrated(TINY, context)
    monkeypatch.setattr(timing, "_measured", lambda *_: Pace(1.0, 2.0))
    assert calibrated(TINY, replace(context, threads=2)) == Pace(1.0, 2.0)


def test_a_network_is_timed_on_its_own_items(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "TIMED_SECONDS", 0.01)
    encoder = open_encoder(Pretrained(name="tiny-cnn"))
    values = [encoder.prepare(np.zeros((32, 32, 3), np.uint8)).value] * 4
    found = timed(encoder, values, context)
    assert min(found.latency, found.batch) > 0
    assert timed(encoder, values, context) == found  # From the store.


def test_training_takes_some_forward_passes_an_item_and_epoch() -> None:
    assert training_seconds(Pace(9.0, 0.5), items=100, epochs=4) == pytest.approx(
        100 * 4 * TRAINING_STEP * 0.5
    )
