"""BatchNorm statistics of a domain, and pictures in the style of another: by hand values, and what stays as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finetune_parts import Coloured, context
from torch import nn

from headstart.core.errors import PlanError
from headstart.core.settings import Pretrained
from headstart.core.types import Sample
from headstart.encoders.tiny import open_tiny_cnn, open_tiny_transformer
from headstart.features.encode import encode
from headstart.methods.statistics import (
    has_statistics,
    reestimate,
    statistics_of,
    use_statistics,
    with_statistics,
)
from headstart.modalities.style import match_colours, restyle, swap_amplitude


def cnn() -> Any:
    """Return the tiny network with BatchNorm."""
    return open_tiny_cnn(Pretrained(name="tiny-cnn"))


class Darkened(Coloured):
    """The same pictures, dimmed to a fifth."""

    def __init__(self, count: int) -> None:
        super().__init__(count, name="dark")
        self.pictures = [picture // 5 for picture in self.pictures]
        self.inputs = self.pictures


# -- BatchNorm ------------------------------------------------------------------------------------------------


def test_the_first_layers_statistics_are_those_of_its_inputs_blended_by_the_number_of_items(
    tmp_path: Path,
) -> None:
    encoder, dataset = cnn(), Darkened(24)
    seen: list[torch.Tensor] = []
    first = encoder.module[0][1]
    handle = first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    found = reestimate(encoder, dataset, context=context(tmp_path))
    handle.remove()
    rows = torch.cat(seen).transpose(0, 1).flatten(1)
    share = 24 / (24 + 16)
    assert torch.allclose(found["0.1.running_mean"], share * rows.mean(1), atol=1e-5)
    assert torch.allclose(found["0.1.running_var"], (1 - share) + share * rows.var(1), atol=1e-4)


def test_the_network_stays_to_the_bit_and_uses_other_statistics_inside_the_block_alone(
    tmp_path: Path,
) -> None:
    encoder, dataset = cnn(), Darkened(24)
    before = {name: tensor.clone() for name, tensor in encoder.module.state_dict().items()}
    found = reestimate(encoder, dataset, context=context(tmp_path))
    plain = encode(dataset, encoder, form="pooled", context=context(tmp_path)).features
    with with_statistics(encoder, found):
        moved = encode(dataset, encoder, form="pooled", context=context(tmp_path)).features
    again = encode(dataset, encoder, form="pooled", context=context(tmp_path)).features
    assert not np.allclose(plain, moved)
    assert np.array_equal(plain, again)
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.module.state_dict().items())
    assert not any(part.training for part in encoder.module.modules())
    assert all(part.momentum == 0.1 for part in encoder.module.modules() if isinstance(part, nn.BatchNorm2d))


def test_own_statistics_bring_a_darkened_domain_nearer_to_the_clean_one(tmp_path: Path) -> None:
    encoder, clean, dark = cnn(), Coloured(48, name="dark"), Darkened(48)
    run = context(tmp_path)
    # Without the network's own share, which for untrained weights says nothing.
    sides = [(data, reestimate(encoder, data, context=run, prior=0)) for data in (clean, dark)]

    def gap(features: list[Any]) -> float:
        return float(np.abs(features[0].mean(0) - features[1].mean(0)).mean() / features[0].std())

    plain = [encode(data, encoder, form="pooled", context=run).features for data, _ in sides]
    own: list[Any] = []
    for data, statistics in sides:
        with with_statistics(encoder, statistics):
            own.append(encode(data, encoder, form="pooled", context=run).features)
    assert gap(own) < 0.2 * gap(plain)


class Unlabelled(Darkened):
    """The same without labels."""

    def __getitem__(self, index: int) -> Sample:
        return replace(super().__getitem__(index), target=None)


def test_the_statistics_do_not_depend_on_labels_and_can_be_put_in_for_good(tmp_path: Path) -> None:
    encoder = cnn()
    found = reestimate(encoder, Darkened(12), context=context(tmp_path))
    again = reestimate(encoder, Unlabelled(12), context=context(tmp_path))
    assert all(torch.equal(tensor, found[name]) for name, tensor in again.items())
    use_statistics(encoder, found)
    assert all(torch.equal(tensor, found[name]) for name, tensor in statistics_of(encoder).items())


def test_networks_without_batchnorm_and_single_items_are_refused(tmp_path: Path) -> None:
    transformer = open_tiny_transformer(Pretrained(name="tiny-transformer"))
    assert has_statistics(cnn())
    assert not has_statistics(transformer)
    with pytest.raises(PlanError, match="statistics of tiny-transformer"):
        reestimate(transformer, Darkened(8), context=context(tmp_path))
    with pytest.raises(PlanError, match="from 1 items"):
        reestimate(cnn(), Darkened(1), context=context(tmp_path))


# -- style ----------------------------------------------------------------------------------------------------


def pictures(seed: int, *, low: int = 0, high: int = 256, count: int = 3) -> torch.Tensor:
    """Return smooth random pictures, uint8 [N, 3, 32, 32]."""
    generator = np.random.default_rng(seed)
    coarse = torch.from_numpy(generator.uniform(low, high - 1, (count, 3, 4, 4)))
    return nn.functional.interpolate(coarse, size=(32, 32), mode="bilinear").round().to(torch.uint8)


def test_colours_take_the_mean_and_spread_of_the_style() -> None:
    found = match_colours(pictures(0, low=90, high=160), pictures(1, low=20, high=60)).float()
    wanted = pictures(1, low=20, high=60).float()
    assert torch.allclose(found.mean((2, 3)), wanted.mean((2, 3)), atol=0.5)
    assert torch.allclose(found.std((2, 3)), wanted.std((2, 3)), atol=0.5)


def test_the_amplitude_of_low_frequencies_alone_is_exchanged_and_phases_stay() -> None:
    first, second = pictures(0, low=90, high=160), pictures(1, low=60, high=120)
    found = swap_amplitude(first, second, share=0.05)  # Half-width 1.
    before, style, after = (torch.fft.fft2(batch.float()) for batch in (first, second, found))
    for row, column in ((0, 0), (0, 1), (1, 0), (-1, 1), (1, -1)):
        place = (slice(None), slice(None), row, column)
        assert torch.allclose(after[place].abs(), style[place].abs(), rtol=0.05, atol=40)
        assert torch.allclose(
            torch.cos(after[place].angle() - before[place].angle()), torch.ones(3, 3), atol=0.05
        )
    assert torch.allclose(after[:, :, 2, 2], before[:, :, 2, 2], atol=40)


def test_a_picture_in_its_own_style_stays_as_it_is() -> None:
    first = pictures(0)
    assert int((swap_amplitude(first, first).int() - first.int()).abs().max()) <= 1
    assert int((match_colours(first, first).int() - first.int()).abs().max()) <= 1
    flat = torch.full((1, 3, 8, 8), 7, dtype=torch.uint8)
    assert torch.equal(match_colours(flat, flat), flat)


@pytest.mark.parametrize("kind", ["fourier", "colour", "both"])
def test_restyling_is_decided_by_the_generator_alone_and_leaves_its_arguments(kind: Any) -> None:
    first, second = pictures(0, low=120, count=12), pictures(1, high=80, count=5)
    kept = first.clone()

    def draw() -> torch.Tensor:
        return restyle(first, second, generator=np.random.default_rng(4), kind=kind)

    found = draw()
    assert torch.equal(found, draw())
    assert torch.equal(first, kept)
    changed = (found != first).flatten(1).any(1)
    assert 0 < int(changed.sum()) < 12
    assert found[changed].float().mean() < first[changed].float().mean() - 50
    assert torch.equal(restyle(first, second, generator=np.random.default_rng(0), chance=0.0), first)
