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
_BLOCK = 512


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

    for pair in set(_banded(sketches)):
        # The share of equal numbers estimates the overlap, far cheaper than the shingles themselves.
        if (sketches[pair[0]] == sketches[pair[1]]).mean() >= OVERLAP - 0.3 and overlap(pair) >= OVERLAP:
            found.add(pair)
    if vectors is not None:
        found |= {pair for pair in _alike(vectors) if pair not in found and overlap(pair) >= OVERLAP_OF_LIKE}
    return sorted(found)


def _banded(sketches: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield the pairs that agree in a whole band."""
    rows = sketches.shape[1] // BANDS
    for band in range(BANDS):
        part = np.ascontiguousarray(sketches[:, band * rows : (band + 1) * rows])
        keys = part.view([("", part.dtype)] * rows)[:, 0]
        order = np.argsort(keys, kind="stable")
        edges = np.flatnonzero(keys[order][1:] != keys[order][:-1]) + 1
        for group in np.split(order, edges):
            if len(group) > MOST_TWINS:
                yield from ((int(group[0]), int(other)) for other in group[1:])
            elif len(group) > 1:
                ordered = sorted(int(row) for row in group)
                yield from (
                    (one, other) for place, one in enumerate(ordered) for other in ordered[place + 1 :]
                )


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
