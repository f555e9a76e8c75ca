"""A model: encoder, task and head, with calibrated probabilities; saved as a folder that holds no code."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from headstart.core.errors import DataError, ModelFolderError
from headstart.core.hashing import plain
from headstart.core.protocols import Dataset, Encoder, Task
from headstart.core.registry import resolve
from headstart.core.settings import Pretrained
from headstart.core.types import LabelPrediction
from headstart.evaluation import conformal_threshold, softmax
from headstart.features.encode import Encoded, encode
from headstart.store import MANIFEST, fault_of
from headstart.train.runtime import Context

FORMAT = 1
"""Version of the model folder."""
WEIGHTS, FACTS, CALIBRATION = "model.safetensors", "headstart.json", "calibration.safetensors"


@dataclass
class Model:
    """Encoder + task + head; `calibration` holds held-out logits [n, C] and targets [n] for abstaining."""

    encoder: Encoder
    task: Task
    head: Any
    pretrained: Pretrained
    temperature: float = 1.0
    calibration: Mapping[str, Tensor] = field(default_factory=dict)
    lineage: tuple[Mapping[str, Any], ...] = ()

    def logits(self, inputs: Tensor) -> Tensor:
        """Return logits [N, C] for a collated batch, with gradients where torch records them."""
        return self.head(self.encoder(inputs, self.head.form).value)

    def logits_of(self, encoded: Encoded, form: str) -> np.ndarray:
        """Return logits [n, C] for features that are at hand; `pooled` is the first block of `depths`."""
        features = torch.from_numpy(encoded.features)
        if form != self.head.form:
            features = features[:, : self.encoder.spec.width["pooled"]]
        self.head.eval()
        with torch.inference_mode():
            # Row by row in fixed chunks: the same numbers whatever else is predicted beside an item.
            return torch.cat([self.head(row) for row in features.split(1)]).numpy()

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return calibrated probabilities [N, C]."""
        return softmax(logits, self.temperature)

    def encode(self, dataset: Dataset, context: Context, *, max_megapixels: float = 64) -> Encoded:
        """Return the features that the head needs."""
        return encode(
            dataset, self.encoder, form=self.head.form, context=context, max_megapixels=max_megapixels
        )

    def predict(
        self, dataset: Dataset, context: Context, *, abstain: float | None = None
    ) -> list[LabelPrediction]:
        """Predict every readable item and warn of the others; with `abstain`, leave labels open so that at most this
        share is wrong.

        DataError where nothing could be read, or where too few held-out items stand behind the promise.
        """
        encoded = self.encode(dataset, context)
        if not encoded.indices:
            reasons = "; ".join(list(encoded.failures.values())[:3])
            raise DataError(
                f"no item can be read ({reasons})", expected="readable pictures", fix="check the paths"
            )
        for index, reason in encoded.failures.items():
            warnings.warn(f"left out {dataset[index].id}: {reason}", stacklevel=2)
        probabilities = self.probabilities(self.logits_of(encoded, self.head.form))
        least = self.threshold(abstain) if abstain is not None else 0.0
        rows = self.task.decode(
            torch.from_numpy(probabilities), [dataset[index].id for index in encoded.indices]
        )
        return [row if row.probability >= least else _without_label(row) for row in rows]

    def threshold(self, error_rate: float) -> float:
        """Return the top probability below which to abstain, for at most this rate of wrong answers."""
        logits, targets = self.calibration["logits"].numpy(), self.calibration["targets"].numpy()
        return conformal_threshold(self.probabilities(logits), targets, error_rate=error_rate)

    def save(self, folder: Path, *, facts: Mapping[str, Any]) -> None:
        """Write weights, calibration and headstart.json into a folder; `facts` are kept beside (metrics, versions)."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"encoder.{name}": tensor for name, tensor in self.encoder.module.state_dict().items()}
        tensors |= {f"head.{name}": tensor for name, tensor in self.head.state_dict().items()}
        save_file(
            {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()},
            folder / WEIGHTS,
        )
        save_file(
            {name: tensor.contiguous() for name, tensor in self.calibration.items()}, folder / CALIBRATION
        )
        spec = self.encoder.spec
        values = {
            "format": FORMAT,
            "task": {"name": "classification", "labels": list(self.task.labels)},
            "encoder": self.pretrained.model_dump(mode="json"),
            "input": plain(spec.contract),
            "modality": spec.modality,
            "head": {"kind": self.head.kind, "arguments": self.head.arguments()},
            "temperature": self.temperature,
            "licence": spec.licence,
            "lineage": list(self.lineage),
            **facts,
        }
        (folder / FACTS).write_text(json.dumps(values, indent=1, ensure_ascii=False), encoding="utf-8")


def load_model(folder: Path, *, encoder: Encoder | None = None) -> Model:
    """Load a model folder after checking every file against its manifest; nothing in it is executed.

    `encoder` is needed only for a network that was given in Python (`module:`): an encoder of the same architecture,
    whose weights are then replaced. ModelFolderError where the folder is incomplete, altered or too new.
    """
    facts = _read_facts(folder)
    pretrained = Pretrained.model_validate(facts["encoder"])
    weights = folder / WEIGHTS
    if encoder is None:
        encoder = open_encoder(pretrained.model_copy(update={"weights": str(weights)}))
    else:
        state = {
            n.removeprefix("encoder."): t for n, t in load_file(weights).items() if n.startswith("encoder.")
        }
        encoder.module.load_state_dict(state)
    head: nn.Module = resolve("head", facts["head"]["kind"])(**facts["head"]["arguments"])
    tensors = load_file(weights)
    head.load_state_dict({n.removeprefix("head."): t for n, t in tensors.items() if n.startswith("head.")})
    return Model(
        encoder,
        resolve("task", facts["task"]["name"])(facts["task"]["labels"]),
        head.eval(),
        pretrained,
        float(facts["temperature"]),
        load_file(folder / CALIBRATION),
        tuple(facts["lineage"]),
    )


def open_encoder(settings: Pretrained, *, max_megapixels: float = 64) -> Encoder:
    """Open a pretrained network by its name: `efficientnet-lite0`, `timm:resnet50.a1_in1k`, ..."""
    source = settings.name.partition(":")[0]
    return resolve("encoder", source)(settings, max_megapixels=max_megapixels)


def _read_facts(folder: Path) -> Mapping[str, Any]:
    """Read headstart.json of a sound folder."""
    if not (folder / MANIFEST).is_file() or not (folder / FACTS).is_file():
        raise ModelFolderError(
            f"{folder} is no model folder (it has no {MANIFEST} or no {FACTS})",
            expected="a folder that `headstart fit` wrote",
            fix="name the folder that `headstart fit` printed behind `model`",
        )
    fault = fault_of(folder)
    if fault:
        raise ModelFolderError(
            f"the model folder {folder} was altered or cut short: {fault}",
            expected=f"the files that its {MANIFEST} lists, byte by byte",
            fix="copy it anew from where it was made, or run `headstart fit` again (results come from the store)",
        )
    facts: Mapping[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    if facts["format"] > FORMAT:
        raise ModelFolderError(
            f"the model folder {folder} has format {facts['format']}",
            expected=f"format {FORMAT} or older",
            fix="pip install --upgrade headstart",
        )
    return facts


def _without_label(row: LabelPrediction) -> LabelPrediction:
    """Return a prediction that abstains."""
    return LabelPrediction(row.id, None, row.probability, row.probabilities)
