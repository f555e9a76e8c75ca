"""The values that travel through headstart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

Form = Literal["pooled", "layers", "depths", "sequence", "map", "pyramid"]
"""What an encoder gives.

`pooled`: one vector an item, [N, D]. `layers` (transformers): the mean of that vector over all layers, [N, D].
`depths`: `pooled` followed by what other depths give, [N, D']; `EncoderSpec.depths` names its columns. `sequence`: one
vector a word, [N, L, D]. `map`: [N, D, H, W]. `pyramid`: a list of maps, fine to coarse.
"""

Target = str | float | tuple[str, ...]
"""A class, a number, or several labels (of an item, or one a word)."""

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Sample:
    """One item of a dataset; `group` is what must not be split (a patient, a video, a speaker)."""

    input: Any
    target: Any = None
    domain: str = ""
    group: str = ""
    id: str = ""


@dataclass(slots=True)
class Features:
    """What an encoder says of a batch: `value` in the shape of its `form`, `mask` [N, T] true where valid."""

    form: Form
    value: Tensor
    mask: Tensor | None = None


@dataclass(frozen=True, slots=True)
class InputContract:
    """How an image becomes the numbers a network was trained on; it travels with the weights.

    `size` is (height, width) in pixels, `mean` and `std` are one number a channel on the 0..1 scale, `crop` is the
    share of the shorter side that the centre crop keeps, `order` the channel order.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: int = 3
    crop: float = 0.875
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    order: Literal["rgb", "bgr"] = "rgb"


@dataclass(frozen=True, slots=True)
class TextContract:
    """How a text becomes the token ids that a network was trained on; it travels with the weights.

    A text of more than `window` tokens (special ones counted) is read in windows that share `overlap` tokens.
    `tokenizer_sha256` is the hash of the tokenizer's own file. A window is pooled to the mean, first or last of its
    tokens, or, for recurrent layers, to the last state, maximum and mean beside one another (`concat`; with
    `concat_both` the backward half's last state is that of the first token).
    """

    window: int
    overlap: int
    tokenizer_sha256: str
    pooling: Literal["mean", "first", "last", "concat", "concat_both"] = "mean"
    is_causal: bool = False
    is_lower_case: bool = False


Contract = InputContract | TextContract


@dataclass(frozen=True, slots=True)
class Limits:
    """What an item may be at most; what is larger is refused before it is opened or encoded."""

    megapixels: float = 64
    characters: int = 200_000


LIMITS = Limits()
"""The usual limits."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """An opened item: numbers as its encoder batches them, and facts for the audit (None for an augmented view)."""

    value: np.ndarray
    facts: Any = None


@dataclass(frozen=True, slots=True)
class Graph:
    """A module to export: it maps one piece like `example` to its output; `dynamic` are the axes that vary."""

    module: nn.Module
    example: Tensor
    dynamic: tuple[int, ...] = (0,)


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """What is known of an encoder without running it; `width` is the number of features *per form*."""

    name: str
    modality: str
    width: Mapping[str, int]
    contract: Contract
    weights_sha256: str
    licence: str
    source: str
    depths: tuple[tuple[str, int], ...] = ()
    """Named column blocks of the `depths` form, in order: ("final", 1280), ("blocks.6 average", 320), ..."""

    def columns(self, form: Form) -> slice:
        """Return where a vector form lies in a row of `depths`."""
        if form == "pooled":
            return slice(0, self.width["pooled"])
        if form == "layers":
            return slice(self.width["pooled"], self.width["pooled"] + self.width["layers"])
        return slice(None)


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """Parameters that freeze, unfreeze and share a learning rate together; groups run shallow to deep.

    `modules` are the outermost modules that lie wholly in the group; `parameters` are all of its parameters by
    name, also those that no such module owns (a class token, a position embedding).
    """

    name: str
    modules: tuple[nn.Module, ...]
    parameters: Mapping[str, nn.Parameter]


@dataclass(frozen=True, slots=True)
class TensorOrigin:
    """Where one tensor of a loaded network came from: `loaded`, `adapted` (reshaped from the source) or `fresh`."""

    name: str
    shape: tuple[int, ...]
    origin: Literal["loaded", "adapted", "fresh"]
    source: str = ""


@dataclass(frozen=True)
class Receipt:
    """Which tensors of a network really transferred, from which source."""

    source: str
    tensors: tuple[TensorOrigin, ...]
    unused: tuple[str, ...] = ()
    """Tensors of the source that the network has no place for (its old head, usually)."""

    @property
    def transferred(self) -> float:
        """Share of the encoder's numbers (parameters and buffers) that came from the source, 0 to 1."""
        total = sum(_count(tensor.shape) for tensor in self.tensors)
        moved = sum(_count(tensor.shape) for tensor in self.tensors if tensor.origin != "fresh")
        return moved / total if total else 0.0

    def summary(self) -> str:
        """Say the receipt in one line."""
        loaded = sum(tensor.origin != "fresh" for tensor in self.tensors)
        return (
            f"{loaded}/{len(self.tensors)} tensors ({self.transferred:.1%} of the numbers) from {self.source}"
        )


def _count(shape: tuple[int, ...]) -> int:
    """Return the number of elements of a tensor of this shape."""
    total = 1
    for length in shape:
        total *= length
    return total


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing an audit found: how bad it is, what was done about it, and the items it concerns."""

    code: str
    severity: Literal["error", "warning", "info"]
    message: str
    action: str = ""
    items: tuple[str, ...] = ()
    """Item ids (relative paths), at most all of them; reports show the first few."""


@dataclass(frozen=True, slots=True)
class Audit:
    """What is wrong or noteworthy in a dataset, found before any score is printed."""

    num_items: int
    num_kept: int
    findings: tuple[Finding, ...] = ()

    def by_code(self, code: str) -> tuple[Finding, ...]:
        """Return the findings with this code."""
        return tuple(finding for finding in self.findings if finding.code == code)


@dataclass(frozen=True, slots=True)
class Score:
    """A metric with the number of items it rests on and its bootstrap interval."""

    name: str
    value: float
    low: float
    high: float
    n: int
    higher_is_better: bool = True

    def __str__(self) -> str:
        """Print as `0.912 [0.880, 0.941] (n=300)`."""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] (n={self.n})"


@dataclass(frozen=True, slots=True)
class Span:
    """A named piece of a text: characters `start` to before `end`, and what they say."""

    start: int
    end: int
    label: str
    text: str
    probability: float = 1.0


@dataclass(frozen=True, slots=True)
class LabelsPrediction:
    """Several labels an item, each with a probability of its own."""

    id: str
    labels: tuple[str, ...]
    probabilities: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ValuePrediction:
    """A predicted number with its 90 % interval (split-conformal; None where it is not known)."""

    id: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class SpansPrediction:
    """The entities of a text, in order; offsets count characters of `text`."""

    id: str
    text: str
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class LabelPrediction:
    """A predicted class: `label` is None where the model abstains; probabilities are calibrated and sum to 1."""

    id: str
    label: str | None
    probability: float
    probabilities: Mapping[str, float] = field(default_factory=dict[str, float])


Prediction = LabelPrediction | LabelsPrediction | ValuePrediction | SpansPrediction
