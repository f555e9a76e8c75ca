"""An image network as an Encoder: normalisation inside, features in any form, cuts at any depth."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx.proxy import TraceError

from headstart.core.errors import EncoderError
from headstart.core.settings import Pretrained
from headstart.core.types import (
    LIMITS,
    EncoderSpec,
    Features,
    Form,
    Graph,
    InputContract,
    LayerGroup,
    Limits,
    Prepared,
    Receipt,
)
from headstart.encoders._graph import TracedNetwork
from headstart.modalities import image

MAX_TAPS = 3
"""How many depths beside the last the `depths` form looks at."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """What an adapter knows of its library's network: how to get maps and pooled vectors, and its layer order."""

    maps: Callable[[nn.Module, Tensor], Tensor]
    """(body, normalised [N, C, H, W]) to the last map [N, D, H, W] or tokens [N, T, D]."""
    pool: Callable[[nn.Module, Tensor], Tensor]
    """(body, what `maps` gave) to the pooled vector [N, D]."""
    groups: tuple[LayerGroup, ...]
    channels_last: bool = False
    """True where maps come as [N, H, W, D]."""
    prefix_tokens: int = 0
    """Class and register tokens before the tokens of the picture."""
    visible: Callable[[nn.Module, Tensor, Tensor], Tensor] | None = None
    """(body, normalised [N, C, H, W], places [N, K]) to the tokens [N, K, D] of the patches at these places, where the
    others never enter the network; None where it cannot go without them."""


class PooledNetwork(nn.Module):
    """uint8 pictures [N, C, H, W] to pooled features [N, D]: normalisation, body and pooling in one module."""

    mean: Tensor
    scale: Tensor

    def __init__(self, body: nn.Module, architecture: Architecture, contract: InputContract) -> None:
        """Join a body with its contract's mean and standard deviation (0..1 scale, one number a channel)."""
        super().__init__()
        self.body, self.architecture = body, architecture
        mean = torch.tensor(contract.mean).view(1, -1, 1, 1) * 255
        scale = 1 / (torch.tensor(contract.std).view(1, -1, 1, 1) * 255)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("scale", scale, persistent=False)

    def normalise(self, pictures: Tensor) -> Tensor:
        """Return float pictures on the scale that the network was trained on."""
        return (pictures.to(self.mean.dtype) - self.mean) * self.scale

    def forward(self, pictures: Tensor) -> Tensor:
        """Encode a uint8 batch."""
        return self.architecture.pool(self.body, self.architecture.maps(self.body, self.normalise(pictures)))


