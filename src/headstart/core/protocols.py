"""The narrow waist: three protocols, and only they, join data, networks and goals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from headstart.core.types import (
    EncoderSpec,
    Features,
    Form,
    Graph,
    LayerGroup,
    Prediction,
    Prepared,
    Receipt,
    Sample,
    Target,
)

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn


@runtime_checkable
class Dataset(Protocol):
    """Items by index; cheap to index, costly to open: `sample.input` is a reference until an encoder prepares it."""

    @property
    def fingerprint(self) -> str:
        """Hash of content (items, targets, domains, groups, splits), never of location."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names (or tags) in the order of their ids; empty without labels."""
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
    """A pretrained network seen from outside; only it looks inside inputs.

    A raw input becomes a *value* (`prepare`), values become one tensor (`batch`; shorter items are padded with -1), a
    module maps that tensor to features (`network`), and `rows` gives each item its own part of them back. A runtime
    that works item by item runs `graph` on the `pieces` of a value and lets `join` put the outputs together.
    """

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

    def prepare(
        self, raw: Any, *, draw: np.random.Generator | None = None, strength: str = "none"
    ) -> Prepared:
        """Open a raw input, with facts for the audit; with `draw`, augment it instead. DataError where it is bad.

        What was prepared already (a value) is returned as it is, if it need not be augmented.
        """
        ...

    def batch(self, values: Sequence[np.ndarray]) -> Tensor:
        """Put values into one tensor whose first dimension runs over the items."""
        ...

    def collate(
        self,
        inputs: Sequence[Any],
        *,
        draws: Sequence[np.random.Generator] | None = None,
        strength: str = "none",
    ) -> Tensor:
        """Prepare raw inputs and batch them; with `draws`, one generator an item, augment each by its generator."""
        ...

    def __call__(self, inputs: Tensor, form: Form) -> Features:
        """Encode a batch."""
        ...

    def network(self, form: Form) -> nn.Module:
        """Return the module that turns a batch into a form's value; it shares the parameters."""
        ...

    def rows(
        self, values: Sequence[np.ndarray], outputs: Tensor, form: Form, *, depth: int = 0
    ) -> list[np.ndarray]:
        """Return each item's own part of what `network(form)`, or the prefix of a cut at `depth`, gave for a batch."""
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

    def stack(self, rows: Sequence[np.ndarray]) -> Tensor:
        """Batch rows of a cut's activations for its suffix."""
        ...

    def graph(self, form: Form, *, depth: int = 0) -> Graph | None:
        """Return what a runtime exports: the network of a form, or the prefix of a cut; None where it cannot be."""
        ...

    def pieces(self, value: np.ndarray) -> list[np.ndarray]:
        """Return the inputs of the graph for one item: a picture as it is, each window of a text without padding."""
        ...

    def join(
        self, value: np.ndarray, outputs: Sequence[np.ndarray], form: Form, *, depth: int = 0
    ) -> np.ndarray:
        """Return one item's row from the graph's outputs for its pieces."""
        ...

    def files(self) -> Mapping[str, bytes]:
        """Return the files that, beside the weights, rebuild it (tokenizer, configuration); often none."""
        ...


@runtime_checkable
class Task(Protocol):
    """A goal: only it looks inside targets.

    `outputs` are what a head gives: [N, C] for items, [N, L, C] for words (a list of [L_i, C] in numpy, as texts differ
    in length).
    """

    name: str
    link: Literal["softmax", "sigmoid", "identity"]
    """What turns outputs into probabilities: one of several, each by itself, or none (a number)."""

    @property
    def form(self) -> Form:
        """The form of features that its head needs."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """Names in the order of the head's outputs; empty for a number."""
        ...

    def build_head(self, width: int, targets: Sequence[Target] = (), /) -> nn.Module:
        """Return a new head for features of this width; `targets` are those that it is to learn."""
        ...

    def collate(self, targets: Sequence[Target]) -> Tensor:
        """Batch targets into what `loss` takes: ids [N], shares [N, C], numbers [N] or ids [N, L] padded with -100."""
        ...

    def loss(self, outputs: Tensor, targets: Tensor, **settings: Any) -> Tensor:
        """Return the mean loss of a batch of head outputs."""
        ...

    def chance(self, targets: Sequence[Target]) -> float | None:
        """Return the loss of knowing nothing but how often each target occurs; None where that says nothing."""
        ...

    def strata(self, targets: Sequence[Target]) -> list[str]:
        """Return what splits keep in proportion: the class, the rarest label, a range of numbers, the rarest type."""
        ...

    def score(self, outputs: Any, targets: Sequence[Target]) -> Mapping[str, float]:
        """Return `quality` (higher is better, the measure that decides) and `loss`; its name is `quality_name`."""
        ...

    def measure(
        self, outputs: np.ndarray, targets: np.ndarray, items: np.ndarray | None = None
    ) -> tuple[float, float, float]:
        """Return quality, its standard error and the loss of outputs [n, C] for encoded targets of rows [n].

        Where rows are the words of texts, `items` [n] says of which, rising.
        """
        ...

    @property
    def quality_name(self) -> str:
        """The name of the measure that decides: accuracy, macro_f1, r2, span_f1."""
        ...

    def encode(self, targets: Sequence[Target]) -> np.ndarray:
        """Return targets as numbers: ids [n], shares [n, C], values [n], or the ids of all words, text by text."""
        ...

    def flatten(
        self, features: Sequence[np.ndarray], targets: Sequence[Target]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the word features of all texts as rows [m, D], their tag ids [m], and the text [m] of each row."""
        ...

    def probabilities(self, outputs: Any, temperature: float) -> Any:
        """Return what the link makes of outputs that are divided by `temperature`."""
        ...

    def fit_temperature(self, outputs: Any, targets: Sequence[Target]) -> float:
        """Return the temperature that suits held-out outputs best; 1 where there is nothing to calibrate."""
        ...

    def evaluate(
        self,
        probabilities: Any,
        targets: Sequence[Target],
        *,
        domains: Sequence[str] | None,
        groups: Sequence[str] | None,
        seed: int,
    ) -> Any:
        """Return the Evaluation: every measure of this task with its interval, the one that decides first."""
        ...

    def item_quality(self, probabilities: Any, targets: Sequence[Target]) -> np.ndarray:
        """Return how well each item was answered [N], for paired differences."""
        ...

    def answers(self, probabilities: Any) -> list[Any]:
        """Return the predicted target of each item as JSON values, in the form of `truth`."""
        ...

    def truth(self, target: Target) -> Any:
        """Return a target as JSON values: a class, labels, a number, or spans [first word, end word, type]."""
        ...

    def certainty(self, probabilities: Any) -> np.ndarray:
        """Return how sure each answer is [N], 0 to 1."""
        ...

    def decode(self, probabilities: Any, samples: Sequence[Sample]) -> list[Prediction]:
        """Turn what the link made of outputs into predictions."""
        ...
