"""headstart from a folder to a saved model: encode, audit, heads, fine-tune, save."""

from __future__ import annotations

from collections.abc import Mapping

from safetensors.torch import load_file
from torch import Tensor

from benchmarks.faults._pictures import folder_of
from benchmarks.faults._process import Run
from headstart import api
from headstart.core.machine import read_machine

NAME = "headstart fit"
SETTINGS = {
    "finetune.epochs": 3,
    "finetune.checkpoint_steps": 1,
    "finetune.train_last": 1,
    "finetune.dropout": 0.2,
}


def train(run: Run) -> Mapping[str, Tensor]:
    """Fit by the public function, always by the same call; return the tensors of the saved model."""
    data = run.folder / "data"
    if not run.notes("data"):
        folder_of(data)
        run.note("data", "complete")
    machine = read_machine(store=run.folder / "store", device="cpu", threads=1)
    output = run.folder / "model"
    api.fit(data, encoder="tiny-cnn", method="finetune", settings=SETTINGS, output=output, machine=machine)
    return load_file(output / "model.safetensors")
