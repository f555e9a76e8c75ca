"""Votes on candidates without a label of the target: agreement with the mean of all, with each other, with clusters.

Each vote is a number, higher is better, comparable only among candidates for the same target. None of them is a
functional that a candidate minimised, which would elect whoever overfits it (as entropy elects what minimises entropy).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headstart.adaptation.candidates import Candidate


def ensemble_agreement(candidates: Sequence[Candidate]) -> np.ndarray:
    """Return the share of items on which each agrees with the mean of all [k].

    Hu et al. 2024 (EnsV), Towards reliable model selection for unsupervised domain adaptation: the mean of all
    candidates is not the worst of them, so that whoever is closest to it is not either.
    """
    said = np.stack([candidate.probabilities for candidate in candidates])
    together = said.mean(0).argmax(1)
    return (said.argmax(2) == together).mean(1)


def peer_agreement(candidates: Sequence[Candidate]) -> np.ndarray:
    """Return the median over the others of the share of items on which two agree [k]: no mean that confidence sways."""
    answers = np.stack([candidate.probabilities.argmax(1) for candidate in candidates])
    same = (answers[:, None] == answers[None]).mean(2)
    np.fill_diagonal(same, np.nan)
    return np.nanmedian(same, axis=1) if len(candidates) > 1 else np.ones(1)


def cluster_agreement(candidates: Sequence[Candidate], clusters: np.ndarray) -> np.ndarray:
    """Return the adjusted mutual information of each one's classes with clusters [m] of the target's features [k].

    Musgrave, Belongie and Lim 2022 (arXiv 2208.07360) found it the steadiest of those that look at features.
    """
    return np.array([_mutual(candidate.probabilities.argmax(1), clusters) for candidate in candidates])


def _mutual(one: np.ndarray, other: np.ndarray) -> float:
    """Return the normalised mutual information of two labellings of the same items, 0 to 1."""
    table = np.zeros((one.max() + 1, other.max() + 1))
    np.add.at(table, (one, other), 1 / len(one))
    rows, columns = table.sum(1), table.sum(0)
    kept = table > 0
    information = float((table[kept] * np.log(table[kept] / np.outer(rows, columns)[kept])).sum())
    entropies = [-float((part[part > 0] * np.log(part[part > 0])).sum()) for part in (rows, columns)]
    return information / max(sum(entropies) / 2, 1e-12)
