"""Encode each item once: decoding and forward pass in parallel, rows into the activation store as they come."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.core.errors import DataError, Interrupted
from headstart.core.hashing import digest
from headstart.core.registry import resolve
from headstart.features.runtime import Run, choose_runtime
from headstart.features.shards import Shards
from headstart.train.runtime import Context, Event, draw, limited_threads

if TYPE_CHECKING:
    from headstart.core.protocols import Dataset, Encoder
    from headstart.core.types import Form, Prepared

VERSION = 1
"""Version of the encoding step; bump when its numbers move."""
BATCH = 8
"""Items a forward pass on a CPU (more does not gain there); a GPU takes GPU_BATCH."""
GPU_BATCH = 32  # One thread opens a batch: with more items, few data would leave most threads idle.
SHARD = 1024
"""Rows a shard; a killed run loses at most this many."""
VIEW_STRENGTH = "standard"

_Batch = tuple[list[tuple[int, Any]], list[np.ndarray], dict[int, str]]
"""Opened items with their facts, their features, and why others could not be read."""

Rows = np.ndarray | list[np.ndarray]
"""Features of items: one array [n, width] of a vector form, or one [L, width] an item of the `sequence` form."""


@dataclass(frozen=True)
class Encoded:
    """Features of a dataset's items and what was learnt of them on the way.

    `features` (float32) are the rows of the items `indices`; `failures` says why an item could not be read.
    """

    features: Rows
    indices: tuple[int, ...]
    facts: dict[int, Any]
    failures: dict[int, str]
    num_encoded: int
    num_stored: int


def take(features: Rows, rows: Sequence[int]) -> Rows:
    """Return some items' features, in this order."""
    return features[list(rows)] if isinstance(features, np.ndarray) else [features[row] for row in rows]


def encode(dataset: Dataset, encoder: Encoder, *, form: Form, context: Context, view: int = 0) -> Encoded:
    """Return the features of every readable item, encoding only those that the store does not hold.

    View 0 is the item itself, view v > 0 an augmented one drawn from (seed, view, item).
    """
    hashes = [dataset.item_hash(index) for index in range(len(dataset))]
    shards = Shards(context.store, "features-v1", feature_key(encoder, form, context.seed, view))
    first = {item: index for index, item in reversed(list(enumerate(hashes)))}
    missing = [index for index in sorted(first.values()) if hashes[index] not in shards]
    failures: dict[str, str] = {}
    if missing:
        run = choose_runtime(encoder, form, context)
        stream = _Stream(dataset, encoder, context, form=form, view=view)
        if context.device.type != "cpu":  # A batch is padded to its longest item.
            missing.sort(key=lambda index: _length(dataset[index].input))
        _fill(shards, missing, hashes, stream, run, failures)
    indices = [index for index, item in enumerate(hashes) if item in shards]
    found = [hashes[index] for index in indices]
    kind = resolve("modality", encoder.spec.modality).Facts
    facts = {index: _facts(kind, shards, hashes[index]) for index in indices} if view == 0 else {}
    if form == "sequence":
        features: Rows = [np.array(shards.row(item, "features")) for item in found]
    else:
        features = shards.gather(found, "features") if found else np.empty((0, encoder.spec.width[form]))
    unread = {index: failures[item] for index, item in enumerate(hashes) if item in failures}
    num_encoded = len(missing) - len(failures)
    return Encoded(features, tuple(indices), facts, unread, num_encoded, len(indices) - num_encoded)


def feature_key(encoder: Encoder, form: Form, seed: int, view: int) -> str:
    """Return the key of an encoder's features: content only, no names, places or machines."""
    modality = resolve("modality", encoder.spec.modality)
    drawn = {"view": view, "seed": seed, "strength": VIEW_STRENGTH} if view else {}
    spec = encoder.spec
    network = (spec.name, spec.weights_sha256, spec.contract, spec.depths if form == "depths" else ())
    return digest("features", VERSION, modality.VERSION, network, form, drawn)


