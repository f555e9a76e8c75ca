"""What a chain shall be: a YAML file, or a list in Python, read into links in the order in which they can run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import yaml

from headstart.core.errors import PlanError, nearest
from headstart.core.plan import Plan

SUFFIXES = (".yaml", ".yml")
KEYS = ("name", "data", "from", "encoder", "method", "settings", "licence")
METHODS = ("auto", "extract", "fewshot", "finetune")
METHOD = "finetune"
"""A link that only extracts leaves the network as it was: nothing would be handed on."""
EXAMPLE = """links:
  - {name: photos, data: photos/, encoder: efficientnet-lite0}
  - {name: drawings, data: drawings/, settings: {retention.floor: 0.9}}"""


@dataclass(frozen=True)
class Wish:
    """A link as it was asked for: its data, what it starts from (a link's name, a folder, or nothing), and settings.

    `plan` is there where the link was given as one.
    """

    name: str
    data: Any = None
    start: str | Path | None = None
    encoder: str | None = None
    method: Any = METHOD
    settings: Mapping[str, Any] = field(default_factory=dict)
    plan: Plan | None = None


def is_chain_file(data: Any) -> bool:
    """Tell a chain file from data."""
    return isinstance(data, (str, Path)) and Path(data).suffix.lower() in SUFFIXES


def read_chain(path: Path) -> tuple[Wish, ...]:
    """Read a chain file; places in it are relative to it. PlanError names what is wrong, and in which link."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())
        raise PlanError(
            f"the chain file {path} cannot be read ({said})",
            expected=f"YAML, such as\n{EXAMPLE}",
            fix="correct it",
        ) from None
    if not isinstance(values, dict) or not isinstance(values.get("links"), list):
        raise PlanError(
            f"the chain file {path} has no list of links",
            expected=f"YAML, such as\n{EXAMPLE}",
            fix="correct it",
        )
    if unknown := sorted(str(name) for name in values if name not in ("links", "encoder")):
        raise PlanError(
            f"the chain file {path} has the key '{unknown[0]}'{nearest(unknown[0], ('links', 'encoder'))}",
            expected="links, and perhaps encoder", fix="correct or remove it",
        )  # fmt: skip
    wishes = read_links(cast("list[Any]", values["links"]), encoder=values.get("encoder"))
    return tuple(_beside(wish, path.parent) for wish in wishes)


def read_links(links: Sequence[Any], *, encoder: str | None = None) -> tuple[Wish, ...]:
    """Read links given as mappings or plans, and put them in an order in which each comes behind its start.

    A link that names no start continues the one before it. PlanError for an unknown key, a name that is used twice, a
    start that does not exist, or starts that go in a circle.
    """
    if not links:
        raise PlanError(
            "a chain without links", expected=f"at least one, such as\n{EXAMPLE}", fix="add links"
        )
    wishes: list[Wish] = []
    for place, link in enumerate(links):
        wish = _read(link, place, wishes)
        before = wishes[-1].name if wishes else None
        is_open = wish.start is None and (wish.plan is None or wish.plan.earlier is None)
        # One that a link above starts from is the first of them, in whatever order they are written.
        is_open = is_open and all(one.start != wish.name for one in wishes)
        wishes.append(replace(wish, start=before) if is_open else wish)
    if encoder and wishes[0].encoder is None and wishes[0].plan is None:
        wishes[0] = replace(wishes[0], encoder=encoder)
    return _ordered(wishes)


def _read(link: Any, place: int, before: Sequence[Wish]) -> Wish:
    """Read one link."""
    if isinstance(link, Plan):
        name = Path(link.data.uri).stem or f"link {place + 1}"
        return Wish(_unused(name, before), plan=link)
    if not isinstance(link, Mapping):
        raise PlanError(
            f"link {place + 1} is {type(link).__name__} {link!r}",
            expected=f"a mapping with {', '.join(KEYS)}, or a Plan",
            fix=f"write it as\n{EXAMPLE}",
        )
    values = dict(cast("Mapping[str, Any]", link))
    for key in values:
        if key not in KEYS:
            raise PlanError(
                f"link {place + 1} has the key '{key}'{nearest(str(key), KEYS)}", expected=", ".join(KEYS),
                fix="correct or remove it (settings such as finetune.epochs go below `settings`)",
            )  # fmt: skip
    if values.get("data") is None:
        raise PlanError(
            f"link {place + 1} has no data", expected="data: FOLDER or a table", fix="name its data"
        )
    settings = _flat(values.get("settings") or {}, place)
    if values.get("licence"):
        settings = {"data.licence": str(values["licence"]), **settings}
    given = values.get("name")
    data = values["data"]
    name = str(given) if given else _unused(
        Path(data).stem if isinstance(data, (str, Path)) else f"link {place + 1}", before
    )  # fmt: skip
    if any(name == other.name for other in before):
        raise PlanError(
            f"two links are named '{name}'", expected="names that differ", fix="rename one of them"
        )
    if Path(name).name != name or name in ("", ".", ".."):
        raise PlanError(
            f"link {place + 1} is named '{name}'",
            expected="a name that can be that of a folder",
            fix="rename it",
        )
    method = values.get("method") or METHOD
    if isinstance(method, str) and method not in METHODS:
        raise PlanError(
            f"the link '{name}' has the unknown method '{method}'{nearest(method, METHODS)}",
            expected=", ".join(METHODS), fix="correct the name",
        )  # fmt: skip
    # YAML reads a name such as 2022 as a number.
    start, encoder = (None if values.get(key) is None else str(values[key]) for key in ("from", "encoder"))
    return Wish(name, data, start, encoder, method, settings)


def _flat(settings: Any, place: int) -> dict[str, Any]:
    """Return settings by dotted keys, whether written so or as sections."""
    if not isinstance(settings, Mapping):
        raise PlanError(
            f"the settings of link {place + 1} are {settings!r}",
            expected="keys and values, such as finetune.epochs: 5", fix="correct them",
        )  # fmt: skip
    flat: dict[str, Any] = {}
    for name, value in cast("Mapping[str, Any]", settings).items():
        if isinstance(value, Mapping) and "." not in name:
            flat |= {f"{name}.{key}": inner for key, inner in cast("Mapping[str, Any]", value).items()}
        else:
            flat[str(name)] = value
    return flat


def _ordered(wishes: Sequence[Wish]) -> tuple[Wish, ...]:
    """Put links behind what they start from, else as they were given; PlanError where starts go in a circle."""
    known = {wish.name: wish for wish in wishes}
    done: dict[str, Wish] = {}

    def add(wish: Wish, way: tuple[str, ...]) -> None:
        if wish.name in way:
            circle = " <- ".join((*way[way.index(wish.name) :], wish.name))
            raise PlanError(
                f"the links start from one another in a circle: {circle}",
                expected="a first link that starts from a network or a model folder",
                fix="correct `from` in one of them",
            )
        if isinstance(wish.start, str) and wish.start in known:
            add(known[wish.start], (*way, wish.name))
        done.setdefault(wish.name, wish)

    for wish in wishes:
        add(wish, ())
    return tuple(done.values())


def _beside(wish: Wish, folder: Path) -> Wish:
    """Return a link whose relative places are seen from a folder."""
    network = folder / Path(wish.encoder or "").expanduser()
    return replace(wish, data=_at(wish.data, folder), settings={
        name: _at(value, folder) if name == "data.answers" and isinstance(value, str) else value
        for name, value in wish.settings.items()
    }, encoder=str(network) if wish.encoder and network.is_dir() else wish.encoder)  # fmt: skip


def _at(place: Any, folder: Path) -> Any:
    """Return a place seen from a folder."""
    return str(folder / Path(str(place)).expanduser()) if isinstance(place, (str, Path)) else place


def _unused(name: str, before: Sequence[Wish]) -> str:
    """Return a name that no link before has."""
    taken, found, number = {wish.name for wish in before}, name, 2
    while found in taken:
        found, number = f"{name} {number}", number + 1
    return found
