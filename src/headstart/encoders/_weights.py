"""Pretrained weights from files, and the receipt of what really moved into a network."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from headstart.core.errors import EncoderError
from headstart.core.types import Receipt, TensorOrigin

MIN_TRANSFERRED = 0.5
"""A backbone that got less than this share of its numbers from its weights did not load."""
_SEED = 21
"""Of weights that are not pretrained (the tiny networks' random ones have the same)."""

Made = TypeVar("Made", bound=nn.Module)


def seeded(make: Callable[[], Made]) -> Made:
    """Make a network whose random weights are the same each time: a plan names weights by their hash."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(_SEED)
        return make()


def fit_channels(weight: Tensor, channels: int) -> Tensor:
    """Sum or repeat a first convolution's three input channels [O, 3, H, W] so that its weight serves any number."""
    if channels == 1:
        return weight.sum(1, keepdim=True)
    repeated = weight.repeat(1, math.ceil(channels / 3), 1, 1)[:, :channels]
    return repeated * (3 / channels)


def unreachable(name: str, error: Exception) -> EncoderError:
    """Return the error for pretrained weights that cannot be fetched."""
    return EncoderError(
        f"the pretrained weights of '{name}' cannot be fetched ({type(error).__name__}: {str(error)[:200]})",
        expected="a reachable hub, or weights on this machine",
        fix="connect, or give a file (--set encoder.weights=FILE.safetensors), or use --encoder efficientnet-lite0",
    )


def read_weights(path: str) -> dict[str, Tensor]:
    """Read a .safetensors file, or a .pth/.pt file by `weights_only`; EncoderError where it is neither."""
    file = Path(path)
    if not file.is_file():
        raise EncoderError(
            f"there is no weights file {path}",
            expected="`pretrained`, `random`, or a file",
            fix="correct the path",
        )
    try:
        if file.suffix == ".safetensors":
            return _encoder_part(load_file(file))
        return _flatten(torch.load(file, map_location="cpu", weights_only=True))
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise EncoderError(
            f"{path} cannot be read as weights ({type(error).__name__}: {str(error)[:200]})",
            expected="a .safetensors file, or a .pth file that holds tensors only (nothing else is ever unpickled)",
            fix="convert it: safetensors.torch.save_file(state_dict, 'weights.safetensors')",
        ) from error


def fill(
    body: nn.Module,
    state: Mapping[str, Tensor],
    *,
    source: str,
    head: tuple[str, ...] = (),
    adapted: Collection[str] = (),
) -> Receipt:
    """Copy `state` into `body` by name and shape and return the receipt; `adapted` names what was reshaped for it.

    Tensors of the old head (prefixes in `head`) may be missing or of another shape. Anything else that is missing or
    does not fit is an EncoderError that lists missing, unexpected and misshapen names: a partial load is never used.
    """
    wanted = body.state_dict()
    is_head = {name: bool(head) and name.startswith(head) for name in {*wanted, *state}}
    missing = [name for name in wanted if name not in state and not is_head[name] and not _is_counter(name)]
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape and not is_head[name]
    ]
    unexpected = [name for name in state if name not in wanted and not is_head[name]]
    if missing or shapes:
        raise EncoderError(
            f"{source} does not fit this network: {_listing('missing', missing)}; {_listing('wrong shape', shapes)}; "
            f"{_listing('unexpected', unexpected)}",
            expected=f"all {len(wanted)} tensors of the architecture, by its own names",
            fix="choose the architecture that these weights were made for, or weights made for this one",
        )
    taken = {
        name
        for name in wanted
        if name in state and state[name].shape == wanted[name].shape and not is_head[name]
    }
    body.load_state_dict({**wanted, **{name: state[name] for name in taken}})
    receipt = origins(
        body, source=source, taken=taken, skip=head, adapted=adapted, unused=sorted({*state} - taken)
    )
    if receipt.transferred < MIN_TRANSFERRED:
        raise EncoderError(
            f"only {receipt.transferred:.1%} of the network's numbers came from {source}",
            expected=f"at least {MIN_TRANSFERRED:.0%}",
            fix="choose weights made for this architecture, or --set encoder.weights=random to train from scratch",
        )
    return receipt


def origins(
    body: nn.Module,
    *,
    source: str,
    taken: set[str] | None = None,
    skip: tuple[str, ...] = (),
    adapted: Collection[str] = (),
    unused: list[str] | None = None,
) -> Receipt:
    """Make the receipt of a network whose tensors named in `taken` came from `source`; its old head is left out."""
    tensors = tuple(
        TensorOrigin(name, tuple(tensor.shape), "adapted" if name in adapted else "loaded", name)
        if name in (taken or ())
        else TensorOrigin(name, tuple(tensor.shape), "fresh")
        for name, tensor in body.state_dict().items()
        if not (skip and name.startswith(skip))
    )
    return Receipt(source, tensors, tuple(unused or ()))


def _encoder_part(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the encoder of a saved model folder (names `encoder.*`), or a plain state dict as it is."""
    if not all(name.startswith(("encoder.", "head.")) for name in state):
        return state
    return {name.removeprefix("encoder."): state[name] for name in state if name.startswith("encoder.")}


def _flatten(loaded: Any) -> dict[str, Tensor]:
    """Find the state dict in what a .pth file holds (itself, or under a usual key)."""
    for key in ("state_dict_ema", "state_dict", "model", "model_state_dict"):
        if isinstance(loaded, Mapping) and isinstance(cast("Mapping[str, Any]", loaded).get(key), Mapping):
            loaded = cast("Mapping[str, Any]", loaded)[key]
    if not isinstance(loaded, Mapping):
        raise ValueError(f"it holds a {type(loaded).__name__}, not named tensors")
    state = {
        str(name).removeprefix("module."): value
        for name, value in cast("Mapping[Any, Any]", loaded).items()
        if isinstance(value, Tensor)
    }
    if not state:
        raise ValueError("it holds no tensors")
    return state


def _is_counter(name: str) -> bool:
    """Tell BatchNorm's step counter, which many files leave out and which no result depends on."""
    return name.endswith("num_batches_tracked")


def _listing(what: str, names: list[str]) -> str:
    """Say how many names there are and the first few."""
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"{len(names)} {what}" + (f" ({shown})" if names else "")
