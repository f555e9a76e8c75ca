"""Terms that draw a target domain nearer to its source: what they see, and what they ask for.

A term is a module `(source, target, progress) -> scalar` that is added to the task's loss with a weight. It sees rows
(items, pixels or words) of features and outputs and knows neither modality nor task; one file and one paper each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor

from headstart.core.settings import Adapt


@dataclass(frozen=True)
class Rows:
    """One domain's side of a batch of N rows.

    `features` [N, D] are what the classifier sees, `outputs` [N, C] its logits, `truth` [N] class ids (None on the
    target, which has none), `items` [N] the place of each in its dataset. The others are there for terms that ask for
    them: outputs [N, C] for strongly varied and for partly hidden inputs, the teacher's outputs [N, C], and the
    masked-language loss (a scalar) of the inputs.
    """

    features: Tensor
    outputs: Tensor
    truth: Tensor | None = None
    items: Tensor | None = None
    strong: Tensor | None = None
    hidden: Tensor | None = None
    teacher: Tensor | None = None
    language: Tensor | None = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.outputs)


@dataclass(frozen=True)
class Needs:
    """What a term asks for beside the target's rows."""

    source: bool = False
    """Rows of the source: without them it says nothing."""
    features: bool = False
    """A layer below the classifier that moves: over a resting encoder it works on a new head that has one."""
    teacher: bool = False
    strong: bool = False
    hidden: bool = False
    language: bool = False
    sweep: bool = False
    """Features and outputs of the whole target before each epoch, through its method `refresh`."""
    resting_head: bool = False
    """A classifier that stays as the source left it; the source itself is not used."""


@dataclass(frozen=True)
class Sizes:
    """How large things are: features, classes, items of the target, rows of one domain in a batch."""

    width: int
    num_classes: int
    num_items: int
    batch_size: int


class Term(Protocol):
    """A module made by `Name(sizes, settings)`; its parameters train along, its buffers are saved and resumed."""

    needs: ClassVar[Needs]
    weight: ClassVar[float]
    """Its weight where none is given: the paper's, or what the term's file says of it."""

    def __init__(self, sizes: Sizes, settings: Adapt) -> None:
        """Make it; random numbers are drawn from torch, seeded by the caller."""
        ...

    def __call__(self, source: Rows, target: Rows, *, progress: float) -> Tensor:
        """Return the scalar to be minimised; `progress` goes from 0 to 1 over the run."""
        ...


def entropy(probabilities: Tensor) -> Tensor:
    """Return the entropy [...] of probabilities [..., C], in nats."""
    return -(probabilities * probabilities.clamp(min=1e-8).log()).sum(-1)
