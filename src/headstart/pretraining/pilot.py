"""The pilot: is the long run likely to beat plain fine-tuning? Both are fine-tuned alike and compared on test items."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import load_file

from headstart.core.registry import resolve
from headstart.core.settings import Pretrain
from headstart.data.audit import audit, inspect
from headstart.evaluation import paired_gain
from headstart.model import OWN_FILES, WEIGHTS, open_encoder
from headstart.pipeline.material import drawn
from headstart.planning import Opened
from headstart.pretraining.outcome import Verdict
from headstart.runs import TEST, finished

if TYPE_CHECKING:
    from headstart.core.plan import Plan
    from headstart.core.types import Score
    from headstart.result import Result
    from headstart.train.runtime import Context

SEEDS = 3


def divided(opened: Opened, *, threads: int) -> Opened:
    """Give every item its split before anything is learnt: what is tested on is not pretrained on.

    DataError where the labels are too few for a split.
    """
    plan, dataset = opened.plan, opened.dataset
    facts, failures = inspect(dataset, settings=plan.data, threads=threads)
    found = audit(dataset, facts, failures, settings=plan.data)
    kept = drawn(dataset, found, resolve("task", plan.task)(plan.labels), plan.split, seed=plan.seed)
    split_of = dict(zip(kept.ids, kept.splits, strict=True))
    whole = dataset.with_splits([split_of.get(name, "train") for name in dataset.ids])
    fixed = {"split": plan.split.model_copy(update={"respect": True}), "fingerprint": whole.fingerprint}
    start = plan.extraction.model_copy(update=fixed) if plan.extraction else plan.start
    return replace(opened, dataset=whole, plan=plan.model_copy(update={**fixed, "start": start}))


def piloted(opened: Opened, folder: Path, context: Context, wanted: Pretrain, short: Pretrain) -> Verdict:
    """Fine-tune from the network as it was and as the pilot left it, with the plan's own settings, several seeds each.

    The gain is paired: the same test items and seed; groups of items (patients, videos) are drawn as wholes.
    """
    group_of = {
        name: group or name for name, group in zip(opened.dataset.ids, opened.dataset.groups, strict=True)
    }
    scores: dict[str, list[float]] = {"with": [], "without": []}
    gains: list[np.ndarray] = []
    groups: list[str] = []
    measure = ""
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(SEEDS):
            found: dict[str, dict[str, float]] = {}
            for arm, place in (("without", None), ("with", folder)):
                plan = _seeded(opened.plan, seed, place, opened)
                network = open_encoder(plan.encoder, limits=plan.data.limits)
                one = replace(opened, plan=plan, encoder=network)
                target = Path(scratch) / f"{arm}-{seed}"
                result = finished(
                    one,
                    replace(context, folder=None, seed=plan.seed),
                    output=target,
                    baseline=False,
                    strict=False,
                )
                scores[arm].append(result.evaluation.primary.value)
                measure, found[arm] = result.evaluation.primary.name, _quality(target, result)
            both = [name for name in found["with"] if name in found["without"]]
            gains.append(np.array([found["with"][name] - found["without"][name] for name in both]))
            groups += [group_of[name] for name in both]
    # An item that is tested with several seeds counts as one.
    gain = paired_gain(np.concatenate(gains), name=f"{measure}_difference", groups=groups)
    return Verdict(
        answer_of(gain), gain, float(np.mean(scores["with"])), float(np.mean(scores["without"])), measure, SEEDS,
        short.epochs, wanted.epochs,
    )  # fmt: skip


def answer_of(gain: Score) -> str:
    """Return what an interval says of the long run."""
    if gain.low > 0:
        return "likely"
    return "unlikely" if gain.high < 0 else "unclear"


def _seeded(plan: Plan, seed: int, folder: Path | None, opened: Opened) -> Plan:
    """Return the plan with a seed, and with the weights of a folder where one is given."""
    changes: dict[str, object] = {"seed": plan.seed + seed}
    if folder is not None:
        own = folder / OWN_FILES
        network = plan.encoder.model_copy(
            update={
                "weights": str(folder / WEIGHTS), "folder": str(own) if own.is_dir() else plan.encoder.folder,
                "vectors": None, "weights_sha256": None,
            }
        )  # fmt: skip
        hashed = open_encoder(network, limits=opened.plan.data.limits).spec.weights_sha256
        changes["encoder"] = network.model_copy(update={"weights_sha256": hashed})
    start = plan.extraction.model_copy(update=changes) if plan.extraction else plan.start
    return plan.model_copy(update={**changes, "start": start})


def _quality(folder: Path, result: Result) -> dict[str, float]:
    """Return how well each test item was answered, by id."""
    values = load_file(folder / TEST)["quality"]
    return dict(zip([item.id for item in result.predictions], values.tolist(), strict=True))
