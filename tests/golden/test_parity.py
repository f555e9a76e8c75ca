"""Our fine-tuning is the plain loop that everybody would write: same batches, same schedule, same weights."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from finetune_parts import LABELS, Coloured, Parts, context, model
from torch import Tensor, nn

from headstart.core.settings import FineTune
from headstart.methods.finetune import finetune
from headstart.train.runtime import draw, seed_step

EPOCHS, BATCH, RATE, DECAY, WEIGHT_DECAY, WARMUP = 3, 4, 5e-3, 0.5, 0.02, 0.2


def plain_loop(parts: Parts, training: Coloured, train_last: int) -> list[dict[str, Tensor]]:
    """Fine-tune as a tutorial would; return the weights at the start and after each epoch."""
    network = nn.Sequential(parts.encoder.network("pooled"), parts.head).to(memory_format=torch.channels_last)
    layers = list(parts.encoder.layer_groups())[len(parts.encoder.layer_groups()) - train_last :]
    network.requires_grad_(False)
    tensors = [list(layer.parameters.values()) for layer in layers] + [list(parts.head.parameters())]
    groups = []
    for distance, group in zip(range(len(layers), -1, -1), tensors, strict=True):
        for many, decay in ((True, WEIGHT_DECAY), (False, 0.0)):
            chosen = [tensor.requires_grad_(True) for tensor in group if (tensor.ndim > 1) == many]
            if chosen:
                groups.append({"params": chosen, "lr": RATE * DECAY**distance, "weight_decay": decay})
    optimizer = torch.optim.AdamW(groups)
    total = EPOCHS * len(training) // BATCH
    rising = round(WARMUP * total)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: (
            (step + 1) / rising
            if step < rising
            else 0.5 * (1 + math.cos(math.pi * (step - rising) / (total - rising)))
        ),
    )
    states, step = [copy(network)], 0
    for epoch in range(EPOCHS):
        network.eval()
        for layer in layers:
            for module in layer.modules:
                module.train()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        order = draw(0, "order", epoch, 0).permutation(len(training))
        for start in range(0, len(training), BATCH):
            items = [training[int(index)] for index in order[start : start + BATCH]]
            inputs = parts.encoder.collate([item.input for item in items])
            targets = torch.tensor([LABELS.index(item.target) for item in items])
            seed_step(0, step)
            loss = nn.functional.cross_entropy(network(inputs), targets, label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_([tensor for group in tensors for tensor in group], 1.0)
            optimizer.step()
            schedule.step()
            step += 1
        states.append(copy(network))
    return states


def copy(network: nn.Module) -> dict[str, Tensor]:
    """Return the weights as they are now."""
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("kind", ["cnn", "transformer"])
@pytest.mark.parametrize("train_last", [4, 2, 0])
def test_fine_tuning_is_the_plain_loop(tmp_path: Path, kind: str, train_last: int) -> None:
    training, validation = Coloured(24, name="train"), Coloured(12, name="validation")
    expected = plain_loop(model(kind), training, train_last)
    parts = model(kind)
    settings = FineTune(
        epochs=EPOCHS, batch_size=BATCH, learning_rate=RATE, layer_decay=DECAY, weight_decay=WEIGHT_DECAY,
        warmup=WARMUP, augment="none", patience=EPOCHS, train_last=None if train_last == 4 else train_last,
    )  # fmt: skip
    done = finetune(
        parts, training=training, validation=validation, settings=settings, context=context(tmp_path)
    )
    assert done.best_epoch > 0, "nothing was learned, so nothing was compared"
    ours = nn.Sequential(parts.encoder.network("pooled"), parts.head).state_dict()
    # Activations of a frozen prefix are kept in float16 (docs/decisions), which moves the last digits.
    tolerance = 1e-6 if train_last == 4 else 2e-3
    wrong = {
        name: float((tensor - ours[name]).abs().max())
        for name, tensor in expected[done.best_epoch].items()
        if not torch.allclose(tensor, ours[name], rtol=0, atol=tolerance)
    }
    assert wrong == {}
