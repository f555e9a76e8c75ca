"""Where a model comes from: the links of its chain, what each gave to the next, and what of the earlier was kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headstart.core.types import Score


@dataclass(frozen=True, slots=True)
class Link:
    """One link: its data and method, the test score that it ended with, and what it began with.

    `transferred` is the share of the network's numbers that came from the link before (of the first: from its
    pretrained weights); `classes_known` of `num_classes` were known to the head before, by name. `gain` is the paired
    difference to the same link without the chain, where that was measured. Without data it is a folder that knows no
    task.
    """

    name: str
    key: str
    data: str
    fingerprint: str
    task: str
    method: str
    encoder: str
    licence: str
    data_licence: str | None
    num_classes: int
    classes_known: int
    transferred: float
    score: Score | None
    gain: Score | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """An earlier task scored again by its own head on the new network: the same validation items then and now.

    `share` is now / then and `change` now - then, both with paired 95 % intervals; None where the score then is 0.
    """

    name: str
    measure: str
    then: float
    now: float
    change: Score
    share: Score | None
    n: int
    why_not: str = ""
    """Why a task could not be scored again; its numbers mean nothing then."""
    is_seen: bool = False
    """Its head had learnt from these items, so that the score then is too good."""


@dataclass(frozen=True, slots=True)
class Way:
    """A place between the weights at a link's start (alpha 0) and end (1): new quality, and the shares kept."""

    alpha: float
    quality: float
    kept: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Lineage:
    """The chain of a model, first link first, this one last, and what this link kept of the earlier tasks."""

    links: tuple[Link, ...]
    kept: tuple[Kept, ...] = ()
    guards: tuple[str, ...] = ()
    floor: float | None = None
    alpha: float | None = None
    way: tuple[Way, ...] = ()

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Lineage:
        """Read what `dataclasses.asdict` gave."""

        def score(row: Mapping[str, Any] | None) -> Score | None:
            return Score(**row) if row else None

        def link(row: Mapping[str, Any]) -> Link:
            whole: dict[str, Any] = {**row, "score": score(row["score"]), "gain": score(row["gain"])}
            return Link(**whole)

        def kept(row: Mapping[str, Any]) -> Kept:
            whole: dict[str, Any] = {**row, "change": score(row["change"]), "share": score(row["share"])}
            return Kept(**whole)

        return cls(
            tuple(link(row) for row in values["links"]),
            tuple(kept(row) for row in values["kept"]),
            tuple(values["guards"]),
            values["floor"],
            values["alpha"],
            tuple(Way(**row) for row in values["way"]),
        )

    @property
    def restricted(self) -> tuple[str, ...]:
        """Name each licence in the chain that forbids commercial use, with what it is of."""
        found: list[str] = []
        for link in self.links:
            if is_noncommercial(link.licence):
                found.append(f"{link.encoder} ({link.licence})")
            if is_noncommercial(link.data_licence):
                found.append(f"the data of {link.name} ({link.data_licence})")
        return tuple(dict.fromkeys(found))


def is_noncommercial(licence: str | None) -> bool:
    """Tell whether a licence, as it is named, forbids commercial use."""
    words = (licence or "").lower().replace("_", "-").replace(" ", "-")
    parts = words.split("-")
    return "nc" in parts or "noncommercial" in words.replace("-", "") or "research" in parts
