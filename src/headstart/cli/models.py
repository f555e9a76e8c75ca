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
    rows = [row for row in rows if fnmatch.fnmatch(row["name"].removeprefix("timm:"), pattern)]
    if json:
        print_json(rows)
    elif source:
        for row in rows:
            print(row["name"])
    else:
        print_table("name", "weights", rows=[(row["name"], row["weights"]) for row in rows])


def _registry_rows() -> list[dict[str, str]]:
    """Describe every registered network."""
    from importlib.metadata import version

    from headstart.core.registry import names

    said = {
        "efficientnet-lite0": "installed with headstart (ImageNet); needs no connection",
        "tiny-cnn": "random numbers; for trials and tests",
        "tiny-transformer": "random numbers; for trials and tests",
    }
    rows = [{"name": name, "weights": said.get(name, "")} for name in names("encoder") if name != "timm"]
    timm = f"timm {version('timm')} has the networks (headstart models --source timm); {_hub_state()}"
    return [*rows, {"name": "timm:NAME", "weights": timm}]


def _library_rows() -> list[dict[str, str]]:
    """List timm's networks."""
    from headstart.encoders.timm import known_names

    return [{"name": f"timm:{name}"} for name in known_names()]


def _hub_state() -> str:
    """Say whether pretrained weights can be fetched from the hub, after asking it."""
    import urllib.error
    import urllib.request

    file_hint = "give a file: --set encoder.weights=FILE.safetensors"
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return f"HF_HUB_OFFLINE is set, so {file_hint}"
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=HUB_SECONDS):
            return "the hub is within reach"
    except (urllib.error.URLError, OSError, ValueError) as error:
        return f"the hub is out of reach ({getattr(error, 'reason', error)}), so {file_hint}"
