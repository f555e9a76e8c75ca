"""The plan: a fully resolved, printable, hashable description of a run, and the only thing that runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from pydantic import Field

from headstart.core.errors import PlanError
from headstart.core.hashing import digest
from headstart.core.settings import Extract, Method, Pretrained, Settings, Source, Split, parse

VERSION = 1
"""Version of the plan's own format; older ones must load, newer ones are refused."""


class Plan(Settings):
    """What will run; `start` is the plan that this one continues from."""

    version: int = Field(default=VERSION, ge=1, le=VERSION)
    task: str = "classification"
    encoder: Pretrained = Pretrained()
    data: Source = Source()
    split: Split = Split()
    fingerprint: str = ""
    """Hash of the data's content (items, targets, groups, splits); filled in when the plan is made."""
    labels: tuple[str, ...] = ()
    method: Method = Extract()
    start: Plan | None = None
    seed: int = Field(default=0, ge=0)

    @property
    def key(self) -> str:
        """Hash of everything that decides the result; where the data lie does not."""
        return digest("plan", _without_location(self.model_dump(mode="json")))

    def to_json(self) -> str:
        """Return the plan as indented JSON text."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read a plan; unknown keys and plans from a newer version are refused (PlanError)."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise PlanError(
                f"the plan is not JSON: {error}",
                expected="the text that Plan.to_json writes",
                fix="write it anew",
            ) from None
        version = cast("dict[str, Any]", values).get("version") if isinstance(values, dict) else None
        if isinstance(version, int) and version > VERSION:
            raise PlanError(
                f"the plan has version {version}",
                expected=f"version {VERSION} or older",
                fix="pip install --upgrade headstart",
            )
        return parse(cls, values, what="the plan")

    def chain(self) -> tuple[Plan, ...]:
        """Return the plans of the chain, first link first, this plan last."""
        return (*(self.start.chain() if self.start else ()), self)


def _without_location(values: dict[str, Any]) -> dict[str, Any]:
    """Drop where data and answers lie from a dumped plan and from the plans it continues."""
    data = {name: value for name, value in values["data"].items() if name not in ("uri", "answers")}
    start = _without_location(values["start"]) if values["start"] else None
    # A schedule that is run to its end is the one that older plans knew.
    method = {
        name: value for name, value in values["method"].items() if (name, value) != ("stop_after", None)
    }
    return {
        **values,
        "data": data,
        "start": start,
        "method": method,
        "encoder": _by_content(values["encoder"]),
    }


def _by_content(encoder: dict[str, Any]) -> dict[str, Any]:
    """Name weights, word vectors and the network's own files by their hashes alone, not by where they lie."""
    places = dict[str, str]()
    if encoder["weights_sha256"]:
        is_path = encoder["weights"] not in ("pretrained", "random")
        places |= {"weights": "file"} if is_path else {}
        places |= {"vectors": "file"} if encoder["vectors"] else {}
    if encoder["files_sha256"]:
        return {**encoder, **places, "folder": None}
    return {name: value for name, value in {**encoder, **places}.items() if name != "files_sha256"}


def read_plan(path: Path) -> Plan:
    """Read a plan from a JSON file."""
    return Plan.from_json(path.read_text(encoding="utf-8-sig"))
