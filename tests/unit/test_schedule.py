"""Warm-up, cosine and gradual unfreezing against values by hand."""

from __future__ import annotations

import math

import pytest

from headstart.train.schedule import opening_epochs, warmup_cosine


def test_the_rate_rises_then_falls_as_half_a_cosine() -> None:
    factors = [warmup_cosine(step, total=10, warmup=0.2) for step in range(10)]
    assert factors[:3] == [0.5, 1.0, 1.0]
    assert factors[6] == pytest.approx(0.5 * (1 + math.cos(math.pi / 2)))
    assert factors[9] == pytest.approx(0.5 * (1 + math.cos(math.pi * 7 / 8)))
    assert factors[1:] == sorted(factors[1:], reverse=True)


def test_without_warmup_it_starts_at_the_full_rate() -> None:
    assert warmup_cosine(0, total=4, warmup=0.0) == 1.0


def test_the_head_alone_has_its_own_warmup_and_then_stays() -> None:
    factors = [warmup_cosine(step, total=30, warmup=0.2, head=10) for step in range(12)]
    assert factors == [0.5, *[1.0] * 9, 0.25, 0.5]


def test_beyond_the_end_it_stays_at_the_floor() -> None:
    assert warmup_cosine(99, total=10, warmup=0.1, floor=0.1) == pytest.approx(0.1)


def test_all_groups_open_at_once_after_the_head_epochs() -> None:
    assert opening_epochs(3, epochs=10, head_epochs=2) == (2, 2, 2)


def test_gradual_unfreezing_opens_deep_groups_first_over_the_first_half() -> None:
    assert opening_epochs(4, epochs=8, gradual=True) == (3, 2, 1, 0)
    assert opening_epochs(5, epochs=10, head_epochs=1, gradual=True) == (5, 4, 3, 2, 1)
    assert opening_epochs(0, epochs=3, gradual=True) == ()
