"""Each goal's targets, losses, answers and predictions; what the pipeline calls on all of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, r2_score

from headstart.core.errors import DataError
from headstart.core.protocols import Task
from headstart.core.registry import names, resolve
from headstart.core.types import (
    LabelPrediction,
    LabelsPrediction,
    Sample,
    SpansPrediction,
    ValuePrediction,
)
from headstart.tasks.classification import Classification
from headstart.tasks.multilabel import MultiLabel
from headstart.tasks.regression import Regression
from headstart.tasks.tagging import Tagging

TAGS = ("O", "B-person", "I-person", "B-place", "I-place")
N = 60


def targets_of(name: str, n: int = N) -> list:
    """Return targets of a task, a third of them of each kind."""
    if name == "classification":
        return [("red", "green", "blue")[row % 3] for row in range(n)]
    if name == "multilabel":
        return [((), ("red",), ("green", "red"))[row % 3] for row in range(n)]
    if name == "regression":
        return [float(row % 7) * 1.5 for row in range(n)]
    return [(("O",), ("B-person", "I-person", "O", "B-place"), ("O", "B-place"))[row % 3] for row in range(n)]


def made(name: str) -> Task:
    labels = {"classification": ("blue", "green", "red"), "multilabel": ("blue", "green", "red")}
    return resolve("task", name)(TAGS if name == "tagging" else labels.get(name, ()))


def outputs_of(task: Task, targets: list, *, noise: float = 1.0, seed: int = 0):
    """Return a head's outputs that know the targets in part."""
    draws = np.random.default_rng(seed)
    if task.name == "regression":
        return (np.array(targets)[:, None] + noise * draws.normal(size=(len(targets), 1))).astype(np.float32)
    encoded = task.encode(targets)
    if task.link == "softmax":
        encoded = np.eye(len(task.labels))[encoded]
    rows = (4 * encoded - 2 + noise * draws.normal(size=encoded.shape)).astype(np.float32)
    if task.form != "sequence":
        return rows
    return np.split(rows, np.cumsum([len(target) for target in targets])[:-1])


ALL = ("classification", "multilabel", "regression", "tagging")
every_task = pytest.mark.parametrize("name", ALL)


def samples_of(name: str, n: int = N) -> list[Sample]:
    if name != "tagging":
        return [Sample(f"text {row}", id=str(row)) for row in range(n)]
    words = ("Ada",), ("Ada", "Lovelace", "left", "London"), ("to", "Rome")
    return [Sample(words[row % 3], id=str(row)) for row in range(n)]


# -- what holds for all ---------------------------------------------------------------------------------------


@every_task
def test_a_task_does_all_that_the_protocol_asks(name: str) -> None:
    task = made(name)
    assert isinstance(task, Task)
    assert task.name == name and name in names("task")
    assert resolve("task", name)(task.labels).labels == task.labels


@every_task
def test_the_pipeline_s_calls_fit_together(name: str) -> None:
    task, targets = made(name), targets_of(name)
    outputs = outputs_of(task, targets)
    temperature = task.fit_temperature(outputs, targets)
    probabilities = task.probabilities(outputs, temperature)
    found = task.evaluate(probabilities, targets, domains=None, groups=None, seed=0)
    assert found.task == name and found.primary.name == task.quality_name and found.n == N
    score = task.score(outputs, targets)
    assert score["quality"] == pytest.approx(found.primary.value, abs=1e-6)
    assert set(score) == {"quality", "loss"}
    answers = task.answers(probabilities)
    assert json.loads(json.dumps(answers)) is not None and len(answers) == N
    assert task.certainty(probabilities).shape == (N,)
    assert ((task.certainty(probabilities) >= 0) & (task.certainty(probabilities) <= 1)).all()
    assert len(task.strata(targets)) == N and len(set(task.strata(targets))) == (
        7 if name == "regression" else 3
    )
    predictions = task.decode(probabilities, samples_of(name))
    assert [row.id for row in predictions] == [str(row) for row in range(N)]
    assert (task.chance(targets) or 0) > 0


