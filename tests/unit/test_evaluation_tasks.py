"""Scores of labels, numbers and spans against scikit-learn, scipy and seqeval; intervals; legal sequences."""

from __future__ import annotations

import itertools
import json
import random

import numpy as np
import pytest
from scipy.stats import spearmanr
from seqeval.metrics import classification_report, f1_score
from seqeval.scheme import IOB2
from sklearn import metrics as reference

from headstart.core.errors import DataError
from headstart.evaluation import (
    Evaluation,
    conformal_reach,
    evaluate_labels,
    evaluate_spans,
    evaluate_values,
    f1_of,
    fit_label_temperature,
    sigmoid,
    span_counts,
    spans_of,
    transitions,
    viterbi,
)
from headstart.evaluation.multilabel import _average_precision
from headstart.evaluation.regression import _measures

TAGS = ("O", "B-person", "I-person", "B-group-x", "I-group-x")
TYPES = ("group-x", "person")


def round_trip(result: Evaluation) -> None:
    """Check that JSON values keep an evaluation."""
    written = result.to_json()
    assert json.loads(json.dumps(written, allow_nan=False)) == written
    assert Evaluation.from_json(written) == result


# -- labels ---------------------------------------------------------------------------------------------------


def label_data(n: int = 300, labels: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    draws = np.random.default_rng(seed)
    truth = draws.random((n, labels)) < np.linspace(0.05, 0.6, labels)
    probabilities = sigmoid(draws.normal(size=(n, labels)) + 2.0 * truth - 1)
    return probabilities, truth.astype(np.float32), [f"label {index}" for index in range(labels)]


def test_label_scores_equal_those_of_scikit_learn() -> None:
    probabilities, truth, labels = label_data()
    probabilities = np.round(probabilities, 1)  # ties
    said = probabilities >= 0.5
    result = evaluate_labels(probabilities, truth, labels=labels, resamples=20)
    expected = {
        "macro_f1": reference.f1_score(truth, said, average="macro"),
        "micro_f1": reference.f1_score(truth, said, average="micro"),
        "mean_average_precision": reference.average_precision_score(truth, probabilities, average="macro"),
        "exact_match": reference.accuracy_score(truth, said),
        "log_loss": np.mean(
            [reference.log_loss(truth[:, c], probabilities[:, c], labels=[0, 1]) for c in range(5)]
        ),
    }
    assert [score.name for score in result.scores] == list(expected)
    for name, value in expected.items():
        assert result.score(name).value == pytest.approx(value, abs=1e-12), name
    assert result.primary.name == "macro_f1" and result.task == "multilabel"
    rows = reference.precision_recall_fscore_support(truth, said)
    for index, row in enumerate(result.per_class):
        assert (row.precision, row.recall, row.f1, row.support) == pytest.approx(
            tuple(part[index] for part in rows)
        )


def test_average_precision_of_weighted_items_is_scikit_learn_s() -> None:
    probabilities, truth, _ = label_data(80, 3)
    probabilities = np.round(probabilities, 1)
    weights = np.random.default_rng(1).integers(0, 4, (80, 6)).astype(np.float64)
    found = _average_precision(weights, probabilities, truth > 0)
    for column in range(6):
        expected = np.mean(
            [
                reference.average_precision_score(
                    truth[:, c], probabilities[:, c], sample_weight=weights[:, column]
                )
                for c in range(3)
            ]
        )
        assert found[column] == pytest.approx(expected)


def test_label_intervals_hold_their_values_and_domains_are_apart() -> None:
    probabilities, truth, labels = label_data()
    domains = ["shop", "news", "shop"] * 100
    result = evaluate_labels(probabilities, truth, labels=labels, domains=domains, resamples=200)
    assert all(score.low < score.value < score.high for score in result.scores)
    assert [row.domain for row in result.per_domain] == ["news", "shop"]
    assert result.per_domain[0].scores[0].n == 100
    assert result.confusion == ()
    assert sum(row.n for row in result.reliability) == truth.size
    round_trip(result)


def test_a_label_that_no_item_has_is_said_and_not_counted() -> None:
    probabilities, truth, labels = label_data()
    truth[:, 1] = 0
    probabilities[:, 1] = 0.1
    result = evaluate_labels(probabilities, truth, labels=labels, resamples=20)
    kept = [0, 2, 3, 4]
    assert result.primary.value == pytest.approx(
        reference.f1_score(truth[:, kept], probabilities[:, kept] >= 0.5, average="macro")
    )
    assert "label 1" in result.notes[0]


def test_a_perfect_match_keeps_its_doubt() -> None:
    truth = np.eye(3)[[0, 1, 2] * 10]
    result = evaluate_labels(truth, truth, labels=list("abc"), resamples=50)
    assert result.score("exact_match").value == 1 and 0.8 < result.score("exact_match").low < 0.95
    assert any("Wilson" in note for note in result.notes)


@pytest.mark.parametrize(
    ("probabilities", "targets", "message"),
    [
        (np.ones((3, 2)), np.ones((3, 3)), "shape"),
        (np.full((2, 2), 1.5), np.ones((2, 2)), "not probabilities"),
        (np.full((2, 2), np.nan), np.ones((2, 2)), "not probabilities"),
        (np.full((2, 2), 0.5), np.full((2, 2), 0.5), "other than 0 and 1"),
        (np.ones((0, 2)), np.ones((0, 2)), "shape"),
    ],
)
def test_label_misfits_are_explained(probabilities: np.ndarray, targets: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate_labels(probabilities, targets, labels=["a", "b"])


def test_label_temperature_is_found() -> None:
    draws = np.random.default_rng(0)
    logits = draws.normal(size=(3000, 4)) * 2
    targets = (draws.random(logits.shape) < sigmoid(logits)).astype(np.float32)
    assert fit_label_temperature(logits * 3, targets) == pytest.approx(3, rel=0.06)
    assert fit_label_temperature(np.array([[50.0]]), np.array([[1.0]])) > 0.05


def test_a_sigmoid_neither_overflows_nor_loses_small_probabilities() -> None:
    with np.errstate(all="raise", under="ignore"):
        assert sigmoid(np.array([[-800.0, -30.0, 0.0, 800.0]])) == pytest.approx(
            np.array([[0.0, 9.357623e-14, 0.5, 1.0]])
        )


# -- numbers --------------------------------------------------------------------------------------------------


def value_data(n: int = 400, *, offset: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(0)
    truth = draws.normal(size=n) * 3 + offset
    return truth + draws.normal(size=n), truth


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_value_scores_equal_those_of_scikit_learn_and_scipy(offset: float) -> None:
    predicted, truth = value_data(offset=offset)
    result = evaluate_values(predicted, truth, resamples=100)
    expected = {
        "r2": reference.r2_score(truth, predicted),
        "mae": reference.mean_absolute_error(truth, predicted),
        "rmse": reference.root_mean_squared_error(truth, predicted),
        "spearman": spearmanr(truth, predicted).statistic,
    }
    assert [score.name for score in result.scores] == list(expected)
    for name, value in expected.items():
        score = result.score(name)
        assert score.value == pytest.approx(value, rel=1e-9), name
        assert score.low < score.value < score.high
    assert [score.higher_is_better for score in result.scores] == [True, False, False, True]
    assert (result.labels, result.task) == ((), "regression")
    round_trip(result)


def test_spearman_of_ties_is_scipy_s() -> None:
    predicted, truth = (np.round(part) for part in value_data(100))
    result = evaluate_values(predicted, truth, resamples=2)
    assert result.score("spearman").value == pytest.approx(spearmanr(truth, predicted).statistic)


def test_weighted_value_scores_are_those_of_repeated_items() -> None:
    predicted, truth = (np.round(part, 1) for part in value_data(60))
    weights = np.random.default_rng(2).integers(0, 4, 60)
    found = _measures(weights[:, None].astype(np.float64), predicted, truth)
    again = [np.repeat(part, weights) for part in (predicted, truth)]
    assert found["r2"][0] == pytest.approx(reference.r2_score(again[1], again[0]))
    assert found["mae"][0] == pytest.approx(np.abs(again[0] - again[1]).mean())
    assert found["spearman"][0] == pytest.approx(spearmanr(*again).statistic)


def test_equal_targets_define_no_r2_and_that_is_said() -> None:
    result = evaluate_values(np.array([1.0, 2.0, 3.0]), np.full(3, 2.0), resamples=10)
    assert {score.name for score in result.scores} == {"mae", "rmse"}
    assert "not defined" in result.notes[-1]


def test_value_misfits_are_explained() -> None:
    with pytest.raises(DataError, match="shape"):
        evaluate_values(np.ones((3, 1)), np.ones(3))
    with pytest.raises(DataError, match="not finite"):
        evaluate_values(np.array([np.inf]), np.ones(1))


def test_the_reach_of_a_number_s_interval_keeps_its_promise() -> None:
    outside = []
    for seed in range(200):
        residuals = np.random.default_rng(seed).standard_t(3, size=300)
        reach = conformal_reach(residuals[:150], error_rate=0.1)
        assert reach is not None
        outside.append((np.abs(residuals[150:]) > reach).mean())
    assert 0.085 < np.mean(outside) <= 0.105
    assert conformal_reach(np.ones(8), error_rate=0.1) is None
    assert conformal_reach(np.ones(9), error_rate=0.1) == 1


# -- spans ----------------------------------------------------------------------------------------------------


def is_legal(tags: list[str]) -> bool:
    """Say by hand whether I-x only follows B-x or I-x."""
    return all(not now.startswith("I-") or before[1:] == now[1:] for before, now in zip(["O", *tags], tags))  # noqa: B905


def softmaxed(draws: np.random.Generator, length: int) -> np.ndarray:
    raised = np.exp(draws.normal(size=(length, len(TAGS))) * 2)
    return raised / raised.sum(1, keepdims=True)


def test_the_decoded_sequence_is_the_most_probable_of_the_legal_ones() -> None:
    draws = np.random.default_rng(0)
    texts = [softmaxed(draws, length) for length in (4, 1, 3, 5, 2, 4)]
    for given, path in zip(texts, viterbi(texts, TAGS), strict=True):
        every = itertools.product(range(len(TAGS)), repeat=len(given))
        best = max(
            (ids for ids in every if is_legal([TAGS[index] for index in ids])),
            key=lambda ids: np.prod([given[word, index] for word, index in enumerate(ids)]),
        )
        assert tuple(path) == best


def test_an_illegal_sequence_cannot_come_out(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = np.random.default_rng(1)
    texts = [softmaxed(draws, int(length)) for length in draws.integers(0, 30, 300)]
    # Certain of the impossible: a text of I-tags alone.
    texts.append(np.eye(len(TAGS))[[2, 4, 2, 4]])
    whole = viterbi(texts, TAGS)
    assert all(is_legal([TAGS[index] for index in path]) for path in whole)
    assert [len(path) for path in whole] == [len(text) for text in texts]
    monkeypatch.setattr("headstart.evaluation.bio._CELLS", 200)
    pieces = viterbi(texts, TAGS)
    assert all(np.array_equal(one, other) for one, other in zip(whole, pieces, strict=True))


def test_transitions_by_hand() -> None:
    starts, follows = transitions(TAGS)
    assert starts.tolist() == [True, True, False, True, False]
    allowed = {
        (TAGS[one], TAGS[other]) for one, other in np.argwhere(follows) if TAGS[other].startswith("I-")
    }
    assert allowed == {
        ("B-person", "I-person"),
        ("I-person", "I-person"),
        ("B-group-x", "I-group-x"),
        ("I-group-x", "I-group-x"),
    }


def test_spans_by_hand() -> None:
    tags = ["B-person", "I-person", "B-person", "O", "I-person", "B-group-x", "I-person", "B-person"]
    assert spans_of(tags) == [(0, 2, "person"), (2, 3, "person"), (5, 6, "group-x"), (7, 8, "person")]
    assert spans_of([]) == spans_of(["O", "O"]) == []


def random_tags(draws: random.Random, count: int) -> list[list[str]]:
    """Return tags of texts, illegal ones among them."""
    return [draws.choices(TAGS, k=draws.randint(1, 12)) for _ in range(count)]


@pytest.mark.parametrize("seed", range(20))
def test_counts_agree_with_seqeval_on_any_tags(seed: int) -> None:
    draws = random.Random(seed)
    truth = random_tags(draws, 30)
    said = [[tag if draws.random() < 0.8 else draws.choice(TAGS) for tag in tags] for tags in truth]
    counts = span_counts(said, truth, TYPES)
    quality, error = f1_of(counts.sum(1))
    assert quality == pytest.approx(f1_score(truth, said, mode="strict", scheme=IOB2))
    assert 0 < error < 0.2
    report = classification_report(truth, said, mode="strict", scheme=IOB2, output_dict=True, zero_division=0)
    for index, kind in enumerate(TYPES):
        right, predicted, true = counts[:, index].sum(0)
        assert report[kind]["precision"] == pytest.approx(right / predicted)
        assert report[kind]["recall"] == pytest.approx(right / true)


def tagged(
    count: int = 120, *, noise: float = 1.5, seed: int = 0
) -> tuple[list[np.ndarray], list[list[str]]]:
    """Return legal tags of texts and word probabilities that know them in part."""
    draws = np.random.default_rng(seed)
    truth = [
        [TAGS[index] for index in viterbi([softmaxed(draws, int(length))], TAGS)[0]]
        for length in draws.integers(1, 15, count)
    ]
    given = []
    for tags in truth:
        logits = noise * draws.normal(size=(len(tags), len(TAGS)))
        logits[np.arange(len(tags)), [TAGS.index(tag) for tag in tags]] += 3
        raised = np.exp(logits)
        given.append(raised / raised.sum(1, keepdims=True))
    return given, truth


def test_span_scores_are_seqeval_s_with_intervals_over_texts() -> None:
    given, truth = tagged()
    said = [[TAGS[index] for index in path] for path in viterbi(given, TAGS)]
    result = evaluate_spans(given, truth, tags=TAGS, domains=["a", "b"] * 60, resamples=300)
    assert [score.name for score in result.scores] == [
        "span_f1", "span_precision", "span_recall", "token_accuracy", "log_loss",
    ]  # fmt: skip
    report = classification_report(truth, said, mode="strict", scheme=IOB2, output_dict=True)
    assert result.primary.value == pytest.approx(report["micro avg"]["f1-score"])
    assert result.score("span_precision").value == pytest.approx(report["micro avg"]["precision"])
    assert result.score("span_recall").value == pytest.approx(report["micro avg"]["recall"])
    assert result.score("token_accuracy").value == pytest.approx(
        np.mean(
            [one == other for a, b in zip(said, truth, strict=True) for one, other in zip(a, b, strict=True)]
        )
    )
    assert all(score.low < score.value < score.high for score in result.scores)
    assert (result.labels, result.n, result.task) == (TYPES, 120, "tagging")
    for row in result.per_class:
        assert row.f1 == pytest.approx(report[row.label]["f1-score"])
        assert row.support == report[row.label]["support"]
    assert [row.domain for row in result.per_domain] == ["a", "b"]
    round_trip(result)


def test_the_span_interval_covers_what_other_texts_score() -> None:
    _, error = f1_of(_counts(*tagged(400)))
    result = evaluate_spans(*tagged(400), tags=TAGS, resamples=1000)
    assert result.primary.high - result.primary.low == pytest.approx(2 * 1.96 * error, rel=0.12)


def _counts(given: list[np.ndarray], truth: list[list[str]]) -> np.ndarray:
    said = [[TAGS[index] for index in path] for path in viterbi(given, TAGS)]
    return span_counts(said, truth, TYPES).sum(1)


def test_documents_widen_the_span_interval() -> None:
    given, truth = tagged(40)
    copies = [text for text in given for _ in range(9)], [tags for tags in truth for _ in range(9)]
    alone = evaluate_spans(*copies, tags=TAGS, resamples=300).primary
    documents = [f"document {index // 9}" for index in range(360)]
    grouped = evaluate_spans(*copies, tags=TAGS, groups=documents, resamples=300)
    assert grouped.primary.high - grouped.primary.low > 2 * (alone.high - alone.low)
    assert grouped.num_groups == 40


def test_no_span_found_scores_nothing_and_a_perfect_tagger_keeps_its_doubt() -> None:
    truth = [["B-person", "O"]] * 20
    none = evaluate_spans([np.eye(5)[[0, 0]]] * 20, truth, tags=TAGS, resamples=20)
    assert (none.primary.value, none.primary.low) == (0, 0) and 0.1 < none.primary.high < 0.2
    every = evaluate_spans([np.eye(5)[[1, 0]]] * 20, truth, tags=TAGS, resamples=20)
    assert every.primary.value == 1 and 0.8 < every.primary.low < 0.9
    assert "no test spans of group-x" in every.notes[0]


def test_tags_of_another_number_than_words_are_refused() -> None:
    given, truth = tagged(3)
    with pytest.raises(DataError, match=r"text 2 has .* words but .* tags"):
        evaluate_spans(given, [truth[0], [*truth[1], "O"], truth[2]], tags=TAGS)
    with pytest.raises(DataError, match="2 texts for 3"):
        evaluate_spans(given[:2], truth, tags=TAGS)
