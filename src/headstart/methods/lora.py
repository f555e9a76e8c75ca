"""LoRA: the linear layers of what trains learn a low-rank update, and their own weights rest until it is merged.

W x becomes W x + 2 B A x, with A [rank, in] drawn and B [out, rank] zero at the start (Hu et al. 2021, arXiv
2106.09685), by the layers of the library peft.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from headstart.core.errors import PlanError
from headstart.core.types import LayerGroup

SCALE = 2
"""The update counts this many times, whatever its rank."""


@dataclass(frozen=True)
class Adapted:
    """A network whose linear layers carry updates: `groups` hold these alone, not the layers' own parameters."""

    groups: tuple[LayerGroup, ...]
    places: tuple[tuple[nn.Module, str, nn.Module], ...]
    """Parent, name and the layer itself of each place that was exchanged."""
    updates: tuple[Any, ...]

    def restore(self) -> None:
        """Put the layers back where their adapted forms stand, their weights as they were."""
        for parent, name, layer in self.places:
            setattr(parent, name, layer)

    def merge(self) -> None:
        """Add each update to its layer's weights, so that a saved model needs no adapters."""
        with torch.no_grad():
            for update in self.updates:
                update.get_base_layer().weight.add_(update.get_delta_weight("default"))


def adapt(network: nn.Module, layers: Sequence[LayerGroup], *, rank: int, seed: int) -> Adapted:
    """Exchange the linear layers of `layers` (shallow to deep) in `network` for adapted ones, in place.

    PlanError where peft is missing or none of the layers is linear; groups without linear layers do not train.
    """
    owner = {id(tensor): index for index, group in enumerate(layers) for tensor in group.parameters.values()}
    places = [
        (parent, name, child)
        for parent in network.modules()
        for name, child in parent.named_children()
        if _is_linear(child) and id(child.weight) in owner
    ]
    if not places:
        raise PlanError(
            "finetune.lora_rank is set, but nothing linear is in the layer groups that train",
            expected="a transformer, and finetune.train_last of at least 1",
            fix="leave finetune.lora_rank out, or raise finetune.train_last",
        )
    linear = list({id(layer): layer for _, _, layer in places}.values())
    updates = _updates(linear, rank=rank, seed=seed)
    for parent, name, layer in places:
        setattr(parent, name, updates[id(layer)])
    groups = tuple(
        replace(
            group,
            parameters=_parameters(
                group, [updates[id(layer)] for layer in linear if owner[id(layer.weight)] == index]
            ),
        )
        for index, group in enumerate(layers)
    )
    return Adapted(groups, tuple(places), tuple(updates.values()))


def _parameters(group: LayerGroup, updates: Sequence[nn.Module]) -> dict[str, nn.Parameter]:
    """Return the two factors of each update of a group by name."""
    return {
        f"{group.name}.{number}.{name}": tensor
        for number, update in enumerate(updates)
        for name, tensor in update.named_parameters()
        if "lora_" in name
    }


def _is_linear(layer: nn.Module) -> bool:
    """Tell a linear layer, or GPT-2's own kind, which keeps its weights the other way round."""
    return type(layer) is nn.Linear or _is_turned(layer)


def _is_turned(layer: nn.Module) -> bool:
    """Tell GPT-2's own kind of linear layer (no library is imported for it)."""
    return type(layer).__name__ == "Conv1D" and hasattr(layer, "nf")


def _updates(layers: Sequence[nn.Module], *, rank: int, seed: int) -> dict[int, Any]:
    """Return the adapted form of each layer by its identity; the first factors are drawn from the seed."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ModuleNotFoundError:
        raise PlanError(
            "finetune.lora_rank is set, but the package peft is not installed",
            expected="the extra for texts",
            fix="pip install 'headstart[text]', or leave finetune.lora_rank out",
        ) from None
    found: dict[int, Any] = {}
    for is_turned in (False, True):
        kind = [layer for layer in layers if _is_turned(layer) == is_turned]
        if not kind:
            continue
        holder = nn.ModuleDict({f"linear{number}": layer for number, layer in enumerate(kind)})
        settings = LoraConfig(
            r=rank, lora_alpha=SCALE * rank, target_modules=list(holder), fan_in_fan_out=is_turned
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            inject_adapter_in_model(settings, holder)
        found |= {id(layer): holder[f"linear{number}"] for number, layer in enumerate(kind)}
    return found
