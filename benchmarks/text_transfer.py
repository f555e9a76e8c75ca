"""A recurrent network and a decoder: what their pretrained weights gain over the same network from random numbers.

The character LSTM of textgenrnn and a Llama of 260,000 parameters that was trained on children's stories, both small
enough to train here, fine-tuned whole on the kinds of questions in TREC: same settings, texts, seeds and test rows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _stories, _textgenrnn
from benchmarks._claims import Claim, publish
from benchmarks._data import data_folder
from benchmarks._texts import few, write
from headstart import api
from headstart.core.machine import read_machine

SET, PER_CLASS, SEEDS, TEST, EPOCHS = "trec", 60, 5, 500, 8
QUICK = 30, 1, 200, 6
"""Labels a class, seeds, test rows and epochs of `--quick`."""
LONGEST = 120
"""Characters of a text that are kept: the LSTM was trained on windows of 40."""
BATCH = 16
ARMS = {"pretrained": "pretrained", "from scratch": "random"}
RESAMPLES = 10_000


def run(*, quick: bool) -> int:
    """Measure, judge, publish."""
    per_class, seeds, rows, epochs = QUICK if quick else (PER_CLASS, SEEDS, TEST, EPOCHS)
    claims: list[Claim] = []
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, encoder in _networks(Path(folder)).items():
            right: dict[str, list[np.ndarray]] = {arm: [] for arm in ARMS}
            for seed in range(seeds):
                table = _table(Path(folder) / f"{seed}.csv", per_class=per_class, rows=rows, seed=seed)
                for arm, weights in ARMS.items():
                    work = Path(tempfile.mkdtemp(dir=folder))
                    result = _fit(table, work, encoder, weights=weights, epochs=epochs, seed=seed)
                    right[arm].append(np.array([row.label == row.target for row in result.predictions]))
                    found.append({"network": name, "arm": arm, "seed": seed, "accuracy": float(right[arm][-1].mean()),
                                  "cpu_seconds": result.cost.cpu_seconds})  # fmt: skip
                    print(f"  {name}, seed {seed}, {arm}: {right[arm][-1].mean():.3f}", flush=True)
            claims.append(_claim(name, *right.values()))
    return publish("text_transfer", claims, rows=found, quick=quick)


def _networks(folder: Path) -> dict[str, str]:
    """Write both networks into folders and return the encoders' names."""
    weights = data_folder() / "weights"
    with np.load(weights / "textgenrnn.npz") as arrays:
        lstm = _textgenrnn.write_folder(dict(arrays), _textgenrnn.character_numbers(), folder / "lstm")
    llama = _stories.write_folder(weights / "stories260k", folder / "llama")
    return {"character LSTM": f"recurrent:{lstm}", "Llama decoder": f"transformers:{llama}"}


def _table(path: Path, *, per_class: int, rows: int, seed: int) -> Path:
    """Write a table of a draw's training texts and the first test texts, each cut to its beginning."""
    texts = few(SET, per_class=per_class, seed=seed, unlabelled=0)
    test = [item for item in texts if item.split == "test"][:rows]
    kept = [item for item in texts if item.split == "train"] + test
    return write([replace(item, text=item.text[:LONGEST]) for item in kept], path)


def _fit(table: Path, work: Path, encoder: str, *, weights: str, epochs: int, seed: int) -> Any:
    """Fine-tune every layer; the run keeps a part of the training texts for validation."""
    machine = read_machine(store=work / "store")
    settings = {
        "seed": seed,
        "encoder.weights": weights,
        "finetune.epochs": epochs,
        "finetune.batch_size": BATCH,
    }
    return api.fit(
        str(table), encoder=encoder, method="finetune", output=work / "model", settings=settings, machine=machine
    )  # fmt: skip


def _claim(name: str, ours: Sequence[np.ndarray], scratch: Sequence[np.ndarray]) -> Claim:
    """Judge the gain: its 95 % interval, over seeds and test texts, must lie above zero."""
    difference = np.stack(ours).astype(float) - np.stack(scratch)
    draws = np.random.default_rng(0)
    seeds, rows = difference.shape
    means = [
        difference[draws.integers(0, seeds, seeds)[:, None], draws.integers(0, rows, rows)].mean()
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(means, (0.025, 0.975)).tolist()
    value = (
        f"{np.mean(ours):.3f} against {np.mean(scratch):.3f}: {difference.mean():+.3f} [{low:+.3f}, {high:+.3f}], "
        f"n={rows}, {seeds} seeds"
    )
    return Claim(
        f"{name}: pretrained against the same network from scratch", value, "interval above 0", low > 0
    )
