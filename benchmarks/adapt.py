"""Domain adaptation without target labels: what `headstart adapt` chooses, beside doing nothing and every single way.

Each shift is a labelled source and a target whose labels only score. A seed draws nine tenths of both (halves of one
folder where the target is a darkened or resampled copy of it), trains the heads of `headstart fit` on the source, and
adapts them. Single ways and the oracle, which looks at the labels, are in the table and never in the choice.
On PACS skada's methods get the same features and labels, and its entropy score chooses among them; so do those of
pytorch-adapt where HEADSTART_PYTORCH_ADAPT names the folder that `pip install --target` put it in (with
`torchmetrics==0.9.3 pytorch-metric-learning==1.6.3 'setuptools<80'`, all of them `--no-deps`).
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks._claims import Claim, at_most, publish
from benchmarks._data import data_folder
from headstart.adaptation.candidates import FOLDS, NOTHING, Candidate, Field, field_of
from headstart.adaptation.choose import LEAST_CONFUSION, choose, is_trained_unasked
from headstart.adaptation.clusters import clusters_of
from headstart.adaptation.shift import measure_shift
from headstart.adaptation.sides import masked
from headstart.core.protocols import Encoder
from headstart.core.settings import Adapt, Extract, Pretrained, Source
from headstart.core.types import Form
from headstart.data import TableDataset, from_memory, open_dataset
from headstart.features.encode import encode
from headstart.methods.adapt import adapt
from headstart.methods.extract import extract
from headstart.methods.heads.folds import assign_folds
from headstart.model import Model, open_encoder
from headstart.pipeline.heads import calibrate
from headstart.store import Store
from headstart.tasks.classification import Classification
from headstart.train.runtime import Context, choose_device

SEEDS = 5
SHARE = 0.9
DIGITS = 1200
"""Digits of a set at most."""
SKEW = (0.71, 0.15, 0.07, 0.07)
"""Shares of the classes in a resampled copy, in a drawn order."""
LEAST_RESAMPLED = 120
WARM, TIMED = 8, 64
RESAMPLES = 10_000
PEERED = ("photo to art_painting", "art_painting to photo")
"""Shifts on which the peers run: their transport plans take a minute each."""
PYTORCH_ADAPT = "HEADSTART_PYTORCH_ADAPT"
ALONE = "no term"
TERMS, TRAINED_SEEDS = (ALONE, "mcc", "coral", "mmd", "dann", "cdan", "afn", "jdot", "fixmatch"), 2
"""Terms that train a head with a layer of its own on these shifts, and the seeds that they get."""
LEAST_GAIN, MOST_LOSS = 4.0, 0.5
"""Points over doing nothing, on average and for the worst shift."""


@dataclass(frozen=True)
class Domain:
    """A named set of features [n, D] with the class name of each row [n].

    `item_seconds` are the processor seconds that encoding one item takes, from the store's emptiness.
    """

    name: str
    features: np.ndarray
    labels: np.ndarray
    item_seconds: float
    dataset: TableDataset
    encoder: Encoder
    form: Form

    def part(self, rows: np.ndarray) -> Domain:
        """Return some rows."""
        dataset = self.dataset.subset(rows.tolist())
        return replace(self, features=self.features[rows], labels=self.labels[rows], dataset=dataset)


@dataclass(frozen=True)
class Pair:
    """A shift: `draw(seed)` gives source and target."""

    name: str
    draw: Callable[[int], tuple[Domain, Domain]]


@dataclass(frozen=True)
class Trial:
    """One seed of one shift: its kind as measured, who was chosen, and the target accuracy of every way in points."""

    pair: str
    seed: int
    kind: str
    chosen: str
    scores: Mapping[str, float]
    trained: Mapping[str, float]
    """Of terms that were trained, by name, over cached features; empty where they did not run."""
    peers: Mapping[str, float]
    peer: Mapping[str, str]
    """Whom a peer's own score chooses, by toolkit; empty where they did not run."""
    num_target: int
    adapt_seconds: float
    """Processor seconds of all candidates, shift meter and choice."""
    forward_seconds: float
    """Processor seconds of encoding the target."""

    @property
    def gain(self) -> float:
        """Return the points over doing nothing."""
        return self.scores[self.chosen] - self.scores[NOTHING]