class _Stream:
    """Opens items, each on its own, so that a bad one is a line in `failures` and not the end."""

    def __init__(
        self, dataset: Dataset, encoder: Encoder, context: Context, *, form: Form, view: int
    ) -> None:
        self.dataset, self.encoder, self.context, self.view = dataset, encoder, context, view
        self.is_ragged = form == "sequence"
        self.batch = BATCH if context.device.type == "cpu" else GPU_BATCH

    def open(self, index: int) -> Prepared:
        """Return an item's value (of this view) and facts."""
        raw = self.dataset[index].input
        if self.view == 0:
            return self.encoder.prepare(raw)
        generator = draw(self.context.seed, "view", self.view, self.dataset.item_hash(index))
        return self.encoder.prepare(raw, draw=generator, strength=VIEW_STRENGTH)


def _fill(
    shards: Shards,
    missing: Sequence[int],
    hashes: Sequence[str],
    stream: _Stream,
    run: Run,
    failures: dict[str, str],
) -> None:
    """Encode the missing items batch by batch and append a shard whenever enough rows are there."""
    kept: list[str] = []
    rows: list[np.ndarray] = []
    facts: list[Any] = []
    done = 0

    def flush() -> None:
        if kept:
            features = rows if stream.is_ragged else np.stack(rows)
            shards.append(kept, {"features": features, **_columns(facts)})
        for waiting in (kept, rows, facts):
            waiting.clear()

    for opened, features, bad in _batches(missing, stream, run):
        failures.update({hashes[index]: reason for index, reason in bad.items()})
        kept.extend(hashes[index] for index, _ in opened)
        facts.extend(fact for _, fact in opened if fact is not None)
        rows.extend(features)
        done += len(opened) + len(bad)
        try:
            stream.context.progress(Event("encode", done, len(missing)))
        except Interrupted:
            flush()
            raise
        if len(kept) >= SHARD:
            flush()
    flush()


def _batches(missing: Sequence[int], stream: _Stream, run: Run) -> Iterator[_Batch]:
    """Yield (opened items with facts, their features, failures) in order; threads decode and compute ahead."""

    def work(indices: Sequence[int]) -> _Batch:
        opened: list[tuple[int, Any]] = []
        values: list[np.ndarray] = []
        bad: dict[int, str] = {}
        for index in indices:
            try:
                prepared = stream.open(index)
            except DataError as error:
                bad[index] = error.given
                continue
            opened.append((index, prepared.facts))
            values.append(prepared.value)
        return opened, run(values) if values else [], bad

    chunks = [missing[start : start + stream.batch] for start in range(0, len(missing), stream.batch)]
    ahead = 2 * stream.context.threads
    # Each of our threads works alone on its items; torch and onnxruntime bring no others.
    with limited_threads(1), ThreadPoolExecutor(stream.context.threads, thread_name_prefix="encode") as pool:
        waiting: list[Future[Any]] = []
        try:
            for chunk in chunks:
                waiting.append(pool.submit(work, chunk))
                if len(waiting) > ahead:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()


def _length(raw: Any) -> int:
    """Return how long a text or a list of words is; other inputs are of one size once they are open."""
    return len(raw) if isinstance(raw, (str, tuple)) else 0


def _columns(facts: Sequence[Any]) -> dict[str, np.ndarray]:
    """Turn a list of facts (dataclasses of numbers and arrays) into one array a field."""
    if not facts:
        return {}
    return {
        field.name: np.stack([np.asarray(getattr(item, field.name)) for item in facts])
        for field in dataclasses.fields(facts[0])
    }


def _facts(kind: Any, shards: Shards, item: str) -> Any:
    """Read one item's facts back."""
    values = {field.name: shards.row(item, field.name) for field in dataclasses.fields(kind)}
    return kind(
        **{name: value.item() if value.ndim == 0 else np.array(value) for name, value in values.items()}
    )
