"""The items that a run works on: audited, split, with what must stay together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from headstart.core.errors import DataError
from headstart.core.plan import Plan
from headstart.core.protocols import Encoder, Task
from headstart.core.settings import Source, Split
from headstart.core.types import Audit, Finding, SplitName, Target
from headstart.data import TableDataset
from headstart.data.audit import Outcome, audit, refuse_grave
from headstart.data.splits import split
from headstart.features.encode import Encoded, take


@dataclass(frozen=True)
class Material:
    """The items that a run works on, after the audit: every one readable, with its split and its target."""

    dataset: TableDataset
    encoded: Encoded
    groups: list[str]
    audit: Audit

    def rows(self, *splits: SplitName) -> list[int]:
        """Return the labelled items of these splits."""
        wanted, targets = set(splits), self.dataset.targets
        return [
            row for row, name in enumerate(self.dataset.splits) if name in wanted and targets[row] is not None
        ]

    def targets(self, rows: Sequence[int]) -> list[Target]:
        """Return the targets of these items."""
        return [cast("Target", self.dataset.targets[row]) for row in rows]

    def part(self, rows: Sequence[int]) -> Encoded:
        """Return the features of these items."""
        features = take(self.encoded.features, rows)
        return replace(self.encoded, features=features, indices=tuple(range(len(rows))))


def audited(dataset: TableDataset, whole: Encoded, source: Source) -> Outcome:
    """Audit a dataset that was encoded; vectors help to find near twins."""
    features = None
    if isinstance(whole.features, np.ndarray) and len(whole.features):
        features = np.full((len(dataset), whole.features.shape[1]), np.nan, np.float32)
        features[list(whole.indices)] = whole.features
    return audit(dataset, whole.facts, whole.failures, settings=source, features=features)


def with_lost_case(found: Outcome, encoder: Encoder, task: Task) -> Outcome:
    """Say where a network does not see capitals although names, which are to be found, are told by them."""
    spec = encoder.spec
    if task.form != "sequence" or not getattr(spec.contract, "is_lower_case", False):
        return found
    finding = Finding(
        "case-lost",
        "info",
        f"{spec.name} reads texts in lower case: it does not see the capitals by which names are told",
        "nothing; a network that keeps the case may find more (--encoder transformers:NAME, a cased one)",
    )
    return replace(found, audit=replace(found.audit, findings=(*found.audit.findings, finding)))


def refuse_findings(found: Audit, *, strict: bool) -> None:
    """Refuse what would make every score a lie; with `strict`, errors and warnings of any kind."""
    for finding in found.by_code("group-leak"):
        raise DataError(
            finding.message,
            expected="every group (patient, speaker, scene) in one split",
            fix="mend the splits, or let headstart split by group: --set split.respect=false",
        )
    if strict:
        refuse_grave(found)


def narrowed(whole: Encoded, keep: Sequence[int]) -> Encoded:
    """Return the features of the items that an audit keeps, numbered anew."""
    row_of = {index: row for row, index in enumerate(whole.indices)}
    features = take(whole.features, [row_of[index] for index in keep])
    return replace(whole, features=features, indices=tuple(range(len(keep))))


def drawn(dataset: TableDataset, found: Outcome, task: Task, settings: Split, *, seed: int) -> TableDataset:
    """Keep what the audit keeps, and give every item its split."""
    kept = dataset.subset(found.keep)
    strata = task.strata([cast("Target", target) for target in kept.targets])
    known = [name if target is not None else None for name, target in zip(strata, kept.targets, strict=True)]
    return kept.with_splits(split(replace(kept, targets=known), settings, seed=seed, ties=found.ties))


def material_of(plan: Plan, dataset: TableDataset, whole: Encoded, found: Outcome, task: Task) -> Material:
    """Join the items that the audit keeps, each in its split, with their features."""
    kept = drawn(dataset, found, task, plan.split, seed=plan.seed)
    return Material(kept, narrowed(whole, found.keep), clusters(kept.groups, found.ties), found.audit)


def clusters(groups: Sequence[str], ties: Sequence[tuple[int, int]]) -> list[str]:
    """Return for each item the name of what it must stay with: its group, its twins, and theirs."""
    name = [group or f"#{row}" for row, group in enumerate(groups)]
    leader: dict[str, str] = {}

    def root(item: str) -> str:
        while item in leader:
            item = leader[item]
        return item

    for one, other in ties:
        first, second = root(name[one]), root(name[other])
        if first != second:
            leader[second] = first
    return [root(item) for item in name]


def with_learnt(material: Material, learnt: Mapping[str, Collection[str]]) -> Material:
    """Warn of test items that earlier links have learnt from: the hashes of their training items by name."""
    rows = material.rows("test")
    hashes = material.dataset.item_hashes(rows)
    findings: list[Finding] = []
    for name, known in learnt.items():
        found = [row for row, one in zip(rows, hashes, strict=True) if one in known]
        if found:
            findings.append(Finding(
                "leak-earlier-link", "warning",
                f"{len(found)} of the {len(rows)} test items were learnt from, with their labels, by the link "
                f"'{name}': the scores here may be too good",
                "give every item one split for the whole chain: a split column, or folders train and test",
                tuple(material.dataset.ids[row] for row in found),
            ))  # fmt: skip
    found = replace(material.audit, findings=(*material.audit.findings, *findings))
    return replace(material, audit=found)


def with_suspects(material: Material, suspects: Sequence[int]) -> Material:
    """Add the items whose labels are likely wrong to the audit."""
    if not suspects:
        return material
    finding = Finding(
        "label-suspect",
        "info",
        f"{len(suspects)} of the training labels are likely wrong: a model that had not seen these items is surer of "
        "another class",
        "kept as they are; look at them, the surest first",
        tuple(material.dataset.ids[row] for row in suspects),
    )
    return replace(material, audit=replace(material.audit, findings=(*material.audit.findings, finding)))