@every_task
def test_a_better_answer_has_the_better_item_quality(name: str) -> None:
    task, targets = made(name), targets_of(name)
    good, bad = (task.probabilities(outputs_of(task, targets, noise=noise), 1.0) for noise in (0.01, 8.0))
    quality = task.item_quality(good, targets), task.item_quality(bad, targets)
    assert quality[0].shape == (N,)
    assert (quality[0] >= quality[1]).mean() > 0.9 and quality[0].mean() > quality[1].mean() + 0.1
    assert quality[0].mean() == pytest.approx(0 if name == "regression" else 1, abs=0.05)


@every_task
def test_right_answers_are_the_truth_in_the_same_form(name: str) -> None:
    task, targets = made(name), targets_of(name)
    answers = task.answers(task.probabilities(outputs_of(task, targets, noise=1e-4), 1.0))
    for answer, target in zip(answers, targets, strict=True):
        truth = task.truth(target)
        if name == "tagging":
            assert [span[:3] for span in answer] == truth
            assert all(0.9 < span[3] <= 1 for span in answer)
        elif name == "regression":
            assert answer == pytest.approx(truth, abs=1e-2)
        else:
            assert answer == truth


@every_task
def test_a_new_head_learns_by_the_task_s_loss(name: str) -> None:
    torch.manual_seed(0)
    task, targets = made(name), targets_of(name)
    wanted = task.collate(targets)
    lengths = [len(target) for target in targets] if name == "tagging" else [1] * N
    signal = outputs_of(task, targets, noise=0.3)
    if name == "tagging":
        rows = [torch.from_numpy(words) for words in signal]
        inputs = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    else:
        inputs = torch.from_numpy(signal)
    head = task.build_head(inputs.shape[-1])
    optimizer = torch.optim.Adam(head.parameters(), 0.1)
    losses = []
    for _ in range(150):
        loss = task.loss(head(inputs), wanted, label_smoothing=0.0, class_weights=None)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]
    outputs = head(inputs).detach().numpy()
    kept = (
        [row[:length] for row, length in zip(outputs, lengths, strict=True)] if name == "tagging" else outputs
    )
    assert task.score(kept, targets)["quality"] > 0.9


@every_task
def test_the_standard_error_is_that_of_drawing_items_again(name: str) -> None:
    task, targets = made(name), targets_of(name, 300)
    outputs = outputs_of(task, targets, noise=3.0)
    encoded = task.encode(targets)
    if name == "tagging":
        rows, encoded, items = task.flatten(outputs, targets)
        quality, error, loss = task.measure(rows, encoded, items)
    else:
        quality, error, loss = task.measure(outputs, encoded)
    assert {"quality": quality, "loss": loss} == pytest.approx(dict(task.score(outputs, targets)))
    draws = np.random.default_rng(0)
    again = []
    for _ in range(300):
        chosen = draws.integers(0, 300, 300)
        part = [outputs[index] for index in chosen]
        some = part if name == "tagging" else np.stack(part)
        again.append(task.score(some, [targets[index] for index in chosen])["quality"])
    assert error == pytest.approx(np.std(again), rel=0.15)


@pytest.mark.parametrize(("name", "target"), [
    ("classification", "gren"), ("multilabel", ("red", "gren")), ("tagging", ("O", "B-plac")),
])  # fmt: skip
def test_an_unknown_name_is_refused_with_the_nearest(name: str, target) -> None:
    near = "B-place" if name == "tagging" else "green"
    with pytest.raises(DataError, match=f"(?s)not one of the model's.*{near}"):
        made(name).collate([target])
    with pytest.raises(DataError, match="not one of the model's"):
        made(name).encode([target])