class _FromRows(nn.Module):
    """Take pictures as rows [N, H, W, C], as they lie in memory."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pictures: Tensor) -> Tensor:
        """Put channels first and run."""
        return self.network(pictures.permute(0, 3, 1, 2))


class ImageEncoder:
    """Implements Encoder for any image network that an adapter describes."""

    def __init__(
        self,
        body: nn.Module,
        architecture: Architecture,
        *,
        spec: EncoderSpec,
        receipt: Receipt,
        limits: Limits = LIMITS,
    ) -> None:
        """Measure the widths of every form with one blank picture and hash the weights."""
        groups = architecture.groups
        covered = [id(tensor) for group in groups for tensor in group.parameters.values()]
        if sorted(covered) != sorted(id(tensor) for tensor in body.parameters()):
            raise EncoderError(
                f"the layer groups of {spec.name} do not cover each of its parameters once",
                expected="groups that together hold every parameter exactly once",
                fix="list every layer in one group, shallow to deep",
            )
        assert isinstance(spec.contract, InputContract), "pictures have an input contract"
        self._contract, self._limits = spec.contract, limits
        self._network = PooledNetwork(body, architecture, spec.contract).eval()
        self._architecture, self._receipt = architecture, receipt
        self._traced = _trace(self._network, groups)
        self._tapped: nn.Module | None = None
        self._taps = self._choose_taps()
        self._spec = replace(spec, **self._measure(self._contract))
        self._tensors: list[Tensor] = []
        self._moved: list[tuple[int, int]] | None = None

    @property
    def spec(self) -> EncoderSpec:
        """What is known of the network without running it; its weights are hashed again once they have moved."""
        if self._moved != [(tensor.data_ptr(), tensor._version) for tensor in self._tensors]:
            self._tensors = list(self.module.state_dict(keep_vars=True).values())
            self._moved = [(tensor.data_ptr(), tensor._version) for tensor in self._tensors]
            self._spec = replace(self._spec, weights_sha256=state_sha256(self.module))
        return self._spec

    @property
    def module(self) -> nn.Module:
        """The network itself; its state has the source library's own names."""
        return self._network.body

    @property
    def receipt(self) -> Receipt:
        """Which of its tensors came from where."""
        return self._receipt

    def prepare(
        self, raw: Any, *, draw: np.random.Generator | None = None, strength: str = "none"
    ) -> Prepared:
        """Open a picture into uint8 [H, W, C] of the contract's size, with its facts; with `draw`, augment it."""
        if draw is None:
            return image.prepare(raw, self._contract, limits=self._limits)
        return Prepared(image.augment(raw, self._contract, draw, strength=strength, limits=self._limits))

    def batch(self, values: Sequence[np.ndarray]) -> Tensor:
        """Put pictures [H, W, C] into uint8 [N, C, H, W] (channels-last memory)."""
        return torch.from_numpy(image.batch(values)).permute(0, 3, 1, 2)

    def collate(
        self,
        inputs: Sequence[Any],
        *,
        draws: Sequence[np.random.Generator] | None = None,
        strength: str = "none",
    ) -> Tensor:
        """Open pictures into uint8 [N, C, H, W] (channels-last memory); with `draws`, augment each by its own."""
        pairs = zip(inputs, draws or [None] * len(inputs), strict=True)
        return self.batch([self.prepare(raw, draw=draw, strength=strength).value for raw, draw in pairs])

    def __call__(self, inputs: Tensor, form: Form) -> Features:
        """Encode uint8 [N, C, H, W] into `pooled` [N, D], `depths` [N, D'] or `map` [N, D, H, W]."""
        self._network.to(inputs.device)
        if form == "map":
            return Features(form, self._map(inputs))
        return Features(form, self.network(form)(inputs))

    def network(self, form: Form) -> nn.Module:
        """Return the module uint8 [N, C, H, W] -> [N, width] of a vector form."""
        if form == "pooled" or (form == "depths" and not self._taps):
            return self._placed(self._network)
        if form == "depths" and self._traced is not None:
            if self._tapped is None:
                self._tapped = self._traced.tapped(self._taps, self._architecture.channels_last)
            return self._placed(self._tapped)
        raise EncoderError(
            f"{self._spec.name} has no features of form '{form}'",
            expected=f"one of {', '.join(self._spec.width)}",
            fix="choose another task or encoder",
        )

    @property
    def visible(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        """What encodes a part of the patches: (pictures [N, C, H, W], places [N, K] in row-major order) to tokens
        [N, K, D]; None where the network needs all of them.
        """
        visible = self._architecture.visible
        if visible is None:
            return None

        def encode(pictures: Tensor, places: Tensor) -> Tensor:
            self._network.to(pictures.device)
            return visible(self._network.body, self._network.normalise(pictures), places)

        return encode

    def layer_groups(self) -> Sequence[LayerGroup]:
        """Return the layers, shallow to deep."""
        return self._architecture.groups

    def rows(
        self,
        values: Sequence[np.ndarray],  # noqa: ARG002
        outputs: Tensor,
        form: Form,  # noqa: ARG002
        *,
        depth: int = 0,  # noqa: ARG002
    ) -> list[np.ndarray]:
        """Return the outputs one by one: all pictures are of one size."""
        return list(outputs.float().cpu().numpy())

    def split(self, depth: int, form: Form) -> tuple[nn.Module, nn.Module] | None:
        """Return (prefix, suffix) around the first `depth` groups, or None; only the pooled form can be cut."""
        if self._traced is None or form != "pooled" or not 0 < depth <= len(self._architecture.groups):
            return None
        parts = self._traced.cut(depth)
        return parts and (self._placed(parts[0]), self._placed(parts[1]))

    def _placed(self, network: nn.Module) -> nn.Module:
        """Put the normalisation where the body is: whoever moves `module` leaves it behind."""
        return network.to(next(self.module.parameters(), self._network.mean).device)

    def stack(self, rows: Sequence[np.ndarray]) -> Tensor:
        """Batch the activations of a cut."""
        return torch.from_numpy(np.stack(rows))

    def graph(self, form: Form, *, depth: int = 0) -> Graph | None:
        """Return the network, or the prefix of a cut, over pictures as rows [N, H, W, C], as they lie in memory."""
        parts = self.split(depth, form) if depth else (self.network(form),)
        if parts is None:
            return None
        shape = (2, *self._contract.size, self._contract.channels)
        generator = torch.Generator().manual_seed(0)
        example = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        # The exporter puts a module back into the mode it had, with all of its children: eval from the outside.
        return Graph(_FromRows(parts[0]).eval(), example)

    def pieces(self, value: np.ndarray) -> list[np.ndarray]:
        """Return the picture as a batch of one."""
        return [np.ascontiguousarray(value[None])]

    def join(
        self,
        value: np.ndarray,  # noqa: ARG002
        outputs: Sequence[np.ndarray],
        form: Form,  # noqa: ARG002
        *,
        depth: int = 0,  # noqa: ARG002
    ) -> np.ndarray:
        """Return what the graph gave for the picture."""
        return outputs[0][0]

    def files(self) -> Mapping[str, bytes]:
        """Return nothing: an image network is rebuilt from its name and its weights."""
        return {}

    def _map(self, inputs: Tensor) -> Tensor:
        """Return the last map as [N, D, H, W]; tokens are laid out on their grid."""
        features = self._architecture.maps(self._network.body, self._network.normalise(inputs))
        if features.dim() == 3:
            tokens = features[:, self._architecture.prefix_tokens :]
            side = int(tokens.shape[1] ** 0.5)
            return tokens.transpose(1, 2).reshape(len(tokens), -1, side, tokens.shape[1] // side)
        return features.permute(0, 3, 1, 2) if self._architecture.channels_last else features

    def _choose_taps(self) -> tuple[int, ...]:
        """Return the depths to pool at: up to MAX_TAPS of the deeper half's cuts, evenly spread, the end excluded."""
        if self._traced is None:
            return ()
        count = len(self._architecture.groups)
        cuts = [depth for depth in range((count + 1) // 2, count) if self._traced.crossing(depth) is not None]
        steps = min(MAX_TAPS, len(cuts))
        return tuple(sorted(cuts[len(cuts) - 1 - step * len(cuts) // steps] for step in range(steps)))

    def _measure(self, contract: InputContract) -> Mapping[str, Any]:
        """Return the widths of the forms and the column blocks of `depths`, from one blank picture."""
        blank = torch.zeros(1, contract.channels, *contract.size, dtype=torch.uint8)
        last_first = self._architecture.channels_last
        with torch.inference_mode():
            features = self._architecture.maps(self._network.body, self._network.normalise(blank))
            pooled = self._architecture.pool(self._network.body, features).shape[1]
        widths = {"pooled": pooled}
        if features.dim() in (3, 4):
            widths["map"] = _channels(tuple(features.shape), last=last_first)
        blocks = [("final", pooled)]
        if self._traced is not None:
            nodes = {depth: self._traced.crossing(depth) for depth in self._taps}
            shapes = self._traced.shapes(blank, [node for node in nodes.values() if node is not None])
            for depth, node in nodes.items():
                assert node is not None, "taps are chosen among the possible cuts"
                width = _channels(shapes[node], last=last_first)
                name = self._architecture.groups[depth - 1].name
                blocks += [(f"{name} average", width), (f"{name} maximum", width)]
        widths["depths"] = sum(width for _, width in blocks)
        return {"width": widths, "depths": tuple(blocks)}


def _channels(shape: tuple[int, ...], *, last: bool) -> int:
    """Return the number of channels of a map [N, D, H, W], or [N, H, W, D] with `last`, of tokens or a vector."""
    return shape[1] if len(shape) == 4 and not last else shape[-1]


def contract_of(
    settings: Pretrained,
    *,
    size: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    crop: float,
    interpolation: Literal["bilinear", "bicubic"],
) -> InputContract:
    """Return the input contract of weights, given what they were trained on, with what the settings override."""
    return InputContract(
        size=(settings.image_size, settings.image_size) if settings.image_size else size,
        mean=_per_channel(settings.mean or mean, settings.channels),
        std=_per_channel(settings.std or std, settings.channels),
        channels=settings.channels,
        crop=crop,
        interpolation=settings.interpolation or interpolation,
        order=settings.order or "rgb",
    )


def _per_channel(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """Return one number a channel: as given where they match, else the mean of the given ones for each."""
    if len(values) == channels:
        return tuple(float(value) for value in values)
    return (float(sum(values) / len(values)),) * channels


def state_sha256(module: nn.Module) -> str:
    """Return the sha256 over names, types, shapes and bytes of every parameter and buffer."""
    total = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        value = tensor.detach().cpu().contiguous()
        total.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def groups_of(body: nn.Module, named: Mapping[str, Sequence[str]]) -> tuple[LayerGroup, ...]:
    """Make layer groups from group name -> parameter names (shallow to deep), finding the modules each owns whole."""
    parameters = dict(body.named_parameters())
    group_of = {name: group for group, names in named.items() for name in names}
    modules: dict[str, list[nn.Module]] = {group: [] for group in named}

    def visit(module: nn.Module, prefix: str) -> None:
        for child_name, child in module.named_children():
            path = f"{prefix}{child_name}"
            # A parameter without a group is told by whoever checks that the groups cover all of them.
            owners = {group_of.get(f"{path}.{name}", "") for name, _ in child.named_parameters()}
            if len(owners) == 1 and "" not in owners:
                modules[owners.pop()].append(child)
            elif owners:
                visit(child, f"{path}.")

    visit(body, "")
    return tuple(
        LayerGroup(group, tuple(modules[group]), {name: parameters[name] for name in names})
        for group, names in named.items()
    )


def _trace(network: nn.Module, groups: Sequence[LayerGroup]) -> TracedNetwork | None:
    """Trace the network's glue; None where it depends on values (then there are no cuts, and split says so)."""
    try:
        return TracedNetwork(network, groups)
    except (TraceError, TypeError, ValueError, AssertionError, RuntimeError):
        return None
