"""The table of parts: name -> `module:attribute`, imported only when asked for; third parties add entry points."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Literal

from headstart.core.errors import PlanError, nearest

Kind = Literal["modality", "encoder", "task", "head", "method", "objective", "term", "guard"]

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
        "bottleneck": "headstart.heads:BottleneckHead",
        "cosine": "headstart.heads:CosineHead",
        "linear": "headstart.heads:LinearHead",
        "neighbours": "headstart.heads:NeighboursHead",
        "offset": "headstart.heads:OffsetHead",
        "value": "headstart.heads:ValueHead",
    },
    "method": {
        "adapt": "headstart.methods.adapt:adapt",
        "extract": "headstart.methods.extract:extract",
        "fewshot": "headstart.methods.fewshot:fewshot",
        "finetune": "headstart.methods.finetune:finetune",
        "pretrain": "headstart.methods.pretrain:pretrain",
    },
    "objective": {
        "causal_language": "headstart.methods.objectives.causal_language:CausalLanguage",
        "lejepa": "headstart.methods.objectives.lejepa:LeJepa",
        "mae": "headstart.methods.objectives.mae:Mae",
        "masked_language": "headstart.methods.objectives.masked_language:MaskedLanguage",
        "simmim": "headstart.methods.objectives.simmim:SimMim",
        "spark": "headstart.methods.objectives.spark:Spark",
    },
    "guard": {
        "ewc": "headstart.methods.retention.ewc:Ewc",
        "l2_sp": "headstart.methods.retention.l2_sp:L2Sp",
        "lwf": "headstart.methods.retention.lwf:Lwf",
        "replay": "headstart.methods.retention.replay:Replay",
    },
    "term": {
        "afn": "headstart.methods.alignment.afn:Afn",
        "cdan": "headstart.methods.alignment.cdan:Cdan",
        "coral": "headstart.methods.alignment.coral:Coral",
        "dann": "headstart.methods.alignment.dann:Dann",
        "fixmatch": "headstart.methods.alignment.fixmatch:FixMatch",
        "jdot": "headstart.methods.alignment.jdot:Jdot",
        "masked": "headstart.methods.alignment.masked:MaskedConsistency",
        "mcc": "headstart.methods.alignment.mcc:Mcc",
        "mmd": "headstart.methods.alignment.mmd:Mmd",
        "shot": "headstart.methods.alignment.shot:Shot",
        "udalm": "headstart.methods.alignment.udalm:Udalm",
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
