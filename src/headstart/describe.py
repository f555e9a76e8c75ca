"""A plan in plain words, with the time that it should take here."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from headstart.core.plan import Plan
from headstart.core.settings import Extract, FewShot, FineTune
from headstart.data import open_dataset
from headstart.features.runtime import choose_runtime
from headstart.methods.fewshot import TRIED, num_tuned
from headstart.model import open_encoder
from headstart.planning import TIMED_ITEMS, sample_values

if TYPE_CHECKING:
    from headstart.core.protocols import Encoder
    from headstart.data import TableDataset
    from headstart.train.runtime import Context

DECODE_SECONDS = 0.002
"""Opening one picture, on one thread."""
STEP_FACTOR = 3.5
"""A training step of everything takes this many forward passes by the fastest runtime."""
HEADS_SECONDS = 3e-4
"""Racing heads, an item."""


def describe(plan: Plan, context: Context) -> str:
    """Say what each link of the plan does, on what data, and about how long it takes on this machine."""
    dataset = open_dataset(plan.data) if plan.data.uri else None
    count = len(dataset) if dataset else 0
    encoder = open_encoder(plan.encoder, limits=plan.data.limits)
    forward = _forward_seconds(encoder, dataset, context) if dataset else 0.0
    lines = [
        f"Data: {plan.data.uri or 'in memory'}, {count} items{_labels(plan)}.",
        f"Network: {plan.encoder.name}, {encoder.receipt.summary()}.",
        f"Split: {1 - plan.split.test - plan.split.validation:.0%} train, {plan.split.validation:.0%} validation, "
        f"{plan.split.test:.0%} test, unless the data say otherwise; groups and duplicates stay together.",
    ]
    total = count * (forward + DECODE_SECONDS / context.threads)
    for link in plan.chain():
        words, seconds = _link(link.method, count, forward, len(encoder.layer_groups()))
        lines.append(words)
        total += seconds
    lines.append(
        "Then: calibrate on held-out items, score the test split once, write the model folder and its report."
    )
    lines.append(
        f"Expected time here: about {_duration(total)} (a second run comes from the store in seconds)."
    )
    return "\n".join(lines)


def _labels(plan: Plan) -> str:
    """Say what the labels are."""
    if not plan.labels:
        return ", a number each"
    more = ", ..." if len(plan.labels) > 6 else ""
    noun = "tags" if plan.task == "tagging" else "labels" if plan.task == "multilabel" else "classes"
    return f", {len(plan.labels)} {noun} ({', '.join(plan.labels[:6])}{more})"


def _link(method: Extract | FewShot | FineTune, count: int, forward: float, groups: int) -> tuple[str, float]:
    """Describe one link and estimate its seconds."""
    if isinstance(method, Extract):
        views = f" and {method.views - 1} augmented views" if method.views > 1 else ""
        words = (
            f"Extract: keep the network frozen, encode each item once{views}, race heads ({', '.join(method.heads)}) "
            f"by {method.folds}-fold cross-validation and keep the best."
        )
        return words, count * ((method.views - 1) * forward + HEADS_SECONDS)
    if isinstance(method, FewShot):
        tuned = num_tuned(method, groups)
        words = (
            f"Few-shot: refine class means by up to {method.unlabelled} unlabelled items; where these do not clearly "
            f"help, tune the last {tuned} of {groups} layer groups by contrast in {method.passes} passes, "
            f"cross-validated in {method.folds} parts; keep what proves itself on labelled items that were left out."
        )
        passes = method.passes * (1 + TRIED * (method.folds - 1))
        return words, count * passes * STEP_FACTOR * forward * min(1.0, tuned / groups)
    last = groups if method.train_last is None else method.train_last
    share = last / groups
    cached = method.views is not None and last < groups
    words = (
        f"Fine-tune: train the last {last} of {groups} layer groups for up to {method.epochs} epochs at rate "
        f"{method.learning_rate:g}, times {method.layer_decay:g} a group below"
        + (f"; the frozen part runs once for each of {method.views} cached views." if cached else ".")
    )
    once = method.views * forward if cached and method.views else 0.0
    each = STEP_FACTOR * forward * (share if cached else 1.0)
    return words, count * (once + method.epochs * each)


def _forward_seconds(encoder: Encoder, dataset: TableDataset, context: Context) -> float:
    """Time the frozen network on a few items; return wall-clock seconds an item with all threads busy."""
    values = sample_values(dataset, encoder, TIMED_ITEMS)
    if not values:
        return 0.0
    run = choose_runtime(encoder, "pooled" if "pooled" in encoder.spec.width else "sequence", context)
    run(values)
    started = time.perf_counter()
    run(values)
    parallel = context.threads if context.device.type == "cpu" else 1
    return (time.perf_counter() - started) / len(values) / parallel


def _duration(seconds: float) -> str:
    """Say seconds as people do."""
    if seconds < 90:
        return f"{max(1, round(seconds))} seconds"
    return f"{round(seconds / 60)} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
