"""The tensors that a run moves: which they are, their average over steps, and how they come back."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version

import torch
from torch import Tensor, nn

from headstart.train.adamw import AdamW
from headstart.train.optim import ParameterGroup
from headstart.train.runtime import Context, device_name


def moving_tensors(module: nn.Module, groups: Sequence[ParameterGroup]) -> dict[str, Tensor]:
    """Return the parameters of the groups and every saved buffer of `module`, by name.

    Frozen parameters are not among them: they never change, and a checkpoint need not hold them.
    """
    trained = {id(parameter) for group in groups for parameter in group.parameters.values()}
    saved = module.state_dict().keys()
    parameters = {name: tensor for name, tensor in module.named_parameters() if id(tensor) in trained}
    return {**parameters, **{name: tensor for name, tensor in module.named_buffers() if name in saved}}


def copy_into(targets: Mapping[str, Tensor], sources: Mapping[str, Tensor]) -> None:
    """Overwrite each target that has a source, in place."""
    with torch.no_grad():
        for name, source in sources.items():
            targets[name].copy_(source)


def copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies of tensors by name."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def state_digest(module: nn.Module) -> str:
    """Return the sha256 over the names and bytes of everything in a module's state."""
    total = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        total.update(name.encode())
        total.update(flat.view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


class Averaged:
    """An exponential moving average of weights (Polyak & Juditsky 1992); buffers are taken as they are."""

    def __init__(self, tensors: Mapping[str, Tensor], decay: float) -> None:
        """Start from the tensors themselves."""
        self.tensors = copies(tensors)
        self._decay = decay

    def update(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Move towards the tensors after `step` (from 0); early steps count more, as there is little to average."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, tensor in tensors.items():
            if isinstance(tensor, nn.Parameter):
                self.tensors[name].lerp_(tensor.detach(), 1 - decay)
            else:
                self.tensors[name].copy_(tensor)


def optimizer_tensors(optimizer: AdamW, moving: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the optimiser's state as tensors named `parameter/entry`."""
    return {
        f"{name}/{entry}": value
        for name, tensor in moving.items()
        if isinstance(tensor, nn.Parameter)
        for entry, value in optimizer.state.get(tensor, {}).items()
    }


def restore_optimizer(optimizer: AdamW, moving: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave, on each parameter's device and in its memory layout."""
    for key, value in saved.items():
        name, _, entry = key.rpartition("/")
        parameter = moving[name]
        assert isinstance(parameter, nn.Parameter), f"{name} is no parameter"
        place = value.clone() if entry == "step" else torch.empty_like(parameter).detach().copy_(value)
        optimizer.state.setdefault(parameter, {})[entry] = place


def versions(context: Context) -> dict[str, str]:
    """Return what may change the last digits of a result without changing its meaning."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "device": device_name(context.device),
        "threads": str(context.threads),
    }