def run(*, quick: bool) -> int:
    """Measure, judge, publish."""
    cache = Path(os.environ.get("HEADSTART_BENCH_CACHE", Path(tempfile.gettempdir()) / "headstart-adapt"))
    context = Context(Store(cache / "store"), choose_device("cpu"), len(os.sched_getaffinity(0)), 0)
    pairs = _pairs(_Domains(cache, context), quick=quick)
    trials: list[Trial] = []
    for pair in pairs:
        for seed in range(2 if quick else SEEDS):
            trials.append(_trial(pair, seed, context, with_peers=pair.name in PEERED))
            _tell(trials[-1])
    return publish("adapt", _claims(trials, quick=quick), rows=[_row(trial) for trial in trials], quick=quick)


class _Domains:
    """Encodes domains, once each."""

    def __init__(self, cache: Path, context: Context) -> None:
        self.cache, self.context = cache, context
        self.paces: dict[str, float] = {}
        self.encoders = {
            name: open_encoder(Pretrained(name=name)) for name in ("efficientnet-lite0", "minilm")
        }

    def folder(self, name: str, path: Path) -> Domain:
        """Encode a folder of pictures or a table of texts."""
        return self.encoded(name, open_dataset(Source(uri=str(path))))

    def digits(self, name: str, file: str, *, only: Sequence[int] = range(10)) -> Domain:
        """Encode up to DIGITS of a file of digits."""
        with np.load(data_folder() / "images" / "digits" / f"{file}.npz") as arrays:
            pictures, truth = arrays["x"], arrays["y"]
        rows = np.random.default_rng(0).permutation(len(pictures))[:DIGITS]
        rows = rows[np.isin(truth[rows], only)]
        return self.encoded(name, from_memory(list(pictures[rows]), [str(int(one)) for one in truth[rows]]))

    def darkened(self, name: str, path: Path) -> Domain:
        """Encode a copy of a folder as by night: gamma 2.2, six tenths of the light, noise."""
        copy, noise = self.cache / "darkened" / path.name, np.random.default_rng(0)
        for file in sorted(path.rglob("*.jpg")):
            target = copy / file.parent.name / f"{file.stem}.png"
            pixels = np.asarray(Image.open(file).convert("RGB"), np.float32) / 255
            dark = 0.6 * pixels**2.2 + noise.normal(0, 0.05, pixels.shape)
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray((255 * dark.clip(0, 1)).astype(np.uint8)).save(target)
        return self.folder(name, copy)

    def encoded(self, name: str, dataset: TableDataset) -> Domain:
        """Return the features of a dataset, in the form that the heads of `fit` race on."""
        encoder = self.encoders["minilm" if dataset.modality == "text" else "efficientnet-lite0"]
        form: Form = "layers" if dataset.modality == "text" else "depths"
        found = encode(dataset, encoder, form=form, context=self.context)
        labels = np.array([str(dataset.targets[row]) for row in found.indices])
        features, pace = np.asarray(found.features, np.float32), self.pace(dataset, encoder, form)
        return Domain(name, features, labels, pace, dataset.subset(found.indices), encoder, form)

    def pace(self, dataset: TableDataset, encoder: Encoder, form: Form) -> float:
        """Return the processor seconds of an item by encoding TIMED items anew; the first few warm the graph up."""
        with tempfile.TemporaryDirectory() as folder:
            context = replace(self.context, store=Store(Path(folder)))
            warm = min(WARM, len(dataset) // 2)
            encode(dataset.subset(range(warm)), encoder, form=form, context=context)
            timed = dataset.subset(range(warm, min(len(dataset), warm + TIMED)))
            before = time.process_time()
            encode(timed, encoder, form=form, context=context)
            return (time.process_time() - before) / len(timed)


def _pairs(domains: _Domains, *, quick: bool) -> list[Pair]:
    """Return the shifts, both ways each."""
    root = data_folder()
    brain = domains.folder("brain", root / "images" / "brain_mri" / "Training")
    dark = domains.darkened("brain by night", root / "images" / "brain_mri" / "Training")
    halves = [
        Pair("brain, by night", partial(_halves, brain, dark)),
        Pair("brain by night, by day", partial(_halves, dark, brain)),
        Pair("brain, other shares", partial(_halves, brain, brain, skewed="target")),
        Pair("brain of other shares, even", partial(_halves, brain, brain, skewed="source")),
        Pair("brain, no shift", partial(_halves, brain, brain)),
    ]
    if quick:
        return halves
    images, texts = root / "images", root / "text" / "amazon2"
    photo, art = (domains.folder(name, images / "pacs" / name) for name in ("photo", "art_painting"))
    books, kitchen = (domains.folder(name, texts / f"{name}.csv") for name in ("books", "kitchen"))
    testing = domains.folder("brain, official test", images / "brain_mri" / "Testing")
    mnist, usps = domains.digits("mnist", "mnist_test10k"), domains.digits("usps", "usps_train7291")
    binary = domains.digits("mnist 0 and 1", "mnist_test10k", only=(0, 1))
    both_ways = [(photo, art), (books, kitchen), (brain, testing), (binary, usps)]
    return [
        *(
            Pair(f"{one.name} to {other.name}", partial(_subsets, one, other))
            for first, second in both_ways
            for one, other in ((first, second), (second, first))
        ),
        Pair("mnist to usps (two of ten classes)", partial(_subsets, mnist, usps)),
        *halves,
    ]


def _subsets(source: Domain, target: Domain, seed: int) -> tuple[Domain, Domain]:
    """Return nine tenths of both."""
    draw = np.random.default_rng(seed)
    rows = [draw.permutation(len(one.labels))[: int(SHARE * len(one.labels))] for one in (source, target)]
    return source.part(rows[0]), target.part(rows[1])


def _halves(source: Domain, target: Domain, seed: int, *, skewed: str = "") -> tuple[Domain, Domain]:
    """Return one half as the source and the other as the target, of which one may have other shares of the classes."""
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(source.labels))
    half = len(order) // 2
    parts = {"source": source.part(order[:half]), "target": target.part(order[half:])}
    if skewed:
        parts[skewed] = _resampled(parts[skewed], draw)
    return parts["source"], parts["target"]


