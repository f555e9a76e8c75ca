"""Low-rank updates: what moves and what rests, merging, resuming, and where there is nothing linear."""

from __future__ import annotations

import hashlib
import sys
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from finetune_parts import LABELS, Parts, context, model, state, tune
from text_parts import folder_of
from torch import nn

from headstart.core.errors import PlanError
from headstart.core.settings import FineTune, Pretrained
from headstart.core.types import Sample
from headstart.heads import LinearHead
from headstart.methods import lora
from headstart.methods.finetune import finetune
from headstart.model import open_encoder
from headstart.tasks.classification import Classification
from headstart.train.runtime import Event

LORA: dict[str, Any] = {"lora_rank": 2, "learning_rate": 2e-2}


class Letters:
    """Texts in which one letter says the class; implements Dataset."""

    labels = LABELS
    fingerprint = "letters"

    def __init__(self, count: int, *, name: str) -> None:
        self.name, self.texts = name, [("ab ", "mn ", "yz ")[row % 3] * (1 + row % 4) for row in range(count)]

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.texts[index], LABELS[index % 3], id=f"{self.name}-{index}")

    def item_hash(self, index: int) -> str:
        return hashlib.sha256(self.texts[index].encode()).hexdigest()


@cache
def folder(family: str) -> Path:
    return folder_of(Path(mkdtemp()), family)


def text_model(family: str) -> Parts:
    encoder = open_encoder(Pretrained(name=f"transformers:{folder(family)}"))
    return Parts(encoder, LinearHead(16, len(LABELS)), Classification(LABELS))


def tune_texts(root: Path, parts: Parts, progress=lambda event: None, **settings: Any):
    values = {"epochs": 2, "batch_size": 4, "checkpoint_steps": 2, "augment": "none", **LORA, **settings}
    return finetune(
        parts, training=Letters(24, name="train"), validation=Letters(12, name="validation"),
        settings=FineTune(**values), context=context(root, progress),
    )  # fmt: skip


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "deberta-v2"])
@pytest.mark.parametrize("settings", [{}, {"train_last": 2, "views": 1}, {"train_last": 1}])
def test_only_linear_layers_behind_the_cut_move_and_by_no_more_than_the_rank(
    tmp_path: Path, family: str, settings: dict[str, Any]
) -> None:
    parts = text_model(family)
    before = {name: tensor.clone() for name, tensor in parts.encoder.module.state_dict().items()}
    done = tune_texts(tmp_path, parts, **settings)
    assert done.best.loss < done.start.loss
    after = parts.encoder.module.state_dict()
    assert list(after) == list(before)
    groups = parts.encoder.layer_groups()
    trained = {name for group in groups[done.depth :] for name in group.parameters}
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert moved <= {name for name in trained if before[name].dim() == 2}
    ranks = [int(torch.linalg.matrix_rank(after[name] - before[name], rtol=1e-3)) for name in moved]
    assert max(ranks) == 2
    assert not any("lora" in type(part).__module__ for part in parts.encoder.module.modules())
    assert all(parameter.requires_grad for parameter in parts.encoder.module.parameters())


