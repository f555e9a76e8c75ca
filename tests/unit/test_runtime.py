"""Randomness without state, device and precision rules, batch size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headstart.core.errors import PlanError
from headstart.train.runtime import (
    autocast,
    choose_batch_size,
    choose_device,
    draw,
    gains_from_bfloat16,
    limited_threads,
    seed_step,
)


def test_draw_depends_on_each_of_its_values_and_on_nothing_else() -> None:
    keys = [(0, "a", 0, 0), (1, "a", 0, 0), (0, "b", 0, 0), (0, "a", 1, 0), (0, "a", 0, 1), (0, "a", 0, "x")]
    numbers = [draw(*key).random() for key in keys]
    assert len(set(numbers)) == len(keys)
    assert numbers == [draw(*key).random() for key in keys]


def test_draw_gives_the_same_numbers_on_every_machine() -> None:
    assert draw(7, "augment", 3, "abc").integers(1000, size=4).tolist() == [170, 714, 545, 234]


def test_draw_tells_neighbouring_values_apart() -> None:
    assert draw(1, "a", 11, 1).random() != draw(1, "a", 1, 11).random()


def test_draws_of_neighbouring_items_are_not_correlated() -> None:
    first = np.array([draw(0, "a", 0, item).normal() for item in range(2000)])
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.08
    assert abs(first.mean()) < 0.08


def test_seed_step_repeats_torch_numbers_step_by_step() -> None:
    seed_step(0, 1)
    first = torch.rand(3)
    seed_step(0, 2)
    assert not torch.equal(first, torch.rand(3))
    seed_step(0, 1)
    assert torch.equal(first, torch.rand(3))


def test_an_absent_device_is_refused_with_those_present() -> None:
    with pytest.raises(PlanError, match="'tpu' is not there") as error:
        choose_device("tpu")
    assert "cpu" in str(error.value)
    assert choose_device("cpu").type == "cpu"


def test_bfloat16_is_never_used_on_a_cpu() -> None:
    cpu = torch.device("cpu")
    assert not gains_from_bfloat16(cpu)
    with autocast(cpu, "bfloat16"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_threads_are_limited_inside_the_block_only() -> None:
    before = torch.get_num_threads()
    with limited_threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("items", "memory", "expected"), [
    (10, None, 4), (400, None, 8), (2300, None, 32), (10**6, None, 32), (10**6, 16 << 30, 64), (10**6, 10**9, 8),
])  # fmt: skip
def test_batch_size_is_a_pure_function_of_items_and_memory(
    items: int, memory: int | None, expected: int
) -> None:
    assert choose_batch_size(items, memory_bytes=memory) == expected
