"""Pretraining: against training from scratch at equal compute, against lightly, on texts, and the speed of MAE.

Parts, each by itself with `--only`: `images` (an untrained network on small digits, pretrained on all of them, then
fine-tuned on a share of the labels, beside the same network trained from scratch for as many seconds), `lightly` (its
SimMIM loss and masking on the same network and data, interleaved), `minilm` (masked-language training of MiniLM on the
texts of a task, then heads on its frozen features), `lstm` (a language model of the texts, then classification with 100
labels a class) and `mae` (a step that reads a quarter of the patches against one that reads all).

Every row is kept as soon as it is there (HEADSTART_BENCH_CACHE), so that a run that was cut goes on.
"""

from __future__ import annotations

import csv
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks._claims import Claim, at_least, at_most, publish
from benchmarks._data import data_folder
from benchmarks._kept import Kept
from headstart.core.settings import Extract, FineTune, Pretrain, Pretrained, Source
from headstart.core.types import InputContract
from headstart.data import TableDataset, from_memory
from headstart.encoders.module import from_module
from headstart.features.encode import encode
from headstart.heads import LinearHead
from headstart.methods.extract import extract
from headstart.methods.finetune import finetune
from headstart.methods.pretrain import pretrain
from headstart.model import open_encoder
from headstart.planning import proposed
from headstart.store import Store
from headstart.tasks.classification import Classification
from headstart.train.runtime import Context, choose_device

SEEDS = 5
SHARES = (0.01, 0.05, 0.1, 1.0)
CLEAR = (0.01, 0.05, 0.1)
"""Shares of the labels at which the gain must be clear of zero."""
POOL, TEST = 3000, 2000
EPOCHS = 10
"""Of pretraining on pictures."""
OBJECTIVE: Mapping[str, Any] = {"objective": "lejepa", "learning_rate": 3e-3}
"""Of pretraining on pictures: chosen on draws of the digits that are not among the seeds."""
COMPARED = (1500, 6)
"""Pictures and epochs beside lightly."""
TEXT_SETS = ("cr", "trec")
LSTM_SETS: Mapping[str, float | None] = {"ag_news": 5.0, "trec": None}
"""Points that a language model is to gain; questions of ten words tell too little of the language: told."""
LABELS_A_CLASS = 100
LSTM_TEXTS, LSTM_EPOCHS, LSTM_TUNED, LSTM_RATES = 4000, 4, 20, (1e-3, 3e-3)
"""Texts and epochs of the language model; epochs and rates of the classifiers."""
RESAMPLES = 10_000


@dataclass
class Parts:
    """A model as the methods want it."""

    encoder: Any
    head: Any
    task: Any


@dataclass(frozen=True)
class Tuned:
    """Accuracy on the test items and on those held out, and the rate."""

    test: float
    held_out: float
    learning_rate: float


def run(*, quick: bool, only: str | None = None) -> int:
    """Measure, judge, publish."""
    cache = Path(os.environ.get("HEADSTART_BENCH_CACHE", Path(tempfile.gettempdir()) / "headstart-pretrain"))
    kept = Kept.read(cache / f"rows{'-quick' if quick else ''}.json")
    threads = torch.get_num_threads()
    context = Context(Store(cache / "store"), choose_device("cpu"), threads, 0, workers=0)
    wanted = only.split(",") if only else list(PARTS)
    claims = [
        claim for name in wanted for claim in PARTS[name](kept, context, 1 if quick else SEEDS, quick=quick)
    ]
    return publish(
        "pretrain", claims, rows=[{"name": name, "row": row} for name, row in kept.rows.items()], quick=quick
    )


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean over seeds and its 95 % bootstrap interval."""
    found = np.asarray(values, float)
    drawn = np.random.default_rng(0).integers(0, len(found), (RESAMPLES, len(found)))
    low, high = np.quantile(found[drawn].mean(1), (0.025, 0.975))
    return float(found.mean()), float(low), float(high)


# Pictures


def images(kept: Kept, context: Context, seeds: int, *, quick: bool) -> list[Claim]:
    """Pretrain and fine-tune against from scratch, at equal seconds."""
    pool, epochs = (600, 3) if quick else (POOL, EPOCHS)
    shares = (0.1,) if quick else SHARES
    gains: dict[float, list[tuple[float, float]]] = {share: [] for share in shares}
    for seed in range(seeds):
        for share, row in _seed(kept, replace(context, seed=seed), pool, epochs, shares).items():
            gains[share].append((row["pretrained"], row["scratch"]))
    return [_gained(share, rows) for share, rows in gains.items()]


def _seed(
    kept: Kept, context: Context, pool: int, epochs: int, shares: Sequence[float]
) -> dict[float, dict[str, float]]:
    """Return one seed's rows by share of the labels; the network is pretrained once for all of them."""
    train, test = digits(context.seed, pool)
    names = {share: f"images {pool} {epochs} {share:g} {context.seed}" for share in shares}
    state: dict[str, Any] = {}
    began = time.process_time()
    if any(name not in kept.rows for name in names.values()):
        encoder = network(context.seed)
        settings = Pretrain(epochs=epochs, **OBJECTIVE)
        pretrain(encoder, dataset=train, settings=settings, context=context, is_pretrained=False)
        state = {name: tensor.clone() for name, tensor in encoder.module.state_dict().items()}
    seconds = time.process_time() - began
    return {
        share: kept.get(name, partial(_share, state, seconds, train, test, share, context))
        for share, name in names.items()
    }


