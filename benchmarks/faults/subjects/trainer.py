"""The transformers `Trainer`, a checkpoint each step, resumed by `resume_from_checkpoint=True`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments

from benchmarks.faults._process import Run
from benchmarks.faults.subjects.tiny import COUNT, SHAPE, TinyNet, items, opened

NAME = "transformers Trainer"


class Pictures(Dataset[dict[str, Any]]):
    """The tiny items, augmented by numpy's global generator as users do."""

    def __init__(self, run: Run, *, training: bool) -> None:
        """Make the items."""
        self.run, self.training = run, training
        self.pictures, self.labels = items(run)

    def __len__(self) -> int:
        """Return the number of items."""
        return COUNT if self.training else 12

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Open one item."""
        noise = torch.randn(SHAPE).numpy() if self.training else None
        picture = opened(self.run, self.pictures[index], index, noise)
        return {"pictures": torch.from_numpy(np.array(picture)), "labels": int(self.labels[index])}


class WithLoss(nn.Module):
    """The tiny network in the form that the Trainer takes."""

    def __init__(self, run: Run) -> None:
        """Wrap it."""
        super().__init__()
        self.net = TinyNet(run)

    def forward(self, pictures: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return loss and logits."""
        logits = self.net(pictures)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def train(run: Run) -> Mapping[str, Tensor]:
    """Train, from the last checkpoint where there is one."""
    early: dict[str, Any] = {}
    if run.stop_early:
        early = {"eval_strategy": "steps", "eval_steps": 1, "load_best_model_at_end": True}
    arguments = TrainingArguments(
        output_dir=str(run.checkpoints), num_train_epochs=run.epochs,
        per_device_train_batch_size=run.batch_size // run.accumulate,
        gradient_accumulation_steps=run.accumulate, learning_rate=run.learning_rate, lr_scheduler_type="cosine",
        warmup_steps=3, save_strategy="steps", save_steps=1, save_total_limit=2, dataloader_num_workers=run.workers,
        report_to=[], use_cpu=True, disable_tqdm=True, seed=0, logging_steps=1, **early,
    )  # fmt: skip
    model = WithLoss(run)
    callbacks = [EarlyStoppingCallback(6)] if run.stop_early else []
    data = {"train_dataset": Pictures(run, training=True), "eval_dataset": Pictures(run, training=False)}
    trainer = Trainer(model, arguments, callbacks=callbacks, **data)
    trainer.train(resume_from_checkpoint=any(run.checkpoints.glob("checkpoint-*")) or None)
    return model.net.state_dict()
