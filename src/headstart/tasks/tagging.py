"""Tagging: a BIO tag a word, spans a text (named entities)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from headstart.core.errors import DataError
from headstart.core.types import Form, Prediction, Sample, Span, SpansPrediction, Target
from headstart.evaluation import (
    Evaluation,
    check_lengths,
    evaluate_spans,
    f1_of,
    fit_temperature,
    softmax,
    span_counts,
    spans_of,
    viterbi,
)
from headstart.heads import LinearHead
from headstart.tasks.classification import ids_of

IGNORED = -100
"""Tag id of padding, which the loss leaves out."""


class Tagging:
    """Implements Task: cross-entropy over `labels` ("O", "B-person", "I-person", ...) a word, decoded to legal spans.

    A target is a tuple of tags, one a word. Outputs of texts are a list of [L_i, C] in numpy, [N, L, C] in torch.
    """

    name = "tagging"
    link: Literal["softmax", "sigmoid", "identity"] = "softmax"
    form: Form = "sequence"
    quality_name = "span_f1"

    def __init__(self, labels: Sequence[str]) -> None:
        """Fix the tags; DataError where one is not O, B-type or I-type, or an I- lacks its B-."""
        self._labels = tuple(labels)
        self._id = {label: index for index, label in enumerate(self._labels)}
        self._types = sorted({label[2:] for label in self._labels if label != "O"})
        for label in self._labels:
            if label != "O" and (label[:2] not in ("B-", "I-") or f"B-{label[2:]}" not in self._id):
                raise DataError(
                    f"'{label}' is no tag of the BIO scheme",
                    expected="O, B-TYPE and I-TYPE, with a B-TYPE for each type",
                    fix="read the tags with data.task=tagging, which brings other schemes into this one",
                )

    @property
    def labels(self) -> tuple[str, ...]:
        """Tags in the order of the head's outputs."""
        return self._labels

    def build_head(self, width: int, _targets: Sequence[Target] = (), /) -> nn.Module:
        """Return a linear head of zeros: [N, L, width] to [N, L, tags]."""
        return LinearHead(width, len(self._labels), form=self.form)

    def encode(self, targets: Sequence[Target]) -> np.ndarray:
        """Return the tag ids of all words, text by text, int64 [m]; DataError names an unknown tag."""
        return np.array(
            [index for target in targets for index in ids_of(_tags(target), self._id)], dtype=np.int64
        )

    def flatten(
        self, features: Sequence[np.ndarray], targets: Sequence[Target]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return word features as rows [m, D], their tag ids [m], and the text [m] of each row.

        DataError where a text has another number of words than tags.
        """
        check_lengths(features, [_tags(target) for target in targets])
        items = np.repeat(np.arange(len(features)), [len(words) for words in features])
        return np.concatenate(features), self.encode(targets), items

    def collate(self, targets: Sequence[Target]) -> Tensor:
        """Turn tags into ids [N, L] int64, padded with -100 to the longest text; DataError names an unknown tag."""
        rows = [ids_of(_tags(target), self._id) for target in targets]
        longest = max(len(row) for row in rows)
        return torch.tensor([[*row, *[IGNORED] * (longest - len(row))] for row in rows], dtype=torch.int64)

    def loss(
        self,
        outputs: Tensor,
        targets: Tensor,
        *,
        label_smoothing: float = 0.0,
        class_weights: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """Return the mean cross-entropy over the words of a batch: logits [N, L, C] against ids [N, L], -100 ignored.

        Either may be padded further than the other. DataError where a tag lies beyond the outputs' last word.
        """
        length = outputs.shape[1]
        if targets.shape[1] > length and bool((targets[:, length:] != IGNORED).any()):
            raise DataError(
                f"a text with {length} words has more tags than that",
                expected="one tag a word",
                fix="give the words as they were tagged, split already",
            )
        targets = nn.functional.pad(targets, (0, length - targets.shape[1]), value=IGNORED)
        return nn.functional.cross_entropy(
            outputs.flatten(0, 1),
            targets.flatten(),
            weight=class_weights,
            label_smoothing=label_smoothing,
            ignore_index=IGNORED,
        )

    def chance(self, targets: Sequence[Target]) -> float:
        """Return the loss of predicting the tags' shares whatever the word."""
        counts = np.bincount(self.encode(targets))
        shares = counts[counts > 0] / counts.sum()
        return float(-(shares * np.log(shares)).sum())

    def strata(self, targets: Sequence[Target]) -> list[str]:
        """Return the rarest entity type of each text; empty where it has none."""
        held = [{tag[2:] for tag in _tags(target) if tag != "O"} for target in targets]
        count = Counter(kind for kinds in held for kind in kinds)
        return [min(kinds, key=lambda kind: (count[kind], kind), default="") for kinds in held]

    def measure(
        self, outputs: np.ndarray, targets: np.ndarray, items: np.ndarray | None = None
    ) -> tuple[float, float, float]:
        """Return span F1, its jackknife standard error over texts, and the log-loss of a word.

        `outputs` [m, C] are the logits of words, `targets` [m] their tag ids and `items` [m] their texts, rising; one
        text where not given.
        """
        starts = np.flatnonzero(np.diff(items)) + 1 if items is not None else np.zeros(0, np.int64)
        probabilities = softmax(outputs)
        paths = viterbi(np.split(probabilities, starts), self._labels)
        said = [[self._labels[index] for index in path] for path in paths]
        truth = [[self._labels[index] for index in ids] for ids in np.split(targets, starts)]
        quality, error = f1_of(span_counts(said, truth, self._types).sum(1))
        losses = -np.log(np.maximum(probabilities[np.arange(len(targets)), targets], 1e-300))
        return quality, error, float(losses.mean())

    def score(self, outputs: Any, targets: Sequence[Target]) -> Mapping[str, float]:
        """Return strict span F1 as `quality` and the mean log-loss of a word as `loss`."""
        rows, ids, items = self.flatten(outputs, targets)
        quality, _, loss = self.measure(rows, ids, items)
        return {"quality": quality, "loss": loss}

    def probabilities(self, outputs: Sequence[np.ndarray], temperature: float) -> list[np.ndarray]:
        """Return the calibrated probabilities of the tags of each text's words [L_i, C]."""
        return [softmax(words, temperature) for words in outputs]

    def fit_temperature(self, outputs: Sequence[np.ndarray], targets: Sequence[Target]) -> float:
        """Return the temperature of least log-loss on the words of held-out texts."""
        rows, ids, _ = self.flatten(outputs, targets)
        return fit_temperature(rows, ids)

    def evaluate(
        self,
        probabilities: Sequence[np.ndarray],
        targets: Sequence[Target],
        *,
        domains: Sequence[str] | None,
        groups: Sequence[str] | None,
        seed: int,
    ) -> Evaluation:
        """Return span F1 and the other measures, with intervals over texts, and a row an entity type."""
        tags = [_tags(target) for target in targets]
        self.encode(targets)
        return evaluate_spans(
            probabilities, tags, tags=self._labels, domains=domains, groups=groups, seed=seed
        )

    def item_quality(self, probabilities: Sequence[np.ndarray], targets: Sequence[Target]) -> np.ndarray:
        """Return 1 where every span of a text is right and none too many, else 0."""
        answers = self.answers(probabilities)
        pairs = zip(answers, targets, strict=True)
        return np.array([float([span[:3] for span in one] == self.truth(other)) for one, other in pairs])

    def answers(self, probabilities: Sequence[np.ndarray]) -> list[list[list[Any]]]:
        """Return each text's spans [first word, word behind the last, type, probability], in order.

        The probability is that of the least sure word.
        """
        found: list[list[list[Any]]] = []
        for words, path in zip(probabilities, viterbi(probabilities, self._labels), strict=True):
            sure = words[np.arange(len(path)), path]
            spans = spans_of([self._labels[index] for index in path])
            found.append([[start, stop, kind, float(sure[start:stop].min())] for start, stop, kind in spans])
        return found

    def truth(self, target: Target) -> list[list[Any]]:
        """Return the true spans [first word, word behind the last, type]."""
        return [list(span) for span in spans_of(_tags(target))]

    def certainty(self, probabilities: Sequence[np.ndarray]) -> np.ndarray:
        """Return how sure the least sure word of each text is [N]."""
        paths = viterbi(probabilities, self._labels)
        pairs = zip(probabilities, paths, strict=True)
        return np.array([words[np.arange(len(path)), path].min(initial=1.0) for words, path in pairs])

    def decode(self, probabilities: Sequence[np.ndarray], samples: Sequence[Sample]) -> list[Prediction]:
        """Turn word probabilities into spans with character offsets.

        Words that were given split are joined by spaces; a file's text is read again.
        """
        triples = zip(samples, self.answers(probabilities), probabilities, strict=True)
        return [_placed(sample, spans, len(words)) for sample, spans, words in triples]


def _tags(target: Target | None) -> tuple[str, ...]:
    """Return the tags of a target; none of a text that is not labelled."""
    if target is None:
        return ()
    if not isinstance(target, (tuple, list)):
        raise DataError(
            f"the target {target!r} is no sequence of tags",
            expected="one tag a word, such as ('O', 'B-person', 'I-person')",
            fix="read the data with data.task=tagging, or fit task=classification",
        )
    return tuple(target)


def _placed(sample: Sample, spans: Sequence[Sequence[Any]], count: int) -> SpansPrediction:
    """Find the characters of spans of `count` words."""
    text, places = _text_and_places(sample.input, count)
    found: list[Span] = []
    for first, behind, kind, probability in spans:
        start, stop = places[first][0], places[behind - 1][1]
        found.append(Span(start, stop, kind, text[start:stop], probability))
    return SpansPrediction(sample.id, text, tuple(found))


def _text_and_places(raw: Any, count: int) -> tuple[str, list[tuple[int, int]]]:
    """Return a text and where each of its `count` words starts and ends."""
    from headstart.modalities.text import read, words

    if isinstance(raw, str):
        places = [(start, stop) for _, start, stop in words(raw)]
        if len(places) == count:
            return raw, places
    # A text is read in normal form (NFC); where that moves words, offsets count the characters of that form.
    given = read(raw)
    if isinstance(given, str):
        return given, [(start, stop) for _, start, stop in words(given)]
    stops = np.cumsum([len(word) + 1 for word in given]) - 1
    return " ".join(given), [
        (int(stop) - len(word), int(stop)) for word, stop in zip(given, stops, strict=True)
    ]