@pytest.mark.parametrize(
    ("name", "target", "message"),
    [
        ("multilabel", "red", "no tuple of labels"),
        ("tagging", "O", "no sequence of tags"),
        ("regression", "seven", "no finite number"),
        ("regression", float("nan"), "no finite number"),
        ("regression", ("a",), "no finite number"),
    ],
)
def test_a_target_of_another_task_is_refused(name: str, target, message: str) -> None:
    with pytest.raises(DataError, match=message):
        made(name).collate([target])


# -- each by itself -------------------------------------------------------------------------------------------


def test_classes_are_predicted_with_probabilities() -> None:
    task = Classification(["a", "b"])
    (row,) = task.decode(np.array([[0.2, 0.8]]), [Sample("x", id="one")])
    assert row == LabelPrediction("one", "b", 0.8, {"a": 0.2, "b": 0.8})


def test_labels_by_hand() -> None:
    task = MultiLabel(["a", "b", "c"])
    assert task.encode([("c", "a"), ()]).tolist() == [[1, 0, 1], [0, 0, 0]]
    (row,) = task.decode(np.array([[0.5, 0.49, 0.9]]), [Sample("x", id="one")])
    assert row == LabelsPrediction("one", ("a", "c"), {"a": 0.5, "b": 0.49, "c": 0.9})
    assert task.truth(("c", "a")) == ("a", "c")
    assert task.item_quality(np.array([[0.9, 0.9, 0.1]] * 2), [("b",), ("a", "b")]).tolist() == [0.5, 1]
    assert task.item_quality(np.array([[0.1, 0.1, 0.1]]), [()]).tolist() == [1]
    assert task.strata([("a",), ("a", "b"), (), ("a", "b", "c")]) == ["a", "b", "", "c"]


def test_label_loss_spreads_what_smoothing_takes() -> None:
    task = MultiLabel(list("abcd"))
    outputs, wanted = torch.tensor([[2.0, -1.0, 0.5, -3.0]]), task.collate([("a",)])
    smooth = torch.tensor([[0.925, 0.025, 0.025, 0.025]])
    expected = -(smooth * outputs.sigmoid().log() + (1 - smooth) * (-outputs).sigmoid().log()).mean()
    assert float(task.loss(outputs, wanted, label_smoothing=0.1)) == pytest.approx(float(expected))


def test_macro_f1_in_the_race_is_over_labels_that_occur() -> None:
    task = MultiLabel(list("abc"))
    targets = [("a",), ("a", "b"), (), ("b",)]
    outputs = np.array([[1, -1, -1], [1, 1, -1], [1, -1, -1], [-1, -1, -1]], np.float32)
    truth = task.encode(targets)[:, :2]
    assert task.score(outputs, targets)["quality"] == pytest.approx(
        f1_score(truth, outputs[:, :2] > 0, average="macro")
    )


@pytest.mark.parametrize(("centre", "spread"), [(0.0, 1.0), (1e5, 300.0), (0.0, 1e-4)])
def test_a_number_s_head_starts_at_the_mean_and_learns_in_any_unit(centre: float, spread: float) -> None:
    task = Regression()
    inputs = torch.linspace(-1, 1, 50)[:, None]
    targets = [centre + spread * float(value) for value in inputs]
    head = task.build_head(1, targets)
    assert head(inputs).detach().numpy() == pytest.approx(np.full((50, 1), centre), abs=1e-3 * spread + 1e-6)
    optimizer = torch.optim.Adam(head.parameters(), 0.05, eps=1e-12)
    for _ in range(200):
        optimizer.zero_grad()
        task.loss(head(inputs), task.collate(targets)).backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
    outputs = head(inputs).detach().numpy()
    assert task.score(outputs, targets)["quality"] > 0.99
    assert task.score(outputs, targets)["quality"] == pytest.approx(
        r2_score(np.float32(targets), outputs[:, 0]), abs=1e-3
    )


