"""Scores of spans in texts: strict span F1 (as seqeval's strict mode counts), with intervals over texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headstart.core.errors import DataError, HeadstartError
from headstart.evaluation.bio import spans_of, viterbi
from headstart.evaluation.intervals import by_domain, doubt_notes, measured
from headstart.evaluation.metrics import blocks_of
from headstart.evaluation.multilabel import label_rows
from headstart.evaluation.scores import Evaluation, reliability


def evaluate_spans(
    probabilities: Sequence[np.ndarray],
    targets: Sequence[Sequence[str]],
    *,
    tags: Sequence[str],
    domains: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Score word probabilities (one [L_i, C] a text) against its tags by strict spans, over texts and by entity type.

    Intervals draw whole texts (or groups) again; seqeval (strict IOB2) must confirm the value. DataError where a text
    has another number of words than tags.
    """
    check_lengths(probabilities, targets)
    paths = viterbi(probabilities, tags)
    said = [[tags[int(index)] for index in path] for path in paths]
    types = sorted({tag[2:] for tag in tags if tag != "O"})
    counts = span_counts(said, targets, types)
    hits = [np.array(one) == np.array(other) for one, other in zip(said, targets, strict=True)]
    table = _by_text(counts, probabilities, targets, hits, tags)
    blocks, num_groups = blocks_of(groups, len(targets))

    def measure(weights: np.ndarray, chosen: np.ndarray) -> dict[str, np.ndarray]:
        return _measures(weights, table[chosen])

    scores = measured(measure, np.arange(len(targets)), blocks, resamples=resamples, seed=seed)
    _agree_with_seqeval(scores[0].value, said, targets)
    sure = [row[np.arange(len(path)), path] for row, path in zip(probabilities, paths, strict=True)]
    right, called, true = counts.sum(0).T.tolist()
    return Evaluation(
        labels=tuple(types),
        n=len(targets),
        scores=scores,
        per_class=label_rows(types, right, called, true),
        per_domain=by_domain(measure, blocks, domains, resamples=resamples, seed=seed),
        confusion=(),
        reliability=reliability(np.concatenate(sure), np.concatenate(hits)),
        notes=(*_absent(types, true), *doubt_notes(scores, num_groups)),
        num_groups=num_groups,
        resamples=resamples,
        task="tagging",
    )


def span_counts(
    predicted: Sequence[Sequence[str]], truth: Sequence[Sequence[str]], types: Sequence[str]
) -> np.ndarray:
    """Return how many spans of each type each text has right, predicted and true, int64 [N, types, 3]."""
    place = {kind: index for index, kind in enumerate(types)}
    counts = np.zeros((len(truth), len(types), 3), np.int64)
    for text, (said, true) in enumerate(zip(predicted, truth, strict=True)):
        given, wanted = set(spans_of(said)), set(spans_of(true))
        for column, spans in enumerate((given & wanted, given, wanted)):
            for span in spans:
                counts[text, place[span[2]], column] += 1
    return counts


def f1_of(counts: np.ndarray) -> tuple[float, float]:
    """Return micro F1 over texts' counts (right, predicted, true) [N, 3] and its jackknife standard error.

    Where there is nothing to find and nothing was found F1 is 0, as in seqeval.
    """
    whole = counts.sum(0)
    n, rest = len(counts), (whole - counts).astype(np.float64)
    left = 2 * rest[:, 0] / np.maximum(rest[:, 1] + rest[:, 2], 1)
    error = float(np.sqrt((n - 1) / n * ((left - left.mean()) ** 2).sum()))
    return float(2 * whole[0] / max(whole[1] + whole[2], 1)), error


def check_lengths(outputs: Sequence[np.ndarray], targets: Sequence[Sequence[str]]) -> None:
    """Refuse texts whose outputs and tags differ in number (DataError)."""
    if len(outputs) != len(targets) or not len(targets):
        raise DataError(
            f"{len(outputs)} texts for {len(targets)} sequences of tags",
            expected="one sequence of tags for each of at least one text",
            fix="score the texts that have tags",
        )
    for text, (given, target) in enumerate(zip(outputs, targets, strict=True)):
        if len(given) != len(target):
            raise DataError(
                f"text {text + 1} has {len(given)} words but {len(target)} tags",
                expected="one tag a word",
                fix="give the words as they were tagged, split already",
            )


def _by_text(
    counts: np.ndarray,
    probabilities: Sequence[np.ndarray],
    targets: Sequence[Sequence[str]],
    hits: Sequence[np.ndarray],
    tags: Sequence[str],
) -> np.ndarray:
    """Return what the measures are sums of [N, 6]: right, predicted, true spans; right words, words, summed loss."""
    place = {tag: index for index, tag in enumerate(tags)}
    rows = np.zeros((len(targets), 6))
    rows[:, :3] = counts.sum(1)
    for text, (given, target, right) in enumerate(zip(probabilities, targets, hits, strict=True)):
        chosen = given[np.arange(len(target)), [place[tag] for tag in target]]
        losses = -np.log(np.clip(chosen, np.finfo(np.float64).eps, None))
        rows[text, 3:] = right.sum(), len(target), losses.sum()
    return rows


def _measures(weights: np.ndarray, table: np.ndarray) -> dict[str, np.ndarray]:
    """Return every metric [R] for text weights [n, R]; precision without predictions is 0, as in seqeval."""
    right, said, true, hits, words, loss = table.T @ weights.astype(np.float64)
    return {
        "span_f1": 2 * right / np.maximum(said + true, 1),
        "span_precision": right / np.maximum(said, 1),
        "span_recall": right / np.maximum(true, 1),
        "token_accuracy": hits / words,
        "log_loss": loss / words,
    }


def _agree_with_seqeval(value: float, said: list[list[str]], truth: Sequence[Sequence[str]]) -> None:
    """Refuse a span F1 that seqeval, the field's reference, does not confirm."""
    try:
        from seqeval.metrics import f1_score
        from seqeval.scheme import IOB2
    except ImportError:
        raise DataError(
            "scoring spans needs seqeval, which is not installed",
            expected="seqeval 1.2 or newer",
            fix="pip install 'headstart[text]'",
        ) from None
    given = [list(tags) for tags in truth]
    reference = float(f1_score(given, said, mode="strict", scheme=IOB2, zero_division=0))  # pyright: ignore[reportArgumentType]
    if abs(reference - value) > 1e-9:
        raise HeadstartError(
            f"span F1 is {value:.6f} by our counts, {reference:.6f} by seqeval",
            expected="the same",
            fix="report this with the tags of the data: it is a fault of headstart",
        )


def _absent(types: Sequence[str], support: Sequence[int]) -> list[str]:
    """Name the entity types that no text has."""
    absent = [kind for kind, count in zip(types, support, strict=True) if not count]
    return [f"no test spans of {', '.join(absent[:5])}: their recall is not known"] if absent else []
