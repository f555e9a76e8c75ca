"""What is tried on cached features: nothing, and every closed-form way to adapt, each as a model ready to ship."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from headstart.heads import OffsetHead
from headstart.methods.domain.as_is import as_is
from headstart.methods.domain.centroids import nearest_centroids
from headstart.methods.domain.ground import Ground, Labelled
from headstart.methods.domain.prior import bbse_shares, em_shares
from headstart.methods.domain.propagate import propagate
from headstart.methods.domain.recolour import recolour
from headstart.methods.domain.self_training import SOURCE_WEIGHT, self_train, surest
from headstart.methods.domain.standardise import standardise, with_shares
from headstart.methods.domain.transport import transport
from headstart.methods.heads.folds import assign_folds
from headstart.methods.heads.logistic import PENALTIES, RACE_STEPS, solve
from headstart.methods.heads.rows import Rows
from headstart.model import Model

Family = Literal["nothing", "prior", "cached", "statistics", "trained"]
NOTHING = "nothing"
FOLDS = 5
TAUGHT = 0.8
"""Share of each class's items, the surest, whose new labels teach the head."""


@dataclass(frozen=True)
class Candidate:
    """One way to adapt: a model ready to ship and what it says.

    `target` are its outputs [m, C] for the target, `held_out` [k, C] those for source items that it had not seen (None
    where the source is gone), `features` [m, D] what its network makes of the target (None: as before), `untaught`
    [m, C] what the head said on the same ground before it taught itself, and `sureness` how sure it was of the target
    then, as a share of how sure it was of the source. `weights` [k] is what held-out items count for (None: all alike),
    `seconds` what it took.
    """

    name: str
    family: Family
    model: Model
    target: np.ndarray
    held_out: np.ndarray | None = None
    features: np.ndarray | None = None
    untaught: np.ndarray | None = None
    sureness: float | None = None
    weights: np.ndarray | None = None
    seconds: float = 0.0
    note: str = ""

    @property
    def probabilities(self) -> np.ndarray:
        """Return what it says of the target [m, C]."""
        return self.model.probabilities(self.target)


@dataclass(frozen=True)
class Field:
    """The candidates, doing nothing first, and source items that none of them saw: their class ids [k] and what the
    source head, fitted without them, says of them [k, C] (both empty where the source is gone).
    """

    candidates: tuple[Candidate, ...]
    truth: np.ndarray
    reference: np.ndarray


def field_of(
    model: Model,
    target: np.ndarray,
    *,
    source: np.ndarray | None = None,
    truth: np.ndarray | None = None,
    groups: Sequence[str] = (),
    seed: int = 0,
    with_transport: bool = False,
) -> Field:
    """Return every closed-form candidate for target features [m, D] of the form that the model's head takes.

    `source` [n, D] are the features of labelled source items with class ids `truth` [n]; without them those ways are
    tried that need the model alone. `with_transport` adds labels carried by optimal transport (PlanError without POT).
    """
    return _Trial(model, target, source, truth, groups, seed).field(with_transport=with_transport)