def _share(
    state: Mapping[str, Any],
    seconds: float,
    train: TableDataset,
    test: TableDataset,
    share: float,
    context: Context,
) -> dict[str, float]:
    """Return both accuracies with a share of the labels; from scratch for the seconds of both steps of the other."""
    chosen, held_out = labelled(train, share, context.seed)
    ours = network(context.seed)
    ours.module.load_state_dict(dict(state))
    began = time.process_time()
    pretrained = tuned(
        ours, chosen, held_out, test, FineTune(**_RECIPE, epochs=_epochs(len(chosen))), context
    ).test
    spent = time.process_time() - began
    epochs = _epochs(len(chosen)) * max(1, round((seconds + spent) / spent))
    began = time.process_time()
    scratch = tuned(
        network(context.seed), chosen, held_out, test,
        FineTune(**_RECIPE, epochs=min(10_000, epochs)), context,
    ).test  # fmt: skip
    return {
        "pretrained": pretrained, "scratch": scratch, "pretraining_seconds": seconds, "tuning_seconds": spent,
        "scratch_seconds": time.process_time() - began, "scratch_epochs": epochs, "labels": len(chosen) + len(held_out),
    }  # fmt: skip


_RECIPE: dict[str, Any] = {
    "learning_rate": 3e-3, "layer_decay": 1.0, "weight_decay": 0.05, "augment": "none", "freeze_statistics": False,
    "batch_size": 32, "patience": 10_000, "label_smoothing": 0.1,
}  # fmt: skip


def _epochs(count: int) -> int:
    """Return the epochs of fine-tuning: some 300 steps, of at least 5 epochs."""
    return max(5, round(300 / max(1, count / 32)) if count > 32 else 100)


def _gained(share: float, rows: Sequence[tuple[float, float]]) -> Claim:
    """Judge the gain at one share of the labels."""
    mean, low, high = interval([100 * (ours - theirs) for ours, theirs in rows])
    scores = " against ".join(f"{100 * np.mean(side):.1f}" for side in zip(*rows, strict=True))
    value = f"{scores}: {mean:+.1f} [{low:+.1f}, {high:+.1f}], {len(rows)} seeds"
    goal, met = ("above 0 (95 %)", low > 0) if share in CLEAR else ("told", True)
    return Claim(
        f"digits at 32 px, {share:.0%} of labels: pretrained against from scratch, equal time",
        value,
        goal,
        met,
    )


def digits(seed: int, pool: int) -> tuple[TableDataset, TableDataset]:
    """Return handwritten digits [32, 32], a pool drawn by the seed and the test items."""
    with np.load(data_folder() / "images/digits/mnist_test10k.npz") as arrays:
        found, truth = arrays["x"], arrays["y"]
    order = np.random.default_rng(seed).permutation(len(found))[: pool + TEST]
    pictures, labels = [np.pad(found[row], 2) for row in order], [str(truth[row]) for row in order]
    return from_memory(pictures[:pool], labels[:pool]), from_memory(pictures[pool:], labels[pool:])


