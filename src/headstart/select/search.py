"""What a choice of the network is asked for, and what it opens: candidates, plans, networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.core.errors import EncoderError, PlanError
from headstart.core.hashing import digest
from headstart.core.settings import Auto, Extract, FewShot, FineTune, Pretrained, Source, Split, parse
from headstart.model import open_encoder
from headstart.planning import Opened, facts_of, proposed, require_settings
from headstart.recipes import propose
from headstart.select.catalog import Filters, catalog, select, whereabouts
from headstart.select.rank import rank
from headstart.train.runtime import Context, Event

if TYPE_CHECKING:
    from headstart.core.protocols import Encoder
    from headstart.data import TableDataset
    from headstart.result import Selection
    from headstart.select.catalog import Entry
    from headstart.select.rank import Ranked, Ranking

VERSION = 1
"""Version of how a race is laid out; bump when other networks would race, or otherwise."""
CHOSEN_HERE = ("name", "weights", "folder")
"""Settings of a network that say which it is."""
Method = str | Extract | FewShot | FineTune


def present(dataset: TableDataset, wish: Auto) -> tuple[Entry, ...]:
    """Return the candidates for a dataset: those whose weights are here, or with `download` those to be had."""
    own = Path(wish.catalog) if wish.catalog else None
    return select(catalog(dataset.modality, own=own), Filters(task=dataset.task, offline=not wish.download))


@dataclass(frozen=True)
class Search:
    """What is asked for: data, method, settings, limits, and the machine."""

    dataset: TableDataset
    source: Source
    wish: Auto
    method: Method
    given: Mapping[str, Any]
    context: Context

    def tell(self, text: str) -> None:
        """Say something now."""
        self.context.progress(Event("choose", message=text))

    def candidates(self) -> tuple[Entry, ...]:
        """Return the candidates, with the user's settings for any network."""
        own: Mapping[str, Any] = self.given.get("encoder", {})
        wrong = [f"encoder.{name}" for name in CHOSEN_HERE if name in own]
        if wrong:
            raise PlanError(
                f"{', '.join(wrong)} set together with encoder=auto",
                expected="settings that suit every candidate, such as encoder.image_size",
                fix="leave them out, or name the network with --encoder",
            )
        return tuple(
            replace(entry, encoder={**entry.encoder, **own}) for entry in present(self.dataset, self.wish)
        )

    def check(self) -> None:
        """Refuse settings that cannot be, before anything is ranked (PlanError)."""
        require_settings(self.dataset, method=self.method, given=self.given, context=self.context)
        asked: Mapping[str, Any] = self.given.get("finetune", {})
        if "stop_after" in asked or getattr(self.method, "stop_after", None) is not None:
            raise PlanError(
                "finetune.stop_after set together with encoder=auto",
                expected="the race itself to say where training stops",
                fix="leave it out, or name the network with --encoder",
            )

    @property
    def split(self) -> Split:
        """How a run will split the items."""
        return parse(Split, self.given.get("split", {}), what="--set split.*")

    def ranked(self, entries: Sequence[Entry]) -> Ranking:
        """Rank candidates by what a run will train on."""
        return rank(self.dataset, entries, source=self.source, context=self.context, split=self.split)

    def opened(self, entry: Entry, method: Method) -> Opened:
        """Return the plan for one network."""
        given = {
            name: dict(values) if isinstance(values, Mapping) else values
            for name, values in self.given.items()
        }
        given["encoder"] = {name: value for name, value in entry.encoder.items() if name != "name"}
        if method == "extract":
            given.pop("finetune", None)
        name = str(entry.encoder["name"])
        return proposed(
            self.dataset, self.source, encoder=name, method=method, given=given, context=self.context
        )

    def unraced(self, entry: Entry, method: Method, selection: Selection) -> Opened:
        """Return the plan of a network that was chosen without a race, and say why not."""
        self.tell(selection.reasons[-1])
        return replace(self.opened(entry, method), selection=selection)

    def standstill(self, rows: Sequence[Ranked]) -> str:
        """Say why these do not race; nothing where they do."""
        if len(rows) == 1:
            return f"no race: {rows[0].entry.name} is the only one that is to be tried, or can be"
        return self.raceless

    @property
    def raceless(self) -> str:
        """Why nobody would race with this method, whoever comes; nothing where they would."""
        kind = self.method if isinstance(self.method, str) else self.method.kind
        if kind in ("extract", "fewshot"):
            return f"no race: with method {kind} the ranking decides"
        if kind == "auto" and isinstance(propose(facts_of(self.dataset, self.context), kind)[0], FewShot):
            return "no race: with so few labels a class the few-shot method is taken, and the ranking decides"
        return ""

    def fetched(self, ranking: Ranking) -> bool:
        """Fetch the best of the candidates that only the hub has, as many as race; tell whether one came."""
        best = [row.entry for row in ranking.rows if whereabouts(row.entry) == "hub"][: self.wish.finalists]
        came = False
        for entry in best:
            self.tell(f"{entry.name} is fetched from the hub")
            try:
                open_encoder(self.settings(entry), limits=self.source.limits)
                came = True
            except EncoderError as error:
                self.tell(f"{entry.name} cannot be had: {error.given}")
        return came

    def settings(self, entry: Entry) -> Pretrained:
        """Return the settings that open an entry's network."""
        return parse(Pretrained, dict(entry.encoder), what=f"the catalog's entry {entry.name}")

    def networks(self, rows: Sequence[Ranked]) -> dict[str, Encoder | str]:
        """Open the networks of these, by name; where one cannot be opened, say why."""
        found: dict[str, Encoder | str] = {}
        for row in rows:
            try:
                found[row.entry.name] = open_encoder(self.settings(row.entry), limits=self.source.limits)
            except EncoderError as error:
                found[row.entry.name] = error.given
        return found

    def race_key(self, rows: Sequence[Ranked], networks: Mapping[str, Encoder | str]) -> str:
        """Return the key of a race: data, networks by their weights, settings, limits."""
        named = [
            (name, dict(row.entry.encoder), one if isinstance(one, str) else one.spec.weights_sha256)
            for row, (name, one) in zip(rows, networks.items(), strict=True)
        ]
        limits = self.wish.minutes, self.wish.finalists
        return digest("race", VERSION, self.dataset.fingerprint, named, self.method, dict(self.given), limits)
