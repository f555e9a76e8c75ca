"""The table of parts: name -> `module:attribute`, imported only when asked for; third parties add entry points."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Literal

from headstart.core.errors import PlanError, nearest

Kind = Literal["modality", "encoder", "task", "head", "method"]

TABLE: dict[Kind, dict[str, str]] = {
    "modality": {"image": "headstart.modalities.image", "text": "headstart.modalities.text"},
    "encoder": {
        "efficientnet-lite0": "headstart.encoders.embedded:efficientnet_lite0",
        "efficientnet-lite1": "headstart.encoders.embedded:efficientnet_lite1",
        "efficientnet-lite2": "headstart.encoders.embedded:efficientnet_lite2",
        "minilm": "headstart.encoders.embedded:minilm",
        "recurrent": "headstart.encoders.recurrent:open_recurrent",
        "timm": "headstart.encoders.timm:open_timm",
        "tiny-cnn": "headstart.encoders.tiny:open_tiny_cnn",
        "tiny-gru": "headstart.encoders.tiny_text:open_tiny_gru",
        "tiny-text-transformer": "headstart.encoders.tiny_text:open_tiny_text_transformer",
        "tiny-transformer": "headstart.encoders.tiny:open_tiny_transformer",
        "torchvision": "headstart.encoders.torchvision:open_torchvision",
        "transformers": "headstart.encoders.transformers:open_transformers",
    },
    "task": {
        "classification": "headstart.tasks.classification:Classification",
        "multilabel": "headstart.tasks.multilabel:MultiLabel",
        "regression": "headstart.tasks.regression:Regression",
        "tagging": "headstart.tasks.tagging:Tagging",
    },
    "head": {
        "cosine": "headstart.heads:CosineHead",
        "linear": "headstart.heads:LinearHead",
        "neighbours": "headstart.heads:NeighboursHead",
        "value": "headstart.heads:ValueHead",
    },
    "method": {
        "extract": "headstart.methods.extract:extract",
        "fewshot": "headstart.methods.fewshot:fewshot",
        "finetune": "headstart.methods.finetune:finetune",
    },
}
"""Built-in parts. Adding one touches its own file and this table."""


def names(kind: Kind) -> tuple[str, ...]:
    """Return the known names of a kind, sorted, entry points of third parties (`headstart.KIND`) among them."""
    return tuple(sorted({*TABLE[kind], *(entry.name for entry in entry_points(group=f"headstart.{kind}"))}))


def resolve(kind: Kind, name: str) -> Any:
    """Import and return the part; a PlanError names the nearest known one where there is none."""
    if name in TABLE[kind]:
        module, _, attribute = TABLE[kind][name].partition(":")
        loaded = import_module(module)
        return getattr(loaded, attribute) if attribute else loaded
    for entry in entry_points(group=f"headstart.{kind}", name=name):
        return entry.load()
    raise PlanError(
        f"unknown {kind} '{name}'{nearest(name, names(kind))}",
        expected=f"one of {', '.join(names(kind))}",
        fix="choose one of these (networks of timm are named `timm:NAME`; `headstart models` lists encoders)",
    )
