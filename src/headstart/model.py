"""A model: encoder, task and head, with calibrated probabilities; saved as a folder that holds no code."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from headstart.core.errors import DataError, ModelFolderError, PlanError
from headstart.core.hashing import digest, file_sha256, plain
from headstart.core.protocols import Dataset, Encoder, Task
from headstart.core.registry import resolve
from headstart.core.settings import Pretrained
from headstart.core.types import LIMITS, LabelPrediction, Limits, Prediction, ValuePrediction
from headstart.evaluation import conformal_reach, conformal_threshold
from headstart.features.encode import Encoded, encode
from headstart.store import MANIFEST, fault_of
from headstart.train.runtime import Context

FORMAT = 1
"""Version of the model folder."""
WEIGHTS, FACTS, CALIBRATION = "model.safetensors", "headstart.json", "calibration.safetensors"
OWN_FILES = "encoder"
"""Folder of the network's own files (tokenizer, configuration) inside the model folder."""
INTERVAL_ERROR = 0.1
"""A predicted number's interval misses the truth at most this often."""


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
        """Return logits [N, C] for a collated batch, with gradients where torch records them.

        The network may lie on a GPU while the head, at rest, is on the CPU.
        """
        features = self.encoder(inputs.to(_place(self.encoder.module)), self.head.form).value
        return self.head(features.to(_place(self.head)))

    def logits_of(self, encoded: Encoded, form: str) -> Any:
        """Return the head's outputs for features that are at hand: [n, C], or a list of [L, C] for words.

        Where the features are of the form `depths`, the head finds its own columns.
        """
        columns = self.encoder.spec.columns(self.head.form) if form != self.head.form else slice(None)
        self.head.eval()
        with torch.inference_mode():
            # Item by item: the same numbers whatever else is predicted beside it.
            if isinstance(encoded.features, list):
                return [self.head(torch.from_numpy(words)).numpy() for words in encoded.features]
            rows = torch.from_numpy(encoded.features[:, columns]).split(1)
            return torch.cat([self.head(row) for row in rows]).numpy()

    def probabilities(self, logits: Any) -> Any:
        """Return calibrated probabilities [N, C], or a list of [L, C] for words; for a number, the number [N]."""
        return self.task.probabilities(logits, self.temperature)

    def encode(self, dataset: Dataset, context: Context) -> Encoded:
        """Return the features that the head needs."""
        return encode(dataset, self.encoder, form=self.head.form, context=context)

    def predict(
        self, dataset: Dataset, context: Context, *, abstain: float | None = None
    ) -> list[Prediction]:
        """Predict every readable item and warn of the others; with `abstain`, leave labels open so that at most this
        share is wrong.

        DataError where nothing could be read, or where too few held-out items stand behind the promise.
        """
        encoded = self.encode(dataset, context)
        if not encoded.indices:
            reasons = "; ".join(list(encoded.failures.values())[:3])
            raise DataError(
                f"no item can be read ({reasons})",
                expected=f"readable {resolve('modality', self.encoder.spec.modality).NOUN[1]}",
                fix="check the paths",
            )
        for index, reason in encoded.failures.items():
            warnings.warn(f"left out {dataset[index].id}: {reason}", stacklevel=2)
        least = self.threshold(abstain) if abstain is not None else 0.0
        probabilities = self.probabilities(self.logits_of(encoded, self.head.form))
        rows = self.task.decode(probabilities, [dataset[index] for index in encoded.indices])
        return [self._said(row, least) for row in rows]

    def threshold(self, error_rate: float) -> float:
        """Return the top probability below which to abstain, for at most this rate of wrong answers."""
        if self.task.link != "softmax" or self.task.form == "sequence":
            raise PlanError(
                f"{self.task.name} was asked to abstain",
                expected="a model that names one class an item",
                fix="leave --abstain out",
            )
        logits, targets = self.calibration["logits"].numpy(), self.calibration["targets"].numpy()
        if not len(targets):
            raise PlanError(
                "the model holds no items like those it meets, by which it could abstain",
                expected="one fitted to such items; after adapting to other looks no rate of errors is promised",
                fix="leave --abstain out, or fit with labelled items of the world where it is used",
            )
        return conformal_threshold(self.probabilities(logits), targets, error_rate=error_rate)

    def _said(self, row: Prediction, least: float) -> Prediction:
        """Return a prediction without its label where that is too unsure, a number with its interval."""
        if isinstance(row, LabelPrediction) and row.probability < least:
            return replace(row, label=None)
        if isinstance(row, ValuePrediction):
            logits, targets = self.calibration["logits"].numpy(), self.calibration["targets"].numpy()
            reach = conformal_reach(logits.reshape(-1) - targets, error_rate=INTERVAL_ERROR)
            return row if reach is None else replace(row, low=row.value - reach, high=row.value + reach)
        return row

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
            "task": {"name": self.task.name, "labels": list(self.task.labels)},
            "encoder": self.pretrained.model_dump(mode="json"),
            "input": plain(spec.contract),
            "modality": spec.modality,
            "head": {"kind": self.head.kind, "arguments": self.head.arguments()},
            "temperature": self.temperature,
            "licence": spec.licence,
            "lineage": list(self.lineage),
            **facts,
        }
        for name, content in self.encoder.files().items():
            (folder / OWN_FILES).mkdir(exist_ok=True)
            (folder / OWN_FILES / name).write_bytes(content)
        (folder / FACTS).write_text(json.dumps(values, indent=1, ensure_ascii=False), encoding="utf-8")


