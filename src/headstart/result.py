"""What a run gives: everything that the report, the card and the command line say, as values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from headstart.core.lineage import Lineage
from headstart.core.plan import Plan
from headstart.core.types import Audit, Finding, Receipt, Score, TensorOrigin
from headstart.evaluation import Evaluation


@dataclass(frozen=True)
class Candidate:
    """One contender of a race: held-out accuracy `score` with its standard error, log-loss, seconds it took."""

    name: str
    score: float
    standard_error: float
    log_loss: float
    seconds: float
    chosen: bool = False


@dataclass(frozen=True)
class Baseline:
    """What the model is compared with on the same test items; `difference` is model minus baseline, paired."""

    name: str
    evaluation: Evaluation
    seconds: float
    difference: Score


@dataclass(frozen=True)
class Shortlisted:
    """A network in a ranking: the fine-tuned quality that was expected of it, or why it was not tried."""

    network: str
    expected: float
    low: float | None = None
    high: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Rung:
    """A network at one rung of a race, after so many epochs: the validation quality of the better of its frozen and
    fine-tuned self, and how much better the leader answered the same items (None: it leads).
    """

    network: str
    epochs: int
    score: float
    is_tuned: bool
    behind: Score | None
    seconds: float
    outcome: str


@dataclass(frozen=True)
class Selection:
    """How the network was chosen: what was ranked, best first, how the finalists raced, and why this one."""

    network: str
    reasons: tuple[str, ...]
    ranked: tuple[Shortlisted, ...] = ()
    rungs: tuple[Rung, ...] = ()

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Selection:
        """Read what `asdict` gave."""
        rungs = [
            {**row, "behind": Score(**row["behind"]) if row["behind"] else None} for row in values["rungs"]
        ]
        return cls(
            values["network"],
            tuple(values["reasons"]),
            tuple(Shortlisted(**row) for row in values["ranked"]),
            tuple(Rung(**row) for row in rungs),
        )


@dataclass(frozen=True)
class Cost:
    """Wall-clock and processor seconds, peak memory of the process, and what the store spared."""

    seconds: float
    cpu_seconds: float
    peak_memory_mb: float
    items_encoded: int
    items_from_store: int
    by_stage: Mapping[str, float] = field(default_factory=dict)
    """Wall-clock seconds of each stage."""


@dataclass(frozen=True)
class Predicted:
    """One test item: its truth and what the model says, in the same form; `path` None for what lay in no file.

    Both are a class, a tuple of labels, a number, or a tuple of spans (first word, word behind the last, type,
    probability). `probability` is that of the least sure part, 1 for a number.
    """

    id: str
    target: Any
    label: Any
    probability: float
    path: Path | None = None

    def __post_init__(self) -> None:
        """Turn lists, as JSON gives them, into tuples, so that what is read back is equal."""
        object.__setattr__(self, "target", _as_tuples(self.target))
        object.__setattr__(self, "label", _as_tuples(self.label))

    @property
    def is_right(self) -> bool:
        """Tell whether the model says the truth: the class, every label, every span (never mind how sure it was)."""
        return _without_probabilities(self.target) == _without_probabilities(self.label)


@dataclass(frozen=True)
class Result:
    """A finished run: its plan, the model folder, and all that was measured."""

    plan: Plan
    folder: Path
    evaluation: Evaluation
    audit: Audit
    receipt: Receipt
    race: tuple[Candidate, ...]
    history: tuple[Mapping[str, float], ...]
    cost: Cost
    predictions: tuple[Predicted, ...]
    baseline: Baseline | None = None
    notes: tuple[str, ...] = ()
    modality: str = "image"
    selection: Selection | None = None
    """How the network was chosen, where it was not named."""
    lineage: Lineage | None = None
    """The chain that the model ends, where it continues from an earlier link."""

    def to_json(self) -> str:
        """Return everything but where things lie as JSON text."""
        values = {
            "plan": self.plan.model_dump(mode="json"),
            "evaluation": self.evaluation.to_json(),
            "audit": asdict(self.audit),
            "receipt": asdict(self.receipt),
            "race": [asdict(candidate) for candidate in self.race],
            "history": [dict(row) for row in self.history],
            "cost": asdict(self.cost),
            "predictions": [{**asdict(item), "path": None} for item in self.predictions],
            "baseline": {**asdict(self.baseline), "evaluation": self.baseline.evaluation.to_json()}
            if self.baseline
            else None,
            "notes": list(self.notes),
            "modality": self.modality,
            "selection": asdict(self.selection) if self.selection else None,
            "lineage": asdict(self.lineage) if self.lineage else None,
        }
        return json.dumps(values, indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, *, folder: Path) -> Result:
        """Read what `to_json` wrote; `folder` is where the model lies now."""
        values = json.loads(text)
        return cls(
            plan=Plan.model_validate(values["plan"]),
            folder=folder,
            evaluation=Evaluation.from_json(values["evaluation"]),
            audit=_audit(values["audit"]),
            receipt=_receipt(values["receipt"]),
            race=tuple(Candidate(**row) for row in values["race"]),
            history=tuple(values["history"]),
            cost=Cost(**values["cost"]),
            predictions=tuple(Predicted(**row) for row in values["predictions"]),
            baseline=_baseline(values["baseline"]) if values["baseline"] else None,
            notes=tuple(values["notes"]),
            modality=values.get("modality", "image"),
            selection=Selection.from_json(values["selection"]) if values.get("selection") else None,
            lineage=Lineage.from_json(values["lineage"]) if values.get("lineage") else None,
        )


def _as_tuples(value: Any) -> Any:
    """Turn lists of lists into tuples of tuples."""
    return tuple(_as_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value


def _without_probabilities(value: Any) -> Any:
    """Return labels in any order, and spans without how sure the model was of each; anything else as it is."""
    if not isinstance(value, tuple):
        return value
    return frozenset(item[:3] if isinstance(item, tuple) else item for item in value)


def _baseline(values: Mapping[str, Any]) -> Baseline:
    """Read a baseline."""
    evaluation, difference = Evaluation.from_json(values["evaluation"]), Score(**values["difference"])
    return Baseline(values["name"], evaluation, values["seconds"], difference)


def _audit(values: Mapping[str, Any]) -> Audit:
    """Read an audit."""
    findings = tuple(Finding(**{**row, "items": tuple(row["items"])}) for row in values["findings"])
    return Audit(values["num_items"], values["num_kept"], findings)


def _receipt(values: Mapping[str, Any]) -> Receipt:
    """Read a receipt."""
    tensors = tuple(TensorOrigin(**{**row, "shape": tuple(row["shape"])}) for row in values["tensors"])
    return Receipt(values["source"], tensors, tuple(values["unused"]))
