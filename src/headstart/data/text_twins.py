"""Texts that are nearly the same: sketches that agree, confirmed by the texts' own shingles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from headstart.modalities import text

BANDS = 16
"""A pair is looked at where any of so many equal parts of the sketches agrees."""
OVERLAP = 0.8
"""Share of shingles that near twins have in common (Jaccard)."""
LIKENESS, OVERLAP_OF_LIKE = 0.985, 0.6
"""Texts whose vectors are this alike (cosine) are twins at a lower overlap: a few words were exchanged."""
MOST_TWINS = 20
"""Texts of one band that are compared with each other; of more, each is compared with the first."""
_DOUBT = 0.3
"""How far a sketch may be off."""
_BLOCK, _PAIRS = 512, 1 << 16


def near_texts(
    sketches: np.ndarray, raws: Sequence[Any], vectors: np.ndarray | None = None
) -> list[tuple[int, int]]:
    """Return pairs (low, high) of rows whose texts are nearly the same.

    `sketches` uint32 [N, SKETCH]; `vectors` [N, D] may be the texts' features. Memory does not grow with N squared.
    """
    found: set[tuple[int, int]] = set()
    seen: dict[int, np.ndarray] = {}

    def overlap(pair: tuple[int, int]) -> float:
        one, other = (seen.setdefault(row, text.shingles(_plain(raws[row]))) for row in pair)
        shared = len(np.intersect1d(one, other, assume_unique=True))
        return shared / (len(one) + len(other) - shared)

    for pair in _likely(sketches):
        if overlap(pair) >= OVERLAP:
            found.add(pair)
    if vectors is not None:
        found |= {pair for pair in _alike(vectors) if pair not in found and overlap(pair) >= OVERLAP_OF_LIKE}
    return sorted(found)


def _likely(sketches: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield the pairs, each once, that agree in a whole band and whose sketches agree in about OVERLAP."""
    count = len(sketches)
    codes = np.unique(np.concatenate([_banded(sketches, band) for band in range(BANDS)]))
    for start in range(0, len(codes), _PAIRS):
        low, high = np.divmod(codes[start : start + _PAIRS], count)
        # The share of equal numbers estimates the overlap, far cheaper than the shingles themselves.
        likely = (sketches[low] == sketches[high]).mean(1) >= OVERLAP - _DOUBT
        yield from zip(low[likely].tolist(), high[likely].tolist(), strict=True)


def _banded(sketches: np.ndarray, band: int) -> np.ndarray:
    """Return the pairs that agree in a band, int64, as low * N + high."""
    count, rows = len(sketches), sketches.shape[1] // BANDS
    part = np.ascontiguousarray(sketches[:, band * rows : (band + 1) * rows])
    keys = part.view([("", part.dtype)] * rows)[:, 0]
    order = np.argsort(keys, kind="stable").astype(np.int64)
    begins = np.concatenate([[True], keys[order][1:] != keys[order][:-1]])
    group = np.cumsum(begins) - 1
    size, first = np.bincount(group)[group], np.flatnonzero(begins)[group]
    is_large = size > MOST_TWINS
    pairs = [(order[first[is_large]], order[is_large])]
    for step in range(1, min(MOST_TWINS, count)):
        together = (group[step:] == group[:-step]) & ~is_large[step:]
        if not together.any():
            break
        pairs.append((order[:-step][together], order[step:][together]))
    one, other = (np.concatenate(side) for side in zip(*pairs, strict=True))
    low, high = np.minimum(one, other), np.maximum(one, other)
    return (low * count + high)[low != high]


def _alike(vectors: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield the pairs whose vectors, about their mean, point the same way."""
    centred = vectors - vectors.mean(0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    for start in range(0, len(unit), _BLOCK):
        likeness = unit[start : start + _BLOCK] @ unit[start:].T
        one, other = np.nonzero(np.triu(likeness > LIKENESS, 1))
        yield from zip((one + start).tolist(), (other + start).tolist(), strict=True)


def _plain(raw: Any) -> str:
    """Return a text of an input."""
    read = text.read(raw)
    return read if isinstance(read, str) else " ".join(read)
