"""Where numbers move, their step's VERSION must too: else old results would be taken for new ones.

After a change on purpose, bump the VERSION named below and run
`UPDATE_GOLDEN=1 .venv/bin/python -m pytest tests/golden/test_versions.py`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from finetune_parts import tune
from picture_parts import context, digits

from headstart.core.settings import Extract, Pretrained
from headstart.core.types import InputContract
from headstart.data import from_arrays
from headstart.features import encode as encoding
from headstart.features import prefix
from headstart.features.encode import encode
from headstart.methods import extract as extraction
from headstart.methods import finetune as fine_tuning
from headstart.modalities import image
from headstart.model import open_encoder
from headstart.tasks.classification import Classification
from headstart.train.runtime import draw

FOLDER = Path(__file__).parent / "numbers"
TOLERANCE = 2e-3
"""Relative: other processors give other last digits, other code gives other numbers."""


def fingerprint(numbers: np.ndarray) -> list[float]:
    """Return eight numbers that depend on each of many, wherever in them they move."""
    flat = np.asarray(numbers, dtype=np.float64).reshape(-1)
    mixed = np.random.default_rng(0).normal(size=(6, flat.size)) @ flat / np.sqrt(flat.size)
    return [float(round(value, 6)) for value in (*mixed, flat.mean(), flat.std())]


def features(root: Path) -> dict[str, list[float]]:
    """Encode digits by the tiny convolutional network, the pictures and a view."""
    pictures, labels = digits(4)
    encoder = open_encoder(Pretrained(name="tiny-cnn"))
    return {
        f"view {view}": fingerprint(
            encode(
                from_arrays(pictures, labels), encoder, form="depths", context=context(root), view=view
            ).features
        )
        for view in (0, 1)
    }


def pixels(root: Path) -> dict[str, list[float]]:
    """Prepare and augment a picture of odd size."""
    raw = draw(0, "golden", 0, 0).integers(0, 256, (61, 47, 3), dtype=np.uint8)
    contract = InputContract((32, 32), (0.5,) * 3, (0.5,) * 3)
    varied = {
        strength: image.augment(raw, contract, draw(0, "view", 1, "x"), strength=strength)
        for strength in ("light", "standard", "strong")
    }
    whole = {"prepared": image.prepare(raw, contract).value, **varied}
    return {name: fingerprint(picture) for name, picture in whole.items()}


def heads(root: Path) -> dict[str, list[float]]:
    """Race each kind of head on features of noisy classes."""
    targets = np.arange(45) % 3
    given = draw(0, "golden heads", 0, 0).normal(size=(45, 6)) + np.eye(3, 6)[targets]
    found = {}
    for name in ("logistic", "ridge", "prototype", "knn"):
        done = extraction.extract(
            {"pooled": [given.astype(np.float32)]}, targets, [""] * 45,
            task=Classification(["a", "b", "c"]), settings=Extract(heads=(name,)), context=context(root),
        )  # fmt: skip
        with torch.no_grad():
            fitted = done.head(torch.from_numpy(given.astype(np.float32))).numpy()
        found[name] = fingerprint(done.held_out_logits) + fingerprint(fitted)
    return found


def tuned(root: Path) -> dict[str, list[float]]:
    """Fine-tune the tiny convolutional network, all of it and by cached activations."""
    found = {}
    for name, settings in {"all": {}, "cached": {"train_last": 2, "views": 2}}.items():
        parts, done = tune(root / name, kind="cnn", **settings)
        weights = torch.cat(
            [tensor.reshape(-1).float() for tensor in parts.encoder.module.state_dict().values()]
        )
        losses = [row["validation_loss"] for row in done.history]
        found[name] = fingerprint(weights.numpy()) + [round(loss, 6) for loss in losses]
    return found


STEPS: dict[str, tuple[Callable[[Path], dict[str, list[float]]], dict[str, int]]] = {
    "pixels": (pixels, {"modalities/image.py": image.VERSION}),
    "features": (
        features,
        {"features/encode.py": encoding.VERSION, "modalities/image.py": image.VERSION},
    ),
    "heads": (heads, {"methods/extract.py": extraction.VERSION}),
    "finetune": (
        tuned,
        {
            "methods/finetune.py": fine_tuning.VERSION,
            "features/prefix.py": prefix.VERSION,
            "modalities/image.py": image.VERSION,
        },
    ),
}


def agree(one: dict[str, list[float]], other: dict[str, list[float]]) -> bool:
    """Tell whether two sets of numbers are the same but for last digits."""
    return one.keys() == other.keys() and all(
        np.allclose(one[name], other[name], rtol=TOLERANCE, atol=TOLERANCE) for name in one
    )


@pytest.mark.parametrize("step", STEPS)
def test_numbers_move_only_with_their_version(tmp_path: Path, step: str) -> None:
    make, versions = STEPS[step]
    path, found = FOLDER / f"{step}.json", make(tmp_path)
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"versions": versions, "numbers": found}, indent=1) + "\n")
    kept = json.loads(path.read_text())
    same = agree(found, kept["numbers"])
    if kept["versions"] == versions:
        assert same, f"the numbers of '{step}' moved: bump VERSION in {' or '.join(versions)} (see above)"
    else:
        pytest.fail(
            f"VERSION moved ({kept['versions']} -> {versions}): keep the new numbers of '{step}' (see above)"
        )


def test_the_guard_sees_a_small_change_and_not_last_digits(tmp_path: Path) -> None:
    numbers = np.random.default_rng(1).normal(size=500)
    kept = {"x": fingerprint(numbers)}
    assert agree(kept, {"x": fingerprint(numbers * (1 + 1e-5))})
    assert not agree(kept, {"x": fingerprint(numbers * 1.01)})
    moved = numbers.copy()
    moved[7] += 0.5
    assert not agree(kept, {"x": fingerprint(moved)})
