"""A text network that is an embedding and a list of layers: cut after any of them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from headstart.core.types import LayerGroup
from headstart.encoders._network import groups_of


class LayerStack(nn.Module):
    """`embedding` maps ids [N, T] to states [N, T, D], each of `layers` maps states and a mask [N, T] to states."""

    def __init__(self, embedding: nn.Module, layers: Sequence[nn.Module]) -> None:
        """Join the parts."""
        super().__init__()
        self.embedding, self.layers = embedding, nn.ModuleList(layers)


class Stack:
    """Implements TextBody for a LayerStack."""

    def __init__(
        self,
        module: LayerStack,
        *,
        width: int,
        state_width: int,
        depths: tuple[tuple[str, int], ...] = (),
    ) -> None:
        """Group the parameters; `width` is what pooling gives, `depths` the same of shallower layers, deepest first."""
        self.module: nn.Module = module
        self.width, self.state_width, self.depths = width, state_width, depths
        self._embedding, self._layers = module.embedding, list(module.layers)
        named: dict[str, list[str]] = {"embedding": []}
        named |= {f"layer{index}": [] for index in range(len(module.layers))}
        for name, _ in module.named_parameters():
            first, second = name.split(".")[:2]
            named["embedding" if first == "embedding" else f"layer{second}"].append(name)
        self.groups: tuple[LayerGroup, ...] = groups_of(module, named)

    def whole(self, ids: Tensor, mask: Tensor | None) -> list[Tensor]:
        """Return the states [N, T, D] of the embedding and of every layer."""
        states = [self._embedding(ids)]
        for layer in self._layers:
            states.append(layer(states[-1], mask))
        return states

    def prefix(self, depth: int) -> nn.Module:
        """Return (ids, mask) -> states after the embedding and the first `depth - 1` layers."""
        return _Until(self._embedding, self._layers[: depth - 1])

    def suffix(self, depth: int) -> nn.Module:
        """Return (states, mask) -> last states."""
        return _After(self._layers[depth - 1 :])


class _After(nn.Module):
    """Some layers in a row."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return states [N, T, D]."""
        for layer in self.layers:
            states = layer(states, mask)
        return states


class _Until(nn.Module):
    """The embedding and some layers in a row."""

    def __init__(self, embedding: nn.Module, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.embedding, self.rest = embedding, _After(layers)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return states [N, T, D]."""
        return self.rest(self.embedding(ids), mask)
