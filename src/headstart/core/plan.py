"""The plan: a fully resolved, printable, hashable description of a run, and the only thing that runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import BaseModel, Discriminator, Field, Tag

from headstart.core.errors import PlanError
from headstart.core.hashing import digest
from headstart.core.settings import (
    Extract,
    Method,
    Pretrained,
    Retention,
    Settings,
    Source,
    Split,
    parse,
)

VERSION = 1
"""Version of the plan's own format; older ones must load, newer ones are refused."""


class Saved(Settings):
    """A saved model folder that a plan continues: where it lies, and its content's hash (that alone is in keys)."""

    folder: str
    sha256: str


def _is_saved(value: Any) -> str:
    """Tell a folder from a plan, in values or as an object."""
    names: Any = type(value).model_fields if isinstance(value, BaseModel) else value
    return "saved" if "folder" in names else "plan"


Start = Annotated[
    Annotated["Plan", Tag("plan")] | Annotated[Saved, Tag("saved")],
    Discriminator(_is_saved),
]


class Plan(Settings):
    """What will run; `start` is the plan, or the model folder, that this one continues from.

    That may be the extraction on the same data whose head fine-tuning begins from, or an earlier link of a chain, on
    other data, whose network and head this one goes on with (or the one and then the other).
    """

    version: int = Field(default=VERSION, ge=1, le=VERSION)
    name: str = ""
    """What a link of a chain is called; like the place of the data, in no key."""
    task: str = "classification"
    encoder: Pretrained = Pretrained()
    data: Source = Source()
    split: Split = Split()
    fingerprint: str = ""
    """Hash of the data's content (items, targets, groups, splits); filled in when the plan is made."""
    labels: tuple[str, ...] = ()
    method: Method = Extract()
    start: Start | None = None
    retention: Retention | None = None
    """How what earlier links learnt is kept, where `start` leads to such."""
    seed: int = Field(default=0, ge=0)

    @property
    def key(self) -> str:
        """Hash of everything that decides the result; where the data lie does not."""
        return digest("plan", _without_location(self.model_dump(mode="json")))

    @property
    def extraction(self) -> Plan | None:
        """The extraction on the same data that this plan begins with, where it does."""
        start = self.start
        if not isinstance(start, Plan) or isinstance(self.method, Extract):
            return None
        goal = (self.fingerprint, self.task, self.labels)
        is_own = isinstance(start.method, Extract) and (start.fingerprint, start.task, start.labels) == goal
        return start if is_own else None

    @property
    def earlier(self) -> Plan | Saved | None:
        """The link before this one in a chain: another plan, or a model folder."""
        return self.extraction.start if self.extraction else self.start

    def links(self) -> tuple[Plan | Saved, ...]:
        """Return the links of the chain, first link first, this plan last; a link's own extraction is part of it."""
        earlier = self.earlier
        before = earlier.links() if isinstance(earlier, Plan) else (earlier,) if earlier else ()
        return (*before, self)

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
        """Return the plans of the chain, extractions among them, first link first, this plan last."""
        return (*(self.start.chain() if isinstance(self.start, Plan) else ()), self)


def _without_location(values: dict[str, Any]) -> dict[str, Any]:
    """Drop where data and answers lie from a dumped plan and from the plans it continues."""
    if "folder" in values:
        return {"sha256": values["sha256"]}
    data = {name: value for name, value in values["data"].items() if name not in ("uri", "answers")}
    start = _without_location(values["start"]) if values["start"] else None
    # Older plans knew neither licences nor retention.
    data = {name: value for name, value in data.items() if (name, value) != ("licence", None)}
    values = {
        name: value
        for name, value in values.items()
        if name != "name" and (name, value) != ("retention", None)
    }
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
