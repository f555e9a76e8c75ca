"""Scores against scikit-learn, intervals against theory, calibration and abstention against their promises."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from sklearn import metrics as reference

from headstart.core.errors import DataError
from headstart.evaluation import (
    Evaluation,
    conformal_threshold,
    evaluate,
    fit_temperature,
    likely_wrong,
    paired_gain,
    softmax,
    wilson,
)


def _predictions(
    n: int, classes: int, *, seed: int = 0, strength: float = 2.0
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return probabilities [N, C] that know the truth in part, targets [N] and labels."""
    draws = np.random.default_rng(seed)
    targets = draws.integers(0, classes, n)
    logits = draws.normal(size=(n, classes))
    logits[np.arange(n), targets] += strength
    return softmax(logits), targets, [f"class {index}" for index in range(classes)]


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_scores_equal_those_of_scikit_learn(classes: int) -> None:
    probabilities, targets, labels = _predictions(500, classes)
    predicted = probabilities.argmax(1)
    result = evaluate(probabilities, targets, labels=labels, resamples=20)
    scores = probabilities[:, 1] if classes == 2 else probabilities
    expected = {
        "accuracy": reference.accuracy_score(targets, predicted),
        "balanced_accuracy": reference.balanced_accuracy_score(targets, predicted),
        "macro_f1": reference.f1_score(targets, predicted, average="macro"),
        "auroc": reference.roc_auc_score(targets, scores, multi_class="ovr"),
        "log_loss": reference.log_loss(targets, probabilities),
    }
    for name, value in expected.items():
        assert result.score(name).value == pytest.approx(value, abs=1e-12), name
        assert result.score(name).n == 500
    assert [list(row) for row in result.confusion] == reference.confusion_matrix(targets, predicted).tolist()
    assert [score.higher_is_better for score in result.scores] == [True, True, True, True, False, False]


def test_auroc_counts_ties_as_half() -> None:
    probabilities, targets, labels = _predictions(300, 4)
    rounded = np.round(probabilities, 1) + 1e-9
    rounded /= rounded.sum(1, keepdims=True)
    tied = np.round(rounded, 2)
    tied[:, 0] += 1 - tied.sum(1)
    tied = np.clip(tied, 0, 1)
    value = evaluate(tied, targets, labels=labels, resamples=2).score("auroc").value
    expected = np.mean([reference.roc_auc_score(targets == index, tied[:, index]) for index in range(4)])
    assert value == pytest.approx(expected, abs=1e-12)


def test_class_rows_equal_those_of_scikit_learn() -> None:
    probabilities, targets, labels = _predictions(400, 5, strength=1.0)
    predicted = probabilities.argmax(1)
    rows = evaluate(probabilities, targets, labels=labels, resamples=2).per_class
    precision, recall, f1, support = reference.precision_recall_fscore_support(targets, predicted)
    assert [row.precision for row in rows] == pytest.approx(precision)
    assert [row.recall for row in rows] == pytest.approx(recall)
    assert [row.f1 for row in rows] == pytest.approx(f1)
    assert [row.support for row in rows] == support.tolist()
    assert all(row.low < row.recall < row.high for row in rows)


def test_wilson_interval_equals_the_published_value() -> None:
    # Newcombe (1998), table I: 81 of 263 gives 0.2553 to 0.3662.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20)[0] == 0 and wilson(20, 20)[1] == 1


def test_calibration_error_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1]] * 10 + [[0.4, 0.6]] * 10)
    targets = np.array([0] * 7 + [1] * 3 + [1] * 6 + [0] * 4)
    result = evaluate(probabilities, targets, labels=["a", "b"], resamples=2)
    assert result.score("calibration_error").value == pytest.approx((0.2 * 10 + 0.0 * 10) / 20)
    assert [(row.n, round(row.probability, 6), row.accuracy) for row in result.reliability] == [
        (10, 0.6, 0.6),
        (10, 0.9, 0.7),
    ]


def test_interval_is_that_of_the_percentile_bootstrap() -> None:
    probabilities, targets, labels = _predictions(600, 3)
    right = probabilities.argmax(1) == targets
    score = evaluate(probabilities, targets, labels=labels, resamples=2000).score("accuracy")
    half = 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / 600)
    assert score.low == pytest.approx(right.mean() - half, abs=0.006)
    assert score.high == pytest.approx(right.mean() + half, abs=0.006)


