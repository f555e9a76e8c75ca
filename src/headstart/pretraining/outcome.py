"""What pretraining came to, as values that JSON holds."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from headstart.core.types import Score

FORMAT = 1


@dataclass(frozen=True)
class Verdict:
    """What a pilot says of the long run: the paired gain of its short pretraining over none, on the user's labels.

    `answer` is likely, unlikely or unclear; `gain` has a 95 % interval over test items of all seeds.
    """

    answer: str
    gain: Score
    with_pretraining: float
    without: float
    measure: str
    seeds: int
    epochs: int
    planned_epochs: int

    def said(self) -> str:
        """Say it in one sentence."""
        found = (
            f"{100 * self.gain.value:+.1f} points [{100 * self.gain.low:+.1f}, {100 * self.gain.high:+.1f}]"
        )
        short = f"after {self.epochs} of {self.planned_epochs} epochs the gain in {self.measure} is {found}"
        ends = {
            "likely": "the long run is likely to beat plain fine-tuning",
            "unlikely": "the long run is unlikely to beat plain fine-tuning",
            "unclear": "whether the long run beats plain fine-tuning is not clear yet",
        }
        return f"{ends[self.answer]}: {short}"


@dataclass(frozen=True)
class Outcome:
    """A pretrained network: how it was trained, on what, and how its features went.

    `history` has a row an epoch: train_loss, validation_loss, rank and, with labels, neighbours; `start_*` are the same
    before. `left_out` names what could not be read, with the reason.
    """

    encoder: str
    modality: str
    objective: str
    settings: dict[str, Any]
    history: tuple[dict[str, float], ...]
    start_loss: float
    start_rank: float
    start_neighbours: float | None
    num_trained: int
    num_held_out: int
    batch_size: int
    seconds: float
    is_pretrained: bool
    fingerprint: str
    data: str
    licence: str
    data_licence: str | None
    left_out: dict[str, str]
    notes: tuple[str, ...]
    verdict: Verdict | None = None
    folder: Path | None = field(default=None, compare=False)
    is_hit: bool = field(default=False, compare=False)
    """It came from the store."""

    def to_json(self) -> str:
        """Return it as JSON text, without the folder that it lies in."""
        kept = {name: value for name, value in asdict(self).items() if name not in ("folder", "is_hit")}
        return json.dumps({"format": FORMAT, **kept}, indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Outcome:
        """Read what `to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        values.pop("format")
        verdict = values.pop("verdict")
        if verdict:
            verdict = Verdict(**{**verdict, "gain": Score(**verdict["gain"])})
        tuples = {name: tuple(values[name]) for name in ("history", "notes")}
        return cls(**{**values, **tuples}, verdict=verdict)
