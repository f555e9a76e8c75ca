"""Few labels a class: pairs drawn together and apart, refined class means, the race between them, the recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finetune_parts import LABELS, Coloured, context, model, state
from torch import nn

from headstart import api
from headstart.core.errors import PlanError
from headstart.core.machine import read_machine
from headstart.core.settings import Extract, FewShot, FineTune
from headstart.core.types import LayerGroup
from headstart.data import from_texts
from headstart.features.encode import encode
from headstart.heads import CosineHead
from headstart.methods.contrastive import BATCH, Rows, contrast, features_of, pair_loss
from headstart.methods.fewshot import PENALTY, TUNED, UNTUNED, Few, FewShotDone, _logistic, fewshot
from headstart.methods.heads import mixture
from headstart.recipes import Facts, propose
from headstart.report.words import CONTRASTED
from headstart.result import Candidate
from headstart.tasks.multilabel import MultiLabel

HEADS = Candidate("a head", 0.5, 0.1, 1.0, 0.0, chosen=True)
"""What the frozen heads reached, low enough for any other to be tried."""
WORDS = {
    "good": ("lovely", "bright", "day", "warm", "sun", "light", "meadow", "honey", "summer", "lantern"),
    "bad": ("dull", "cold", "rain", "grey", "mud", "fog", "swamp", "vinegar", "winter", "gutter"),
}


def test_the_pair_loss_weighs_both_kinds_of_pairs_alike() -> None:
    features = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]])
    # One class holds the first two (cosine 0), the third is apart from both (cosine 1/sqrt 2).
    loss = pair_loss(features, torch.tensor([0, 0, 1]))
    assert loss.item() == pytest.approx((1.0 + 0.5) / 2)


def test_a_kind_of_pair_that_is_absent_adds_nothing() -> None:
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert pair_loss(features, torch.tensor([0, 0])).item() == pytest.approx(0.5)
    assert pair_loss(features, torch.tensor([0, 1])).item() == pytest.approx(0.0)


def _linear(count: int) -> tuple[nn.Linear, Rows, np.ndarray, list[LayerGroup]]:
    """Return a layer to tune, items of two classes, their class ids and the layer as a group."""
    torch.manual_seed(0)
    layer = nn.Linear(6, 4)
    targets = np.arange(count) % 2
    inputs = torch.randn(count, 6) + torch.from_numpy(targets)[:, None]
    rows = Rows(lambda indices: inputs[indices], np.zeros(count, np.int64))
    return layer, rows, targets, [LayerGroup("layer", (layer,), dict(layer.named_parameters()))]


@pytest.mark.parametrize("count", [10, 2 * BATCH + 1])
def test_contrast_lowers_the_loss_and_repeats_its_bits(tmp_path: Path, count: int) -> None:
    found: list[bytes] = []
    for place in ("a", "b"):
        layer, rows, targets, layers = _linear(count)
        losses = contrast(
            layer,
            rows,
            targets,
            layers=layers,
            passes=20,
            learning_rate=0.02,
            context=context(tmp_path / place),
        )
        assert len(losses) == 20
        assert losses[-1] < 0.8 * losses[0]
        found.append(features_of(layer, rows, context(tmp_path / place)).tobytes())
    assert found[0] == found[1]


def test_class_means_are_those_of_the_formula() -> None:
    labelled, unlabelled = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.8, 0.6]])
    truth = torch.eye(2)[None]
    plain = mixture.refine(labelled, truth, unlabelled[:0], 20.0)[0]
    assert torch.equal(plain, torch.eye(2))
    found = mixture.refine(labelled, truth, unlabelled, 20.0)[0]
    # At rest: another round gives the same means.
    shares = (20.0 * unlabelled @ found.T).softmax(1)
    again = nn.functional.normalize(truth[0].T @ labelled + mixture.WEIGHT * shares.T @ unlabelled, dim=1)
    assert torch.allclose(found, again, atol=1e-5)
    assert shares[0, 0] > 0.99


def _clusters(seed: int, count: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Return items around three directions, float32 [count, 8], and which each is of."""
    draws = np.random.default_rng(seed)
    targets = np.arange(count) % 3
    return (np.eye(8)[targets] + spread * draws.normal(size=(count, 8))).astype(np.float32), targets


def test_unlabelled_items_move_class_means_to_where_the_classes_are() -> None:
    labelled, targets = _clusters(0, 6, 0.5)
    unlabelled, _ = _clusters(1, 300, 0.35)
    test, truth = _clusters(2, 300, 0.35)
    right = [
        (_head(labelled, targets, others)(torch.from_numpy(test)).argmax(1).numpy() == truth).mean()
        for others in (unlabelled[:0], unlabelled)
    ]
    assert right[1] > right[0] + 0.03


