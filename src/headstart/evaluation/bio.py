"""BIO tags: spans, and decoding that cannot emit an illegal sequence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_CELLS = 4_000_000
"""Numbers that decoding holds at a time."""

TypedSpan = tuple[int, int, str]
"""First word, word behind the last, type."""


def spans_of(tags: Sequence[str]) -> list[TypedSpan]:
    """Return the spans of BIO tags, strictly: a span begins with B-x and takes in the I-x that follow at once."""
    spans: list[TypedSpan] = []
    start, kind = -1, ""
    for place, tag in enumerate((*tags, "O")):
        if start >= 0 and tag != f"I-{kind}":
            spans.append((start, place, kind))
            start = -1
        if tag.startswith("B-"):
            start, kind = place, tag[2:]
    return spans


def transitions(tags: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return which tags may start a text [C], and which may follow which [C, C] (row: before, column: after).

    I-x only goes on with what B-x or I-x began.
    """
    inside = np.array([tag.startswith("I-") for tag in tags])
    kind = np.array([tag[2:] for tag in tags], dtype=object)
    spanning = np.array([tag != "O" for tag in tags])
    goes_on = spanning[:, None] & (kind[:, None] == kind[None])
    return ~inside, ~inside[None] | goes_on


def viterbi(probabilities: Sequence[np.ndarray], tags: Sequence[str]) -> list[np.ndarray]:
    """Return the most probable legal tag ids [L_i] of each text, for word probabilities [L_i, C] (Viterbi, 1967)."""
    starts, follows = transitions(tags)
    begin, step = np.where(starts, 0, -np.inf), np.where(follows, 0, -np.inf)
    found: list[np.ndarray] = [np.zeros(0, np.int64)] * len(probabilities)
    order = sorted(range(len(probabilities)), key=lambda index: -len(probabilities[index]))
    order = [index for index in order if len(probabilities[index])]
    while order:
        count = max(1, _CELLS // (len(probabilities[order[0]]) * len(tags)))
        chosen, order = order[:count], order[count:]
        for index, path in zip(chosen, _paths([probabilities[i] for i in chosen], begin, step), strict=True):
            found[index] = path
    return found


def _paths(texts: Sequence[np.ndarray], begin: np.ndarray, step: np.ndarray) -> list[np.ndarray]:
    """Decode texts that come longest first, word by word for all of them at once."""
    lengths = np.array([len(text) for text in texts])
    scores = np.zeros((len(texts), int(lengths[0]), len(begin)))
    for row, text in enumerate(texts):
        scores[row, : len(text)] = np.log(np.maximum(text, 1e-300))
    best = scores[:, 0] + begin
    came = np.zeros(scores.shape, np.int16)
    alive = (lengths[:, None] > np.arange(scores.shape[1])).sum(0)
    for word in range(1, scores.shape[1]):
        going = int(alive[word])
        options = best[:going, :, None] + step[None]
        came[:going, word] = options.argmax(1)
        best[:going] = options.max(1) + scores[:going, word]
    # Back along the same words: texts join where they end.
    tag, path = best.argmax(1), np.zeros(scores.shape[:2], np.int64)
    for word in range(scores.shape[1] - 1, -1, -1):
        going = int(alive[word])
        path[:going, word] = tag[:going]
        tag[:going] = came[np.arange(going), word, tag[:going]]
    return [path[row, :length] for row, length in enumerate(lengths.tolist())]
