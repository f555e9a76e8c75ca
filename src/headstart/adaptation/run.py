"""An adaptation from a model folder and an unlabelled target to an adapted model folder, kept in the store."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from headstart.adaptation.asking import given_labels, labels_of, worth_asking
from headstart.adaptation.candidates import NOTHING, Candidate, Field, field_of
from headstart.adaptation.choose import Choice, Labels, Verdict, choose, is_trained_unasked
from headstart.adaptation.clusters import clusters_of
from headstart.adaptation.look import kind_of, look, outputs_of
from headstart.adaptation.outcome import Adaptation, ClassChange, Shifted, Tried
from headstart.adaptation.page import JSON, PAGE, card, inputs_of, render
from headstart.adaptation.sides import (
    ADAPTATION,
    FEW,
    Origin,
    Side,
    encode_target,
    open_source,
    require_classes,
)
from headstart.adaptation.sketch import sketch
from headstart.adaptation.training import restated, trained
from headstart.adaptation.views import Estimate, estimated_accuracy
from headstart.core.errors import StoreError
from headstart.core.hashing import digest, file_sha256
from headstart.core.settings import Adapt
from headstart.data import TableDataset
from headstart.heads import OffsetHead
from headstart.model import FACTS, Model, load_model
from headstart.report.document import versions
from headstart.runs import publish
from headstart.store import MANIFEST, drop_folder, explained
from headstart.train.runtime import Context, Event
from headstart.train.signals import stopping

VERSION = 3
"""Version of an adaptation as a whole; bump when its numbers move."""
BUCKET = "adaptations-v1"


@dataclass(frozen=True)
class Wish:
    """What is asked for: a masked target and its name; perhaps the source, training, labels."""

    target: TableDataset
    title: str
    source: TableDataset | None = None
    settings: Adapt | None = None
    labels: tuple[Path, ...] = ()


def adapted(folder: Path, wish: Wish, context: Context, *, output: Path) -> Adaptation:
    """Adapt the model of a folder and put the chosen one at `output`; a second call comes from the store.

    Interrupted, the same call goes on.
    """
    _refuse_foreign(output, folder)
    with stopping(context.command) as stop:

        def progress(event: Event) -> None:
            stop.check()
            context.progress(event)

        found = _stored(folder, wish, replace(context, progress=progress))
        publish(found, output)
    outcome = Adaptation.from_json((output / JSON).read_text(encoding="utf-8"))
    return replace(outcome, folder=output)


def _stored(folder: Path, wish: Wish, context: Context) -> Path:
    """Return the store's folder of an adaptation, making it where there is none."""
    model = load_model(folder)
    require_classes(model)
    given = given_labels(wish.target, wish.labels) if wish.labels else {}
    origin = open_source(model, context, given=wish.source)
    key = digest(
        "adaptation", VERSION, file_sha256(folder / MANIFEST), origin.missing, wish.title,
        sorted(zip(wish.target.item_hashes(), wish.target.ids, wish.target.domains, strict=True)),
        wish.settings, sorted(given.items()), context.seed,
    )  # fmt: skip
    found = context.store.get(BUCKET, key)
    if found is not None:
        return found
    checkpoints = context.store.root / "checkpoints-v1" / key
    inner = replace(context, folder=checkpoints)
    target = encode_target(wish.target, model, inner)
    context.progress(Event("adapt"))
    shifted = look(origin, target, model, title=wish.title, seed=context.seed)
    work = _Work(folder, model, origin, target, shifted, inner)
    chosen, outcome = work.run(wish, given)

    def write(staged: Path) -> None:
        _save(chosen, outcome, model, staged, wish=wish)
        inputs = inputs_of(origin.side.dataset if origin.side is not None else None, wish.target)
        render(outcome, inputs, path=staged / PAGE)

    done = context.store.put(BUCKET, key, write)
    if checkpoints.exists():
        drop_folder(checkpoints)
    return done