def test_numbers_by_hand() -> None:
    task = Regression()
    assert task.decode(np.array([1.5]), [Sample("x", id="one")]) == [ValuePrediction("one", 1.5)]
    assert task.item_quality(np.array([1.0, 4.0]), [2.0, 4.0]).tolist() == [-1, 0]
    strata = task.strata([float(row) for row in range(100)])
    assert sorted(set(strata)) == [f"range {number:03d}" for number in range(10)]
    assert strata == sorted(strata)
    assert len(set(task.strata([3.0] * 5))) == 1
    with pytest.raises(DataError, match="was given the labels"):
        Regression(["a"])


def test_tags_are_padded_and_padding_costs_nothing() -> None:
    task = Tagging(TAGS)
    targets = [("O", "B-person"), ("O",)]
    wanted = task.collate(targets)
    assert wanted.tolist() == [[0, 1], [0, -100]]
    outputs = torch.randn(2, 2, 5, generator=torch.Generator().manual_seed(0))
    words = torch.cat([outputs[0], outputs[1, :1]])
    expected = torch.nn.functional.cross_entropy(words, torch.tensor([0, 1, 0]))
    assert float(task.loss(outputs, wanted)) == pytest.approx(float(expected))
    # A micro-batch whose texts are shorter than the longest of its batch, and the other way round.
    assert float(task.loss(outputs[1:, :1], wanted[1:])) == float(task.loss(outputs[1:], wanted[1:]))
    assert float(task.loss(outputs[1:], wanted[1:, :1])) == float(task.loss(outputs[1:], wanted[1:]))


def test_tags_of_another_number_than_words_are_refused() -> None:
    task = Tagging(TAGS)
    with pytest.raises(DataError, match="more tags than that"):
        task.loss(torch.zeros(1, 2, 5), task.collate([("O", "O", "O")]))
    for call in (task.score, task.flatten, task.fit_temperature):
        with pytest.raises(DataError, match="text 1 has 2 words but 3 tags"):
            call([np.zeros((2, 5), np.float32)], [("O", "O", "O")])


@pytest.mark.parametrize("tags", [("O", "I-person"), ("O", "person"), ("O", "B-person", "E-person")])
def test_tags_of_other_schemes_are_refused(tags: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="no tag of the BIO scheme"):
        Tagging(tags)


def sure(*tags: str) -> np.ndarray:
    """Return word probabilities that are fairly sure of these tags."""
    return np.where(np.eye(5)[[TAGS.index(tag) for tag in tags]] > 0, 0.8, 0.05)


def test_spans_of_words_have_the_offsets_of_the_joined_text() -> None:
    words = ("Ada", "Lovelace", "left", "London", "\N{REGIONAL INDICATOR SYMBOL LETTER G}!")
    (row,) = Tagging(TAGS).decode(
        [sure("B-person", "I-person", "O", "B-place", "O")], [Sample(words, id="one")]
    )
    assert isinstance(row, SpansPrediction)
    assert row.text == " ".join(words)
    assert [(span.text, span.label) for span in row.spans] == [
        ("Ada Lovelace", "person"),
        ("London", "place"),
    ]
    assert all(row.text[span.start : span.end] == span.text for span in row.spans)
    assert row.spans[0].probability == pytest.approx(0.8)


@pytest.mark.parametrize("accent", ["\N{LATIN SMALL LETTER E WITH ACUTE}", "e\N{COMBINING ACUTE ACCENT}"])
def test_spans_of_a_text_have_its_own_offsets_whatever_its_normal_form(accent: str) -> None:
    text = f"  Ren{accent} saw \N{GRINNING FACE} Rome."
    (row,) = Tagging(TAGS).decode([sure("B-person", "O", "O", "B-place", "O")], [Sample(text, id="one")])
    assert isinstance(row, SpansPrediction)
    assert row.text == text
    assert [text[span.start : span.end] for span in row.spans] == [f"Ren{accent}", "Rome"]


def test_spans_of_a_file_have_the_offsets_of_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("Ada saw Rome", encoding="utf-8")
    (row,) = Tagging(TAGS).decode([sure("B-person", "O", "B-place")], [Sample(path, id="one")])
    assert isinstance(row, SpansPrediction)
    assert [span.text for span in row.spans] == ["Ada", "Rome"]