def _place(module: nn.Module) -> torch.device:
    """Return the device that a module's tensors lie on."""
    return next(chain(module.parameters(), module.buffers())).device


@dataclass(frozen=True)
class Opened:
    """A model folder as it was read: its network, head and task (None each where it knows no task), its facts."""

    encoder: Encoder
    pretrained: Pretrained
    head: Any
    task: Task | None
    facts: Mapping[str, Any]


def load_model(folder: Path, *, encoder: Encoder | None = None) -> Model:
    """Load a model folder after checking every file against its manifest; nothing in it is executed.

    `encoder` is needed only for a network that was given in Python (`module:`): an encoder of the same architecture,
    whose weights are then replaced. ModelFolderError where the folder is incomplete, altered or too new.
    """
    opened = open_folder(folder, encoder=encoder)
    if opened.task is None:
        raise ModelFolderError(
            f"the model folder {folder} holds a network that knows no task yet",
            expected="a folder that `headstart fit` wrote",
            fix="fit it to labelled data first: start from it in a chain (`headstart chain`)",
        )
    return Model(
        opened.encoder, opened.task, opened.head, opened.pretrained, float(opened.facts["temperature"]),
        load_file(folder / CALIBRATION), tuple(opened.facts["lineage"]),
    )  # fmt: skip


def open_folder(folder: Path, *, encoder: Encoder | None = None) -> Opened:
    """Open a model folder, or one of a network that was pretrained and knows no task yet, as `load_model` does."""
    facts = read_facts(folder)
    pretrained = Pretrained.model_validate(facts["encoder"])
    weights = folder / WEIGHTS
    if encoder is None:
        own = str(folder / OWN_FILES) if (folder / OWN_FILES).is_dir() else None
        encoder = open_encoder(
            pretrained.model_copy(update={"weights": str(weights), "folder": own, "vectors": None})
        )
    else:
        state = {
            n.removeprefix("encoder."): t for n, t in load_file(weights).items() if n.startswith("encoder.")
        }
        encoder.module.load_state_dict(state)
    if not facts.get("task") or not facts.get("head"):
        return Opened(encoder, pretrained, None, None, facts)
    head: nn.Module = resolve("head", facts["head"]["kind"])(**facts["head"]["arguments"])
    tensors = load_file(weights)
    head.load_state_dict({n.removeprefix("head."): t for n, t in tensors.items() if n.startswith("head.")})
    task = resolve("task", facts["task"]["name"])(facts["task"]["labels"])
    return Opened(encoder, pretrained, head.eval(), task, facts)


def folder_sha256(folder: Path) -> str:
    """Return the hash of what a model folder means, its weights, network, head and task, and not of its reports."""
    facts = read_facts(folder)
    files = sorted(path for path in (folder / OWN_FILES).rglob("*") if path.is_file())
    network = {name: facts["encoder"].get(name) for name in ("name", "image_size", "channels", "window")}
    return digest(
        "model folder", file_sha256(folder / WEIGHTS), network, facts["input"], facts.get("task"),
        facts.get("head"), [[path.name, file_sha256(path)] for path in files],
    )  # fmt: skip


def named(name: str) -> dict[str, Any]:
    """Return the settings of a network by its name; of a model folder's path, those of the network inside it."""
    folder = Path(name).expanduser()
    if ":" in name or not (folder / FACTS).is_file():
        return {"name": name}
    own = folder / OWN_FILES
    place = {"weights": str(folder / WEIGHTS), "folder": str(own) if own.is_dir() else None, "vectors": None}
    return {**read_facts(folder)["encoder"], **place, "weights_sha256": None, "files_sha256": None}


def folder_behind(settings: Pretrained) -> Path | None:
    """Return the finished model folder that a network's weights lie in; None where they lie in none."""
    weights = Path(settings.weights)
    is_model = all((weights.parent / name).is_file() for name in (MANIFEST, FACTS))
    return weights.parent if weights.name == WEIGHTS and is_model else None


def original(settings: Pretrained) -> Pretrained:
    """Return a network with the weights that the model folder it was taken from began with; as it is without one."""
    before = settings
    while folder := folder_behind(before):
        before = Pretrained.model_validate(read_facts(folder)["encoder"])
    return settings.model_copy(
        update={name: getattr(before, name) for name in ("weights", "weights_sha256", "vectors")}
    )


def open_encoder(settings: Pretrained, *, limits: Limits = LIMITS) -> Encoder:
    """Open a pretrained network by its name: `efficientnet-lite0`, `timm:resnet50.a1_in1k`, `minilm`, ..."""
    source = settings.name.partition(":")[0]
    return resolve("encoder", source)(settings, limits=limits)


def read_facts(folder: Path) -> Mapping[str, Any]:
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