@pytest.mark.parametrize("settings", [{}, {"train_last": 2}, {"train_last": 2, "views": 2}])
def test_it_trains_the_linear_layers_of_networks_for_pictures(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    before = state(model("transformer"))
    parts, done = tune(tmp_path, kind="transformer", **LORA, **settings)
    assert done.best.loss < done.start.loss
    after = state(parts)
    assert list(after) == list(before)
    behind = {name for group in parts.encoder.layer_groups()[done.depth :] for name in group.parameters}
    moved = {name for name in before if before[name] != after[name]} - {"head.weight", "head.bias"}
    assert moved
    assert moved <= behind


def test_base_weights_rest_bit_by_bit_while_updates_train(tmp_path: Path) -> None:
    parts = text_model("bert")
    groups = parts.encoder.layer_groups()
    weights = {name: tensor for group in groups for name, tensor in group.parameters.items()}
    before = {name: tensor.detach().clone() for name, tensor in weights.items()}
    looks: list[bool] = []

    def progress(event: Event) -> None:
        if event.stage == "finetune" and event.done:
            looks.append(all(torch.equal(before[name], tensor) for name, tensor in weights.items()))

    tune_texts(tmp_path, parts, progress)
    assert len(looks) > 10
    assert all(looks)
    assert not all(torch.equal(before[name], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_the_merged_network_says_what_the_adapted_one_said(family: str) -> None:
    encoder = text_model(family).encoder
    network = encoder.network("pooled").eval()
    batch = encoder.collate(["some words", "a few more of them"])
    with torch.no_grad():
        plain = network(batch)
        adapted = lora.adapt(network, encoder.layer_groups(), rank=3, seed=0)
        assert torch.equal(network(batch), plain)
        for group in adapted.groups:
            for name, tensor in group.parameters.items():
                if "lora_B" in name:
                    tensor.normal_(std=0.05)
        said = network(batch)
        adapted.restore()
        assert torch.equal(network(batch), plain)
        before = encoder.spec.weights_sha256
        adapted.merge()
        merged = network(batch)
    assert not torch.allclose(said, plain, atol=1e-3)
    assert torch.allclose(merged, said, rtol=1e-4, atol=1e-5)
    assert encoder.spec.weights_sha256 != before


def test_updates_are_drawn_from_the_seed_and_leave_other_randomness_alone() -> None:
    found = []
    for seed in (1, 1, 2):
        encoder = text_model("bert").encoder
        torch.manual_seed(5)
        adapted = lora.adapt(encoder.network("pooled"), encoder.layer_groups(), rank=2, seed=seed)
        after = torch.rand(1)
        torch.manual_seed(5)
        assert after == torch.rand(1)
        found.append([tensor.detach() for group in adapted.groups for tensor in group.parameters.values()])
    assert all(torch.equal(one, other) for one, other in zip(found[0], found[1], strict=True))
    assert not all(torch.equal(one, other) for one, other in zip(found[0], found[2], strict=True))


class CutError(Exception):
    """Stands for a crash."""


@pytest.mark.parametrize("settings", [{}, {"train_last": 2, "views": 1, "ema": 0.9}])
def test_a_run_that_was_cut_ends_with_the_same_bits(tmp_path: Path, settings: dict[str, Any]) -> None:
    whole = text_model("bert")
    tune_texts(tmp_path / "whole", whole, **settings)
    for at in (3, 7):

        def crash(event: Event, at: int = at) -> None:
            if event.stage == "finetune" and not event.message and event.done == at:
                raise CutError

        cut = text_model("bert")
        before = state(cut)
        with pytest.raises(CutError):
            tune_texts(tmp_path / "cut", cut, crash, **settings)
        kept = state(cut)
        assert {name: kept[name] for name in before if "head" not in name} == {
            name: before[name] for name in before if "head" not in name
        }
    again = text_model("bert")
    tune_texts(tmp_path / "cut", again, **settings)
    assert state(again) == state(whole)


@pytest.mark.parametrize("settings", [{"train_last": 0}, {}])
def test_where_nothing_linear_trains_it_says_so(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match="nothing linear"):
        tune(tmp_path, kind="cnn", **LORA, **settings)


def test_without_peft_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    encoder = text_model("bert").encoder
    with pytest.raises(PlanError, match="peft is not installed") as caught:
        lora.adapt(encoder.network("pooled"), encoder.layer_groups(), rank=2, seed=0)
    assert "headstart[text]" in caught.value.fix
    assert not any(type(part).__name__ == "LoraLayer" for part in encoder.module.modules())


def test_a_layer_in_two_places_gets_one_update() -> None:
    encoder = text_model("bert").encoder
    _, suffix = encoder.split(2, "pooled")
    both = nn.ModuleList([suffix, encoder.network("pooled")])
    adapted = lora.adapt(both, encoder.layer_groups()[2:], rank=2, seed=0)
    linear = {id(layer) for _, _, layer in adapted.places}
    assert len(adapted.updates) == len(linear) == 2 * 6