def _head(labelled: np.ndarray, targets: np.ndarray, unlabelled: np.ndarray) -> CosineHead:
    """Fit class means of three classes."""
    return mixture.fit(mixture.space(labelled, unlabelled), targets, num_classes=3, sharpness=20.0)


def test_an_item_that_is_left_out_does_not_tell_its_own_class() -> None:
    labelled, targets = _clusters(0, 12, 0.5)
    unlabelled, _ = _clusters(1, 30, 0.5)
    folds = np.arange(12) // 3
    changed = targets.copy()
    changed[:3] = changed[:3][::-1]
    space = mixture.space(labelled, unlabelled)
    first, second = (
        mixture.left_out(space, given, folds, folds[None] % 2, num_classes=3, sharpness=20.0)
        for given in (targets, changed)
    )
    assert np.array_equal(first.plain[:3], second.plain[:3])
    assert np.array_equal(first.refined[:3], second.refined[:3])
    assert not np.array_equal(first.refined[3:], second.refined[3:])


def test_the_head_of_a_tuned_body_sees_directions_and_solves_its_problem() -> None:
    features, targets = _clusters(6, 12, 0.5)
    head = _logistic(features, targets, 3)
    inputs = torch.from_numpy(features)
    with torch.inference_mode():
        assert torch.allclose(head(inputs), head(inputs * torch.linspace(0.1, 9, 12)[:, None]), atol=1e-5)
    # At rest, the penalty balances the loss: W = -(n / penalty) * gradient, and the offset's gradient is none.
    unit = nn.functional.normalize(inputs, dim=1)
    residual = (head(inputs).softmax(1) - nn.functional.one_hot(torch.from_numpy(targets), 3)).detach()
    assert torch.allclose(residual.sum(0), torch.zeros(3), atol=1e-2)
    assert torch.allclose(head.inner.directions, -residual.T @ unit / PENALTY, atol=2e-2)


def _race(
    root: Path, few: Few | None = None, *, kind: str = "transformer", **settings: Any
) -> tuple[Any, FewShotDone]:
    """Race on coloured pictures; keywords are settings."""
    parts, where = model(kind), context(root)
    data = Coloured(12, name="train")
    features = np.asarray(encode(data, parts.encoder, form="pooled", context=where).features)
    few = few or Few(data, np.arange(12) % 3, [""] * 12, features, features[:0])
    values = {"train_last": 2, "learning_rate": 3e-3, **settings}
    done = fewshot(parts.encoder, few, best=HEADS, task=parts.task, settings=FewShot(**values), context=where)
    return parts, done


@pytest.mark.parametrize("kind", ["cnn", "transformer"])
def test_tuning_moves_the_last_groups_alone_and_repeats_its_bits(tmp_path: Path, kind: str) -> None:
    before = state(model(kind))
    parts, done = _race(tmp_path / "a", kind=kind)
    after = state(parts)
    assert done.kept == "tuned"
    assert [one.name for one in done.race] == [UNTUNED, TUNED]
    assert [one.chosen for one in done.race] == [False, True]
    assert len(done.history) == 3
    groups = parts.encoder.layer_groups()
    trained = {name for group in groups[-2:] for name in group.parameters}
    assert trained
    assert {name for name in after if after[name] != before[name]} <= trained
    assert any(after[name] != before[name] for name in trained)
    assert all(
        parameter.requires_grad and parameter.grad is None for parameter in parts.encoder.module.parameters()
    )
    again, _ = _race(tmp_path / "b", kind=kind)
    assert state(again) == after


def test_an_encoder_that_trains_as_a_whole_needs_no_cut(tmp_path: Path) -> None:
    count = len(model("cnn").encoder.layer_groups())
    before = state(model("cnn"))
    parts, done = _race(tmp_path, kind="cnn", train_last=count)
    assert done.kept == "tuned"
    first = parts.encoder.layer_groups()[0]
    assert any(state(parts)[name] != before[name] for name in first.parameters)


def test_tuning_that_harms_is_taken_back_bit_by_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def worthless(suffix: nn.Module, rows: Rows, _: Any) -> np.ndarray:
        """Return features that say nothing."""
        return np.zeros((len(rows), 4), np.float32) + np.arange(len(rows), dtype=np.float32)[:, None] % 2

    monkeypatch.setattr("headstart.methods.fewshot.features_of", worthless)
    parts, done = _race(tmp_path)
    assert done.kept == "heads"
    assert done.head is None
    assert not any(one.chosen for one in done.race)
    assert state(parts) == state(model("transformer"))


