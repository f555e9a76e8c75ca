"""Next items and wrong labels, on points and probabilities whose answer is plain."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.labelling.choose import covering, label_doubt, margin, unsure
from headstart.labelling.wrong import suspects, wrong_labels
from headstart.tasks.classification import Classification
from headstart.tasks.multilabel import MultiLabel
from headstart.tasks.regression import Regression


def crowds(*sizes: int, spread: float = 0.05) -> np.ndarray:
    """Return unit points around one axis a crowd, in the order of the crowds."""
    draws = np.random.default_rng(0)
    points = np.repeat(np.eye(len(sizes)), sizes, axis=0) + spread * draws.standard_normal(
        (sum(sizes), len(sizes))
    )
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def test_each_crowd_is_asked_for_once_the_largest_first():
    points = crowds(10, 30, 20)
    picks = covering(points, [], list(range(60)), count=3, seed=0)
    assert [pick.size for pick in picks] == [30, 20, 10]
    assert [np.searchsorted([10, 40], pick.row, side="right") for pick in picks] == [1, 2, 0]


def test_a_crowd_with_a_label_waits_until_all_others_have_one():
    points = crowds(10, 30, 20)
    picks = covering(points, [15], [row for row in range(60) if row != 15], count=2, seed=0)
    assert sorted(np.searchsorted([10, 40], pick.row, side="right") for pick in picks) == [0, 2]


def test_the_item_taken_of_a_crowd_is_in_its_middle():
    angle = np.linspace(-1, 1, 41)[:40] ** 3
    points = np.stack([np.cos(angle), np.sin(angle)], 1)
    (pick,) = covering(points, [], list(range(40)), count=1, seed=0)
    assert abs(angle[pick.row]) < 0.05


def test_no_more_is_asked_for_than_there_is_even_of_one_thing_again_and_again():
    points = np.tile([[1.0, 0.0]], (5, 1))
    assert sorted(pick.row for pick in covering(points, [], list(range(5)), count=9, seed=0)) == list(
        range(5)
    )


def test_doubtful_items_are_taken_and_no_two_of_one_kind():
    points = crowds(5, 5, 50)
    doubt = np.where(np.arange(60) < 10, 0.9, 0.01)
    picks = unsure(points, list(range(60)), doubt, count=2, seed=0)
    assert sorted(pick.row // 5 for pick in picks) == [0, 1]
    assert len({pick.row for pick in unsure(points, list(range(60)), doubt, count=30, seed=0)}) == 30


def test_doubt_about_one_thing_again_and_again_still_gives_as_many_as_wanted():
    points = np.tile([[1.0, 0.0]], (6, 1))
    picks = unsure(points, list(range(6)), np.full(6, 0.5), count=4, seed=0)
    assert len({pick.row for pick in picks}) == 4


def test_doubt_is_one_for_a_tie_and_zero_for_a_sure_answer():
    assert margin(np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])).tolist() == [1, 0]
    assert margin(np.ones((2, 1))).tolist() == [0, 0]
    assert label_doubt(np.array([[0.5, 0.5], [1.0, 0.0], [0.5, 1.0]])).tolist() == [1, 0, 0.5]


def confident(classes: int = 3, each: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Return class ids and probabilities of 0.9 for each."""
    truth = np.repeat(np.arange(classes), each)
    return truth, np.where(np.eye(classes)[truth] > 0, 0.9, 0.1 / (classes - 1))


def test_a_label_that_a_sure_head_denies_is_named_with_the_class_that_it_says():
    truth, probabilities = confident()
    given = truth.copy()
    given[[4, 30]] = 2, 0
    probabilities[4], probabilities[30] = (0.97, 0.02, 0.01), (0.06, 0.9, 0.04)
    names = [f"item {row}" for row in range(60)]
    found = wrong_labels(Classification(["a", "b", "c"]), names, ["abc"[row] for row in given], probabilities)
    assert [(item.id, item.given, item.suggested) for item in found] == [
        ("item 4", "c", "a"),
        ("item 30", "a", "b"),
    ]
    assert found[0].probability == pytest.approx(0.97) and found[0].p_given == pytest.approx(0.01)


def test_sound_labels_are_not_named():
    truth, probabilities = confident()
    assert suspects(truth, probabilities) == []


def test_of_several_labels_the_missing_one_and_the_one_too_many_are_named():
    has_red = np.arange(60) % 2 == 0
    has_big = np.arange(60) % 3 == 0
    held_out = np.stack([np.where(has, 0.95, 0.05) for has in (has_big, has_red)], 1)
    held_out[0], held_out[1] = (0.95, 0.02), (0.97, 0.05)
    targets = [
        tuple(name for name, has in (("big", big), ("red", red)) if has)
        for big, red in zip(has_big, has_red, strict=True)
    ]
    found = wrong_labels(MultiLabel(["big", "red"]), [str(row) for row in range(60)], targets, held_out)
    said = {item.id: (item.given, item.suggested) for item in found}
    assert said == {"0": (("big", "red"), ("big",)), "1": ((), ("big",))}


def test_a_number_far_from_what_its_item_looks_like_is_named_and_others_are_not():
    predicted = np.linspace(0, 10, 50)
    numbers = predicted + 0.1 * np.sin(np.arange(50))
    numbers[7] = 9.0
    (found,) = wrong_labels(Regression(), [str(row) for row in range(50)], numbers.tolist(), predicted)
    assert (found.id, found.given) == ("7", 9.0) and found.suggested == pytest.approx(predicted[7])
    assert found.p_given is None and found.probability > 3.5
    assert wrong_labels(Regression(), ["a", "b"], [1.0, 2.0], np.array([1.0, 2.0])) == []