def test_groups_widen_the_interval() -> None:
    targets = np.repeat(np.arange(40) % 2, 25)
    hit = np.repeat(np.random.default_rng(1).random(40) < 0.7, 25)
    probabilities = np.where((targets == 0) == hit, 0.9, 0.1)[:, None] * [1, -1] + [0, 1]
    alone = evaluate(probabilities, targets, labels=["a", "b"])
    grouped = evaluate(
        probabilities, targets, labels=["a", "b"], groups=[f"patient {index // 25}" for index in range(1000)]
    )

    def width(result: Evaluation) -> float:
        return result.score("accuracy").high - result.score("accuracy").low

    assert width(grouped) > 3 * width(alone)
    assert grouped.num_groups == 40 and "whole groups (40)" in " ".join(grouped.notes)
    assert alone.num_groups == 0


def test_items_without_a_group_stand_for_themselves() -> None:
    probabilities, targets, labels = _predictions(50, 2)
    result = evaluate(probabilities, targets, labels=labels, groups=["p", "p", *[""] * 48])
    assert result.num_groups == 49
    assert evaluate(probabilities, targets, labels=labels, groups=[""] * 50).num_groups == 0


def test_absent_classes_are_left_out_and_said() -> None:
    probabilities, targets, labels = _predictions(300, 4)
    kept = targets != 2
    result = evaluate(probabilities[kept], targets[kept], labels=labels, resamples=50)
    expected = np.mean(
        [reference.roc_auc_score(targets[kept] == c, probabilities[kept][:, c]) for c in (0, 1, 3)]
    )
    assert result.score("auroc").value == pytest.approx(expected, abs=1e-12)
    assert "no test items of class 2" in result.notes[0]
    assert (result.per_class[2].recall, result.per_class[2].support) == (None, 0)


def test_one_class_alone_has_no_auroc() -> None:
    result = evaluate(np.array([[0.8, 0.2], [0.3, 0.7]]), np.array([0, 0]), labels=["a", "b"], resamples=10)
    assert "auroc" not in {score.name for score in result.scores}
    assert any("AUROC is not defined" in note for note in result.notes)
    with pytest.raises(KeyError):
        result.score("auroc")


def test_a_perfect_score_keeps_its_doubt() -> None:
    probabilities = np.eye(2)[[0, 1] * 10]
    result = evaluate(probabilities, np.array([0, 1] * 10), labels=["a", "b"])
    accuracy = result.score("accuracy")
    assert (accuracy.value, accuracy.high) == (1.0, 1.0)
    assert accuracy.low == pytest.approx(wilson(20, 20)[0])
    assert any("every test item is right" in note for note in result.notes)


def test_domains_are_scored_apart() -> None:
    probabilities, targets, labels = _predictions(200, 3)
    domains = ["photo" if index % 4 else "sketch" for index in range(200)]
    rows = evaluate(probabilities, targets, labels=labels, domains=domains, resamples=50).per_domain
    assert [row.domain for row in rows] == ["photo", "sketch"]
    assert [row.scores[0].n for row in rows] == [150, 50]
    chosen = np.array(domains) == "sketch"
    assert rows[1].scores[0].value == (probabilities.argmax(1) == targets)[chosen].mean()
    assert evaluate(probabilities, targets, labels=labels, domains=["x"] * 200).per_domain == ()


def test_most_confused_pairs_come_worst_first() -> None:
    targets = np.array([0] * 5 + [1] * 5 + [2] * 5)
    predicted = np.array([0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 2, 2, 2, 2, 1])
    result = evaluate(np.eye(3)[predicted], targets, labels=["cat", "dog", "eel"], resamples=2)
    first = result.confused(2)[0]
    assert (first.truth, first.predicted, first.count, first.share) == ("cat", "dog", 3, 0.6)
    assert len(result.confused()) == 3


def test_json_round_trip_is_exact() -> None:
    probabilities, targets, labels = _predictions(120, 4)
    result = evaluate(
        probabilities, targets, labels=labels, domains=["a", "b"] * 60, groups=list("xyz") * 40, resamples=50
    )
    written = result.to_json()
    assert json.loads(json.dumps(written, allow_nan=False)) == written
    assert Evaluation.from_json(written) == result


def test_chunks_of_resamples_do_not_move_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    probabilities, targets, labels = _predictions(100, 3)
    whole = evaluate(probabilities, targets, labels=labels, resamples=100)
    monkeypatch.setattr("headstart.evaluation.metrics._CHUNK", 700)
    pieces = evaluate(probabilities, targets, labels=labels, resamples=100)
    for first, second in zip(whole.scores, pieces.scores, strict=True):
        assert (first.low, first.high) == pytest.approx((second.low, second.high), abs=1e-5)


