"""The learning-rate finder: raise the rate step by step and read the loss (Smith 2017, arXiv 1506.01186)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from headstart.core.errors import TrainingError
from headstart.train.batches import BatchSource
from headstart.train.optim import ParameterGroup, build_optimizer, require_trainable, set_mode
from headstart.train.runtime import Context, Event, limited_threads, seed_step
from headstart.train.step import Gradients, Loss, accumulate, clip
from headstart.train.weights import copy_into, moving_tensors

LOWEST, HIGHEST = 1e-7, 1.0
"""Range of the test, as learning rates of the fastest group."""
DIVERGED = 4.0
"""The test ends where the smoothed loss is this many times its lowest."""


@dataclass(frozen=True)
class LearningRates:
    """A range test: `rates` and smoothed `losses` step by step, and two readings of the curve.

    `steepest` is where the loss falls fastest, `valley` two thirds into the longest fall (the safer choice).
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    steepest: float
    valley: float


def find_learning_rate(
    module: nn.Module,
    *,
    loss: Loss,
    source: BatchSource,
    groups: Sequence[ParameterGroup],
    context: Context,
    steps: int = 100,
) -> LearningRates:
    """Measure which learning rates suit the groups; the module's weights and modes are as before afterwards.

    The groups keep their ratios (layer-wise decay); rates are those of the fastest one.
    """
    require_trainable(groups)
    moving = moving_tensors(module, groups)
    kept = {name: tensor.detach().clone() for name, tensor in moving.items()}
    modes = [(part, part.training) for part in module.modules()]
    gradients_wanted = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    try:
        with limited_threads(context.threads):
            rates, losses = _range_test(module, loss, source, groups, context, steps)
    finally:
        copy_into(moving, kept)
        for part, mode in modes:
            part.training = mode
        for parameter, wanted in gradients_wanted:
            parameter.requires_grad_(wanted)
            parameter.grad = None
    return read_curve(rates, losses)


def read_curve(rates: Sequence[float], losses: Sequence[float]) -> LearningRates:
    """Smooth a range test and read steepest and valley from it; TrainingError where it is too short to read."""
    if len(rates) < 5:
        raise TrainingError(
            f"the learning-rate finder got {len(rates)} steps before the loss diverged",
            expected="at least 5",
            fix="check the data for inputs that are not finite, or lower the network's own scale",
        )
    smoothed = _smooth(losses)
    slopes = np.gradient(smoothed, np.log(rates))
    begin, end = _longest_fall(smoothed)
    steepest = int(np.argmin(slopes))
    valley = begin + round((end - begin) * 2 / 3)
    return LearningRates(
        tuple(rates), tuple(map(float, smoothed)), float(rates[steepest]), float(rates[valley])
    )


def _range_test(
    module: nn.Module,
    loss: Loss,
    source: BatchSource,
    groups: Sequence[ParameterGroup],
    context: Context,
    steps: int,
) -> tuple[list[float], list[float]]:
    """Train with exponentially growing rates until the loss diverges; return rates and raw losses."""
    optimizer = build_optimizer(groups)
    fastest = max(group.learning_rate for group in groups)
    parameters = [parameter for group in groups for parameter in group.parameters.values()]
    settings = Gradients(context.device, micro=2**31)
    set_mode(module, groups, epoch=max(group.opens for group in groups))
    rates: list[float] = []
    losses: list[float] = []
    for step in range(steps):
        batch = source.load(step // source.steps, step % source.steps)
        rate = LOWEST * (HIGHEST / LOWEST) ** (step / max(1, steps - 1))
        optimizer.scale_rates(rate / fastest)
        seed_step(context.seed, step)
        try:
            value = accumulate(module, loss, batch, settings, check=lambda: None)
            clip(parameters, settings, batch)
        except TrainingError:
            break  # Not finite: the range test has reached its upper end.
        optimizer.step()
        optimizer.zero_grad()
        rates.append(rate)
        losses.append(value)
        context.progress(Event("finder", step + 1, steps, "", {"loss": value, "learning_rate": rate}))
        smoothed = _smooth(losses)
        if smoothed[-1] > DIVERGED * smoothed.min() and step > 5:
            break
    return rates, losses


def _smooth(losses: Sequence[float], weight: float = 0.7) -> np.ndarray:
    """Return the exponential average of losses, without the bias of its start."""
    out = np.empty(len(losses))
    average = 0.0
    for index, value in enumerate(losses):
        average = weight * average + (1 - weight) * value
        out[index] = average / (1 - weight ** (index + 1))
    return out


def _longest_fall(losses: np.ndarray) -> tuple[int, int]:
    """Return (begin, end) of the longest decreasing subsequence of the losses."""
    length = [1] * len(losses)
    previous = [-1] * len(losses)
    for index in range(len(losses)):
        for before in range(index):
            if losses[before] > losses[index] and length[before] + 1 > length[index]:
                length[index], previous[index] = length[before] + 1, before
    end = begin = int(np.argmax(length))
    while previous[begin] >= 0:
        begin = previous[begin]
    return begin, end
