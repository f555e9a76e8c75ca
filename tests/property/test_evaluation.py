"""What holds for any predictions: ranges, order of items, round trip."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.evaluation import Evaluation, evaluate, paired_gain, softmax


@st.composite
def predictions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Draw probabilities with ties and classes that may lack items."""
    n, classes = draw(st.integers(1, 40)), draw(st.integers(2, 6))
    values = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = np.round(values.normal(size=(n, classes)) * draw(st.sampled_from([0.0, 1.0, 30.0])), 1)
    return softmax(logits), values.integers(0, draw(st.integers(1, classes)), n), list("abcdef"[:classes])


@given(predictions())
@settings(max_examples=60, deadline=None)
def test_every_value_lies_in_its_interval_and_survives_json(
    case: tuple[np.ndarray, np.ndarray, list[str]],
) -> None:
    probabilities, targets, labels = case
    result = evaluate(probabilities, targets, labels=labels, resamples=30)
    for score in result.scores:
        assert score.low <= score.value <= score.high
        assert score.name == "log_loss" or 0 <= score.low <= score.high <= 1 + 1e-6
    assert (
        sum(row.support for row in result.per_class) == sum(row.n for row in result.reliability) == result.n
    )
    assert sum(map(sum, result.confusion)) == result.n
    assert Evaluation.from_json(json.loads(json.dumps(result.to_json(), allow_nan=False))) == result


@given(predictions(), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_order_of_items_does_not_matter_to_values(
    case: tuple[np.ndarray, np.ndarray, list[str]], random: object
) -> None:
    probabilities, targets, labels = case
    order = list(range(len(targets)))
    random.shuffle(order)  # pyright: ignore[reportAttributeAccessIssue]
    first = evaluate(probabilities, targets, labels=labels, resamples=2)
    second = evaluate(probabilities[order], targets[order], labels=labels, resamples=2)
    assert [s.name for s in first.scores] == [s.name for s in second.scores]
    assert [s.value for s in first.scores] == pytest.approx([s.value for s in second.scores])


@given(predictions())
@settings(max_examples=30, deadline=None)
def test_a_model_does_not_differ_from_itself(case: tuple[np.ndarray, np.ndarray, list[str]]) -> None:
    probabilities, targets, _ = case
    hits = (probabilities.argmax(1) == targets).astype(float)
    score = paired_gain(hits - hits, name="accuracy_difference", resamples=20)
    assert (score.low, score.value, score.high) == (0, 0, 0)
