"""Few labels a class: heads on frozen features, class means refined by unlabelled items, and a body tuned by contrast.

Cheapest first, and each has to prove itself on labelled items that were left out:

1. heads on frozen features have raced before (`methods/extract.py`);
2. class means that unlabelled items refine (`heads/mixture.py`) are kept where both halves of the labels lead to the
   same classes and the loss of items left out is not clearly higher: then items differ most in what the labels say;
3. otherwise the last layer groups are tuned by contrast (`contrastive.py`) with a logistic head on features of length
   one, as in SetFit (Tunstall et al. 2022, arXiv 2209.11055), and kept unless held-out accuracy is more than two
   standard errors below that of the same head without tuning: with few labels one is crossed by chance too often.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

from headstart.core.errors import PlanError, TrainingError
from headstart.features.runtime import torch_runtime
from headstart.heads import CosineHead, OffsetHead
from headstart.methods.contrastive import Rows, contrast, features_of
from headstart.methods.heads import logistic, mixture
from headstart.methods.heads.folds import assign_folds
from headstart.methods.heads.rows import Rows as HeadRows
from headstart.methods.heads.space import principal_space
from headstart.result import Candidate
from headstart.train.optim import freeze
from headstart.train.runtime import Context, Event, limited_threads

if TYPE_CHECKING:
    from headstart.core.protocols import Dataset, Encoder, Task
    from headstart.core.settings import FewShot
    from headstart.core.types import Form, LayerGroup

VERSION = 3
"""Version of this method; bump when its numbers move."""
TUNED, UNTUNED = "tuned by contrast, logistic head", "the same without tuning"
"""Names of the two that are cross-validated by the same parts."""
AGREED, HALVINGS = 0.9, 8
"""Both halves of the labels must lead to the same class for this share of the unlabelled items, over so many ways to
halve them."""
TRIED = 2 / 3
"""A part of the cross-validation takes this share of the passes; tuning on every item then begins from the mean of the
weights that the parts found, so that what the proof costs is not lost."""
LAST = 5
"""Layer groups that are tuned where the settings leave it open: all but the embeddings and a layer of MiniLM."""
LEAST_UNLABELLED = 100
"""Class means are not refined by fewer items than that: agreement on a handful says nothing."""
MOST_LOSS = 1.5
"""Standard errors by which unlabelled items may seem to raise the held-out loss of class means."""
TOLERATED = 2.0
"""Standard errors by which tuning may seem to harm on the few items that were left out."""
PENALTY = 1.0
"""Of the logistic head, divided by the number of items: SetFit's, on features of length one as there."""


@dataclass(frozen=True)
class Few:
    """What a few-shot race works on.

    Labelled items with class ids [n] and the names of what must stay together [n], and the features of both them [n, D]
    and the unlabelled items [m, D] as the untouched encoder gives them, in a vector form.
    """

    dataset: Dataset
    targets: np.ndarray
    groups: Sequence[str]
    labelled: np.ndarray
    unlabelled: np.ndarray
    form: Form = "pooled"


@dataclass(frozen=True)
class FewShotDone:
    """How the race went.

    `kept` says what won: the frozen heads' own winner (then `head` and `held_out` are None), refined means, or the
    tuned body, which the encoder then holds; in any other case it holds the weights that it came with. `held_out`
    [n, C] are the winner's outputs for items that it had not seen.
    """

    kept: Literal["heads", "refined", "tuned"]
    race: tuple[Candidate, ...]
    head: nn.Module | None
    held_out: np.ndarray | None
    history: tuple[dict[str, float], ...] = ()
    notes: tuple[str, ...] = ()


