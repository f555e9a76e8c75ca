"""The items that are looked through: encoded as `fit` encodes them, audited, and a head trained on some of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from headstart.core.errors import PlanError
from headstart.core.registry import resolve
from headstart.core.settings import Extract
from headstart.core.types import Audit, Form, SplitName, Target
from headstart.data import TableDataset
from headstart.features.encode import Encoded, encode, take
from headstart.methods.extract import MAX_RACED
from headstart.model import Model
from headstart.pipeline.course import Ledger
from headstart.pipeline.heads import extract_heads
from headstart.pipeline.material import Material, audited, clusters, narrowed
from headstart.planning import Opened
from headstart.result import Candidate
from headstart.train.runtime import Context


@dataclass(frozen=True)
class Pool:
    """Readable items with their features; `groups` name what must stay together (a patient, twins)."""

    opened: Opened
    dataset: TableDataset
    encoded: Encoded
    groups: list[str]
    audit: Audit
    form: Form
    context: Context

    def rows(self, *, labelled: bool, with_test: bool) -> list[int]:
        """Return the items with or without a label, those of a test split that the data bring on demand."""
        pairs = zip(self.dataset.targets, self.dataset.splits, strict=True)
        return [
            row
            for row, (target, split) in enumerate(pairs)
            if (target is not None) == labelled and (with_test or split != "test")
        ]

    def targets(self, rows: list[int]) -> list[Target]:
        """Return the targets of labelled items."""
        return [cast("Target", self.dataset.targets[row]) for row in rows]

    def part(self, rows: list[int]) -> Encoded:
        """Return the features of some items."""
        return replace(
            self.encoded, features=take(self.encoded.features, rows), indices=tuple(range(len(rows)))
        )

    def vectors(self) -> np.ndarray:
        """Return features of every item [n, D], less their mean, of length one: the mean of all layers, or the last."""
        assert self.opened.encoder is not None
        spec = self.opened.encoder.spec
        form: Form = "layers" if "layers" in spec.width else "pooled"
        columns = spec.columns(form) if self.form == "depths" else slice(None)
        features = np.asarray(self.encoded.features, np.float32)[:, columns]
        centred = features - features.mean(0)
        return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)


@dataclass(frozen=True)
class Learnt:
    """A head trained on `rows`, and what heads that had not seen an item say of it.

    `held_out` are calibrated probabilities [n, C] over the columns of `labels`, or numbers [n].
    """

    model: Model
    labels: tuple[str, ...]
    rows: list[int]
    held_out: np.ndarray
    winner: Candidate


def open_pool(opened: Opened, context: Context) -> Pool:
    """Encode every item once (a store hit after `fit`, and before it) and audit them.

    PlanError for tagged words, whose labels are not those of items.
    """
    dataset, encoder = opened.dataset, opened.encoder
    assert encoder is not None, "planning opens it"
    if dataset.task == "tagging":
        raise PlanError(
            "the data are texts with a tag a word",
            expected="items with a class, several labels or a number each, or without any",
            fix="`headstart fit` shows the entities that the model misses and those that it adds",
        )
    form: Form = "depths" if len(encoder.spec.depths) > 1 else "pooled"
    whole = encode(dataset, encoder, form=form, context=context)
    found = audited(dataset, whole, opened.plan.data)
    kept, encoded = dataset.subset(found.keep), narrowed(whole, found.keep)
    return Pool(opened, kept, encoded, clusters(kept.groups, found.ties), found.audit, form, context)


def learn(pool: Pool, rows: list[int], *, hold_out: bool = True) -> Learnt:
    """Race heads on labelled items and keep the best; with `hold_out`, every item also gets a held-out answer.

    A race looks at MAX_RACED items at most, so that more are divided into parts that race by themselves.
    """
    learnt = _race(pool, rows)
    if len(rows) <= MAX_RACED or not hold_out:
        return learnt
    targets = pool.targets(rows)
    order = sorted(range(len(rows)), key=lambda place: (str(targets[place]), rows[place]))
    num_parts = -(-len(rows) // MAX_RACED)
    held_out = np.zeros((len(rows), *learnt.held_out.shape[1:]))
    for start in range(num_parts):
        places = sorted(order[start::num_parts])
        part = _race(pool, [rows[place] for place in places])
        columns = [learnt.labels.index(name) for name in part.labels]
        held_out[np.ix_(places, columns) if columns else places] = part.held_out
    return replace(learnt, held_out=held_out)


def _race(pool: Pool, rows: list[int]) -> Learnt:
    """Race heads on labelled items, over the labels that occur among them."""
    encoder, plan = pool.opened.encoder, pool.opened.plan
    assert encoder is not None, "planning opens it"
    targets = pool.targets(rows)
    present = {name for target in targets for name in (target if isinstance(target, tuple) else (target,))}
    labels = tuple(name for name in pool.dataset.labels if name in present)
    model = Model(encoder, resolve("task", pool.dataset.task)(labels), None, plan.encoder)
    chosen = pool.dataset.subset(rows).with_splits(cast("list[SplitName]", ["train"] * len(rows)))
    material = Material(chosen, pool.part(rows), [pool.groups[row] for row in rows], pool.audit)
    settings = cast("Extract", plan.method).model_copy(update={"views": 1, "use_validation": True})
    race, _ = extract_heads(model, material, settings, pool.form, pool.context, Ledger(pool.context))
    winner = next(candidate for candidate in race if candidate.chosen)
    held_out = np.asarray(model.probabilities(model.calibration["logits"].numpy()))
    return Learnt(model, labels, rows, held_out, winner)