def _resampled(domain: Domain, draw: np.random.Generator) -> Domain:
    """Return rows such that the classes occur in the shares of SKEW, in a drawn order."""
    names = np.unique(domain.labels)
    shares = draw.permutation(np.resize(SKEW, len(names)) / np.resize(SKEW, len(names)).sum())
    rows_of = [np.flatnonzero(domain.labels == name) for name in names]
    count = max(
        LEAST_RESAMPLED, int(min(len(rows) / share for rows, share in zip(rows_of, shares, strict=True)))
    )
    return domain.part(
        np.concatenate(
            [
                draw.permutation(rows)[: max(2, int(share * count))]
                for rows, share in zip(rows_of, shares, strict=True)
            ]
        )
    )


def _trial(pair: Pair, seed: int, context: Context, *, with_peers: bool) -> Trial:
    """Adapt once, and score every way by the target's labels, which none of them has seen."""
    source, target = pair.draw(seed)
    names = sorted(set(source.labels))
    truth = np.searchsorted(names, source.labels)
    model = _fitted(source, truth, names, context)
    before = time.process_time()
    found = field_of(model, target.features, source=source.features, truth=truth, seed=seed)
    shift = measure_shift(
        source.features, truth, target.features, found.candidates[0].probabilities, seed=seed
    )
    clusters = clusters_of(target.features, 2 * len(names), seed=seed)
    if is_trained_unasked(found, shift.kind, shift):
        found = replace(found, candidates=(*found.candidates, _unasked(model, source, target, context, seed)))
    choice = choose(found, shift.kind, clusters=clusters, shares=shift)
    spent = time.process_time() - before
    peers: dict[str, float] = {}
    peer: dict[str, str] = {}
    for toolkit, make in (PEERS if with_peers else {}).items():
        scores, peer[toolkit] = make(source, truth, target, names)
        peers |= scores
    runs = _trained(model, source, target, context, seed) if with_peers and seed < TRAINED_SEEDS else {}
    return Trial(
        pair.name, seed, shift.kind, choice.chosen, _scores(found, names, target.labels), runs, peers, peer,
        len(target.labels), spent, len(target.labels) * target.item_seconds,
    )  # fmt: skip


def _fitted(source: Domain, truth: np.ndarray, names: Sequence[str], context: Context) -> Model:
    """Race heads on the source as `headstart fit` does; return the model with its calibration."""
    task = Classification(names)
    groups = [str(row) for row in range(len(truth))]
    done = extract(
        {source.form: [source.features]}, truth, groups, task=task, settings=Extract(), context=context
    )
    model = Model(source.encoder, task, done.head.eval(), Pretrained())
    calibrate(model, done.held_out_logits, [names[index] for index in truth[done.held_out]])
    return model


