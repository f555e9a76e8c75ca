"""Objectives of pretraining against hand values, and that nothing hidden reaches the network."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from picture_parts import digits
from sentence_parts import texts
from torch import Tensor, nn

from headstart.core.errors import PlanError
from headstart.core.settings import Pretrain, Pretrained
from headstart.methods.collapse import neighbour_accuracy, rank_of
from headstart.methods.objectives._decoder import waves
from headstart.methods.objectives._pixels import patch_loss, patches_of, pictures_of
from headstart.methods.objectives.causal_language import CausalLanguage, next_tokens
from headstart.methods.objectives.lejepa import LeJepa, agreement, sigreg
from headstart.methods.objectives.mae import Mae, visible_places
from headstart.methods.objectives.masked_language import MaskedLanguage
from headstart.methods.objectives.simmim import SimMim
from headstart.methods.objectives.spark import Spark, at, sparse
from headstart.methods.pretrain import choose_objective
from headstart.modalities.hiding import IGNORED, choose_blocks, enlarged
from headstart.model import open_encoder


def opened(name: str, **values: Any) -> Any:
    return open_encoder(Pretrained(name=name, **values))


def pictures(encoder: Any, count: int = 4) -> Tensor:
    return encoder.collate(digits(count)[0][:count])


def draws(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def changed(pictures: Tensor, mask: Tensor, block: int) -> Tensor:
    """Return other pictures wherever something is hidden."""
    return torch.where(enlarged(mask, block), 255 - pictures, pictures)


# Nothing hidden reaches the network


def test_simmim_predicts_the_same_whatever_was_hidden() -> None:
    encoder = opened("tiny-cnn")
    objective = SimMim(encoder, Pretrain()).eval()
    given = pictures(encoder)
    mask = choose_blocks(4, objective.grid, ratio=0.6, generator=draws())
    other = changed(given, mask, objective.block)
    assert torch.equal(objective.predicted(given, mask), objective.predicted(other, mask))
    assert not torch.equal(objective.predicted(given, mask), objective.predicted(given, ~mask))


def test_mae_predicts_the_same_whatever_was_hidden() -> None:
    encoder = opened("tiny-transformer")
    objective = Mae(encoder, Pretrain()).eval()
    given = pictures(encoder)
    mask = choose_blocks(4, objective.grid, ratio=0.75, generator=draws())
    other = changed(given, mask, objective.side)
    assert torch.equal(objective.predicted(given, mask), objective.predicted(other, mask))


@pytest.mark.parametrize("is_training", [True, False])
def test_spark_predicts_the_same_whatever_was_hidden(is_training: bool) -> None:
    encoder = opened("tiny-cnn")
    objective = Spark(encoder, Pretrain()).train(is_training)
    given = pictures(encoder)
    mask = choose_blocks(4, objective.grid, ratio=0.6, generator=draws())
    found = []
    for one in (given, changed(given, mask, objective.side)):
        torch.manual_seed(0)
        found.append(objective.predicted(one, mask))
    assert torch.equal(*found)


def test_masked_language_does_not_see_a_hidden_token() -> None:
    encoder = opened("tiny-text-transformer")
    ids = torch.randint(1, 257, (2, 12))
    ids.requires_grad_(False)
    hidden = ids.clone()
    hidden[:, 5] = encoder.mask_id
    with torch.no_grad():
        states = [
            encoder.states(torch.where(torch.arange(12) == 5, encoder.mask_id, one)) for one in (ids, hidden)
        ]
    assert torch.equal(*states)


def test_causal_language_sees_only_what_comes_before() -> None:
    encoder = opened("tiny-gru")
    ids = torch.randint(1, 257, (2, 12))
    later = ids.clone()
    later[:, 7:] = 3
    with torch.no_grad():
        first, second = encoder.states(ids), encoder.states(later)
    assert torch.equal(first[:, :7], second[:, :7])
    assert not torch.equal(first[:, 7], second[:, 7])


# MAE


def test_the_fast_path_equals_the_pass_in_which_no_patch_looks_at_a_hidden_one() -> None:
    encoder = opened("tiny-transformer")
    given = pictures(encoder)
    mask = choose_blocks(4, (4, 4), ratio=0.75, generator=draws())
    places = visible_places(mask)
    body = encoder.module
    with torch.no_grad():
        fast = encoder.visible(given, places)
        tokens = body._embedded(encoder._network.normalise(given))
        seen = torch.cat([torch.ones(4, 1, dtype=torch.bool), ~mask.flatten(1)], 1)
        for block in body.blocks:
            query, key, value = block.mix(block.norm1(tokens)).chunk(3, -1)
            tokens = tokens + nn.functional.scaled_dot_product_attention(
                query, key, value, attn_mask=seen[:, None, :]
            )
            tokens = tokens + block.network(block.norm2(tokens))
        slow = body.norm(tokens)[:, 1:].gather(1, places[..., None].expand(-1, -1, 24))
    assert torch.allclose(fast, slow, atol=1e-5)


def test_the_fast_path_of_timm_equals_its_masked_pass() -> None:
    encoder = opened("timm:test_vit", weights="random", image_size=64)
    given = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    mask = choose_blocks(2, (4, 4), ratio=0.5, generator=draws())
    places, body = visible_places(mask), encoder.module
    with torch.no_grad():
        fast = encoder.visible(given, places)
        first = body.num_prefix_tokens
        seen = torch.cat([torch.ones(2, first, dtype=torch.bool), ~mask.flatten(1)], 1)
        slow = body.forward_features(encoder._network.normalise(given), attn_mask=seen[:, None, None, :])[
            :, first:
        ]
    wanted = slow.gather(1, places[..., None].expand(-1, -1, slow.shape[2]))
    assert torch.allclose(fast, wanted, atol=1e-4)


def test_patches_are_cut_and_put_together_again() -> None:
    given = torch.arange(2 * 3 * 8 * 12, dtype=torch.float32).view(2, 3, 8, 12)
    patches = patches_of(given, 4)
    assert patches.shape == (2, 6, 48)
    assert torch.equal(patches[0, 1].view(3, 4, 4), given[0, :, :4, 4:8])
    assert torch.equal(pictures_of(patches, 4, (8, 12)), given)


def test_the_loss_of_patches_is_the_mean_over_hidden_ones() -> None:
    truth = torch.tensor([[[1.0, 3.0], [5.0, 5.0]]])
    guess = torch.tensor([[[0.0, 3.0], [9.0, 9.0]]])
    mask = torch.tensor([[True, False]])
    assert patch_loss(guess, truth, mask, normalised=False) == pytest.approx(0.5)
    # (1, 3) without its mean 2 and divided by its deviation 1 is (-1, 1): (0 + 1)^2 and (3 - 1)^2.
    assert patch_loss(guess, truth, mask, normalised=True) == pytest.approx(2.5, abs=1e-4)


def test_positions_of_the_decoder_differ_from_place_to_place() -> None:
    found = waves((3, 4), 16)
    assert found.shape == (12, 16)
    assert len({tuple(row) for row in found.round(decimals=4).tolist()}) == 12
    assert found[0].tolist() == pytest.approx([0] * 4 + [1] * 4 + [0] * 4 + [1] * 4)


# Spark


def test_a_mask_is_repeated_to_finer_maps_and_says_nothing_of_coarser_ones() -> None:
    seen = torch.tensor([[[True, False], [False, True]]])
    finer = at(seen, (4, 4))
    assert finer is not None
    assert finer[0].tolist() == [[True, True, False, False]] * 2 + [[False, False, True, True]] * 2
    assert at(seen, (1, 1)) is None


def test_batch_norm_counts_the_places_that_are_seen_alone() -> None:
    norm = nn.BatchNorm2d(1, momentum=1.0)
    given = torch.tensor([[[[1.0, 3.0], [100.0, 100.0]]]])
    seen = torch.tensor([[[True, True], [False, False]]])
    with sparse(norm, seen):
        out = norm.train()(given)
    assert out[0, 0].tolist() == [pytest.approx([-1, 1], abs=1e-4), [0, 0]]
    assert norm.running_mean is not None
    assert float(norm.running_mean) == pytest.approx(2.0)
    assert len(norm._forward_hooks) == len(norm._forward_pre_hooks) == 0


def test_empty_places_stay_empty_at_every_depth() -> None:
    encoder = opened("tiny-cnn")
    objective = Spark(encoder, Pretrain()).eval()
    mask = choose_blocks(4, objective.grid, ratio=0.6, generator=draws())
    found = objective.encoded(pictures(encoder), mask)
    assert (found * mask[:, None] == 0).all()
    assert (found * ~mask[:, None]).abs().sum() > 0


# LeJEPA


def test_a_normal_sample_is_as_near_to_normal_as_its_size_lets_expect() -> None:
    sample = torch.randn(4000, 8, generator=torch.Generator().manual_seed(0))
    directions = torch.randn(8, 256, generator=torch.Generator().manual_seed(1))
    # Each direction's expectation is the integral of (1 - exp(-t^2)) exp(-t^2/2) over both sides, knots up to 3.
    knots = np.linspace(0, 3, 17)
    wanted = 2 * np.trapezoid((1 - np.exp(-(knots**2))) * np.exp(-(knots**2) / 2), knots)
    found = float(sigreg(sample, directions))
    assert found == pytest.approx(wanted, rel=0.4)
    assert found / len(sample) < 1e-3


def test_what_is_not_normal_is_far_and_further_the_more_it_collapses() -> None:
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(8, 256, generator=generator)
    sample = torch.randn(500, 8, generator=generator)
    uniform = math.sqrt(12) * (torch.rand(500, 1, generator=generator) - 0.5).expand(-1, 8)
    distances = [
        float(sigreg(one, directions)) for one in (sample, uniform, 0.1 * sample, torch.zeros(500, 8))
    ]
    assert distances == sorted(distances)
    assert distances[-1] > 50 * distances[0]


def test_a_constant_has_the_distance_that_the_formula_says() -> None:
    knots = np.linspace(0, 3, 17)
    normal = np.exp(-(knots**2) / 2)
    wanted = 10 * 2 * np.trapezoid((1 - normal) ** 2 * normal, knots)
    assert float(sigreg(torch.zeros(10, 3), torch.randn(3, 5))) == pytest.approx(wanted, rel=1e-4)


def test_agreement_is_the_mean_squared_distance_to_the_mean_of_the_views() -> None:
    views = torch.tensor([[[0.0, 2.0]], [[2.0, 2.0]]])
    assert agreement(views) == pytest.approx(0.5)


def test_both_views_of_lejepa_reach_the_network() -> None:
    encoder = opened("tiny-cnn")
    objective = LeJepa(encoder, Pretrain(objective="lejepa", decoder_width=8)).train()
    given = pictures(encoder, 6)
    with torch.no_grad():
        same = objective.loss((given, given), draws())
        other = objective.loss((given, 255 - given), draws())
    assert float(other) > float(same)


# Language models


def batch(encoder: Any) -> Tensor:
    return encoder.collate(texts(2)[0])


def test_an_unlearnt_language_model_with_zero_vectors_is_at_chance() -> None:
    for name, kind in (("tiny-text-transformer", MaskedLanguage), ("tiny-gru", CausalLanguage)):
        encoder = opened(name)
        objective = kind(encoder, Pretrain())
        with torch.no_grad():
            encoder.embedding.weight.zero_()
            loss = objective.loss((batch(encoder),), draws())
        chance = math.log(encoder.embedding.num_embeddings)
        assert float(loss) == pytest.approx(chance, rel=1e-5)


def test_the_output_layer_is_the_input_embedding() -> None:
    encoder = opened("tiny-gru")
    objective = CausalLanguage(encoder, Pretrain())
    names = {name for name, _ in objective.decoder.named_parameters()}
    assert names == {"dense.weight", "dense.bias", "norm.weight", "norm.bias", "bias"}
    objective.loss((batch(encoder),), draws()).backward()
    gradient = encoder.embedding.weight.grad
    assert gradient is not None
    # As an output every row takes part, also of tokens that no text holds.
    assert (gradient.abs().sum(1) > 0).all()


def test_next_tokens_leave_out_ends_padding_and_special_tokens() -> None:
    ids = torch.tensor([[7, 8, 9, 2, -1]])
    assert next_tokens(ids, (2,)).tolist() == [[8, 9, IGNORED, IGNORED, IGNORED]]


# Which objective


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("tiny-cnn", "spark"), ("tiny-transformer", "mae"), ("tiny-gru", "causal_language"),
     ("tiny-text-transformer", "masked_language")],
)  # fmt: skip
def test_the_network_decides_the_objective(name: str, wanted: str) -> None:
    assert choose_objective(opened(name), Pretrain()) == wanted


@pytest.mark.parametrize(
    ("kind", "name"),
    [(Mae, "tiny-cnn"), (Spark, "tiny-transformer"), (SimMim, "tiny-gru"), (MaskedLanguage, "tiny-cnn"),
     (CausalLanguage, "tiny-text-transformer"), (LeJepa, "tiny-gru")],
)  # fmt: skip
def test_an_objective_that_does_not_suit_the_network_is_refused_with_its_name(kind: Any, name: str) -> None:
    encoder = opened(name)
    if kind is Spark:
        encoder.module.patches = nn.Identity()
    with pytest.raises(PlanError, match=name):
        kind(encoder, Pretrain())


# What is watched


def test_the_rank_of_features_is_the_number_of_directions_that_they_use() -> None:
    axes = torch.eye(4).repeat(10, 1)
    signs = torch.cat([axes, -axes])
    assert rank_of(signs) == pytest.approx(4, rel=1e-6)
    assert rank_of(signs * torch.tensor([1.0, 0, 0, 0])) == pytest.approx(1, abs=1e-6)
    assert rank_of(torch.ones(20, 4)) == 1.0


def test_neighbours_are_right_where_classes_lie_apart_and_at_chance_where_they_do_not() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = np.arange(200) % 2
    noise = torch.randn(200, 6, generator=generator)
    apart = noise + 20 * torch.nn.functional.one_hot(torch.from_numpy(labels), 6)
    assert neighbour_accuracy(apart, labels) == 1.0
    assert neighbour_accuracy(noise, labels) == pytest.approx(0.5, abs=0.15)
