"""Lightning's `Trainer` with `ModelCheckpoint` each step, resumed by `ckpt_path="last"`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.faults._process import Run
from benchmarks.faults.subjects.tiny import TinyNet
from benchmarks.faults.subjects.trainer import Pictures

NAME = "Lightning"


class Classifier(LightningModule):
    """The tiny network in Lightning's form."""

    def __init__(self, run: Run, steps: int) -> None:
        """Wrap it; `steps` is the length of the schedule."""
        super().__init__()
        self.run, self.steps, self.net = run, steps, TinyNet(run)

    def training_step(self, batch: Mapping[str, Tensor], _index: int) -> Tensor:
        """Return the loss of a batch."""
        return nn.functional.cross_entropy(self.net(batch["pictures"]), batch["labels"])

    def validation_step(self, batch: Mapping[str, Tensor], _index: int) -> None:
        """Log the loss of a validation batch."""
        self.log("validation", nn.functional.cross_entropy(self.net(batch["pictures"]), batch["labels"]))

    def configure_optimizers(self) -> Any:
        """Return AdamW under a cosine that moves each step."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.run.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def train(run: Run) -> Mapping[str, Tensor]:
    """Train, from the last checkpoint where there is one."""
    seed_everything(0, workers=True, verbose=False)
    options = {"batch_size": run.batch_size // run.accumulate, "num_workers": run.workers}
    loader = DataLoader(Pictures(run, training=True), shuffle=True, **options)
    validation = DataLoader(Pictures(run, training=False), **options)
    keep = ModelCheckpoint(
        run.checkpoints, every_n_train_steps=1, save_last=True, save_top_k=2, monitor="step", mode="max"
    )
    callbacks: list[Callback] = [keep, *([EarlyStopping("validation", patience=1)] if run.stop_early else [])]
    trainer = Trainer(
        max_epochs=run.epochs, accelerator="cpu", logger=False, callbacks=callbacks, enable_progress_bar=False,
        enable_model_summary=False, accumulate_grad_batches=run.accumulate, num_sanity_val_steps=0,
    )  # fmt: skip
    model = Classifier(run, run.epochs * len(loader) // run.accumulate)
    is_there = any(run.checkpoints.glob("*.ckpt"))
    trainer.fit(model, loader, validation, ckpt_path="last" if is_there else None)
    return model.net.state_dict()
