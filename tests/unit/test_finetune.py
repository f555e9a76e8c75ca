"""Fine-tuning: frozen bits, its own start, every setting, resume in every freeze stage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finetune_parts import LABELS, Coloured, context, model, state, tune

from headstart.core.errors import PlanError, ResumeError, TrainingError
from headstart.core.settings import FineTune
from headstart.core.types import Sample
from headstart.methods.finetune import finetune
from headstart.train.runtime import Event

CACHED: dict[str, Any] = {"train_last": 2, "views": 2}
RECOMPUTED: dict[str, Any] = {"train_last": 2}
GRADUAL: dict[str, Any] = {"unfreeze": "gradual", "head_epochs": 1, "epochs": 3, "dropout": 0.2, "ema": 0.9}


@pytest.mark.parametrize("kind", ["cnn", "transformer"])
@pytest.mark.parametrize("settings", [{"train_last": 0}, CACHED, RECOMPUTED, {}, GRADUAL])
def test_it_learns_and_holds_the_better_of_both(tmp_path: Path, kind: str, settings: dict[str, Any]) -> None:
    parts, done = tune(tmp_path, kind=kind, **settings)
    assert done.kept == "finetuned"
    assert done.best.loss < done.start.loss
    assert not parts.encoder.module.training
    assert all(parameter.requires_grad for parameter in parts.encoder.module.parameters())
    assert [row["epoch"] for row in done.history] == [float(epoch + 1) for epoch in range(len(done.history))]


@pytest.mark.parametrize("kind", ["cnn", "transformer"])
@pytest.mark.parametrize("settings", [CACHED, RECOMPUTED])
def test_frozen_layers_stay_bit_identical_and_trained_ones_move(
    tmp_path: Path, kind: str, settings: dict[str, Any]
) -> None:
    before = state(model(kind))
    parts, _ = tune(tmp_path, kind=kind, **settings)
    after = state(parts)
    frozen = {name for group in parts.encoder.layer_groups()[:2] for name in group.parameters}
    trained = {name for group in parts.encoder.layer_groups()[2:] for name in group.parameters}
    assert all(after[name] == before[name] for name in frozen)
    assert any(after[name] != before[name] for name in trained)
    statistics = {name for name in after if "running" in name or "num_batches" in name}
    assert all(after[name] == before[name] for name in statistics)


def test_the_same_seed_gives_the_same_bits_and_another_one_others(tmp_path: Path) -> None:
    first, _ = tune(tmp_path / "a", **CACHED)
    second, _ = tune(tmp_path / "b", **CACHED)
    assert state(first) == state(second)


def test_views_are_read_from_the_store_by_a_second_run(tmp_path: Path) -> None:
    tune(tmp_path, **CACHED)
    seen: list[Event] = []
    parts = model()
    finetune(
        parts, training=Coloured(24, name="train"), validation=Coloured(12, name="validation"),
        settings=FineTune(epochs=1, batch_size=4, **CACHED), context=context(tmp_path, seen.append, folder="other"),
    )  # fmt: skip
    assert [event for event in seen if event.stage == "activations"] == []


class Mislabelled(Coloured):
    """Pictures whose labels are all wrong."""

    def __getitem__(self, index: int) -> Sample:
        return replace(super().__getitem__(index), target=LABELS[(index + 1) % 3])


def test_a_start_that_nothing_beats_is_kept_to_the_bit(tmp_path: Path) -> None:
    parts, good = tune(tmp_path, epochs=6)
    before = state(parts)
    done = finetune(
        parts, training=Mislabelled(24, name="train"), validation=Coloured(12, name="validation"),
        settings=FineTune(epochs=2, batch_size=4, learning_rate=5e-3), context=context(tmp_path, folder="again"),
    )  # fmt: skip
    assert done.kept == "start"
    assert done.best == done.start == good.best
    assert done.notes[-1].startswith("no epoch was better")
    assert state(parts) == before


@pytest.mark.parametrize("settings", [
    {"mixup": 0.4}, {"mixup": 0.4, **CACHED}, {"class_weights": True, "label_smoothing": 0.1}, {"accumulate": 2},
    {"ema": 0.9}, {"dropout": 0.5}, {"augment": "none"}, {"augment": "strong"}, {"precision": "bfloat16"},
    {"clip_norm": 0.1}, {"batch_size": None}, {"batch_size": 7}, {"layer_decay": 0.5}, {"patience": 1},
])  # fmt: skip
def test_every_setting_trains(tmp_path: Path, settings: dict[str, Any]) -> None:
    _, done = tune(tmp_path, **settings)
    assert all(np.isfinite(list(row.values())).all() for row in done.history)


def test_gradual_unfreezing_shows_in_the_history(tmp_path: Path) -> None:
    _, done = tune(tmp_path, unfreeze="gradual", head_epochs=1, epochs=4, patience=9)
    assert [row["stage"] for row in done.history] == [0, 2, 4, 4, 4]


def test_dropout_is_that_of_the_head_again_afterwards(tmp_path: Path) -> None:
    parts, _ = tune(tmp_path, dropout=0.5)
    assert parts.head.dropout.p == 0.0


class CutError(Exception):
    """Stands for a crash."""


@pytest.mark.parametrize(("kind", "settings"), [
    ("transformer", CACHED), ("cnn", RECOMPUTED), ("cnn", {"mixup": 0.3, "accumulate": 2}), ("cnn", GRADUAL),
])  # fmt: skip
def test_cuts_in_every_stage_change_no_bit(tmp_path: Path, kind: str, settings: dict[str, Any]) -> None:
    whole, done = tune(tmp_path / "a", kind=kind, **settings)
    cuts = [("activations", 1), *(("finetune", step) for step in (1, 3, 7, 9, done.steps))]
    for stage, at in cuts:

        def crash(event: Event, stage: str = stage, at: int = at) -> None:
            if event.stage == stage and event.done == at and not event.message:
                raise CutError

        if stage == "activations" and "train_last" not in settings:
            continue
        try:
            tune(tmp_path / "b", crash, kind=kind, **settings)
        except CutError:
            continue
        assert stage == "activations", "the cut did not happen"
    parts, again = tune(tmp_path / "b", kind=kind, **settings)
    assert state(parts) == state(whole)
    assert (again.best, again.best_epoch, again.start) == (done.best, done.best_epoch, done.start)


def test_a_changed_setting_or_dataset_is_refused_by_name(tmp_path: Path) -> None:
    tune(tmp_path)
    with pytest.raises(ResumeError, match=r"settings\.epochs: checkpoint has 2, this run has 3"):
        tune(tmp_path, epochs=3)
    with pytest.raises(ResumeError, match="data: checkpoint has"):
        tune(tmp_path, count=27)


def test_more_groups_than_there_are_is_refused_with_their_number() -> None:
    with pytest.raises(PlanError, match="train_last is 9, but tiny-transformer has 4 layer groups"):
        tune(Path("/nowhere"), train_last=9)


def test_without_validation_items_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="0 validation items"):
        finetune(
            model(), training=Coloured(6, name="x"), validation=Coloured(0, name="y"),
            settings=FineTune(), context=context(tmp_path),
        )  # fmt: skip


def test_a_head_without_parameters_cannot_train_alone(tmp_path: Path) -> None:
    parts = model()
    parts.head = torch.nn.Identity()
    parts.head.form = "pooled"
    with pytest.raises(TrainingError, match="every parameter is frozen"):
        finetune(
            parts, training=Coloured(6, name="x"), validation=Coloured(3, name="y"),
            settings=FineTune(train_last=0), context=context(tmp_path),
        )  # fmt: skip
