"""Texts as windows of tokens: laid out in numpy, pooled and joined in torch.

A text is read in windows that overlap, so that nothing is cut off. In a value and in a batch, a token is a pair: its
id (-1 where a window is padded) and the number of the word that begins with it, if this window is the one in which that
word stands most centrally (else -1). Words for which the tokenizer has no token of their own (it swallows them, or one
token spans several) share the token of the word before, which then carries the last of their numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from headstart.core.types import Form, TextContract

WORD_BASE = 1024
"""Word numbers cross a cut as two digits to this base, as float16 holds whole numbers only up to 2,048."""
MOST_TOKENS = 32_768
"""Tokens that a network reads at a time; what is longer (a book among the texts) goes in parts."""


def windows_of(
    pieces: Sequence[Sequence[int]], contract: TextContract, before: Sequence[int], after: Sequence[int]
) -> np.ndarray:
    """Lay the tokens of words into windows, int32 [W, T, 2]; a word longer than a window is spread over several.

    Neighbouring windows share at least `contract.overlap` tokens; a word's first token is marked where it is farthest
    from its window's ends.
    """
    ids = np.array([token for piece in pieces for token in piece], dtype=np.int32)
    lengths = np.array([len(piece) for piece in pieces], dtype=np.int64)
    own = np.flatnonzero(lengths)
    starts, numbers = (np.cumsum(lengths) - lengths)[own], np.append(own[1:], len(lengths)) - 1
    room = contract.window - len(before) - len(after)
    step = max(1, room - contract.overlap)
    begins = np.array([0] if len(ids) <= room else [*range(0, len(ids) - room, step), len(ids) - room])
    wide = min(room, len(ids)) + len(before) + len(after)
    value = np.full((len(begins), wide, 2), -1, np.int32)
    for window, begin in enumerate(begins.tolist()):
        part = ids[begin : begin + room]
        value[window, : len(before) + len(part) + len(after), 0] = [*before, *part, *after]
    # Windows are of one length, so the one whose middle is nearest holds the token.
    middles = begins + (min(room, len(ids)) - 1) / 2
    nearest = np.searchsorted((middles[:-1] + middles[1:]) / 2, starts)
    value[nearest, len(before) + starts - begins[nearest], 1] = numbers
    return value


@dataclass(frozen=True, slots=True)
class Tokens:
    """A batch taken apart: ids and mask [M, T] of its M windows that hold tokens, the item and word of each."""

    ids: Tensor
    mask: Tensor
    words: Tensor
    item: Tensor
    count: int


def take_apart(batch: Tensor) -> Tokens:
    """Turn a batch int64 [N, W, T, 2] into its windows, without those that are all padding."""
    flat = batch.flatten(0, 1)
    item = torch.arange(batch.shape[0], device=batch.device).repeat_interleave(batch.shape[1])
    kept = flat[:, 0, 0] >= 0
    flat, item = flat[kept], item[kept]
    return Tokens(flat[..., 0].clamp(min=0), flat[..., 0] >= 0, flat[..., 1], item, batch.shape[0])


def pool(hidden: Tensor, mask: Tensor, contract: TextContract) -> Tensor:
    """Pool windows [M, T, D] over their real tokens to [M, D], or to last, maximum and mean [M, 3 D]."""
    if contract.pooling == "first":
        return hidden[:, 0]
    share = mask[..., None].to(hidden.dtype)
    mean = (hidden * share).sum(1) / share.sum(1)
    if contract.pooling == "mean":
        return mean
    last = hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(1) - 1]
    if contract.pooling == "last":
        return last
    if contract.pooling == "concat_both":
        half = hidden.shape[2] // 2
        last = torch.cat([last[:, :half], hidden[:, 0, half:]], 1)
    return torch.cat([last, hidden.masked_fill(~mask[..., None], -torch.inf).amax(1), mean], 1)


def join_windows(pooled: Tensor, tokens: Tokens) -> Tensor:
    """Average the windows [M, D] of each item, weighted by their tokens: [N, D]."""
    weight = tokens.mask.sum(1).to(pooled.dtype)[:, None]
    total = torch.zeros(tokens.count, pooled.shape[1], dtype=pooled.dtype, device=pooled.device)
    shares = torch.zeros(tokens.count, 1, dtype=pooled.dtype, device=pooled.device)
    return total.index_add(0, tokens.item, pooled * weight) / shares.index_add(0, tokens.item, weight)


def gather_words(hidden: Tensor, tokens: Tokens) -> Tensor:
    """Return one vector a word, [N, L, D], from windows [M, T, D]; zero where an item has no such word."""
    window, place = (tokens.words >= 0).nonzero(as_tuple=True)
    item, word = tokens.item[window], tokens.words[window, place]
    longest = int(word.max()) + 1 if len(word) else 1
    out = torch.zeros(tokens.count, longest, hidden.shape[2], dtype=hidden.dtype, device=hidden.device)
    out = out.index_put((item, word), hidden[window, place])
    # Words that share a token take the vector of the last of them.
    source = torch.full((tokens.count, longest), longest - 1, device=hidden.device)
    source = source.index_put((item, word), word).flip(1).cummin(1).values.flip(1)
    return out.gather(1, source[..., None].expand_as(out))


def marks(real: Tensor, words: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the columns that cross a cut beside the hidden states: mask, and the digits of the word number (or -1)."""
    return real, torch.div(words, WORD_BASE, rounding_mode="floor"), torch.remainder(words, WORD_BASE)


def vectors(states: Sequence[Tensor], mask: Tensor, form: Form, contract: TextContract) -> Tensor:
    """Return what a form keeps of the hidden states [M, T, D] of every layer: [M, D'], or [M, T, D] for `sequence`."""
    if form == "sequence":
        return states[-1]
    final = pool(states[-1], mask, contract)
    if form == "pooled":
        return final
    if contract.pooling in ("concat", "concat_both"):
        # Layers of different widths, of which an average would say nothing: beside one another, deepest first.
        return torch.cat([final, *(pool(state, mask, contract) for state in reversed(states[:-1]))], 1)
    mean = pool(reduce(torch.add, states) / len(states), mask, contract)
    return mean if form == "layers" else torch.cat([final, mean], 1)


def joined(found: Tensor, tokens: Tokens, form: Form) -> Tensor:
    """Put what `vectors` gave for windows together, item by item: [N, D'], or a vector a word [N, L, D]."""
    return gather_words(found, tokens) if form == "sequence" else join_windows(found, tokens)


def in_parts(run: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Run windows [M, T, ...] through a network, at most MOST_TOKENS tokens at a time.

    The parts keep no activations: the backward pass computes them again (Chen et al. 2016, arXiv 1604.06174), so that
    one long text among many needs no more memory than a part.
    """
    rows = max(1, MOST_TOKENS // tensors[0].shape[1])
    if len(tensors[0]) <= rows:
        return run(*tensors)
    parts = zip(*(tensor.split(rows) for tensor in tensors), strict=True)
    if torch.is_grad_enabled():
        return torch.cat([checkpoint(run, *part, use_reentrant=False) for part in parts])
    return torch.cat([run(*part) for part in parts])