def fewshot(
    encoder: Encoder, few: Few, *, best: Candidate, task: Task, settings: FewShot, context: Context
) -> FewShotDone:
    """Race refined means and a tuned body against the `best` of the frozen heads; the encoder keeps what wins.

    PlanError where `train_last` exceeds the encoder's layer groups or the targets are not one class an item.
    """
    _check(encoder, task, settings)
    blocks = [width for _, width in encoder.spec.depths] if few.form == "depths" else []
    space = mixture.space(few.labelled, few.unlabelled, blocks)
    refined = _refined(few, space, task, settings, context)
    race = list(refined.candidates)
    if refined.is_trusted and race[-1].score >= best.score - best.standard_error:
        head = mixture.fit(
            space, few.targets, num_classes=len(task.labels), sharpness=settings.sharpness, form=few.form
        )
        race[-1] = replace(race[-1], chosen=True)
        return FewShotDone("refined", tuple(race), head, refined.outputs)
    if settings.train_last == 0:
        return FewShotDone("heads", tuple(race), None, None)
    try:
        return _tuned(encoder, few, race, task=task, settings=settings, context=context)
    except TrainingError as error:
        note = f"tuning was given up, the frozen network is kept: {error.given}; {error.fix}"
        return FewShotDone("heads", tuple(race), None, None, notes=(note,))


def num_tuned(settings: FewShot, groups: int) -> int:
    """Return how many of so many layer groups are tuned."""
    return min(LAST, groups) if settings.train_last is None else settings.train_last


def _check(encoder: Encoder, task: Task, settings: FewShot) -> None:
    """Refuse what cannot work before anything is computed."""
    count = len(encoder.layer_groups())
    if (settings.train_last or 0) > count:
        raise PlanError(
            f"fewshot.train_last is {settings.train_last}, but {encoder.spec.name} has {count} layer groups",
            expected=f"0 (nothing is tuned) to {count}",
            fix=f"--set fewshot.train_last={count}",
        )
    if task.link != "softmax" or task.form != "pooled":
        raise PlanError(
            f"few-shot learning of {task.name}",
            expected="a task that names one class an item",
            fix="choose --method extract or finetune",
        )


# -- refined class means --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Refined:
    """Candidates of class means, plain and refined; whether the refined ones can be trusted; their outputs."""

    candidates: tuple[Candidate, ...]
    is_trusted: bool
    outputs: np.ndarray


def _refined(few: Few, space: mixture.Space, task: Task, settings: FewShot, context: Context) -> _Refined:
    """Cross-validate class means with and without the unlabelled items."""
    if not len(few.unlabelled):
        return _Refined((), is_trusted=False, outputs=np.zeros((0, 0), np.float32))
    started = time.perf_counter()
    truth, seed = few.targets.tolist(), context.seed
    folds = assign_folds(truth, few.groups, folds=mixture.MOST_FOLDS, seed=seed)
    halves = [assign_folds(truth, few.groups, folds=2, seed=seed + number) for number in range(HALVINGS)]
    found = mixture.left_out(
        space,
        few.targets,
        folds,
        np.stack(halves),
        num_classes=len(task.labels),
        sharpness=settings.sharpness,
    )
    seconds = time.perf_counter() - started
    plain = Candidate("class means", *task.measure(found.plain, few.targets), seconds)
    name = f"class means refined by {len(few.unlabelled)} unlabelled items"
    refined = Candidate(name, *task.measure(found.refined, few.targets), seconds)
    harm = _losses(found.refined, few.targets) - _losses(found.plain, few.targets)
    is_clear = len(few.unlabelled) >= LEAST_UNLABELLED and found.agreement >= AGREED
    is_trusted = is_clear and bool(harm.mean() <= MOST_LOSS * harm.std() / np.sqrt(len(harm)))
    return _Refined((plain, refined), is_trusted, found.refined)


