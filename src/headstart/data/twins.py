"""Finding pictures that are the same: byte by byte, or to the eye after re-encoding, resizing, brightening.

Near twins are sought among 64-bit perceptual hashes at most 8 bits apart: two such hashes share one of their eight
bytes (all but 0.4 % of the pairs exactly 8 apart do), so only hashes with an equal byte are compared. Look-alikes
(slices of one scan, portraits) have near hashes too: each pair must also agree in its 16 x 16 greys.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

_DISTANCE = 8
_BYTES = 8
_BLOCK = 1 << 17
_PAIRS = 1 << 13
_LEADERS = 32
"""How many pictures of one hash, none a twin of another, are followed up."""

_RESIDUAL = 4.0
"""Largest root mean square difference of two thumbnails, in grey levels, after the best gain and offset."""
_CORRELATION = 0.98
_LIKELY = 0.9
"""Correlation of two sketches below which thumbnails are not looked at."""
_GAIN = 2.0
_WHITE = 245
_FLAT = 2.0
"""Thumbnails that vary less than this hold nothing to compare but their mean."""


def exact_twins(hashes: Sequence[str]) -> list[list[int]]:
    """Return the groups of two or more rows with one content hash, each rising."""
    rows: defaultdict[str, list[int]] = defaultdict(list)
    for row, content in enumerate(hashes):
        rows[content].append(row)
    return [group for group in rows.values() if len(group) > 1]


def near_twins(phashes: np.ndarray, thumbnails: np.ndarray) -> list[tuple[int, int]]:
    """Return pairs (low, high) of rows that show the same picture, given uint64 [N] and uint8 [N, 16, 16].

    Of many with the same hash each is paired with the first that it is a twin of, not with all.
    """
    greys = thumbnails.reshape(len(thumbnails), -1)
    sketches = _sketches(thumbnails)
    leaders, pairs = _same_hash(phashes, greys, sketches)
    for low, high in _candidates(phashes[leaders]):
        pairs += _confirmed(leaders[low], leaders[high], greys, sketches)
    return sorted({(min(pair), max(pair)) for pair in pairs})


def _sketches(thumbnails: np.ndarray) -> np.ndarray:
    """Return a unit vector a picture, float32 [N, 64]: its 8 x 8 greys about their mean; zero where it is flat."""
    half = thumbnails.shape[1] // 2
    small = (
        thumbnails.reshape(-1, half, 2, half, 2)
        .mean(axis=(2, 4), dtype=np.float32)
        .reshape(len(thumbnails), -1)
    )
    small -= small.mean(axis=1, keepdims=True)
    length = np.linalg.norm(small, axis=1, keepdims=True)
    return np.where(length > _FLAT * half, small / np.maximum(length, 1e-6), 0)


def _same_hash(
    phashes: np.ndarray, greys: np.ndarray, sketches: np.ndarray
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Pair the rows of each hash with the first they are twins of; return these leaders and the pairs."""
    order = np.argsort(phashes, kind="stable")
    starts = np.flatnonzero(np.diff(phashes[order])) + 1
    pairs: list[tuple[int, int]] = []
    leaders: list[int] = []
    for group in np.split(order, starts):
        for _ in range(_LEADERS):
            if len(group) == 0:
                break
            leader, group = group[0], group[1:]
            leaders.append(int(leader))
            if len(group):
                found = _confirmed(np.full(len(group), leader), group, greys, sketches)
                pairs += found
                group = group[~np.isin(group, [other for _, other in found])]
    return np.array(leaders, dtype=np.int64), pairs


def _candidates(phashes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield blocks of row pairs whose hashes are near, each pair once; memory does not grow with the rows."""
    for band in range(_BYTES):
        keys = (phashes >> np.uint64(8 * band)) & np.uint64(255)
        order = np.argsort(keys, kind="stable")
        for bucket in np.split(order, np.flatnonzero(np.diff(keys[order])) + 1):
            step = max(1, _BLOCK // len(bucket))
            for start in range(0, len(bucket), step):
                rows = bucket[start : start + step]
                others = bucket[start:]
                differing = phashes[rows][:, None] ^ phashes[others][None, :]
                one, other = np.nonzero(np.bitwise_count(differing) <= _DISTANCE)
                fresh = (other > one) & ~_shares_byte(differing[one, other], band)
                yield rows[one[fresh]], others[other[fresh]]


def _shares_byte(differing: np.ndarray, below: int) -> np.ndarray:
    """Tell for which pairs one of the first `below` bytes is equal, so that an earlier band gave them already."""
    shared = np.zeros(differing.shape, dtype=bool)
    for band in range(below):
        shared |= (differing >> np.uint64(8 * band)) & np.uint64(255) == 0
    return shared


def _confirmed(
    low: np.ndarray, high: np.ndarray, greys: np.ndarray, sketches: np.ndarray
) -> list[tuple[int, int]]:
    """Return the pairs whose thumbnails agree; the sketches rule most of the others out at a quarter of the cost."""
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(low), _PAIRS):
        one, other = low[start : start + _PAIRS], high[start : start + _PAIRS]
        likeness = np.einsum("pd,pd->p", sketches[one], sketches[other])
        flat = ~sketches[one].any(axis=1) | ~sketches[other].any(axis=1)
        likely = (likeness > _LIKELY) | flat
        one, other = one[likely], other[likely]
        agree = _agree(greys[one], greys[other])
        pairs += zip(one[agree].tolist(), other[agree].tolist(), strict=True)
    return pairs


def _agree(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Tell which pairs of greys, uint8 [P, 256], are equal but for gain, offset and pixels clipped to white."""
    seen = np.maximum(one, other) < _WHITE
    seen[seen.sum(axis=1) < seen.shape[1] // 4] = True
    count = seen.sum(axis=1, keepdims=True, dtype=np.float32)
    a = one.astype(np.float32) * seen
    b = other.astype(np.float32) * seen
    offset = (a.sum(axis=1) - b.sum(axis=1)) / count[:, 0]
    a = (a - a.sum(axis=1, keepdims=True) / count) * seen
    b = (b - b.sum(axis=1, keepdims=True) / count) * seen
    variance_a, variance_b = (a * a).sum(axis=1) / count[:, 0], (b * b).sum(axis=1) / count[:, 0]
    covariance = (a * b).sum(axis=1) / count[:, 0]
    product = np.maximum(variance_a * variance_b, 1e-6)
    # Residual variance of the brighter-contrast thumbnail explained by the other.
    unexplained = np.maximum(variance_a, variance_b) * np.maximum(0, 1 - covariance**2 / product)
    ratio = np.maximum(variance_a, variance_b) / np.maximum(np.minimum(variance_a, variance_b), 1e-6)
    alike = (
        (covariance > _CORRELATION * np.sqrt(product)) & (unexplained <= _RESIDUAL**2) & (ratio <= _GAIN**2)
    )
    flat = np.maximum(variance_a, variance_b) < _FLAT**2
    return np.where(flat, (np.abs(offset) <= _FLAT), alike)
