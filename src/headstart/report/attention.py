"""Where the network looked: Grad-CAM on its last map (Selvaraju et al., 2017), of maps or of tokens."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from headstart.model import Model

_KEPT = 32
"""Outputs of map shape that are kept; a transformer block makes up to 16 of them."""


@dataclass(frozen=True)
class Attention:
    """Heat [N, H, W] from 0 to 1, or None and the reason why there is none."""

    heat: np.ndarray | None
    reason: str = ""


def look(model: Model, pictures: Tensor, classes: Sequence[int]) -> Attention:
    """Return how much each place of collated `pictures` [N, C, H, W] spoke for its class in `classes` [N].

    The gradient of the class's logit is taken at the last layer of map shape where it is not zero: after a
    class token's last attention block, for example, patches no longer count.
    """
    encoder = model.encoder
    if "map" not in encoder.spec.width:
        return Attention(None, f"{encoder.spec.name} has no spatial map, so there is no heat map")
    with torch.no_grad():
        shape = tuple(encoder(pictures[:1], "map").value.shape[1:])
    with torch.enable_grad(), _recorded(encoder.module, shape) as layers:
        logits = model.logits(pictures)
    if not layers or not logits.requires_grad:
        return Attention(None, f"no layer of {encoder.spec.name} shows its map, so there is no heat map")
    chosen = logits.gather(1, torch.tensor(classes, device=logits.device)[:, None]).sum()
    gradients = torch.autograd.grad(chosen, list(layers), allow_unused=True)
    for layer, gradient in zip(reversed(layers), reversed(gradients), strict=True):
        if gradient is not None:
            values, slopes = _as_map(layer.detach(), shape), _as_map(gradient, shape)
            if values is not None and slopes is not None and slopes.any():
                return Attention(_heat(values, slopes))
    return Attention(None, "the head does not use the network's last map, so there is no heat map")


@contextmanager
def _recorded(module: nn.Module, shape: tuple[int, ...]) -> Iterator[deque[Tensor]]:
    """Collect the outputs of map shape that layers give while this context lasts, the last ones of them."""
    layers: deque[Tensor] = deque(maxlen=_KEPT)
    probe = torch.zeros((), requires_grad=True, device=next(module.parameters()).device)

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        if not isinstance(output, Tensor) or _as_map(output, shape) is None:
            return output
        # A frozen network starts no gradient; adding a zero that needs one does, and changes no parameter.
        output = output if output.requires_grad else output + probe
        if not layers or layers[-1] is not output:
            layers.append(output)
        return output

    hooks = [layer.register_forward_hook(keep) for layer in module.modules()]
    try:
        yield layers
    finally:
        for hook in hooks:
            hook.remove()


def _heat(values: Tensor, slopes: Tensor) -> np.ndarray:
    """Weigh each channel by its mean gradient, keep what speaks for the class, scale each picture to 0..1."""
    weights = slopes.mean((2, 3), keepdim=True)
    heat = (weights * values).sum(1).clamp(min=0).float()
    return (heat / heat.amax((1, 2), keepdim=True).clamp(min=1e-12)).cpu().numpy()


def _as_map(output: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    """Return an output as [N, D, H, W] if it has the map's shape (D, H, W) in any layout, also as tokens."""
    depth, height, width = shape
    own = tuple(output.shape[1:])
    if own == shape:
        return output
    if own == (height, width, depth):
        return output.permute(0, 3, 1, 2)
    if len(own) == 2 and own[1] == depth and height * width <= own[0] <= height * width + 16:
        # Class and register tokens come first.
        return output[:, -height * width :].transpose(1, 2).unflatten(2, (height, width))
    return None
