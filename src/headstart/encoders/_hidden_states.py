"""Networks of the transformers library in parts: embeddings, layers and last norm, cut at any depth."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from headstart.encoders._network import groups_of


@dataclass(frozen=True, slots=True)
class Family:
    """Where a family of networks keeps its parts (dotted names), and how it reads.

    `embeddings` make the first hidden states, `first` belongs to the first layer and `last` to the last one. Whatever
    else there is (relative positions that every layer uses) counts as part of the embeddings.
    """

    layers: str
    embeddings: tuple[str, ...] = ("embeddings",)
    first: tuple[str, ...] = ()
    last: tuple[str, ...] = ()
    is_causal: bool = False
    attention: str = "sdpa"


_BERT = Family("encoder.layer")
_DEBERTA = Family("encoder.layer", first=("encoder.conv",), attention="eager")
_LLAMA = Family("layers", ("embed_tokens",), last=("norm",), is_causal=True)
FAMILIES: Mapping[str, Family] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert"), _BERT),
    "electra": Family("encoder.layer", ("embeddings", "embeddings_project")),
    "distilbert": Family("transformer.layer"),
    **dict.fromkeys(("deberta", "deberta-v2"), _DEBERTA),
    "gpt2": Family("h", ("wte", "wpe", "drop"), last=("ln_f",), is_causal=True),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "smollm3", "gemma"), _LLAMA),
}
"""By the `model_type` of a configuration."""


class HiddenStates:
    """A network in parts that share its parameters; implements TextBody."""

    def __init__(self, module: nn.Module, family: Family) -> None:
        """Name the layers and group the parameters."""
        self.module, self.family = module, family
        self.layers = cast("nn.ModuleList", module.get_submodule(family.layers))
        self.width = int(cast("Any", module.config).hidden_size)
        self.groups = groups_of(module, self._named())

    def _named(self) -> dict[str, list[str]]:
        """Return parameter names by group: embeddings, one group a layer, the last norm with the last layer."""
        named: dict[str, list[str]] = {"embeddings": []}
        named |= {f"layer{index}": [] for index in range(len(self.layers))}
        for name, _ in self.module.named_parameters():
            rest = name.removeprefix(f"{self.family.layers}.")
            group = "embeddings" if rest == name else f"layer{rest.partition('.')[0]}"
            for index, parts in ((0, self.family.first), (len(self.layers) - 1, self.family.last)):
                group = f"layer{index}" if name.startswith(tuple(f"{part}." for part in parts)) else group
            named[group].append(name)
        return named

    def whole(self, ids: Tensor, mask: Tensor | None) -> list[Tensor]:
        """Return the hidden states [N, T, D] of the embeddings and of every layer."""
        given = _given(ids, mask, is_causal=self.family.is_causal)
        return list(self.module(input_ids=ids, attention_mask=given, output_hidden_states=True).hidden_states)

    def prefix(self, depth: int) -> nn.Module:
        """Return (ids, mask) -> hidden states after the embeddings and the first `depth - 1` layers."""
        return _Until(self._part(0, depth - 1, from_ids=True), is_causal=self.family.is_causal)

    def suffix(self, depth: int) -> nn.Module:
        """Return (hidden states, mask) -> last hidden states."""
        if depth == len(self.groups):
            return _Same()
        return _After(self._part(depth - 1, len(self.layers), from_ids=False))

    def _part(self, start: int, stop: int, *, from_ids: bool) -> nn.Module:
        """Return a shallow copy of the network with the layers `start` to before `stop` and what belongs to them."""
        part, family = _shallow(self.module), self.family
        held = dict(self.module.named_modules())
        layers = list(self.layers)[start:stop]
        _put(part, family.layers, nn.ModuleList(layers or ([_NoLayer()] if family is _DEBERTA else [])))
        for name in () if from_ids else family.embeddings:
            if name in held:
                _put(part, name, _ABSENT.get(name, _GivenStates)())
        for name in family.first if start or not layers else ():
            if name in held:
                _put(part, name, None)
        for name in family.last if stop < len(self.layers) else ():
            _put(part, name, nn.Identity())
        config = cast("Any", self.module.config)
        if getattr(config, "layer_types", None):
            # Llama's kin look up the mask of a layer by its place among those that are there.
            own = copy.copy(config)
            own.layer_types = list(config.layer_types)[start:stop]
            cast("Any", part).config = own
        return part


class _Until(nn.Module):
    """Run a part from ids."""

    def __init__(self, part: nn.Module, *, is_causal: bool) -> None:
        super().__init__()
        self.part, self.is_causal = part, is_causal

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return hidden states [N, T, D]."""
        given = _given(ids, mask, is_causal=self.is_causal)
        return self.part(input_ids=ids, attention_mask=given).last_hidden_state


class _After(nn.Module):
    """Run a part from hidden states."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return hidden states [N, T, D]."""
        return self.part(inputs_embeds=hidden, attention_mask=mask.long()).last_hidden_state


class _Same(nn.Module):
    """The part behind the last layer: nothing."""

    def forward(self, hidden: Tensor, _: Tensor) -> Tensor:
        """Return the hidden states."""
        return hidden


class _GivenStates(nn.Module):
    """Stands for embeddings where their output is given."""

    def forward(
        self, _: Tensor | None = None, inputs_embeds: Tensor | None = None, *__: Any, **___: Any
    ) -> Any:
        """Return what was given."""
        return inputs_embeds


class _NoPositions(nn.Module):
    """Stands for position embeddings that the given states hold already."""

    def forward(self, positions: Tensor) -> Tensor:
        """Return zero."""
        return torch.zeros((), device=positions.device)


class _NoLayer(nn.Module):
    """Stands for DeBERTa's layers where a part has none, as its loop needs one."""

    def forward(self, hidden: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        """Return the hidden states, without attention weights."""
        return hidden, None


def _given(ids: Tensor, mask: Tensor | None, *, is_causal: bool) -> Tensor | None:
    """Return the library's mask; causal networks without one would look for packed texts, which ONNX cannot say."""
    if mask is None:
        return torch.ones_like(ids) if is_causal else None
    return mask.long()


_ABSENT: Mapping[str, type[nn.Module]] = {
    "embed_tokens": nn.Identity,
    "embeddings_project": nn.Identity,
    "wte": nn.Identity,
    "wpe": _NoPositions,
    "drop": nn.Identity,
}
"""What stands for a part of the embeddings where their output is given; `_GivenStates` for the rest."""


def _shallow(module: nn.Module) -> nn.Module:
    """Return a copy of a module that shares its parts, so that parts can be exchanged without touching it."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    return twin


def _put(module: nn.Module, name: str, part: nn.Module | None) -> None:
    """Exchange a part of a shallow copy by its dotted name."""
    *owners, last = name.split(".")
    for owner in owners:
        inner = _shallow(module.get_submodule(owner))
        module._modules[owner] = inner
        module = inner
    module._modules[last] = part
