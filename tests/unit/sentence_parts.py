"""Small made-up texts of three classes that the tests share; no network or library for texts is needed."""

from __future__ import annotations

import numpy as np

WORDS = {
    "animals": ("cat", "dog", "horse", "cow"),
    "colours": ("red", "green", "blue", "white"),
    "numbers": ("one", "two", "three", "four"),
}
FILLERS = ("we", "saw", "the", "and", "then", "it", "was", "so")
"""Words that say the class, and others that say nothing."""


def texts(each: int, *, seed: int = 0) -> tuple[list[str], list[str]]:
    """Return texts of 4 to 12 words, one or two of which say the class."""
    draws = np.random.default_rng(seed)
    found, labels = [], []
    for number in range(each * len(WORDS)):
        label = sorted(WORDS)[number % len(WORDS)]
        line = list(draws.choice(FILLERS, draws.integers(3, 11)))
        for word in draws.choice(WORDS[label], draws.integers(1, 3)):
            line.insert(int(draws.integers(len(line) + 1)), str(word))
        found.append(" ".join(line))
        labels.append(label)
    return found, labels
