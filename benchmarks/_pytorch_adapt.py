"""pytorch-adapt on cached features, in a process of its own: it wants a torchmetrics that other peers refuse.

`python -m benchmarks._pytorch_adapt GIVEN FOUND` reads source, truth and target from the arrays GIVEN.npz and writes to
FOUND.json what each of its ways says of the target, with the score by which its own validator chooses: information
maximisation, the best of those that need no labels but one (Musgrave et al. 2022, arXiv 2208.07360).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

EPOCHS, BATCH, RATE, WIDTH = 20, 32, 1e-3, 256
"""As the training of ours: passes over the larger domain, items a step of each, of Adam, of the layer below."""


def main() -> int:
    """Train every way and write what it says."""
    given = np.load(sys.argv[1])
    spread = given["source"].std(0)
    spread = np.maximum(spread, 0.1 * np.median(spread) + 1e-6)
    source, target = (
        torch.from_numpy((given[name] - given["source"].mean(0)) / spread).float()
        for name in ("source", "target")
    )
    truth = torch.from_numpy(given["truth"]).long()
    found: dict[str, Any] = {}
    for name, way in _ways().items():
        torch.manual_seed(0)
        logits = _trained(way, source, truth, target)
        found[name] = {"said": logits.argmax(1).tolist(), "score": _information(logits)}
    Path(sys.argv[2]).write_text(json.dumps(found))
    return 0


def _ways() -> Mapping[str, tuple[str, Mapping[str, Any]]]:
    """Return the ways by name: an adapter and what it is given."""
    from pytorch_adapt import hooks, layers

    return {
        "source only": ("Classifier", {}),
        "MCC": ("Classifier", {"post": [hooks.MCCHook()]}),
        "BNM": ("Classifier", {"post": [hooks.BNMHook()]}),
        "AFN": ("Classifier", {"post": [hooks.AFNHook()]}),
        "CORAL": ("Aligner", {"loss_fn": layers.CORALLoss()}),
        "MMD": ("Aligner", {"loss_fn": layers.MMDLoss()}),
        "DANN": ("DANN", {}),
    }


def _trained(way: tuple[str, Mapping[str, Any]], source: Tensor, truth: Tensor, target: Tensor) -> Tensor:
    """Train a layer and a classifier over features by one of its adapters; return the logits of the target."""
    from pytorch_adapt import adapters
    from pytorch_adapt.containers import Models, Optimizers

    kind, hook = way
    below = nn.Sequential(nn.Linear(source.shape[1], WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU())
    models = {"G": below, "C": nn.Linear(WIDTH, int(truth.max()) + 1)}
    if kind == "DANN":
        models["D"] = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1), nn.Flatten(0))
    adapter = getattr(adapters, kind)(
        models=Models(models), optimizers=Optimizers((torch.optim.Adam, {"lr": RATE})), hook_kwargs=dict(hook)
    )
    models_ = adapter.models
    models_.train()
    steps = EPOCHS * (max(len(source), len(target)) // BATCH)
    for _ in range(steps):
        rows, others = (torch.randint(len(side), (BATCH,)) for side in (source, target))
        adapter.training_step({
            "src_imgs": source[rows], "src_labels": truth[rows], "src_domain": torch.zeros(BATCH),
            "target_imgs": target[others], "target_domain": torch.ones(BATCH),
        })  # fmt: skip
    models_.eval()
    with torch.inference_mode():
        return models_["C"](models_["G"](target))


def _information(logits: Tensor) -> float:
    """Return its information maximisation score: how even the classes are, and how sure the answers."""
    from pytorch_adapt.validators import IMValidator

    return float(IMValidator()(target_train={"logits": logits}))


if __name__ == "__main__":
    raise SystemExit(main())