def _unasked(model: Model, source: Domain, target: Domain, context: Context, seed: int) -> Candidate:
    """Return the way that `headstart adapt` trains by itself."""
    one = replace(model, head=copy.deepcopy(model.head))
    truth, groups = (
        np.unique(source.labels, return_inverse=True)[1],
        [str(row) for row in range(len(source.labels))],
    )
    kept_out = assign_folds(truth.tolist(), groups, folds=FOLDS, seed=seed) == 0
    first, held_out = (source.dataset.subset(np.flatnonzero(rows)) for rows in (~kept_out, kept_out))
    done = adapt(
        one, source=first, target=masked(target.dataset), settings=Adapt(head="bottleneck"),
        context=replace(context, seed=seed, folder=None), held_out=held_out,
    )  # fmt: skip
    if done.held_out is not None:
        calibrate(one, done.held_out, [str(label) for label in held_out.targets])
    with torch.inference_mode():
        outputs = one.head(torch.from_numpy(target.features)).numpy()
    return Candidate(LEAST_CONFUSION, "trained", one, outputs, done.held_out)


def _trained(model: Model, source: Domain, target: Domain, context: Context, seed: int) -> dict[str, float]:
    """Train each term over cached features, from the same model, and return the accuracies in points."""
    scores: dict[str, float] = {}
    for name in TERMS:
        one = replace(model, head=copy.deepcopy(model.head))
        settings = Adapt(terms={name: None} if name != ALONE else {}, head="bottleneck")
        adapt(
            one, source=source.dataset, target=masked(target.dataset),
            settings=settings, context=replace(context, seed=seed, folder=None),
        )  # fmt: skip
        with torch.inference_mode():
            said = one.head(torch.from_numpy(target.features)).argmax(1).numpy()
        scores[name] = 100 * float((np.array(one.task.labels)[said] == target.labels).mean())
    return scores


def _scores(found: Field, names: Sequence[str], labels: np.ndarray) -> dict[str, float]:
    """Return the accuracy of every candidate in points."""
    return {
        one.name: 100 * float((np.array(names)[one.target.argmax(1)] == labels).mean())
        for one in found.candidates
    }


def _skada(
    source: Domain, truth: np.ndarray, target: Domain, names: Sequence[str]
) -> tuple[dict[str, float], str]:
    """Return the accuracy of skada's methods in points, and whom its entropy score chooses."""
    import skada
    from skada.metrics import PredictionEntropyScorer
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    features = np.concatenate([source.features, target.features]).astype(np.float64)
    features = StandardScaler().fit(features[: len(truth)]).transform(features)
    features = PCA(min(256, *features.shape), random_state=0).fit_transform(features)
    # Labels of the target are masked with -1, its domain is negative: skada's own convention.
    labels = np.concatenate([truth, np.full(len(target.labels), -1)])
    domain = np.concatenate([np.ones(len(truth)), -2 * np.ones(len(target.labels))]).astype(int)
    scores: dict[str, float] = {}
    chosen: dict[str, float] = {}
    adapters: Mapping[str, Any] = {
        "skada, source only": (),
        "skada, CORAL": (skada.CORALAdapter(),),
        "skada, subspace alignment": (skada.SubspaceAlignmentAdapter(n_components=64),),
        "skada, linear OT": (skada.LinearOTMappingAdapter(reg=1e-3),),
        "skada, entropic OT": (skada.EntropicOTMappingAdapter(reg_e=0.05, norm="max"),),
        "skada, class-regularised OT": (skada.ClassRegularizerOTMappingAdapter(reg_e=100.0, norm="lpl1"),),
    }
    for name, steps in adapters.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pipe = skada.make_da_pipeline(*steps, LogisticRegression(C=0.1, max_iter=300))
            try:
                pipe.fit(features, labels, sample_domain=domain)
            except ValueError as error:
                # A peer whose mapping is not finite takes no part in its own choice.
                print(f"  {name}: {str(error).splitlines()[0]}", flush=True)
                continue
            said = pipe.predict(features[len(truth) :], sample_domain=domain[len(truth) :])
            chosen[name] = float(PredictionEntropyScorer()(pipe, features, labels, sample_domain=domain))
        scores[name] = 100 * float((np.array(names)[said.astype(int)] == target.labels).mean())
    return scores, max(chosen, key=lambda name: chosen[name])


