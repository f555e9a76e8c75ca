"""Labels that are likely wrong, by confident learning."""

from __future__ import annotations

import numpy as np


def likely_wrong(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the indices of items whose label is likely wrong, the surest first (Northcutt et al., 2021).

    `probabilities` [N, C] are calibrated and held out, `targets` [N] class ids. A class is plausible for an item where
    its probability is at least the mean that this class gets from the items labelled with it; an item is suspect where
    its most probable plausible class is not its label.
    """
    labels = np.arange(probabilities.shape[1])
    counts = np.bincount(targets, minlength=len(labels))
    given = probabilities[np.arange(len(targets)), targets]
    usual = np.bincount(targets, weights=given, minlength=len(labels)) / np.maximum(counts, 1)
    plausible = np.where((probabilities >= usual) & (counts > 0), probabilities, 0.0)
    other = plausible.argmax(1)
    margin = plausible.max(1) - given
    suspect = np.flatnonzero((other != targets) & (margin > 0))
    return suspect[np.argsort(-margin[suspect], kind="stable")]
