"""The loop: numbers that go wrong, memory, early stopping, averaging, loading, parity with a plain loop."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training_parts import (
    COUNT,
    bits,
    context,
    groups_of,
    items,
    layers,
    loss_of,
    run,
    settings,
    small_net,
    validator,
)

from headstart.core.errors import DataError, TrainingError
from headstart.train.batches import Batch, Items, cuts, permutation, prefetch
from headstart.train.finder import find_learning_rate, read_curve
from headstart.train.loop import train
from headstart.train.optim import parameter_groups
from headstart.train.position import Validation
from headstart.train.runtime import Event, limited_threads, seed_step
from headstart.train.schedule import warmup_cosine


def plain_loop(epochs: int) -> nn.Module:
    """Train as twenty lines of plain PyTorch do, with the loop's own draws."""
    net, source = small_net(), items()
    rows = [
        {"params": list(part.parameters()), "lr": rate}
        for part, rate in ((net.stem, 5e-3 / 4), (net.body, 5e-3 / 2), (net.head, 5e-3))
    ]
    bases = [row["lr"] for row in rows]
    optimizer = torch.optim.AdamW(rows, weight_decay=0.0, foreach=False)
    total = epochs * source.steps
    net.train()
    for step in range(total):
        for row, base in zip(optimizer.param_groups, bases, strict=True):
            row["lr"] = base * warmup_cosine(step, total=total, warmup=0.2)
        batch = source.load(step // source.steps, step % source.steps)
        seed_step(0, step)
        loss = nn.functional.cross_entropy(net(batch.tensors[0]), batch.tensors[1])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    return net.eval()


def test_it_gives_the_bits_of_a_plain_pytorch_loop(tmp_path: Path) -> None:
    net, source = small_net(), items()
    groups = parameter_groups(layers(net), net.head, learning_rate=5e-3, layer_decay=0.5)
    improving = iter(range(10))
    done = train(
        net, loss=loss_of(net), source=source, groups=groups,
        validate=lambda check: Validation(1.0 - next(improving) / 10, 0.5),
        settings=settings(source, ema=0.0), context=context(None, root=tmp_path / "run"),
    )  # fmt: skip
    assert done.best_epoch == 3
    with limited_threads(1):
        assert bits(net) == bits(plain_loop(3))


def test_it_learns_and_keeps_history(tmp_path: Path) -> None:
    _, done = run(None, root=tmp_path / "run", epochs=8, ema=0.0, learning_rate=2e-2)
    assert done.best.quality > 0.8 > done.start.quality
    assert len(done.history) == 8
    assert list(done.history[0]) == [
        "epoch", "validation_loss", "validation_quality", "train_loss", "learning_rate", "seconds", "stage",
    ]  # fmt: skip
    assert done.notes == ()


def test_accumulated_parts_make_the_same_step_as_one_pass(tmp_path: Path) -> None:
    whole, _ = run(None, root=tmp_path / "a", micro=4, freeze_statistics=True, ema=0.0, epochs=1)
    parts, _ = run(None, root=tmp_path / "b", micro=2, freeze_statistics=True, ema=0.0, epochs=1)
    # Dropout differs between the two, weights still stay close after one epoch.
    for name, tensor in whole.state_dict().items():
        assert torch.allclose(tensor.float(), parts.state_dict()[name].float(), atol=0.05), name


def failing(net: nn.Module, change: Callable[[Batch], Tensor | None]) -> Callable[[Batch], Tensor]:
    """Return the usual loss, or what `change` says instead."""

    def loss(batch: Batch) -> Tensor:
        other = change(batch)
        return other if other is not None else loss_of(net)(batch)

    return loss


def trained_with(tmp_path: Path, make_loss: Callable[[nn.Module], Callable[[Batch], Tensor]], **values):
    """Train with a loss that goes wrong; return the network and what was told."""
    net, told = small_net(), []
    source = values.pop("source", items())
    done = train(
        net, loss=make_loss(net), source=source, groups=groups_of(net), validate=validator(net),
        settings=settings(source, **values), context=context(tmp_path / "run", told.append, workers=0),
    )  # fmt: skip
    return net, done, [event.message for event in told if event.message]


def test_an_input_that_is_not_finite_stops_within_a_step_and_is_named(tmp_path: Path) -> None:
    source = items()

    def spoiled(indices: np.ndarray, epoch: int) -> tuple[Tensor, ...]:
        inputs, targets = source.open(indices, epoch)
        inputs[torch.from_numpy(indices == 7)] = float("nan")
        return inputs, targets

    with pytest.raises(TrainingError, match=r"through item-7 \(their inputs are not finite\)"):
        trained_with(tmp_path, loss_of, source=replace(source, open=spoiled))
    assert list((tmp_path / "run").glob("checkpoint-*"))


def test_a_loss_that_is_not_finite_names_the_item_that_causes_it(tmp_path: Path) -> None:
    def make(net: nn.Module) -> Callable[[Batch], Tensor]:
        return failing(
            net, lambda batch: net(batch.tensors[0]).sum() * float("inf") if "item-3" in batch.ids else None
        )

    with pytest.raises(TrainingError, match=r"through item-3 \(their own loss"):
        trained_with(tmp_path, make)


def test_a_gradient_that_is_not_finite_moves_no_weight(tmp_path: Path) -> None:
    # The square root of zero has a finite value and an infinite slope.
    def make(net: nn.Module) -> Callable[[Batch], Tensor]:
        return lambda batch: (net(batch.tensors[0]) * 0).sum().sqrt() + loss_of(net)(batch)

    with pytest.raises(TrainingError, match="the gradient is nan at step 0"):
        trained_with(tmp_path, make)


def test_an_exploding_loss_stops_with_a_hint_to_the_finder(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="explodes") as error:
        run(tmp_path / "run", learning_rate=100.0, epochs=20, ema=0.0, patience=50)
    assert "find_learning_rate" in str(error.value)


def test_out_of_memory_halves_the_pass_keeps_the_step_and_says_so(tmp_path: Path) -> None:
    def make(net: nn.Module) -> Callable[[Batch], Tensor]:
        def change(batch: Batch) -> Tensor | None:
            if len(batch) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return None

        return failing(net, change)

    _, done, told = trained_with(tmp_path, make)
    assert [text for text in told if "memory ran out" in text] == list(done.notes[:2])
    assert "2 items a pass from step 0" in done.notes[0]
    assert "1 items a pass from step 0" in done.notes[1]
    assert done.steps == 3 * items().steps


def test_out_of_memory_on_a_single_item_is_an_error(tmp_path: Path) -> None:
    def make(net: nn.Module) -> Callable[[Batch], Tensor]:
        def loss(batch: Batch) -> Tensor:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

        return loss

    with pytest.raises(TrainingError, match="with a single item"):
        trained_with(tmp_path, make)


def test_an_abandoned_pass_leaves_no_trace_in_batchnorm(tmp_path: Path) -> None:
    """A step redone in smaller parts gives the statistics of these parts alone."""

    def make(first: bool) -> Callable[[nn.Module], Callable[[Batch], Tensor]]:
        def with_net(net: nn.Module) -> Callable[[Batch], Tensor]:
            def loss(batch: Batch) -> Tensor:
                value = loss_of(net)(batch)
                if first and len(batch) > 2:
                    raise torch.OutOfMemoryError
                return value

            return loss

        return with_net

    once, _, _ = trained_with(tmp_path / "a", make(first=True), micro=4)
    other, _, _ = trained_with(tmp_path / "b", make(first=False), micro=2)
    assert bits(once) == bits(other)


def test_other_errors_are_not_taken_for_lack_of_memory(tmp_path: Path) -> None:
    def make(net: nn.Module) -> Callable[[Batch], Tensor]:
        return lambda batch: net(batch.tensors[0][:, :2]).sum()

    with pytest.raises(RuntimeError, match="channels"):
        trained_with(tmp_path, make)


def test_batchnorm_takes_a_batch_of_one(tmp_path: Path) -> None:
    class OnePixel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(8)
            self.head = nn.Linear(8, 3)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.head(self.norm(inputs.flatten(1)[:, :8]))

    net, source = OnePixel(), items(count=5, batch_size=1)
    groups = parameter_groups((), net, learning_rate=1e-3)
    train(
        net, loss=loss_of(net), source=source, groups=groups, validate=validator(net),
        settings=settings(source, micro=1), context=context(None, root=tmp_path / "run"),
    )  # fmt: skip
    assert source.steps == 4  # The last batch of one item joined the one before.


def test_nothing_to_train_is_refused_before_anything_else(tmp_path: Path) -> None:
    net, source = small_net(), items()
    with pytest.raises(TrainingError, match="every parameter is frozen"):
        train(
            net, loss=loss_of(net), source=source, groups=(), validate=validator(net),
            settings=settings(source), context=context(tmp_path / "run"),
        )  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_a_loss_that_stays_at_chance_is_said(tmp_path: Path) -> None:
    _, done = run(None, root=tmp_path / "run", learning_rate=1e-9)
    assert done.notes[-1].startswith("did not learn")


def scripted(tmp_path: Path, scores: list[Validation], **values):
    """Train while validation gives these scores."""
    net, source, left = small_net(), items(), iter(scores)
    done = train(
        net, loss=loss_of(net), source=source, groups=groups_of(net), validate=lambda check: next(left),
        settings=settings(source, epochs=len(scores) - 1, **values), context=context(None, root=tmp_path / "run"),
    )  # fmt: skip
    return net, done


def test_it_stops_early_and_keeps_the_best_epoch(tmp_path: Path) -> None:
    pairs = [(1.0, 0.5), (0.9, 0.6), (1.0, 0.5), (1.1, 0.6), (0.1, 1.0)]
    scores = [Validation(loss, accuracy) for loss, accuracy in pairs]
    _, done = scripted(tmp_path, scores, patience=2)
    assert done.best_epoch == 1
    assert len(done.history) == 3
    assert "stopped early after epoch 3" in done.notes[0]


def test_it_never_loses_to_its_own_start(tmp_path: Path) -> None:
    net, done = scripted(tmp_path, [Validation(0.5, 0.9), Validation(0.4, 0.8), Validation(0.6, 0.9)])
    assert done.best_epoch == 0
    assert bits(net) == bits(small_net())


def test_a_better_score_is_more_accurate_or_as_accurate_with_a_lower_loss() -> None:
    assert Validation(2.0, 0.9).beats(Validation(1.0, 0.8))
    assert Validation(0.9, 0.8).beats(Validation(1.0, 0.8))
    assert not Validation(1.0, 0.8).beats(Validation(1.0, 0.8))
    assert not Validation(float("nan"), 0.9).beats(Validation(1.0, 0.8))
    assert Validation(1.0, 0.1).beats(Validation(float("nan"), 0.9))


def test_frozen_groups_stay_bit_identical_until_they_open(tmp_path: Path) -> None:
    net, source = small_net(), items()
    before = bits(net)
    groups = parameter_groups(layers(net), net.head, learning_rate=0.01, opens=(9, 0))
    train(
        net, loss=loss_of(net), source=source, groups=groups, validate=validator(net),
        settings=settings(source, freeze_statistics=False), context=context(None, root=tmp_path / "run"),
    )  # fmt: skip
    after = bits(net)
    assert {name for name in after if after[name] != before[name]} == {
        name for name in after if name.startswith(("body", "head"))
    }


def test_averaged_weights_are_what_is_validated_and_kept(tmp_path: Path) -> None:
    plain, _ = run(None, root=tmp_path / "a", ema=0.0)
    averaged, _ = run(None, root=tmp_path / "b", ema=0.99)
    assert bits(plain) != bits(averaged)


# -- batches --------------------------------------------------------------------------------------------------


def test_an_epoch_shows_every_item_once_in_its_own_order() -> None:
    source = items()
    epochs = [
        [name for step in range(source.steps) for name in source.names(epoch, step)] for epoch in (0, 1)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(f"item-{index}" for index in range(COUNT))
    assert epochs[0] != epochs[1]
    assert permutation(0, 0, 9).tolist() != permutation(1, 0, 9).tolist()


def test_a_last_batch_of_one_joins_the_one_before() -> None:
    assert cuts(9, 4) == (0, 4, 9)
    assert cuts(8, 4) == (0, 4, 8)
    assert cuts(1, 4) == (0, 1)


def test_parts_are_even_and_know_their_place() -> None:
    batch = items(batch_size=10).load(0, 0)
    assert [(len(part), part.start) for part in batch.parts(4)] == [(3, 0), (3, 3), (4, 6)]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_any_number_of_workers_gives_the_same_batches_in_order(workers: int) -> None:
    source = items()
    positions = [(epoch, step) for epoch in range(2) for step in range(source.steps)]
    loaded = list(prefetch(source, positions, workers=workers, timeout=10))
    expected = [source.load(*position) for position in positions]
    assert [batch.ids for batch in loaded] == [batch.ids for batch in expected]
    assert all(torch.equal(a.tensors[0], b.tensors[0]) for a, b in zip(loaded, expected, strict=True))


def test_loading_looks_ahead_only_so_far() -> None:
    loaded: list[int] = []
    source = items()
    counted = replace(source, open=lambda indices, epoch: loaded.append(1) or source.open(indices, epoch))
    stream = prefetch(counted, ((0, step) for step in range(source.steps)), workers=1, timeout=10)
    next(stream)
    time.sleep(0.2)
    assert len(loaded) <= 3
    stream.close()


def test_a_file_that_hangs_is_named() -> None:
    release = threading.Event()

    def hang(indices: np.ndarray, epoch: int) -> tuple[Tensor, ...]:
        release.wait()
        return (torch.zeros(len(indices)),)

    source = Items(4, 2, hang, lambda index: f"picture-{index}.jpg", shuffle=False)
    with pytest.raises(DataError, match=r"no batch for 0.3 s while opening picture-0.jpg, picture-1.jpg"):
        list(prefetch(source, [(0, 0)], workers=1, timeout=0.3))
    release.set()


def test_an_error_while_loading_reaches_the_caller() -> None:
    def broken(indices: np.ndarray, epoch: int) -> tuple[Tensor, ...]:
        raise DataError("x.jpg cannot be read", expected="a picture", fix="delete it")

    with pytest.raises(DataError, match=r"x\.jpg"):
        list(prefetch(Items(4, 2, broken, str), [(0, 0)], workers=2, timeout=5))


def test_a_batch_that_runs_out_of_memory_is_loaded_alone() -> None:
    told: list[Event] = []
    failures = iter([True, False])

    def scarce(indices: np.ndarray, epoch: int) -> tuple[Tensor, ...]:
        if next(failures, False):
            raise MemoryError
        return (torch.zeros(len(indices)),)

    loaded = list(
        prefetch(Items(4, 2, scarce, str), [(0, 0), (0, 1)], workers=1, timeout=5, progress=told.append)
    )
    assert len(loaded) == 2
    assert "out of memory" in told[0].message


# -- learning-rate finder -------------------------------------------------------------------------------------


def test_the_finder_suggests_a_rate_that_learns_and_restores_everything(tmp_path: Path) -> None:
    net, source = small_net(), items()
    before, modes = bits(net), [part.training for part in net.modules()]
    machine = context(None, root=tmp_path / "run")
    found = find_learning_rate(
        net, loss=loss_of(net), source=source, groups=groups_of(net), context=machine, steps=40
    )
    assert 1e-5 < found.valley < 0.5
    assert 1e-5 < found.steepest < 1.0
    assert bits(net) == before
    assert [part.training for part in net.modules()] == modes
    assert all(parameter.grad is None and parameter.requires_grad for parameter in net.parameters())


def test_valley_and_steepest_are_read_from_the_curve() -> None:
    rates = np.logspace(-6, 0, 25)
    losses = [2.0] * 8 + list(np.linspace(2.0, 0.5, 10)) + list(np.linspace(0.6, 6.0, 7))
    found = read_curve(rates.tolist(), losses)
    assert 1e-4 < found.valley < 2e-2
    assert 1e-4 < found.steepest < 2e-2


def test_a_curve_that_diverges_at_once_is_an_error() -> None:
    with pytest.raises(TrainingError, match="3 steps"):
        read_curve([1e-6, 1e-5, 1e-4], [1.0, 2.0, 9.0])


def test_training_warns_of_nothing(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(tmp_path / "run", epochs=1)
