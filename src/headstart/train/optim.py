"""Which parameters train, at which rate, and proof that the others stay as they are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from headstart.core.errors import TrainingError
from headstart.core.types import LayerGroup
from headstart.train.adamw import AdamW, Row


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that train together from epoch `opens` (counted from 0) on; `modules` are those they lie in."""

    name: str
    modules: tuple[nn.Module, ...]
    parameters: Mapping[str, nn.Parameter]
    learning_rate: float
    weight_decay: float = 0.0
    opens: int = 0


def parameter_groups(
    layers: Sequence[LayerGroup],
    head: nn.Module,
    *,
    learning_rate: float,
    head_learning_rate: float | None = None,
    layer_decay: float = 1.0,
    weight_decay: float = 0.0,
    opens: Sequence[int] | None = None,
) -> tuple[ParameterGroup, ...]:
    """Return the groups that train, shallow to deep, the head last.

    A group's learning rate is `learning_rate * layer_decay ** distance`, where the deepest of `layers` has distance 1
    from the head (layer-wise learning-rate decay: Clark et al. 2020, arXiv 2003.10555). `opens` has one epoch a layer.
    """
    epochs = opens if opens is not None else [0] * len(layers)
    trained = [
        ParameterGroup(
            layer.name,
            layer.modules,
            layer.parameters,
            learning_rate * layer_decay ** (len(layers) - index),
            weight_decay,
            epochs[index],
        )
        for index, layer in enumerate(layers)
        if layer.parameters
    ]
    parameters = dict(head.named_parameters())
    return (
        *trained,
        ParameterGroup("head", (head,), parameters, head_learning_rate or learning_rate, weight_decay),
    )


def require_trainable(groups: Iterable[ParameterGroup]) -> None:
    """Raise TrainingError where nothing would train in the first epoch."""
    if not any(group.parameters and group.opens == 0 for group in groups):
        raise TrainingError(
            "every parameter is frozen: nothing would train",
            expected="at least one parameter that trains from the first epoch on",
            fix="use a head with parameters, or raise finetune.train_last",
        )


def build_optimizer(groups: Sequence[ParameterGroup]) -> AdamW:
    """Return AdamW over the groups; norms and biases get no weight decay."""
    rows: list[Row] = []
    for group in groups:
        plain = [parameter for parameter in group.parameters.values() if parameter.ndim <= 1]
        decayed = [parameter for parameter in group.parameters.values() if parameter.ndim > 1]
        for parameters, decay in ((decayed, group.weight_decay), (plain, 0.0)):
            if parameters:
                rows.append(Row(parameters, group.learning_rate, decay, group.learning_rate))
    return AdamW(rows)


def set_mode(
    module: nn.Module, groups: Sequence[ParameterGroup], *, epoch: int, freeze_statistics: bool = True
) -> None:
    """Put the whole module in the state of `epoch`: what trains, what is frozen.

    Everything outside the groups and every group that has not opened has requires_grad False *and* eval mode (its
    dropout and BatchNorm statistics rest too). With `freeze_statistics`, BatchNorm uses its running statistics
    everywhere while its scale and shift train.
    """
    module.requires_grad_(False)
    module.eval()
    for group in groups:
        if group.opens <= epoch:
            for parameter in group.parameters.values():
                parameter.requires_grad_(True)
            for part in group.modules:
                part.train()
    for part in _unowned(module, groups):
        part.training = True
    if freeze_statistics:
        still_statistics(module)


def _unowned(module: nn.Module, groups: Sequence[ParameterGroup]) -> list[nn.Module]:
    """Return parts without parameters that no group owns (a dropout between encoder and head)."""
    owned = {id(part) for group in groups for top in group.modules for part in top.modules()}
    return [
        part
        for part in module.children()
        if id(part) not in owned
        and not any(True for _ in part.parameters())
        and not any(True for _ in part.buffers())
    ]


def still_statistics(module: nn.Module) -> list[BatchNorm]:
    """Put every training BatchNorm into eval mode; return those that were changed."""
    changed = [part for part in module.modules() if isinstance(part, BatchNorm) and part.training]
    for part in changed:
        part.eval()
    return changed


@contextmanager
def freeze(module: nn.Module, groups: Iterable[LayerGroup]) -> Iterator[None]:
    """Freeze layer groups inside the block: no gradients, eval mode, and at the end a proof that nothing moved."""
    layers = tuple(groups)
    parameters = [parameter for layer in layers for parameter in layer.parameters.values()]
    parts = [part for layer in layers for top in layer.modules for part in top.modules()]
    gradients = [parameter.requires_grad for parameter in parameters]
    modes = [part.training for part in parts]
    tensors = frozen_tensors(module, layers)
    before = tensor_digests(tensors)
    for parameter in parameters:
        parameter.requires_grad_(False)
    for part in parts:
        part.training = False
    try:
        yield
        assert_unchanged(before, tensors)
    finally:
        for parameter, wanted in zip(parameters, gradients, strict=True):
            parameter.requires_grad_(wanted)
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode


def frozen_tensors(module: nn.Module, layers: Iterable[LayerGroup]) -> dict[str, Tensor]:
    """Return the parameters and buffers of the layers, by their names in `module`."""
    wanted: set[int] = set()
    for layer in layers:
        wanted |= {id(parameter) for parameter in layer.parameters.values()}
        wanted |= {id(buffer) for part in layer.modules for buffer in part.buffers()}
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name: tensor for name, tensor in named if id(tensor) in wanted}


def tensor_digests(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the sha256 of each tensor's bytes by name."""
    return {name: hashlib.sha256(_bytes(tensor)).hexdigest() for name, tensor in tensors.items()}


def assert_unchanged(before: Mapping[str, str], tensors: Mapping[str, Tensor]) -> None:
    """Raise TrainingError naming each tensor whose bits differ from those that `before` was made of."""
    now = tensor_digests(tensors)
    moved = [name for name, known in before.items() if now[name] != known]
    if moved:
        raise TrainingError(
            f"frozen tensors changed: {', '.join(moved)}",
            expected="frozen layers that stay bit-identical, BatchNorm statistics too",
            fix="report this as a defect, with the encoder's name",
        )


def _bytes(tensor: Tensor) -> bytes:
    """Return a tensor's content in row-major order, whatever its type and layout."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()
