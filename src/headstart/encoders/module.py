"""Any torch.nn.Module of the user's as an encoder, given its layers in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from headstart.core.errors import EncoderError
from headstart.core.types import EncoderSpec, InputContract
from headstart.encoders._network import Architecture, ImageEncoder, groups_of
from headstart.encoders._weights import fill, origins, read_weights


def from_module(
    network: nn.Module,
    layers: Mapping[str, Sequence[str | nn.Module]],
    *,
    contract: InputContract,
    name: str = "module:network",
    weights: str | None = None,
    licence: str = "unknown",
) -> ImageEncoder:
    """Wrap `network`, which turns normalised pictures [N, C, H, W] into [N, D] or [N, D, H, W] (then averaged).

    `layers` maps group name -> modules (or their names), shallow to deep; together they hold every parameter once.
    `weights` is a .safetensors or .pth file; without it the network counts as loaded by the caller.
    EncoderError where a name is unknown or the groups do not cover the parameters.
    """
    groups = groups_of(
        network, {group: _parameters(network, group, items) for group, items in layers.items()}
    )
    if weights is not None:
        receipt = fill(network, read_weights(weights), source=weights)
    else:
        receipt = origins(network, source="the caller's network", taken=set(network.state_dict()))
    spec = EncoderSpec(name, "image", {}, contract, weights_sha256="", licence=licence, source=receipt.source)
    pool = _POOLS[_dimensions(network, contract)]
    return ImageEncoder(network, Architecture(_maps, pool, groups), spec=spec, receipt=receipt)


def average_map(body: nn.Module, features: Tensor) -> Tensor:  # noqa: ARG001 - the shape of Architecture.pool
    """Average a map [N, D, H, W] over positions."""
    return features.mean((2, 3))


def _average_tokens(body: nn.Module, features: Tensor) -> Tensor:  # noqa: ARG001 - the shape of Architecture.pool
    """Average tokens [N, T, D] over positions."""
    return features.mean(1)


def _as_it_is(body: nn.Module, features: Tensor) -> Tensor:  # noqa: ARG001 - the shape of Architecture.pool
    """Keep a vector [N, D]."""
    return features


_POOLS = {2: _as_it_is, 3: _average_tokens, 4: average_map}


def _dimensions(network: nn.Module, contract: InputContract) -> int:
    """Return how many dimensions the network's output has, from one blank picture."""
    with torch.inference_mode():
        output = network.eval()(torch.zeros(1, contract.channels, *contract.size))
    if output.dim() not in _POOLS:
        raise EncoderError(
            f"the network gives {tuple(output.shape)} for one picture",
            expected="[N, D], [N, T, D] or [N, D, H, W]",
            fix="wrap it so that its forward ends there",
        )
    return output.dim()


def _maps(body: nn.Module, pictures: Tensor) -> Tensor:
    """Run the whole network; it ends in its last map or vector."""
    return body(pictures)


def _parameters(network: nn.Module, group: str, items: Sequence[str | nn.Module]) -> list[str]:
    """Return the names of the parameters of a group's modules."""
    names_of = {id(module): name for name, module in network.named_modules()}
    found: list[str] = []
    for item in items:
        name = item if isinstance(item, str) else names_of.get(id(item))
        if name not in names_of.values():
            raise EncoderError(
                f"layer group '{group}' names {item!r}, which the network does not have",
                expected="modules of the network, or names as network.named_modules() gives them",
                fix="correct the entry",
            )
        found += [
            f"{name}.{parameter}" for parameter, _ in network.get_submodule(str(name)).named_parameters()
        ]
    return found