@dataclass(frozen=True)
class _Work:
    """What an adaptation rests on, once both sides are open."""

    folder: Path
    model: Model
    origin: Origin
    target: Side
    shifted: Shifted
    context: Context

    def run(self, wish: Wish, given: dict[str, str]) -> tuple[Candidate, Adaptation]:
        """Try every way, choose one, and say what that came to."""
        labels, notes = labels_of(given, self.target, self.model.task.labels)
        contest = self.contest(wish.settings)
        clusters = clusters_of(
            self.target.features, 2 * len(self.model.task.labels), seed=self.context.seed
        )  # Finer than the classes, which may each hold several kinds of items.
        choice = self.choice(contest, clusters, labels)
        chosen = next(one for one in contest.candidates if one.name == choice.chosen)
        chosen = _calibrated(chosen, contest, has_moved=self.shifted.has_moved)
        known = set(given)
        asked = tuple(
            one for one in worth_asking(contest.candidates, self.target, clusters) if one.id not in known
        )
        estimate, why_not = self.estimate(chosen)
        nothing = contest.candidates[0]
        before, after = nothing.target.argmax(1), chosen.target.argmax(1)
        outcome = Adaptation(
            shifted=self.shifted, chosen=chosen.name, family=chosen.family, reasons=choice.reasons,
            tried=_tried(contest, choice), changes=self.changes(before, after),
            after=sketch(self.origin.side, self.target, chosen, seed=self.context.seed)
            if len(self.target) > 1 else self.shifted.before,
            changed=float((before != after).mean()), num_labels=len(labels.rows) if labels else 0,
            estimate=estimate, why_no_estimate=why_not, asked=asked, notes=tuple(notes),
        )  # fmt: skip
        return chosen, outcome

    def contest(self, settings: Adapt | None) -> Field:
        """Return the candidates: doing nothing, the closed-form ones, and those that change the network."""
        source = self.origin.side
        if len(self.target) < FEW:
            outputs = outputs_of(self.model, self.target.features)
            nothing = Candidate(NOTHING, "nothing", self.model, outputs)
            return Field((nothing,), np.zeros(0, np.int64), np.zeros((0, outputs.shape[1])))
        found = field_of(
            self.model, self.target.features, seed=self.context.seed,
            with_transport=settings is not None and settings.transport,
            **({} if source is None else {
                "source": source.features, "truth": source.targets, "groups": source.groups}),
        )  # fmt: skip
        nothing = replace(found.candidates[0], features=self.target.features)
        extra = [restated(self.folder, self.target, self.context)]
        kind = kind_of(self.shifted, self.model, nothing.probabilities)
        if settings is None and source is not None and is_trained_unasked(found, kind, self.shifted.measured):
            settings = Adapt(head="bottleneck")
        if settings is not None:
            extra.append(trained(self.folder, source, self.target, settings, self.context))
        every = (nothing, *found.candidates[1:], *(one for one in extra if one is not None))
        return replace(found, candidates=every)

    def choice(self, contest: Field, clusters: np.ndarray, labels: Labels | None) -> Choice:
        """Choose; of a target that is too small nothing is told, so nothing is changed."""
        if len(contest.candidates) == 1:
            reason = f"{len(self.target)} items are too few to adapt to: the model stays as it is"
            return Choice(NOTHING, (Verdict(NOTHING),), (reason,))
        kind = kind_of(self.shifted, self.model, contest.candidates[0].probabilities)
        return choose(contest, kind, clusters=clusters, shares=self.shifted.measured, labels=labels)

    def changes(self, before: np.ndarray, after: np.ndarray) -> tuple[ClassChange, ...]:
        """Return how often each class is in the source, and named before and after."""
        names, source = self.model.task.labels, self.origin.side
        truth = source.targets if source is not None else None
        return tuple(
            ClassChange(
                str(name), None if truth is None else float((truth == number).mean()),
                float((before == number).mean()), float((after == number).mean()),
            )
            for number, name in enumerate(names)
        )  # fmt: skip

    def estimate(self, chosen: Candidate) -> tuple[Estimate | None, str]:
        """Return the estimated target accuracy of the chosen model, or why none is shown."""
        shift = self.shifted.measured
        if shift is None:
            return None, "the shift could not be measured, so nothing supports an estimate"
        if shift.kind not in ("none", "label"):
            return None, (
                "under a change of appearance confidence says little about correctness: estimates without labels were "
                "12 to 27 points too high on such shifts"
            )
        held = chosen.model.calibration
        if not len(held.get("targets", ())):
            return None, "no held-out items came with the model"
        known = chosen.model.probabilities(held["logits"].numpy())
        found = estimated_accuracy(known, held["targets"].numpy(), chosen.probabilities)
        return found, "" if found else "too few held-out items came with the model"


