"""The narrow waist: three protocols, and only they, join data, networks and goals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from headstart.core.types import EncoderSpec, Features, Form, LayerGroup, Receipt, Sample

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn


@runtime_checkable
class Dataset(Protocol):
    """Items by index; cheap to index, costly to open: `sample.input` is a reference until an encoder collates it."""

    @property
    def fingerprint(self) -> str:
        """Hash of content (items, targets, domains, groups, splits), never of location."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of their ids; empty without labels."""
        ...

    def __len__(self) -> int:
        """Return the number of items."""
        ...

    def __getitem__(self, index: int) -> Sample:
        """Return one item."""
        ...

    def item_hash(self, index: int) -> str:
        """Return the sha256 of the item's input bytes."""
        ...


@runtime_checkable
class Encoder(Protocol):
    """A pretrained network seen from outside; only it looks inside inputs."""

    @property
    def spec(self) -> EncoderSpec:
        """What is known of the network without running it."""
        ...

    @property
    def module(self) -> nn.Module:
        """The network itself, for `state_dict`, `train` and `to`."""
        ...

    @property
    def receipt(self) -> Receipt:
        """Which of its tensors came from where."""
        ...

    def collate(
        self,
        inputs: Sequence[Any],
        *,
        draws: Sequence[np.random.Generator] | None = None,
        strength: str = "none",
    ) -> Tensor:
        """Open raw inputs and batch them; with `draws`, one generator an item, augment each by its generator."""
        ...

    def __call__(self, inputs: Tensor, form: Form) -> Features:
        """Encode a collated batch."""
        ...

    def network(self, form: Form) -> nn.Module:
        """Return the module that turns a collated batch into a vector form's value; it shares the parameters."""
        ...

    def layer_groups(self) -> Sequence[LayerGroup]:
        """Return the layers, shallow to deep; together they cover every parameter once."""
        ...

    def split(self, depth: int, form: Form) -> tuple[nn.Module, nn.Module] | None:
        """Return (prefix, suffix) such that suffix(prefix(inputs)) is the form's value and the prefix holds exactly
        the first `depth` groups; None where more than one tensor crosses that depth. Both share this encoder's
        parameters.
        """
        ...


@runtime_checkable
class Task(Protocol):
    """A goal: only it looks inside targets."""

    @property
    def form(self) -> Form:
        """The form of features that its head needs."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the head's outputs."""
        ...

    def build_head(self, width: int) -> nn.Module:
        """Return a new head for features of this width."""
        ...

    def collate(self, targets: Sequence[Any]) -> Tensor:
        """Batch targets (label names) into what `loss` takes."""
        ...

    def loss(self, outputs: Tensor, targets: Tensor, **settings: Any) -> Tensor:
        """Return the mean loss of a batch of head outputs."""
        ...

    def decode(self, outputs: Tensor, ids: Sequence[str]) -> list[Any]:
        """Turn head outputs into predictions."""
        ...

    def score(self, outputs: np.ndarray, targets: Sequence[Any]) -> Mapping[str, float]:
        """Return the task's metrics by name."""
        ...