def _losses(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the log-loss of each item [n] for outputs [n, C]."""
    return torch.nn.functional.cross_entropy(
        torch.from_numpy(outputs), torch.from_numpy(targets), reduction="none"
    ).numpy()


# -- tuning by contrast ---------------------------------------------------------------------------------------


def _tuned(
    encoder: Encoder,
    few: Few,
    race: list[Candidate],
    *,
    task: Task,
    settings: FewShot,
    context: Context,
) -> FewShotDone:
    """Cross-validate tuning against the same head without it; where it holds, tune on every item."""
    started = time.perf_counter()
    pooled = few.labelled[:, encoder.spec.columns("pooled")] if few.form == "depths" else few.labelled
    body = _open_body(encoder, few.dataset, settings, context)
    classes = len(task.labels)
    folds = assign_folds(few.targets.tolist(), few.groups, folds=settings.folds, seed=context.seed)
    outputs, untuned = (np.zeros((len(few.targets), classes), np.float32) for _ in range(2))
    history: list[float] = []
    found = _Mean()

    def tune(rows: np.ndarray, part: str, passes: int) -> np.ndarray:
        """Tune on some items and return the features of all."""
        context.progress(Event("contrast", message=part))
        history[:] = body.tune(
            rows, few.targets[rows], passes=passes, rate=settings.learning_rate, context=context
        )
        return features_of(body.suffix, body.rows, context)

    with limited_threads(context.threads), freeze(encoder.module, body.frozen), _trainable(body.layers):
        for fold in range(int(folds.max()) + 1):
            seen, unseen = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            with _restored(body.layers, always=True):
                features = tune(seen, f"without part {fold + 1}", math.ceil(TRIED * settings.passes))
                found.add(body.layers)
            outputs[unseen] = _outputs(features, few.targets, seen, unseen, classes)
            untuned[unseen] = _outputs(pooled, few.targets, seen, unseen, classes)
        measured = [task.measure(each, few.targets) for each in (untuned, outputs)]
        right = (outputs.argmax(1) == few.targets).astype(float) - (untuned.argmax(1) == few.targets)
        is_kept = bool(right.mean() >= -TOLERATED * right.std() / np.sqrt(len(right)))
        head: nn.Module | None = None
        if is_kept:
            with _restored(body.layers):
                found.put(body.layers)
                features = tune(np.arange(len(few.targets)), "on every item", settings.passes)
                head = _logistic(features, few.targets, classes)
    encoder.module.requires_grad_(True)
    seconds = time.perf_counter() - started
    race.append(Candidate(UNTUNED, *measured[0], 0.0))
    race.append(Candidate(TUNED, *measured[1], seconds, chosen=is_kept))
    if not is_kept:
        return FewShotDone("heads", tuple(race), None, None)
    rows = tuple({"epoch": float(number), "train_loss": loss} for number, loss in enumerate(history, 1))
    note = (
        f"tuning was cross-validated in {settings.folds} parts, so on fewer labels than the model learnt from: "
        f"{measured[1][0]:.3f}, against {measured[0][0]:.3f} of the same head without it"
    )
    return FewShotDone("tuned", tuple(race), head, outputs, rows, (note,))


@dataclass(frozen=True)
class _Body:
    """The part of an encoder that is tuned, what reaches it, and which layer groups train and which do not."""

    suffix: nn.Module
    rows: Rows
    layers: Sequence[LayerGroup]
    frozen: Sequence[LayerGroup]

    def tune(
        self, chosen: np.ndarray, targets: np.ndarray, *, passes: int, rate: float, context: Context
    ) -> list[float]:
        """Tune on the chosen items with class ids [k]; return the loss of each pass."""
        rows = Rows(lambda indices: self.rows.open(chosen[indices]), self.rows.lengths[chosen])
        return contrast(
            self.suffix, rows, targets, layers=self.layers, passes=passes, learning_rate=rate, context=context
        )


def _open_body(encoder: Encoder, dataset: Dataset, settings: FewShot, context: Context) -> _Body:
    """Cut an encoder and compute what reaches the part that is tuned, or take all of it where it cannot be cut.

    By torch and in memory: for few items neither an export nor the store would pay.
    """
    encoder.module.to(context.device)
    layers = list(encoder.layer_groups())
    depth = len(layers) - num_tuned(settings, len(layers))
    values = [encoder.prepare(dataset[index].input).value for index in range(len(dataset))]
    parts = encoder.split(depth, "pooled") if depth else None
    lengths = np.array([value.size for value in values])
    if parts is None:
        rows = Rows(lambda indices: encoder.batch([values[int(index)] for index in indices]), lengths)
        return _Body(encoder.network("pooled"), rows, layers[depth:], layers[:depth])
    run = torch_runtime(encoder, "pooled", context, depth=depth)
    crossing: dict[int, np.ndarray] = {}
    for chunk in Rows(lambda indices: torch.from_numpy(indices), lengths).chunks(np.arange(len(values))):
        found = run([values[int(index)] for index in chunk])
        crossing.update(zip(chunk.tolist(), found, strict=True))
    rows = Rows(lambda indices: encoder.stack([crossing[int(index)] for index in indices]), lengths)
    return _Body(parts[1], rows, layers[depth:], layers[:depth])


class _Mean:
    """The mean of the weights that the parts of the cross-validation found: where tuning on every item begins."""

    def __init__(self) -> None:
        """Start without weights."""
        self.sums: list[Tensor] = []
        self.count = 0

    def add(self, layers: Sequence[LayerGroup]) -> None:
        """Add the weights that these layers have now."""
        weights = [weight.detach().clone() for layer in layers for weight in layer.parameters.values()]
        self.sums = [a + b for a, b in zip(self.sums, weights, strict=True)] if self.count else weights
        self.count += 1

    @torch.no_grad()
    def put(self, layers: Sequence[LayerGroup]) -> None:
        """Give these layers the mean."""
        weights = [weight for layer in layers for weight in layer.parameters.values()]
        for weight, total in zip(weights, self.sums, strict=True):
            weight.copy_(total / self.count)


@contextmanager
def _trainable(layers: Sequence[LayerGroup]) -> Iterator[None]:
    """Let gradients reach these layers inside the block."""
    for layer in layers:
        for parameter in layer.parameters.values():
            parameter.requires_grad_(True)
    try:
        yield
    finally:
        for layer in layers:
            for parameter in layer.parameters.values():
                parameter.grad = None


@contextmanager
def _restored(layers: Sequence[LayerGroup], *, always: bool = False) -> Iterator[None]:
    """Put these layers' weights back after the block: always, or where it fails."""
    parameters = [parameter for layer in layers for parameter in layer.parameters.values()]
    before = [parameter.detach().clone() for parameter in parameters]

    def restore() -> None:
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)

    try:
        yield
    except BaseException:
        restore()
        raise
    if always:
        restore()


