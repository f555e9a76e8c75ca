"""Words that drove a prediction: integrated gradients on the embedded words (Sundararajan et al., 2017)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from headstart.core.protocols import Encoder
    from headstart.model import Model

STEPS = 10
"""Points between no words and the text at which the gradient is taken (Gauss-Legendre), fewer for long texts."""
POWER = 3
"""The steps lie closer to no words, where the first norm of a network bends the way most."""
FEWEST_STEPS, STEP_TOKENS = 4, 1024
"""Long texts get fewer steps: all of a text's steps together take at most this many tokens, down to that many steps."""
MAX_TOKENS = 1024
"""Longer texts get no weights."""


@dataclass(frozen=True)
class Attribution:
    """How much each word spoke for (above 0) or against (below 0) `label`, float64 [L]; None and why there is none."""

    weights: np.ndarray | None
    reason: str = ""


def word_weights(model: Model, words: Sequence[str], raw: Any, *, column: int | None = None) -> Attribution:
    """Return how much each of `words`, as the encoder divides `raw`, moved the answer.

    The answer is the log-odds of the class in `column` for one of several classes, its logit for any of several labels,
    the number for a number. The gradient is taken at points on the way from words without meaning (embedded as
    zero) to the text; the weights of all words sum, nearly, to the difference between the answers at both ends.
    """
    encoder = model.encoder
    value = encoder.prepare(raw).value
    tokens = int((value[..., 0] >= 0).sum())
    if tokens > MAX_TOKENS:
        return Attribution(None, f"texts of more than {MAX_TOKENS:,} tokens are shown without word weights")
    owner = _owners(encoder, value, words)
    steps = min(STEPS, max(FEWEST_STEPS, STEP_TOKENS // value[..., 0].size))
    points, weights = (torch.from_numpy(part).float() for part in np.polynomial.legendre.leggauss(steps))
    places = (points + 1) / 2
    shares, widths = places**POWER, POWER * places ** (POWER - 1) * weights / 2
    device = next(encoder.module.parameters()).device
    batch = encoder.batch([value] * steps)
    with torch.enable_grad(), _scaled(encoder, torch.from_numpy(owner >= 0).to(device), shares) as kept:
        outputs = model.logits(batch)
        if len(kept) != 1 or not outputs.requires_grad:
            return Attribution(None, f"{encoder.spec.name} shows no embedded words, so words have no weights")
        answer = _answer(outputs.float(), column or 0, model.task.link).sum()
    whole, scaled = kept[0]
    (slopes,) = torch.autograd.grad(answer, [scaled])
    moved = (slopes * whole).sum(-1).double().unflatten(0, (steps, len(value))).cpu().numpy()
    moved = np.tensordot(widths.double().numpy(), moved, 1)
    inside = owner >= 0
    return Attribution(np.bincount(owner[inside], weights=moved[inside], minlength=len(words)))


def _answer(outputs: Tensor, column: int, link: Literal["softmax", "sigmoid", "identity"]) -> Tensor:
    """Return what is explained of outputs [N, C]: log-odds against all other classes, or the output itself."""
    if link != "softmax" or outputs.shape[1] == 1:
        return outputs[:, column]
    others = torch.cat([outputs[:, :column], outputs[:, column + 1 :]], 1)
    return outputs[:, column] - others.logsumexp(1)


@contextmanager
def _scaled(encoder: Encoder, inside: Tensor, shares: Tensor) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """While this lasts, scale what the first layer gives for words, `inside` [W, T], by a share for each copy [S].

    Collects (what the layer gave, what went on) [S * W, T, D].
    """
    kept: list[tuple[Tensor, Tensor]] = []
    shape = (len(shares) * len(inside), inside.shape[1])
    factor = torch.where(inside, shares.to(inside.device)[:, None, None], 1.0).reshape(*shape, 1)

    def scale(_module: Any, _inputs: Any, output: Any) -> Any:
        if kept or not isinstance(output, Tensor) or output.shape[:-1] != shape:
            return output
        scaled = (output.detach() * factor).requires_grad_()
        kept.append((output.detach(), scaled))
        return scaled

    hooks = [module.register_forward_hook(scale) for module in encoder.layer_groups()[0].modules]
    try:
        yield kept
    finally:
        for hook in hooks:
            hook.remove()


def _owners(encoder: Encoder, value: np.ndarray, words: Sequence[str]) -> np.ndarray:
    """Return the word that each token of a text [W, T] belongs to, -1 for special tokens and padding.

    A word is marked at its first token in one window; where windows overlap, its tokens stand in others unmarked.
    """
    before, after = _specials(encoder)
    inside = value[:, before : value.shape[1] - after]
    starts, begins = _starts(inside, encoder.spec.contract, len(words))
    places = np.array(begins)[:, None] + np.arange(inside.shape[1])
    owner = np.full(value.shape[:2], -1)
    owner[:, before : value.shape[1] - after] = np.searchsorted(starts, places, side="right") - 1
    return owner


def _specials(encoder: Encoder) -> tuple[int, int]:
    """Return how many special tokens stand before and after a text: what texts of different words end with alike."""
    one, other = (encoder.prepare((letter,)).value[0] for letter in "ab")
    before = int(np.flatnonzero(one[:, 1] >= 0)[0])
    shortest = min(len(one), len(other))
    alike = one[::-1, 0][:shortest] == other[::-1, 0][:shortest]
    same = shortest if alike.all() else int(np.argmin(alike))
    # Both may be unknown words; one of its own tokens each has at least.
    return before, min(same, shortest - before - 1)


def _starts(inside: np.ndarray, contract: Any, count: int) -> tuple[np.ndarray, list[int]]:
    """Return where each word and each window begins among a text's tokens; `inside` are the windows' own [W, T, 2].

    Windows lie a step apart; only the last is moved back so that it is full. How far says what it shares with the one
    before, and that words begin one after another.
    """
    rows, room = inside.shape[:2]
    step = max(1, room - contract.overlap)
    begins = [row * step for row in range(max(1, rows - 1))]
    window, place = np.nonzero(inside[..., 1] >= 0)
    for shift in range(1, step + 1) if rows > 1 else [0]:
        tried = [*begins, begins[-1] + shift] if rows > 1 else begins
        starts = np.zeros(count, np.int64)
        starts[inside[window, place, 1]] = np.array(tried)[window] + place
        is_same = rows == 1 or np.array_equal(inside[-2, shift:, 0], inside[-1, : room - shift, 0])
        if is_same and (np.diff(starts) > 0).all():
            return starts, tried
    raise ValueError("the windows of a text overlap")
