"""Parameter groups, freezing and its proof."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from training_parts import bits, layers, small_net

from headstart.core.errors import TrainingError
from headstart.train.optim import (
    ParameterGroup,
    build_optimizer,
    freeze,
    parameter_groups,
    require_trainable,
    set_mode,
)


def test_learning_rates_decay_with_the_distance_from_the_head() -> None:
    net = small_net()
    groups = parameter_groups(
        layers(net), net.head, learning_rate=0.1, layer_decay=0.5, head_learning_rate=0.3
    )
    assert [(group.name, pytest.approx(group.learning_rate)) for group in groups] == [
        ("stem", 0.025), ("body", 0.05), ("head", 0.3),
    ]  # fmt: skip


def test_norms_and_biases_get_no_weight_decay_and_rates_follow_the_factor() -> None:
    net = small_net()
    optimizer = build_optimizer(parameter_groups(layers(net), net.head, learning_rate=0.1, weight_decay=0.2))
    for row in optimizer.rows:
        assert row.weight_decay == (0.2 if row.parameters[0].ndim > 1 else 0.0)
    optimizer.scale_rates(0.5)
    assert {row.rate for row in optimizer.rows} == {0.05}


def test_it_moves_weights_by_the_same_bits_as_torch() -> None:
    ours, theirs = small_net(), small_net()
    optimizer = build_optimizer(parameter_groups((), ours, learning_rate=0.01, weight_decay=0.1))
    decayed = [parameter for parameter in theirs.parameters() if parameter.ndim > 1]
    plain = [parameter for parameter in theirs.parameters() if parameter.ndim <= 1]
    reference = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}],
        lr=0.01,
        foreach=False,
    )
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        inputs = torch.randn(4, 3, 8, 8, generator=generator)
        for net, step in ((ours, optimizer), (theirs, reference)):
            step.zero_grad()
            net(inputs).square().sum().backward()
            step.step()
    assert bits(ours) == bits(theirs)


def test_every_parameter_is_in_one_group() -> None:
    net = small_net()
    optimizer = build_optimizer(parameter_groups(layers(net), net.head, learning_rate=0.1))
    listed = [id(parameter) for row in optimizer.rows for parameter in row.parameters]
    assert sorted(listed) == sorted(id(parameter) for parameter in net.parameters())


def test_a_group_is_frozen_in_gradients_and_mode_until_it_opens() -> None:
    net = small_net()
    groups = parameter_groups(layers(net), net.head, learning_rate=0.1, opens=(2, 1))
    set_mode(net, groups, epoch=0)
    assert not any(parameter.requires_grad for parameter in (*net.stem.parameters(), *net.body.parameters()))
    assert not any(part.training for part in (*net.stem.modules(), *net.body.modules()))
    assert net.head.weight.requires_grad
    assert net.dropout.training
    set_mode(net, groups, epoch=1)
    assert net.body[0].weight.requires_grad
    assert net.body[3].training
    assert not net.stem[0].weight.requires_grad


def test_batchnorm_statistics_rest_while_its_scale_trains() -> None:
    net = small_net()
    groups = parameter_groups(layers(net), net.head, learning_rate=0.1)
    set_mode(net, groups, epoch=0, freeze_statistics=True)
    assert not net.stem[1].training
    assert net.stem[1].weight.requires_grad
    set_mode(net, groups, epoch=0, freeze_statistics=False)
    assert net.stem[1].training


def test_freeze_keeps_bits_statistics_and_dropout_and_restores_modes() -> None:
    net = small_net().train()
    with freeze(net, layers(net)[:1]):
        assert not net.stem[1].training
        net(torch.randn(4, 3, 8, 8)).sum().backward()
    assert net.stem[0].weight.grad is None
    assert net.stem[0].weight.requires_grad
    assert net.stem[1].training


def test_a_frozen_tensor_that_moves_is_named() -> None:
    net = small_net()
    statistics = dict(net.named_buffers())["stem.1.running_mean"]
    with pytest.raises(TrainingError, match=r"stem\.1\.running_mean"), freeze(net, layers(net)[:1]):
        statistics.add_(1)


def test_a_model_with_nothing_to_train_is_refused() -> None:
    with pytest.raises(TrainingError, match="every parameter is frozen"):
        require_trainable([ParameterGroup("head", (nn.ReLU(),), {}, 0.1)])
    with pytest.raises(TrainingError, match="every parameter is frozen"):
        require_trainable(parameter_groups(layers(small_net()), nn.ReLU(), learning_rate=0.1, opens=(1, 1)))