def _outputs(
    features: np.ndarray, targets: np.ndarray, seen: np.ndarray, unseen: np.ndarray, classes: int
) -> np.ndarray:
    """Return what a head fitted on the seen items says of the unseen ones [k, C]."""
    head = _logistic(features[seen], targets[seen], classes)
    with torch.inference_mode():
        return head(torch.from_numpy(features[unseen])).numpy()


def _logistic(features: np.ndarray, targets: np.ndarray, classes: int) -> OffsetHead:
    """Fit multinomial logistic regression on features [n, D], each item's of length one, of class ids [n].

    Cosines are what tuning shapes; the length of an item says nothing of its class, and deviations of single columns
    over so few items are noise.
    """
    values = torch.from_numpy(features)
    if not torch.isfinite(values).all():
        raise TrainingError(
            "tuning by contrast gives features that are not finite",
            expected="finite features for every item",
            fix="--set fewshot.learning_rate=2e-5",
        )
    unit, count = nn.functional.normalize(values, dim=1), len(targets)
    space = principal_space(unit, "pooled", is_stretched=False)
    rows = HeadRows(space, torch.from_numpy(targets), torch.zeros(count, dtype=torch.int64), classes, count)
    found: Tensor
    (found,) = logistic.solve(
        rows,
        penalties=torch.tensor([PENALTY / count]),
        included=torch.ones(1, count),
        steps=logistic.MAX_STEPS,
    )
    mean, _, weight = space.spread(found[:-1])
    head = CosineHead(len(mean), classes)
    head.directions.copy_(weight)
    return OffsetHead.of(head, found[-1] - weight @ mean).eval()