def _pytorch_adapt(
    source: Domain, truth: np.ndarray, target: Domain, names: Sequence[str]
) -> tuple[dict[str, float], str]:
    """Return the accuracy of pytorch-adapt's ways in points, and whom its validator of information chooses."""
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "given.npz", Path(folder) / "found.json"
        np.savez(given, source=source.features, truth=truth, target=target.features)
        places = [os.environ[PYTORCH_ADAPT], str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks._pytorch_adapt", str(given), str(found)]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(places)})
        rows = json.loads(found.read_text())
    scores = {
        f"pytorch-adapt, {name}": 100 * float((np.array(names)[row["said"]] == target.labels).mean())
        for name, row in rows.items()
    }
    return scores, f"pytorch-adapt, {max(rows, key=lambda name: rows[name]['score'])}"


PEERS: Mapping[str, Callable[..., tuple[dict[str, float], str]]] = {
    "skada, chosen by its entropy score": _skada,
    **(
        {"pytorch-adapt, chosen by its information score": _pytorch_adapt}
        if PYTORCH_ADAPT in os.environ
        else {}
    ),
}
"""Peers by what they are called in the table."""


def _claims(trials: Sequence[Trial], *, quick: bool) -> list[Claim]:
    """Judge the chosen against doing nothing, over all shifts and for each; cost; PACS against the peers."""
    by_pair: dict[str, list[Trial]] = {}
    for trial in trials:
        by_pair.setdefault(trial.pair, []).append(trial)
    means = np.array([np.mean([trial.gain for trial in each]) for each in by_pair.values()])
    low, high = _interval(means)
    claims = [
        Claim(
            f"chosen against doing nothing, mean over {len(means)} shifts",
            f"{means.mean():+.1f} points [{low:+.1f}, {high:+.1f}]",
            f">= +{LEAST_GAIN:g} points",
            bool(means.mean() >= LEAST_GAIN),
        )
    ]
    for name, each in by_pair.items():
        gains = np.array([trial.gain for trial in each])
        low, high = _interval(gains)
        value = f"{gains.mean():+.1f} points [{low:+.1f}, {high:+.1f}], {len(gains)} seeds, n={each[0].num_target}"
        goal = f"not below -{MOST_LOSS:g} points beyond its interval"
        claims.append(Claim(f"{name}: chosen against doing nothing", value, goal, bool(high >= -MOST_LOSS)))
    spent, forward = (
        sum(getattr(trial, name) for trial in trials) for name in ("adapt_seconds", "forward_seconds")
    )
    claims.append(
        at_most(
            "all cached candidates, meter and choice against a pass over the target (cpu)", spent / forward, 1
        )
    )
    return claims if quick else [*claims, *(_against(toolkit, by_pair) for toolkit in PEERS)]


def _against(toolkit: str, by_pair: Mapping[str, Sequence[Trial]]) -> Claim:
    """Judge PACS against a peer that chooses for itself."""
    trials = [trial for name in PEERED for trial in by_pair[name]]
    ours = np.array([trial.scores[trial.chosen] for trial in trials])
    theirs = np.array([trial.peers[trial.peer[toolkit]] for trial in trials])
    low, high = _interval(ours - theirs)
    scores = f"{ours.mean():.1f} against {theirs.mean():.1f}"
    value = f"{scores}: {(ours - theirs).mean():+.1f} [{low:+.1f}, {high:+.1f}]"
    return Claim(f"PACS: against {toolkit}", value, ">= 0", bool(ours.mean() >= theirs.mean()))


def _interval(values: np.ndarray) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a mean."""
    draws = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.quantile(values[draws].mean(1), (0.025, 0.975))
    return float(low), float(high)


def _tell(trial: Trial) -> None:
    """Print a line."""
    best = max(trial.scores, key=lambda name: trial.scores[name])
    said = [
        f"  {trial.pair}, {trial.seed}: {trial.kind}",
        f"nothing {trial.scores[NOTHING]:.1f}",
        f"{trial.chosen} {trial.gain:+.1f}",
        f"oracle {best} {trial.scores[best] - trial.scores[NOTHING]:+.1f}",
        *(f"{name} {trial.peers[name]:.1f}" for name in trial.peer.values()),
        f"{trial.adapt_seconds:.1f} of {trial.forward_seconds:.1f} cpu-s",
    ]
    print(", ".join(said), flush=True)


def _row(trial: Trial) -> dict[str, Any]:
    """Return a trial as a raw row."""
    return {**{name: getattr(trial, name) for name in Trial.__dataclass_fields__}, "gain": trial.gain}