def test_features_that_are_not_finite_leave_the_frozen_network_and_a_note(tmp_path: Path) -> None:
    parts, done = _race(tmp_path, learning_rate=1e30)
    assert done.kept == "heads"
    assert "tuning was given up" in done.notes[0]
    assert state(parts) == state(model("transformer"))


def _separate(seed: int, spread: float) -> Few:
    """Return few labels and many unlabelled items of three clear classes."""
    labelled, targets = _clusters(seed, 24, 0.6)
    unlabelled, _ = _clusters(seed + 1, 300, spread)
    return Few(Coloured(24, name="train"), targets, [""] * 24, labelled, unlabelled)


def test_refined_means_win_where_items_differ_by_class_most(tmp_path: Path) -> None:
    parts, done = _race(tmp_path, _separate(3, 0.2))
    assert done.kept == "refined"
    assert done.race[-1].chosen
    assert done.race[-1].log_loss < done.race[0].log_loss
    assert isinstance(done.head, CosineHead)
    assert state(parts) == state(model("transformer"))


def test_refined_means_lose_where_the_halves_of_the_labels_disagree(tmp_path: Path) -> None:
    few = _separate(4, 0.2)
    noise = np.random.default_rng(5).normal(size=few.unlabelled.shape).astype(np.float32)
    _, done = _race(tmp_path, replace(few, unlabelled=noise), train_last=0)
    assert done.kept == "heads"


def test_more_groups_than_there_are_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"fewshot\.train_last is 99"):
        _race(tmp_path, train_last=99)


def test_several_labels_an_item_are_refused(tmp_path: Path) -> None:
    parts = model()
    few = Few(Coloured(3, name="train"), np.arange(3), [""] * 3, np.zeros((3, 4)), np.zeros((0, 4)))
    with pytest.raises(PlanError, match="names one class"):
        fewshot(
            parts.encoder,
            few,
            best=HEADS,
            task=MultiLabel(LABELS),
            settings=FewShot(),
            context=context(tmp_path),
        )


def test_the_report_knows_the_tuned_body_by_its_name() -> None:
    assert CONTRASTED == TUNED


def test_auto_chooses_it_for_few_labels_a_class_of_texts_alone() -> None:
    few = Facts(300, 4, False, "text", num_taught=32)
    assert propose(few, "auto") == (FewShot(), Extract())
    assert isinstance(propose(replace(few, num_taught=None), "auto")[0], Extract)
    assert isinstance(propose(replace(few, modality="image"), "auto")[0], Extract)
    assert isinstance(propose(replace(few, is_pretrained=False), "auto")[0], FineTune)
    assert isinstance(propose(replace(few, modality="image"), "fewshot")[0], FewShot)


@pytest.mark.parametrize("unlabelled", [8, 0])
def test_a_tuned_run_is_saved_whole_and_comes_from_the_store(tmp_path: Path, unlabelled: int) -> None:
    draws = np.random.default_rng(0)
    classes = ["good", "bad"] * 16
    words = [" ".join(draws.choice(WORDS[name], draws.integers(5, 30))) for name in classes]
    splits = ["train"] * 8 + ["validation"] * 8 + ["test"] * 8 + ["train"] * 8
    targets = [*classes[:24], *[None] * 8]
    settings = {"fewshot.train_last": 2, "fewshot.learning_rate": 2e-3, "fewshot.unlabelled": unlabelled}
    data = from_texts(words, targets, splits=splits)
    machine = read_machine(store=tmp_path / "store")
    chosen: dict[str, Any] = {"encoder": "tiny-text-transformer", "method": "fewshot", "machine": machine}
    first = api.fit(data, output=tmp_path / "a", settings=settings, **chosen)
    second = api.fit(data, output=tmp_path / "b", settings=settings, **chosen)
    assert any(one.name == "class means refined by 8 unlabelled items" for one in first.race) == bool(
        unlabelled
    )
    assert [one.name for one in first.race if one.chosen] == [TUNED]
    assert first.to_json() == second.to_json()
    texts = [word for word, split in zip(words, splits, strict=True) if split == "test"]
    said = api.predict(tmp_path / "b", texts, machine=machine)
    assert [getattr(item, "label", None) for item in said] == [item.label for item in first.predictions]
