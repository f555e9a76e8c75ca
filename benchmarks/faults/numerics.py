"""N: numbers that are not finite, nothing to train, lack of memory, loaders that fail, nothing learnt."""

from __future__ import annotations

import dataclasses

from benchmarks.faults._catalogue import Bench, Fault, Verdict
from benchmarks.faults._process import Subject, complete


def _not_finite(subject: Subject, bench: Bench) -> Verdict:
    """Put a NaN into one item."""
    run = bench.run(spoilt="nan")
    end = complete(subject, run)
    named = "item-7" in end.message
    sound = any(run.checkpoints.glob("checkpoint-*"))
    return Verdict(end.error == "TrainingError" and named and sound and end.forwards <= 6, f"{end}")


def _explodes(subject: Subject, bench: Bench) -> Verdict:
    """Train at a learning rate far too large."""
    end = complete(subject, bench.run(learning_rate=1e4))
    return Verdict("learning_rate" in end.message, f"{end}")


def _nothing_trains(subject: Subject, bench: Bench) -> Verdict:
    """Freeze everything."""
    end = complete(subject, bench.run(frozen=True))
    return Verdict(bool(end.error) and not end.forwards, f"{end} after {end.forwards} forward passes")


def _out_of_memory(subject: Subject, bench: Bench) -> Verdict:
    """Run out of memory in one forward pass."""
    run = bench.run(at=5, action="memory")
    end = complete(subject, run)
    told = any("memory ran out" in line for line in run.notes("remarks"))
    return Verdict(bool(end.digest) and told, f"{end}; {'said so' if told else 'did not say so'}")


def _loader_killed(subject: Subject, bench: Bench) -> Verdict:
    """Let a loader run out of memory once."""
    run = bench.run(spoilt="memory", workers=2)
    end = complete(subject, run)
    return bench.compare(subject, dataclasses.replace(run, spoilt="", workers=0), end)


def _loader_hangs(subject: Subject, bench: Bench) -> Verdict:
    """Let a loader hang in one item."""
    end = complete(subject, bench.run(spoilt="hang", workers=2, timeout=1), limit=20)
    return Verdict(end.error == "DataError" and "item-7" in end.message, f"{end}")


def _batch_of_one(subject: Subject, bench: Bench) -> Verdict:
    """Train with BatchNorm on batches of one item."""
    end = complete(subject, bench.run(batch_size=1, epochs=1))
    return Verdict(bool(end.digest), f"{end}")


def _learns_nothing(subject: Subject, bench: Bench) -> Verdict:
    """Give labels that mean nothing, and a rate that cannot learn them by heart."""
    run = bench.run(spoilt="labels", learning_rate=1e-6)
    end = complete(subject, run)
    told = any("did not learn" in line for line in run.notes("remarks"))
    return Verdict(
        bool(end.digest) and told, "said that it did not learn" if told else f"{end} without a word"
    )


FAULTS = (
    Fault("N1", "NaN in an item", "stops at once, names the item, last checkpoint sound", _not_finite, True),
    Fault("N2", "a learning rate far too large", "stops, points to the rate finder", _explodes, True),
    Fault("N3", "nothing to train", "refused before training", _nothing_trains, True),
    Fault(
        "N4",
        "out of memory in a step (simulated)",
        "smaller passes, same batch, said so",
        _out_of_memory,
        True,
    ),
    Fault(
        "N5", "a loader runs out of memory", "tried again alone: bit-identical weights", _loader_killed, True
    ),
    Fault("N6", "a loader hangs", "an error within the time limit that names the item", _loader_hangs, True),
    Fault("N7", "BatchNorm with batches of one", "trains", _batch_of_one, True),
    Fault("N8", "labels without meaning", "says that it did not learn", _learns_nothing, True),
)