def network(seed: int) -> Any:
    """Return an untrained network of five convolutions with a last map of 4 x 4: 100,000 parameters."""

    def stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = nn.Sequential(
            stage(1, 16, 2), stage(16, 32, 1), stage(32, 48, 2), stage(48, 64, 1), stage(64, 64, 2)
        )
    contract = InputContract((32, 32), (0.13,), (0.31,), 1, 1.0, "bilinear")
    return from_module(body, {f"stage{place}": [part] for place, part in enumerate(body)}, contract=contract)


def labelled(train: TableDataset, share: float, seed: int) -> tuple[TableDataset, TableDataset]:
    """Return a share of the items with their labels, the classes in proportion, a fifth of them for validation."""
    draws, targets = np.random.default_rng((seed, 1)), np.array([str(target) for target in train.targets])
    first: list[int] = []
    second: list[int] = []
    for label in np.unique(targets):
        rows = draws.permutation(np.flatnonzero(targets == label))
        rows = rows[: max(2, round(share * len(rows)))]
        held = max(1, round(0.2 * len(rows)))
        second += rows[:held].tolist()
        first += rows[held:].tolist()
    return train.subset(sorted(first)), train.subset(sorted(second))


def tuned(
    encoder: Any,
    train: TableDataset,
    held_out: TableDataset,
    test: TableDataset,
    settings: FineTune,
    context: Context,
) -> Tuned:
    """Fine-tune a network with a new head and return how it did."""
    labels = train.labels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.seed)
        head = LinearHead(encoder.spec.width["pooled"], len(labels))
    model = Parts(encoder, head, Classification(labels))
    done = finetune(
        model, training=train, validation=held_out, settings=settings, context=replace(context, folder=None)
    )
    found, network_ = [], encoder.network("pooled")
    with torch.inference_mode():
        for start in range(0, len(test), 100):
            inputs = encoder.collate([test.inputs[row] for row in range(start, min(start + 100, len(test)))])
            found.append(head(network_(inputs)).argmax(1))
    truth = np.array([labels.index(str(target)) for target in test.targets])
    test_score = float(np.mean(torch.cat(found).numpy() == truth))
    return Tuned(test_score, max(row["validation_quality"] for row in done.history), settings.learning_rate)


# Against lightly


def lightly(kept: Kept, context: Context, seeds: int, *, quick: bool) -> list[Claim]:
    """Pretrain the same network on the same pictures by our LeJEPA and by lightly's loss of it, interleaved."""
    try:
        from lightly.loss.lejepa_loss import SIGReg, lejepa_invariance_loss
    except ImportError:
        return [
            Claim(
                "against lightly's LeJEPA", "lightly (with LeJEPA) is not installed", "at least equal", False
            )
        ]
    regulariser, weight = SIGReg(), Pretrain().regularisation

    def loss(views: Tensor) -> Tensor:
        # Its own loss wants local views beside global ones; here all views are global, as in ours.
        apart = lejepa_invariance_loss(all_proj=views, global_proj=views)
        return weight * regulariser(views) + (1 - weight) * apart

    pool, epochs = (400, 2) if quick else COMPARED
    rows: list[dict[str, float]] = []
    for seed in range(seeds):
        train, test = digits(seed, pool)
        one = replace(context, seed=seed)
        both = partial(_both, loss, train, test, epochs, one)
        rows.append(kept.get(f"lightly {pool} {epochs} {seed}", both))
    mean, low, high = interval([100 * (row["ours"] - row["theirs"]) for row in rows])
    times = [row["our_seconds"] / row["their_seconds"] for row in rows]
    value = f"{mean:+.1f} points [{low:+.1f}, {high:+.1f}], {len(rows)} seeds"
    return [
        Claim(
            "LeJEPA, neighbours of frozen features: ours against lightly's",
            value,
            "not below 0 (95 %)",
            high >= 0,
        ),
        # A quick run is mostly its beginning, which costs both alike.
        at_most(
            "LeJEPA: our time as a share of lightly's", float(np.median(times)), 1.1 if quick else 0.8, ""
        ),
    ]