@pytest.mark.parametrize(
    ("probabilities", "targets", "message"),
    [
        (np.ones((3, 2)) / 2, np.array([0, 1]), "shape"),
        (np.ones((2, 2)), np.array([0, 1]), "not probabilities"),
        (np.array([[np.nan, 1.0]]), np.array([0]), "not probabilities"),
        (np.ones((2, 2)) / 2, np.array([0, 2]), "class ids 0 to 1"),
        (np.ones((2, 2)) / 2, np.array(["a", "b"]), "class ids"),
        (np.ones((0, 2)), np.array([], int), "shape"),
    ],
)
def test_misfits_are_explained(probabilities: np.ndarray, targets: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate(probabilities, targets, labels=["a", "b"])


def test_paired_difference_cancels_what_is_hard_for_both() -> None:
    draws = np.random.default_rng(3)
    targets = draws.integers(0, 2, 400)
    hard = draws.random(400) < 0.4
    first = np.where(hard, 1 - targets, targets)
    second = np.where(hard | (draws.random(400) < 0.05), 1 - targets, targets)
    gain = (first == targets).astype(float) - (second == targets)
    difference = paired_gain(gain, name="accuracy_difference")
    assert difference.name == "accuracy_difference"
    assert difference.value == pytest.approx((first == targets).mean() - (second == targets).mean())
    assert 0 < difference.low < difference.value < difference.high < 0.08
    assert difference.n == 400
    opposite = paired_gain(-gain, name="accuracy_difference")
    assert (opposite.low, opposite.high) == pytest.approx((-difference.high, -difference.low), abs=1e-9)
    with pytest.raises(DataError, match="no items"):
        paired_gain(gain[:0], name="accuracy_difference")


def test_temperature_is_found_and_bounded() -> None:
    draws = np.random.default_rng(0)
    logits = draws.normal(size=(4000, 5)) * 2
    targets = np.array([draws.choice(5, p=row) for row in softmax(logits)])
    assert fit_temperature(logits * 3, targets) == pytest.approx(3, rel=0.08)
    assert fit_temperature(logits / 2, targets) == pytest.approx(0.5, rel=0.08)
    separable = np.eye(3)[[0, 1, 2] * 5] * 4
    assert 0.2 < fit_temperature(separable, np.array([0, 1, 2] * 5)) < 1
    assert fit_temperature(-separable * 1e6, np.array([0, 1, 2] * 5)) == pytest.approx(20, rel=1e-4)


def test_softmax_neither_overflows_nor_reorders() -> None:
    rows = softmax(np.array([[1e4, 0.0, -1e4], [3.0, 2.0, 1.0]]), 0.5)
    assert np.isfinite(rows).all()
    assert rows.sum(1) == pytest.approx([1, 1])
    assert (np.diff(rows[1]) < 0).all()


def test_abstention_keeps_its_promise() -> None:
    error_rate, wrong = 0.1, []
    for seed in range(200):
        probabilities, targets, _ = _predictions(400, 4, seed=seed, strength=1.0)
        threshold = conformal_threshold(probabilities[:200], targets[:200], error_rate=error_rate)
        later, truth = probabilities[200:], targets[200:]
        wrong.append(((later.max(1) >= threshold) & (later.argmax(1) != truth)).mean())
    assert error_rate - 0.02 < np.mean(wrong) <= error_rate + 0.005


def test_abstention_edges() -> None:
    probabilities, targets, _ = _predictions(100, 2, strength=50)
    assert conformal_threshold(probabilities, targets, error_rate=0.05) == 0
    with pytest.raises(DataError, match="at least 99 held-out"):
        conformal_threshold(probabilities[:98], targets[:98], error_rate=0.01)
    assert conformal_threshold(probabilities[:99], targets[:99], error_rate=0.01) == 0
    with pytest.raises(DataError, match="between 0 and 1"):
        conformal_threshold(probabilities, targets, error_rate=1.0)


def test_import_brings_no_torch() -> None:
    code = "import sys, headstart.evaluation; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_likely_wrong_labels_are_those_that_a_model_is_surer_of_elsewhere():
    probabilities = np.full((100, 2), 0.1)
    targets = np.arange(100) % 2
    probabilities[np.arange(100), targets] = 0.9
    given = targets.copy()
    given[[4, 11]] = 1 - given[[4, 11]]
    probabilities[4] = [0.99, 0.01]
    assert likely_wrong(probabilities, given).tolist() == [4, 11]
    assert likely_wrong(probabilities, targets).size == 0