class _Trial:
    """What the ways share: tensors, the grounds, the penalty, the outputs of the model as it is."""

    def __init__(
        self,
        model: Model,
        target: np.ndarray,
        source: np.ndarray | None,
        truth: np.ndarray | None,
        groups: Sequence[str],
        seed: int,
    ) -> None:
        self.model, self.seed = model, seed
        self.classes = len(model.task.labels)
        self.target = torch.from_numpy(np.ascontiguousarray(target, np.float32))
        width = self.target.shape[1]
        features = np.zeros((0, width), np.float32) if source is None else source
        ids = np.zeros(0, np.int64) if truth is None else truth
        self.source = Labelled(
            torch.from_numpy(np.ascontiguousarray(features, np.float32)), torch.from_numpy(ids)
        )
        self.outputs = _outputs(model.head, self.target)
        self.said = torch.from_numpy(model.probabilities(self.outputs)).float()
        self.lap = time.perf_counter()
        self.ground = self.on(as_is)
        names = list(groups) or [str(row) for row in range(len(ids))]
        self.fold = torch.from_numpy(
            assign_folds(ids.tolist(), names, folds=FOLDS, seed=seed) if len(ids) else np.zeros(0, np.int64)
        )
        self.kept_out = self.fold == 0
        self.penalty, self.begin = _penalty(self.ground, self.fold)

    def on(self, make: Callable[..., Ground], source: Labelled | None = None) -> Ground:
        """Return a ground for both domains."""
        form = self.model.head.form
        return make(source or self.source, self.target, form=form, num_classes=self.classes, seed=self.seed)

    def field(self, *, with_transport: bool) -> Field:
        """Try every way."""
        found = [Candidate(NOTHING, "nothing", self.model, self.outputs), *self.priors()]
        ground = self.ground
        taught = self.taught("self-training", ground, self.trained(ground, self.said, self.begin))
        found += [
            taught,
            self.taught("propagation", ground, propagate(ground.target, self.said)),
            self.taught("centroids", ground, nearest_centroids(ground.target, self.said)),
        ]
        reference = torch.zeros(0, self.classes)
        if len(self.source):
            found += self.moved("standardised", self.on(standardise))
            found += self.moved("standardised by shares", self.by_shares(taught))
            found += self.moved("recoloured", recolour(ground))
            if with_transport:
                found.append(self.taught("transport", ground, transport(ground, seed=self.seed)))
            reference = self.without_fold(ground, None)
        return Field(tuple(found), self.source.truth[self.kept_out].numpy(), reference.numpy())

    def by_shares(self, taught: Candidate) -> Ground:
        """Return the standardised ground of a source with the shares of the classes that self-training found."""
        answers = torch.from_numpy(taught.target.argmax(1))
        shares = torch.bincount(answers, minlength=self.classes) / len(answers)
        return self.on(standardise, with_shares(self.source, shares))

    def priors(self) -> list[Candidate]:
        """Return the model's answers corrected for other shares of the classes, estimated in two ways."""
        held = {name: tensor.numpy() for name, tensor in self.model.calibration.items()}
        if not len(held.get("targets", ())):
            return []
        shares = np.bincount(held["targets"], minlength=self.classes) / len(held["targets"])
        said, known = self.said.double().numpy(), self.model.probabilities(held["logits"])
        ways = {
            "prior by EM": em_shares(said, shares),
            "prior by BBSE": bbse_shares(said, known, held["targets"]),
        }
        return [self.shifted(name, np.log(found / np.maximum(shares, 1e-4))) for name, found in ways.items()]

    def shifted(self, name: str, offset: np.ndarray) -> Candidate:
        """Return the model with an offset of log-probabilities [C] on its outputs."""
        head = OffsetHead.of(self.model.head, torch.from_numpy(offset * self.model.temperature).float())
        return self.candidate(name, "prior", head, None)

    def moved(self, name: str, ground: Ground) -> list[Candidate]:
        """Return the candidates of a ground: its head alone, and self-trained, with neighbours or without."""
        weight = ground.fit_source(penalty=self.penalty)
        said = ground.outputs(weight).softmax(1)
        alone = self.candidate(name, "cached", ground.head(weight), self.without_fold(ground, None))
        trained = self.trained(ground, said, weight)
        taught = [
            self.taught(f"{name}, self-training", ground, trained),
            self.taught(f"{name}, propagation", ground, propagate(ground.target, trained)),
        ]
        known = {"untaught": alone.target, "sureness": ground.sureness(weight)}
        weights = ground.weights[self.kept_out].numpy()
        return [replace(one, weights=weights, **known) for one in (alone, *taught)]

    def trained(self, ground: Ground, said: Tensor, begin: Tensor | None) -> Tensor:
        """Return what the head says of the target [m, C] after self-training."""
        return ground.outputs(self_train(ground, said, penalty=self.penalty, begin=begin)).softmax(1)

    def taught(self, name: str, ground: Ground, said: Tensor) -> Candidate:
        """Return the head that the surest of new labels and the source teach."""
        weight = self.fit(ground, said)
        return self.candidate(name, "cached", ground.head(weight), self.without_fold(ground, said))

    def fit(self, ground: Ground, said: Tensor) -> Tensor:
        """Fit the map [r + 1, C] on the source and on the surest labels of the target."""
        labels, shares = said.argmax(1), surest(said, TAUGHT)
        return ground.fit(labels, shares, penalty=self.penalty, source_weight=SOURCE_WEIGHT)

    def without_fold(self, ground: Ground, said: Tensor | None) -> Tensor:
        """Return outputs [k, C] for the source items that are kept out, of a head that never saw them."""
        rest, out = ~self.kept_out, self.kept_out
        if not len(rest):
            return torch.zeros(0, self.classes)
        seen = ground.part(rest)
        weight = seen.fit_source(penalty=self.penalty) if said is None else self.fit(seen, said)
        return ground.source[out] @ weight[:-1] + weight[-1]

    def candidate(self, name: str, family: Family, head: nn.Module, held_out: Tensor | None) -> Candidate:
        """Return a candidate whose head replaces the model's; its seconds count from the one before."""
        model = replace(self.model, head=head.eval())
        if family != "prior":
            model.temperature = 1.0
        outputs = _outputs(head, self.target)
        now = time.perf_counter()
        seconds, self.lap = now - self.lap, now
        unseen = None if held_out is None or not len(held_out) else held_out.numpy()
        return Candidate(name, family, model, outputs, unseen, seconds=seconds)


def _outputs(head: Any, features: Tensor) -> np.ndarray:
    """Return a head's outputs [m, C]."""
    with torch.inference_mode():
        return head(features).numpy()


def _penalty(ground: Ground, fold: Tensor) -> tuple[float, Tensor | None]:
    """Return the penalty that the source's held-out items prefer, and the mean of the maps that its folds found."""
    if not len(fold):
        return PENALTIES[1], None
    rows = Rows(ground.space(), ground.truth, fold, ground.num_classes, len(fold))
    included = (fold[None] != torch.arange(FOLDS)[:, None]).float()
    found: list[tuple[int, float, Tensor]] = []
    for penalty in PENALTIES:
        maps = solve(rows, penalties=torch.full((FOLDS,), penalty), included=included, steps=RACE_STEPS)
        outputs = torch.einsum("nr,nrc->nc", ground.source, maps[fold, :-1]) + maps[fold, -1]
        found.append((int((outputs.argmax(1) == ground.truth).sum()), penalty, maps.mean(0)))
    best = max(found, key=lambda one: one[:2])
    return best[1], best[2]