def _both(
    their_loss: Callable[[Tensor], Tensor],
    train: TableDataset,
    test: TableDataset,
    epochs: int,
    context: Context,
) -> dict[str, float]:
    """Return both scores and times."""
    settings = Pretrain(epochs=epochs, augment="strong", **OBJECTIVE)
    ours, unlabelled = network(context.seed), replace(train, targets=[None] * len(train))
    began = time.process_time()
    pretrain(ours, dataset=unlabelled, settings=settings, context=context, is_pretrained=False)
    our_seconds = time.process_time() - began
    theirs = network(context.seed)
    began = time.process_time()
    _lightly(their_loss, theirs, train, epochs, context.seed, settings)
    their_seconds = time.process_time() - began
    return {
        "ours": _neighbours(ours, train, test, context), "theirs": _neighbours(theirs, train, test, context),
        "our_seconds": our_seconds, "their_seconds": their_seconds,
    }  # fmt: skip


def _lightly(
    their_loss: Callable[[Tensor], Tensor],
    encoder: Any,
    train: TableDataset,
    epochs: int,
    seed: int,
    settings: Pretrain,
) -> None:
    """Train as lightly's examples do: torchvision views of PIL pictures, its loss, AdamW, a cosine schedule."""
    from PIL import Image
    from torchvision import transforms

    views = transforms.Compose([
        transforms.RandomResizedCrop(32, scale=(0.4, 1.0)), transforms.RandomHorizontalFlip(),
        transforms.ColorJitter(0.4, 0.4), transforms.RandomRotation(15), transforms.PILToTensor(),
    ])  # fmt: skip
    pictures = [Image.fromarray(np.asarray(raw)) for raw in train.inputs]
    torch.manual_seed(seed)
    width = settings.decoder_width
    projector = nn.Sequential(
        nn.Linear(encoder.spec.width["pooled"], 4 * width), nn.BatchNorm1d(4 * width), nn.GELU(),
        nn.Linear(4 * width, width),
    )  # fmt: skip
    body = encoder.network("pooled")
    model = nn.Sequential(body, projector).train()
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    steps = epochs * (len(pictures) // 64)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(epochs):
        order = torch.randperm(len(pictures))
        for start in range(0, len(pictures) - 63, 64):
            rows = order[start : start + 64].tolist()
            shown: list[Tensor] = [
                torch.stack([views(pictures[row]) for row in rows]) for _ in range(settings.views)
            ]
            embeddings = [model(view) for view in shown]
            loss = their_loss(torch.stack(embeddings))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    model.eval()


def _neighbours(encoder: Any, train: TableDataset, test: TableDataset, context: Context) -> float:
    """Return the accuracy of the 5 nearest neighbours, by cosine, over frozen features."""
    inner = replace(context, folder=None)
    rows = [
        np.asarray(encode(data, encoder, form="pooled", context=inner).features, float)
        for data in (train, test)
    ]
    mean = rows[0].mean(0)
    units = [(row - mean) / np.linalg.norm(row - mean, axis=1, keepdims=True) for row in rows]
    nearest = np.argsort(-units[1] @ units[0].T, 1)[:, :5]
    classes = np.array([int(str(target)) for target in train.targets])[nearest]
    said = np.array([np.bincount(row).argmax() for row in classes])
    return float(np.mean(said == np.array([int(str(target)) for target in test.targets])))


# Texts


def texts_of(name: str) -> tuple[list[str], list[str]]:
    """Return the texts and labels of a set, its test part at the end where it has one; without empty texts."""
    folder = data_folder() / "text" / name
    rows: list[Mapping[str, str]] = []
    for path in sorted(folder.glob("*.csv"), key=lambda path: path.stem == "test"):
        with path.open(newline="", encoding="utf-8") as stream:
            rows += list(csv.DictReader(stream))
    column = next(name for name in ("text", "sentence", "review", "question") if name in rows[0])
    label = next(name for name in ("label", "label_text", "coarse_label", "class") if name in rows[0])
    rows = [row for row in rows if row[column].strip()]
    return [row[column] for row in rows], [row[label] for row in rows]


def minilm(kept: Kept, context: Context, seeds: int, *, quick: bool) -> list[Claim]:
    """Continue MiniLM on the texts of a task, then race heads on 10 labels a class, beside MiniLM as it is."""
    claims: list[Claim] = []
    for name in TEXT_SETS[:1] if quick else TEXT_SETS:
        rows = [
            kept.get(
                f"minilm {name} {seed} {quick}",
                partial(_continued, name, context, seed, quick=quick),
            )
            for seed in range(seeds)
        ]
        mean, low, high = interval([100 * (row["continued"] - row["as_it_is"]) for row in rows])
        value = f"{mean:+.1f} points [{low:+.1f}, {high:+.1f}], {len(rows)} seeds"
        finding = "gain" if low > 0 else "no gain" if high < 0 or high - low < 2 else "no clear gain"
        claims.append(Claim(f"{name}: MiniLM continued on the task's texts ({finding})", value, "told", True))
    return claims


def _continued(name: str, context: Context, seed: int, *, quick: bool) -> dict[str, float]:
    """Return the accuracy of heads with and without continued training."""
    texts, labels = texts_of(name)
    order = np.random.default_rng(seed).permutation(len(texts))
    count = 200 if quick else 2000
    unlabelled = from_memory([texts[row] for row in order[:count]], [labels[row] for row in order[:count]])
    test = order[count : count + (300 if quick else 1000)]
    chosen = few([labels[row] for row in order[:count]], 10, seed)
    train = unlabelled.subset(chosen)
    held = from_memory([texts[row] for row in test], [labels[row] for row in test])
    one = replace(context, seed=seed)
    plain = open_encoder(Pretrained(name="minilm"))
    before = probed(plain, train, held, one)
    settings = Pretrain(epochs=1 if quick else 3, learning_rate=5e-5)
    pretrain(plain, dataset=unlabelled, settings=settings, context=one, is_pretrained=True)
    return {"continued": probed(plain, train, held, one), "as_it_is": before}


def few(labels: Sequence[str], each: int, seed: int) -> list[int]:
    """Return items with up to `each` labels of every class."""
    draws, known = np.random.default_rng((seed, 2)), np.array(labels)
    return sorted(
        int(row) for one in np.unique(known) for row in draws.permutation(np.flatnonzero(known == one))[:each]
    )


def probed(encoder: Any, train: TableDataset, test: TableDataset, context: Context) -> float:
    """Return the accuracy of the best head on frozen features."""
    labels = train.labels
    sides = [
        np.asarray(encode(data, encoder, form="pooled", context=context).features) for data in (train, test)
    ]
    targets = np.array([labels.index(str(target)) for target in train.targets])
    settings = Extract(heads=("logistic", "ridge"), depths=False)
    groups = [str(row) for row in range(len(train))]
    found = extract(
        {"pooled": [sides[0]]},
        targets,
        groups,
        task=Classification(labels),
        settings=settings,
        context=context,
    )
    truth = np.array([labels.index(str(target)) for target in test.targets])
    with torch.inference_mode():
        return float(np.mean(found.head(torch.from_numpy(sides[1])).argmax(1).numpy() == truth))


def lstm(kept: Kept, context: Context, seeds: int, *, quick: bool) -> list[Claim]:
    """Train a language model of the texts, then a classifier from it, and one from scratch for as many seconds."""
    claims: list[Claim] = []
    # A quick run reads too few texts to learn a language.
    for name, goal in [("ag_news", None)] if quick else LSTM_SETS.items():
        rows = [
            kept.get(
                f"lstm {name} {seed}", partial(_language, name, replace(context, seed=seed), quick=quick)
            )
            for seed in range(seeds)
        ]
        mean, low, high = interval([100 * (row["language"] - row["scratch"]) for row in rows])
        scores = " against ".join(
            f"{100 * np.mean([row[side] for row in rows]):.1f}" for side in ("language", "scratch")
        )
        value = f"{scores}: {mean:+.1f} [{low:+.1f}, {high:+.1f}], {len(rows)} seeds"
        what = f"{name}, {LABELS_A_CLASS} labels a class: LSTM after a language model against from scratch, equal time"
        asked, met = ("told", True) if goal is None else (f">= +{goal:g} points", mean >= goal)
        claims.append(Claim(what, value, asked, met))
    return claims


def _language(name: str, context: Context, *, quick: bool) -> dict[str, float]:
    """Return both accuracies; each side takes the rate, and from scratch the length too, that held-out items prefer."""
    texts, labels = texts_of(name)
    count, few_epochs = (400, 2) if quick else (LSTM_TEXTS, LSTM_TUNED)
    order = np.random.default_rng(context.seed).permutation(len(texts))
    pool = from_memory([texts[row] for row in order[:count]], [labels[row] for row in order[:count]])
    rest = order[count : count + (300 if quick else 1500)]
    test = from_memory([texts[row] for row in rest], [labels[row] for row in rest])
    chosen = few([labels[row] for row in order[:count]], LABELS_A_CLASS, context.seed)
    draws = np.random.default_rng((context.seed, 3)).permutation(chosen)
    held, taught = (
        pool.subset(sorted(draws[: len(draws) // 5])),
        pool.subset(sorted(draws[len(draws) // 5 :])),
    )
    start = proposed(
        pool, Source(), encoder="recurrent:lstm", method="extract", given={}, context=context
    ).plan.encoder

    def classifier(state: Mapping[str, Any] | None, rate: float, epochs: int) -> Tuned:
        encoder = open_encoder(start)
        if state:
            encoder.module.load_state_dict(dict(state))
        settings = FineTune(
            epochs=epochs, learning_rate=rate, layer_decay=1.0, weight_decay=0.01, patience=10_000, batch_size=16,
            freeze_statistics=False,
        )  # fmt: skip
        return tuned(encoder, taught, held, test, settings, context)

    model = open_encoder(start)
    began = time.process_time()
    settings = Pretrain(epochs=1 if quick else LSTM_EPOCHS, learning_rate=3e-3, weight_decay=0.01)
    pretrain(model, dataset=pool, settings=settings, context=context, is_pretrained=False)
    pretraining = time.process_time() - began
    began = time.process_time()
    state = model.module.state_dict()
    language = [classifier(state, rate, few_epochs) for rate in LSTM_RATES]
    scratch = [classifier(None, rate, few_epochs) for rate in LSTM_RATES]
    tuning = (time.process_time() - began) / len(LSTM_RATES) / 2
    longer = round(few_epochs * (pretraining + tuning) / tuning)
    scratch.append(classifier(None, max(scratch, key=_held_out).learning_rate, longer))
    return {
        "language": max(language, key=_held_out).test, "scratch": max(scratch, key=_held_out).test,
        "pretraining_seconds": pretraining, "tuning_seconds": tuning, "longer_epochs": longer,
        "longer": scratch[-1].test,
    }  # fmt: skip


def _held_out(found: Tuned) -> float:
    """Return what held-out items say of a classifier."""
    return found.held_out


# Speed of MAE


def mae(kept: Kept, context: Context, seeds: int, *, quick: bool) -> list[Claim]:  # noqa: ARG001 - as all parts
    """Time a training step that drops hidden patches, and one that sends them through the network, interleaved."""
    row = kept.get(f"mae {quick}", lambda: _timed(2 if quick else 6))
    return [
        at_least(
            "MAE at mask ratio 0.75, a step against the masked full pass (vit_tiny, 224 px)", row["factor"], 2
        )
    ]


def _timed(repeats: int) -> dict[str, float]:
    """Return seconds of both, the least of several, and their quotient (the median of pairs)."""
    from headstart.methods.objectives.mae import Mae

    encoder = open_encoder(Pretrained(name="timm:vit_tiny_patch16_224", weights="random"))
    objective = Mae(encoder, Pretrain(mask_ratio=0.75)).train()
    pictures = torch.randint(0, 256, (4, 3, 224, 224), dtype=torch.uint8)

    def fast() -> Tensor:
        return objective.loss((pictures,), np.random.default_rng(0))

    def full() -> Tensor:
        from headstart.methods.objectives._pixels import patch_loss, patches_of
        from headstart.modalities.hiding import hide_blocks

        hidden, mask = hide_blocks(pictures, ratio=0.75, block=16, generator=np.random.default_rng(0))
        tokens = encoder(hidden, "map").value.flatten(2).transpose(1, 2)
        places = torch.arange(tokens.shape[1]).expand(len(tokens), -1)
        truth = patches_of(objective.scale(pictures), 16)
        return patch_loss(objective.decoder(tokens, places), truth, mask.flatten(1), normalised=True)

    found: dict[str, list[float]] = {"fast": [], "full": []}
    for repeat in range(repeats + 1):
        for name, step in (("fast", fast), ("full", full)):
            began = time.perf_counter()
            step().backward()
            if repeat:
                found[name].append(time.perf_counter() - began)
            objective.zero_grad()
    factor = float(np.median(np.array(found["full"]) / np.array(found["fast"])))
    return {"factor": factor, **{name: min(times) for name, times in found.items()}}


PARTS: Mapping[str, Any] = {"mae": mae, "lstm": lstm, "images": images, "minilm": minilm, "lightly": lightly}
