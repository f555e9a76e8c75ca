"""Any torch.nn.Module of the user's as an encoder, given its layers in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from headstart.core.errors import EncoderError
from headstart.core.types import EncoderSpec, InputContract, Receipt
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
    groups = groups_of(network, {group: _parameters(network, group, items) for group, items in layers.items()})
    if weights is not None:
        receipt = fill(network, read_weights(weights), source=weights)
    else:
        receipt = origins(network, source="the caller's network", taken=set(network.state_dict()))
    spec = EncoderSpec(name, "image", {}, contract, weights_sha256="", licence=licence, source=receipt.source)
    return ImageEncoder(network, Architecture(_maps, average_pool, groups), spec=spec, receipt=receipt)


def average_pool(body: nn.Module, features: Tensor) -> Tensor:  # noqa: ARG001 - part of Architecture.pool
    """Average a map [N, D, H, W] or tokens [N, T, D] over positions; a vector stays as it is."""
    if features.dim() == 4:
        return features.mean((2, 3))
    return features.mean(1) if features.dim() == 3 else features


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
        found += [f"{name}.{parameter}" for parameter, _ in network.get_submodule(str(name)).named_parameters()]
    return found
