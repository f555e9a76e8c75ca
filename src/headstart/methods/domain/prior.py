"""Other shares of the classes in the target: estimated without its labels, and answers corrected for them.

Where only the shares q of the classes differ from the source's p, the posterior is P(y|x) q_y / p_y, normalised.

- EM: q <- mean over the target of the corrected posteriors, until it stands still (Saerens, Latinne and Decaestecker
  2002), on calibrated probabilities, without which it drifts (Alexandari, Kundaje and Shrikumar 2020, arXiv
  1901.06852).
- BBSE: the classes that the head names are a mixture of its confusions, mean of one-hot answers = C q with C_ij =
  P(says i | is j) (Lipton, Wang and Smola 2018, arXiv 1802.03916); solved by least squares, negative shares cut off.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
ROUNDS, STILL = 1000, 1e-7
LEAST = 1e-4
"""Smallest share of a class that is reckoned with."""


def em_shares(said: Array, source_shares: Array) -> Array:
    """Return the shares [C] of the classes among items of calibrated probabilities [m, C], from those of the source."""
    shares = source_shares = np.maximum(source_shares, LEAST)
    for _ in range(ROUNDS):
        posterior = corrected(said, source_shares, shares)
        following = np.maximum(posterior.mean(0), LEAST)
        following = following / following.sum()
        if np.abs(following - shares).max() < STILL:
            return following
        shares = following
    return shares


def bbse_shares(said: Array, held_out: Array, truth: NDArray[np.int64]) -> Array:
    """Return the shares [C] by the confusions of probabilities [n, C] for held-out source items of class ids [n]."""
    num_classes = said.shape[1]
    confusion = np.zeros((num_classes, num_classes))
    np.add.at(confusion, (held_out.argmax(1), truth), 1.0)
    confusion /= np.maximum(confusion.sum(0), 1)
    named = np.bincount(said.argmax(1), minlength=num_classes) / len(said)
    shares, *_ = np.linalg.lstsq(confusion, named, rcond=1e-6)
    shares = np.maximum(shares, LEAST)
    return shares / shares.sum()


def corrected(said: Array, source_shares: Array, shares: Array) -> Array:
    """Return probabilities [m, C] under other shares of the classes."""
    weighted = said * (shares / np.maximum(source_shares, LEAST))
    return weighted / weighted.sum(1, keepdims=True)
