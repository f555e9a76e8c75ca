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
    VALIDATED,
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
    monkeypatch.setattr(timing, "calibrated", lambda *_, **__: Pace(0.01, 0.02))
    found = paces([_entry("a", gmacs=2.0)], {}, _entry("reference"), context, batch_size=4)
    factor = 2 ** EXPONENTS["cpu"][0]
    assert astuple(found["a"]) == pytest.approx((0.01 * factor, 0.02 * factor))


def test_a_measured_candidate_keeps_its_time_and_moves_the_others(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "calibrated", lambda *_, **__: Pace(0.01, 0.02))
    measured = Pace(0.03, 0.04)
    found = paces([_entry("a"), _entry("b")], {"a": measured}, _entry("reference"), context, batch_size=4)
    assert found["a"] == measured
    assert astuple(found["b"]) == pytest.approx((0.03, 0.04))


def test_without_a_reference_the_time_is_that_of_the_published_machine(context: Context) -> None:
    found = paces([_entry("a")], {}, None, context, batch_size=4)
    forward = math.exp(INTERCEPTS["cpu"])
    assert astuple(found["a"]) == pytest.approx((forward, TRAINING_STEP * forward))


def test_the_reference_is_timed_once_and_kept_in_the_store(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "TIMED_SECONDS", 0.01)
    first = calibrated(TINY, context, batch_size=4)
    monkeypatch.setattr(timing, "_measured", lambda *_: pytest.fail("it was timed already"))
    assert calibrated(TINY, context, batch_size=4) == first
    assert min(first.latency, first.training) > 0


def test_another_number_of_threads_is_timed_anew(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "TIMED_SECONDS", 0.01)
    calibrated(TINY, context, batch_size=4)
    monkeypatch.setattr(timing, "_measured", lambda *_: Pace(1.0, 2.0))
    assert calibrated(TINY, replace(context, threads=2), batch_size=4) == Pace(1.0, 2.0)


def test_a_network_is_timed_on_its_own_items(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "TIMED_SECONDS", 0.01)
    encoder = open_encoder(Pretrained(name="tiny-cnn"))
    values = [encoder.prepare(np.zeros((32, 32, 3), np.uint8)).value] * 4
    found = timed(encoder, values, context, batch_size=8)
    assert min(found.latency, found.training) > 0
    assert timed(encoder, values, context, batch_size=8) == found  # From the store.


@pytest.mark.parametrize("name", ["tiny-cnn", "tiny-transformer", "tiny-gru", "tiny-text-transformer"])
def test_a_network_that_was_timed_in_training_is_as_it_was(
    name: str, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "TIMED_SECONDS", 0.01)
    monkeypatch.setattr(timing, "choose_runtime", lambda *_: lambda values: values)
    encoder = open_encoder(Pretrained(name=name))
    is_text = encoder.spec.modality == "text"
    values = [encoder.prepare("some words" if is_text else np.zeros((32, 32, 3), np.uint8)).value]
    before = {key: value.clone() for key, value in encoder.module.state_dict().items()}
    modes = [part.training for part in encoder.module.modules()]
    timed(encoder, values, context, batch_size=2)
    assert all(torch.equal(value, before[key]) for key, value in encoder.module.state_dict().items())
    assert [part.training for part in encoder.module.modules()] == modes
    assert all(parameter.grad is None for parameter in encoder.module.parameters())


def test_a_step_that_memory_does_not_hold_is_timed_with_fewer_items(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = open_encoder(Pretrained(name="tiny-cnn"))
    values = [encoder.prepare(np.zeros((32, 32, 3), np.uint8)).value]
    sizes: list[int] = []
    open_batch = encoder.batch

    def batch(rows: list[np.ndarray]) -> torch.Tensor:
        sizes.append(len(rows))
        if len(rows) > 2:
            raise torch.OutOfMemoryError
        return open_batch(rows)

    monkeypatch.setattr(timing, "TIMED_SECONDS", 0.01)
    monkeypatch.setattr(timing, "choose_runtime", lambda *_: lambda values: values)
    monkeypatch.setattr(encoder, "batch", batch)
    assert timed(encoder, values, context, batch_size=8).training > 0
    assert sizes[-3:] == [8, 4, 2]


def test_training_takes_steps_openings_and_looks_at_validation_items(context: Context) -> None:
    found = training_seconds(Pace(9.0, 0.5), 0.2, replace(context, threads=2), items=100, epochs=4)
    assert found == pytest.approx(VALIDATED * 100 * 4 * (0.5 + 0.1))


def test_a_graphics_card_computes_while_items_are_opened(context: Context) -> None:
    there = replace(context, device=torch.device("cuda"), workers=2)
    seconds = [
        training_seconds(Pace(9.0, 0.5), opening, there, items=100, epochs=4) for opening in (0.2, 4.0)
    ]
    assert seconds == pytest.approx([VALIDATED * 100 * 4 * 0.5, VALIDATED * 100 * 4 * 2.0])