def _calibrated(chosen: Candidate, contest: Field, *, has_moved: bool) -> Candidate:
    """Return the chosen candidate with the held-out outputs of its own head, by which it may abstain.

    It gets none where the looks of the target have moved, so that source items promise no rate of errors there, and
    where nothing was held out from the new head.
    """
    if not has_moved and chosen.family in ("nothing", "trained"):
        return chosen
    model, held = chosen.model, chosen.model.calibration
    logits, targets = torch.zeros(0, chosen.target.shape[1]), torch.zeros(0, dtype=torch.int64)
    if not has_moved and isinstance(model.head, OffsetHead) and chosen.family == "prior":
        logits, targets = held["logits"] + model.head.offset, held["targets"]
    elif not has_moved and chosen.held_out is not None:
        logits = torch.from_numpy(np.ascontiguousarray(chosen.held_out, np.float32))
        targets = torch.from_numpy(np.ascontiguousarray(contest.truth))
    return replace(chosen, model=replace(model, calibration={"logits": logits, "targets": targets}))


def _tried(contest: Field, choice: Choice) -> tuple[Tried, ...]:
    """Return what was found about each candidate."""
    verdict_of = {row.name: row for row in choice.verdicts}
    before = contest.candidates[0].target.argmax(1)
    rows: list[Tried] = []
    for one in contest.candidates:
        row = verdict_of[one.name]
        changed = float((one.target.argmax(1) != before).mean())
        rows.append(
            Tried(
                one.name,
                one.family,
                row.objection,
                dict(row.votes),
                changed,
                one.seconds,
                row.labelled,
                one.note,
            )
        )
    return tuple(rows)


def _save(chosen: Candidate, outcome: Adaptation, model: Model, staged: Path, *, wish: Wish) -> None:
    """Write the chosen model, what it came from, the outcome and a card."""
    kind = outcome.shifted.measured.kind if outcome.shifted.measured else None
    hashes = sorted(wish.target.item_hashes())
    entry = {
        "kind": ADAPTATION, "version": VERSION, "chosen": chosen.name, "family": chosen.family, "shift": kind,
        "target": wish.title, "target_sha256": digest("items", hashes), "num_target": len(hashes),
        "num_labels": outcome.num_labels,
        "settings": wish.settings.model_dump(mode="json") if wish.settings else None,
    }  # fmt: skip
    final = replace(chosen.model, lineage=(*model.lineage, entry))
    final.save(staged, facts={"metrics": {}, "versions": versions()})
    (staged / JSON).write_text(outcome.to_json(), encoding="utf-8")
    (staged / "README.md").write_text(card(outcome, final.encoder.spec), encoding="utf-8")


def _refuse_foreign(target: Path, folder: Path) -> None:
    """Refuse to replace anything but an earlier adaptation of another model, before any work is done."""
    if target.resolve() == folder.resolve():
        raise StoreError(
            f"{target} is the model that is to be adapted",
            expected="a folder of its own for the adapted model",
            fix="choose another --output",
        )
    is_ours = (target / FACTS).is_file() and (target / JSON).is_file()
    if target.exists() and not is_ours and (not target.is_dir() or any(target.iterdir())):
        raise StoreError(
            f"{target} exists and is not an adapted model",
            expected="a new or empty folder, or an earlier adaptation to replace",
            fix="choose another --output",
        )
    with explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)


def default_output(folder: Path, title: str) -> Path:
    """Return where an adapted model goes unless said otherwise."""
    return Path("adapted") / f"{folder.name or 'model'}-{title}"
