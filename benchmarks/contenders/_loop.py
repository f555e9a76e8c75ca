"""The usual PyTorch transfer-learning loop, as the framework's own tutorial has it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks._data import Collection, read
from benchmarks._measure import Job, Watch
from benchmarks._network import CROP, MEAN, SIZE, STD, network

_SCALE = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
TRAIN = transforms.Compose([transforms.RandomResizedCrop(SIZE), transforms.RandomHorizontalFlip(), *_SCALE])
EVALUATE = transforms.Compose([transforms.Resize(round(SIZE / CROP)), transforms.CenterCrop(SIZE), *_SCALE])


class Pictures(Dataset[tuple[Tensor, int]]):
    """Pictures opened, transformed and labelled one by one."""

    def __init__(self, collection: Collection, split: str, transform: transforms.Compose) -> None:
        """Keep the list; nothing is opened yet."""
        self.collection, self.items, self.transform = collection, collection.of(split), transform

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Open one picture."""
        item = self.items[index]
        picture = Image.open(self.collection.path(item)).convert("RGB")
        return self.transform(picture), self.collection.labels.index(item.label)


def train(job: Job, watch: Watch, *, frozen: bool) -> dict[str, Any]:
    """Train for `job.epochs`, validate after each, keep the best, predict the test pictures with it."""
    torch.manual_seed(job.seed)
    collection = read(job.table)
    model = network(len(collection.labels))
    if frozen:
        model.requires_grad_(False)
        model.get_classifier().requires_grad_(True)
    rate = 5e-3 if frozen else 5e-4
    optimizer = torch.optim.Adam([tensor for tensor in model.parameters() if tensor.requires_grad], lr=rate)
    steps = job.epochs * len(_loader(collection, "train", job))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=steps)
    best, history = -1.0, []
    for _ in range(job.epochs):
        with watch.lap("train"):
            for pictures, targets in _loader(collection, "train", job):
                model.train()
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(pictures), targets).backward()
                optimizer.step()
                schedule.step()
            accuracy = _accuracy(model, collection, job)
            if accuracy > best:
                best, kept = accuracy, {name: tensor.clone() for name, tensor in model.state_dict().items()}
        spent = watch.laps["train"]
        history.append({"validation_accuracy": accuracy, "cpu": spent.cpu, "wall": spent.wall})
    with watch.lap("test"):
        model.load_state_dict(kept)
        guesses = torch.cat(
            [outputs.argmax(1) for outputs, _ in _outputs(model, collection, "test", job)]
        ).tolist()
    named = {
        item.path: collection.labels[guess]
        for item, guess in zip(collection.of("test"), guesses, strict=True)
    }
    return {"predictions": named, "history": history}


def _loader(collection: Collection, split: str, job: Job) -> DataLoader[tuple[Tensor, int]]:
    """Return a loader with one worker a core."""
    training = split == "train"
    pictures = Pictures(collection, split, TRAIN if training else EVALUATE)
    workers = len(os.sched_getaffinity(0))
    return DataLoader(pictures, job.batch_size, shuffle=training, num_workers=workers)


def _outputs(
    model: nn.Module, collection: Collection, split: str, job: Job
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield logits and targets of a split."""
    model.eval()
    for pictures, targets in _loader(collection, split, job):
        with torch.no_grad():
            yield model(pictures), targets


def _accuracy(model: nn.Module, collection: Collection, job: Job) -> float:
    """Return the validation accuracy."""
    right = [
        outputs.argmax(1) == targets for outputs, targets in _outputs(model, collection, "validation", job)
    ]
    return torch.cat(right).float().mean().item()
