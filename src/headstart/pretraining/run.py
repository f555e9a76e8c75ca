"""The run: pretrained once, kept in the store, put where the user wants it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.core.errors import PlanError
from headstart.core.hashing import digest
from headstart.core.registry import resolve
from headstart.core.settings import Pretrain
from headstart.methods.pretrain import VERSION as METHOD_VERSION
from headstart.methods.pretrain import choose_objective, pretrain
from headstart.model import open_encoder
from headstart.pipeline.origin import inherited
from headstart.pretraining.items import Usable, class_ids, usable
from headstart.pretraining.outcome import Outcome
from headstart.pretraining.page import render
from headstart.pretraining.pilot import divided, piloted
from headstart.pretraining.saved import OUTCOME, PAGE, save
from headstart.runs import publish, refuse_foreign
from headstart.store import drop_folder
from headstart.train.runtime import Context, Event
from headstart.train.signals import stopping

if TYPE_CHECKING:
    from headstart.data import TableDataset
    from headstart.planning import Opened

VERSION = 1
"""Version of what a pretraining does as a whole; bump when its numbers move."""
BUCKET = "pretrained-v1"
PILOT_SHARE = 0.05
"""What a pilot spends of the epochs."""


@dataclass(frozen=True)
class Request:
    """What is asked for: the network and data (as a plan opened them), how to pretrain, whether only to pilot."""

    opened: Opened
    settings: Pretrain
    pilot: bool = False


def pretrained(request: Request, context: Context, *, output: Path) -> Outcome:
    """Pretrain the network of an opened plan on its data and put the folder at `output`; a second call is a copy.

    With `pilot`, a twentieth of the epochs are run and compared with none on the labels of the data. DataError where
    nothing can be learnt from the data, PlanError where the network cannot serve the objective.
    """
    refuse_foreign(output)
    with stopping(context.command) as stop:

        def progress(event: Event) -> None:
            stop.check()
            context.progress(event)

        inner = replace(context, progress=progress)
        folder, is_hit = kept(request, inner)
        publish(folder, output)
    outcome = Outcome.from_json((folder / OUTCOME).read_text(encoding="utf-8"))
    return replace(outcome, folder=output, is_hit=is_hit)


def kept(request: Request, context: Context) -> tuple[Path, bool]:
    """Return the store's folder of a pretraining, and whether it was there."""
    opened = request.opened
    if request.pilot:
        _require_labels(opened.dataset)
        opened = divided(opened, threads=context.threads)
        request = replace(request, opened=opened)
    found = usable(opened.dataset, opened.plan.data, threads=context.threads)
    settings = _short(request.settings) if request.pilot else request.settings
    key = key_of(opened, found, settings, context.seed, planned=request.settings if request.pilot else None)
    checkpoints = context.store.root / "checkpoints-v1" / key

    def write(folder: Path) -> None:
        make(request, found, settings, replace(context, folder=checkpoints), folder)

    place, was_there = context.store.get(BUCKET, key), True
    if place is None:
        place, was_there = context.store.put(BUCKET, key, write), False
    if checkpoints.exists():
        drop_folder(checkpoints)
    return place, was_there


def key_of(
    opened: Opened, found: Usable, settings: Pretrain, seed: int, *, planned: Pretrain | None = None
) -> str:
    """Return the key: the items, the network and the settings; `planned` are those of the long run of a pilot."""
    plan = opened.plan
    asked = plan.encoder
    network = (asked.name, asked.weights_sha256, asked.files_sha256, asked.arguments)
    assert opened.encoder is not None, "the plan was opened with its network"
    objective = choose_objective(opened.encoder, settings)
    # A pilot trains heads and fine-tunes as the plan says.
    beside = (plan.key, planned) if planned else (plan.data.licence, sorted(found.left_out))
    return digest(
        "pretrain", VERSION, METHOD_VERSION, found.dataset.fingerprint, network, opened.encoder.spec.contract,
        (objective, resolve("objective", objective).version), settings, seed, *beside,
    )  # fmt: skip


def make(request: Request, found: Usable, settings: Pretrain, context: Context, folder: Path) -> None:
    """Pretrain and write network, outcome and page into a folder."""
    opened = request.opened
    plan, dataset = opened.plan, found.dataset
    # A network of its own: the one that was opened may serve others.
    encoder = open_encoder(plan.encoder, limits=plan.data.limits)
    begins = encoder.receipt.transferred > 0
    labels = class_ids(dataset)
    done = pretrain(
        encoder, dataset=dataset, settings=settings, context=context, is_pretrained=begins, labels=labels
    )
    before = inherited(plan)
    outcome = Outcome(
        encoder=encoder.spec.name, modality=encoder.spec.modality, objective=done.objective,
        settings=settings.model_dump(mode="json"), history=done.history, start_loss=done.start_loss,
        start_rank=done.start.rank,
        start_neighbours=None if np.isnan(done.start.neighbours) else done.start.neighbours,
        num_trained=done.num_trained, num_held_out=done.num_held_out, batch_size=done.batch_size,
        seconds=done.seconds, is_pretrained=begins, fingerprint=dataset.fingerprint,
        data=Path(plan.data.uri).name or "arrays", licence=_licence(encoder.spec.licence, before),
        data_licence=plan.data.licence, left_out=found.left_out, notes=(*found.notes, *done.notes),
    )  # fmt: skip
    encoder.module.cpu()
    save(encoder, plan.encoder, outcome, folder, before=before)
    if request.pilot:
        outcome = replace(outcome, verdict=piloted(opened, folder, context, request.settings, settings))
        save(encoder, plan.encoder, outcome, folder, before=before)
    (folder / PAGE).write_text(render(outcome, done.seen), encoding="utf-8", errors="replace")


def _short(settings: Pretrain) -> Pretrain:
    """Return the settings of a pilot: a twentieth of the epochs, at least one."""
    return settings.model_copy(update={"epochs": max(1, round(PILOT_SHARE * settings.epochs))})


def _require_labels(dataset: TableDataset) -> None:
    """Refuse a pilot that has nothing to compare on, before anything is trained."""
    if not any(target is not None for target in dataset.targets):
        raise PlanError(
            "a pilot was asked for, but the data have no labels",
            expected="labels for some of the items, on which fine-tuning with and without pretraining are compared",
            fix="leave --pilot out, or name a folder with class folders or a table with a label column",
        )


def _licence(own: str, before: tuple[Mapping[str, Any], ...]) -> str:
    """Return the licence of the network: its own, or where that is unknown, that of the folder it comes from."""
    known = [str(link["licence"]) for link in before if link.get("licence") not in (None, "", "unknown")]
    return known[-1] if own == "unknown" and known else own
