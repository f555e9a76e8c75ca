"""Guards against forgetting beside hand values, and the way back between weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from picture_parts import context
from torch import Tensor, nn

from headstart.core.errors import PlanError
from headstart.core.plan import Plan
from headstart.core.settings import Retention
from headstart.core.types import Sample
from headstart.methods.retention.ewc import Ewc, fisher
from headstart.methods.retention.interpolation import Point, between, largest
from headstart.methods.retention.l2_sp import L2Sp
from headstart.methods.retention.lwf import Lwf, distance
from headstart.methods.retention.replay import Replay
from headstart.tasks.classification import Classification
from headstart.train.batches import Batch
from headstart.train.guard import Guards, Part, Past

ROWS = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0], [-1.0, 0.5]])
BATCH = Batch(("a", "b"), (ROWS[:2], torch.tensor([0, 1])), step=3)


class Points:
    """Four points of two classes; implements Dataset."""

    labels = ("no", "yes")
    fingerprint = "points"

    def __len__(self) -> int:
        return len(ROWS)

    def __getitem__(self, index: int) -> Sample:
        return Sample(ROWS[index].numpy(), self.labels[index % 2], id=str(index))

    def item_hash(self, index: int) -> str:
        return str(index)


def head() -> nn.Linear:
    """Return a fixed head of two classes."""
    made = nn.Linear(2, 2)
    with torch.no_grad():
        made.weight.copy_(torch.tensor([[1.0, -1.0], [0.5, 2.0]]))
        made.bias.copy_(torch.tensor([0.1, -0.2]))
    return made


def part(tmp_path: Any) -> tuple[Part, nn.Linear]:
    """Return a linear body that is the identity, as the part that trains."""
    body = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        body.weight.copy_(torch.eye(2))

    def feed(dataset: Any) -> Any:
        return lambda indices, _: torch.stack(
            [torch.from_numpy(dataset[int(index)].input) for index in indices]
        )

    return Part(body, {"weight": body.weight}, feed, feed, context(tmp_path)), body


def past(training: Any = None) -> list[Past]:
    return [Past("old", Classification(("no", "yes")), head(), training)]


def move(body: nn.Linear, by: Sequence[Sequence[float]]) -> None:
    with torch.no_grad():
        body.weight.add_(torch.tensor(by))


def number(tensor: Tensor) -> float:
    return float(tensor.detach())


def value(term: Any, body: nn.Linear) -> Tensor:
    inputs = BATCH.tensors[0]
    return term(inputs, body(inputs), BATCH)


def test_l2_sp_is_half_the_weighted_square_of_the_way_from_the_start(tmp_path: Any):
    watched, body = part(tmp_path)
    term = L2Sp(past(), Retention(), 0.5).term(watched)
    assert number(value(term, body)) == 0.0
    move(body, [[0.3, 0.0], [0.0, -0.4]])
    found = value(term, body)
    assert number(found) == pytest.approx(0.5 / 2 * (0.09 + 0.16))
    found.backward()
    assert body.weight.grad is not None
    assert torch.allclose(body.weight.grad, 0.5 * torch.tensor([[0.3, 0.0], [0.0, -0.4]]))


def test_fisher_information_is_the_mean_squared_gradient_of_drawn_answers(tmp_path: Any):
    watched, body = part(tmp_path)
    one = past(Points())[0]
    found = fisher(watched, one, samples=4)["weight"]
    # By hand: for the drawn answer y, d -log p / d W = (head.weight^T (p - onehot y)) x^T.
    from headstart.methods.retention.ewc import _answered

    expected = torch.zeros(2, 2)
    for index, x in enumerate(ROWS):
        outputs = one.head(body(x[None]))
        truth = torch.tensor([index % 2])
        drawn = int(_answered(outputs, truth, one, watched.context, index))
        error = outputs.softmax(-1)[0] - nn.functional.one_hot(torch.tensor(drawn), 2)
        expected += torch.outer(one.head.weight.T @ error, x).square() / 4
    assert torch.allclose(found, expected, atol=1e-6)


def test_answers_are_drawn_as_often_as_they_are_probable(tmp_path: Any):
    from headstart.methods.retention.ewc import _answered

    watched, _ = part(tmp_path)
    outputs = torch.tensor([[0.0, float(np.log(3.0))]])
    drawn = [int(_answered(outputs, torch.tensor([0]), past()[0], watched.context, i)) for i in range(400)]
    assert 0.68 < np.mean(drawn) < 0.82
    words = torch.zeros(1, 3, 2)
    answers = _answered(words, torch.tensor([[1, 0, -100]]), past()[0], watched.context, 0)
    assert answers.shape == (1, 3) and int(answers[0, 2]) == -100


def test_ewc_weighs_the_way_by_fisher_information_and_leaves_the_network_as_it_was(tmp_path: Any):
    watched, body = part(tmp_path)
    body.weight.requires_grad_(False)
    matters = fisher(watched, past(Points())[0], samples=4)["weight"]
    term = Ewc(past(Points()), Retention(samples=4), 10.0).term(watched)
    assert not body.weight.requires_grad and body.training
    move(body, [[0.1, 0.2], [0.0, -0.4]])
    way = torch.tensor([[0.1, 0.2], [0.0, -0.4]])
    assert number(value(term, body)) == pytest.approx(
        number(10 / 2 * (matters * way.square()).sum()), rel=1e-4
    )


def test_distillation_is_the_tempered_divergence_by_hand(tmp_path: Any):
    old, new = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    p, q = torch.softmax(old / 2, -1), torch.softmax(new / 2, -1)
    by_hand = 4 * number((p * (p / q).log()).sum())
    assert number(distance(old, new, "softmax", 2.0)) == pytest.approx(by_hand, rel=1e-5)
    assert number(distance(old, old, "softmax", 2.0)) == pytest.approx(0.0, abs=1e-6)
    a, b = torch.sigmoid(torch.tensor(1.0)), torch.sigmoid(torch.tensor(-0.5))
    label = 4 * number(a * (a / b).log() + (1 - a) * ((1 - a) / (1 - b)).log())
    one = distance(torch.tensor([[2.0]]), torch.tensor([[-1.0]]), "sigmoid", 2.0)
    assert number(one) == pytest.approx(label, rel=1e-5)


def test_lwf_compares_the_earlier_head_on_features_then_and_now(tmp_path: Any):
    watched, body = part(tmp_path)
    term = Lwf(past(), Retention(temperature=2.0), 3.0).term(watched)
    assert number(value(term, body)) == pytest.approx(0.0, abs=1e-6)
    before = head()(BATCH.tensors[0])
    move(body, [[0.5, 0.0], [0.0, 0.5]])
    now = head()(body(BATCH.tensors[0]))
    found = value(term, body)
    assert number(found) == pytest.approx(3 * number(distance(before, now, "softmax", 2.0)), rel=1e-5)
    found.backward()
    assert body.weight.grad is not None and bool(body.weight.grad.abs().sum() > 0)


def test_replay_is_the_loss_of_drawn_earlier_items_by_their_own_head_and_a_function_of_the_step(
    tmp_path: Any,
):
    watched, body = part(tmp_path)
    term = Replay(past(Points()), Retention(replay=4), 0.5).term(watched)
    whole = nn.functional.cross_entropy(head()(body(ROWS)), torch.tensor([0, 1, 0, 1]))
    assert number(value(term, body)) == pytest.approx(0.5 * number(whole), rel=1e-5)
    few = Replay(past(Points()), Retention(replay=2), 1.0).term(watched)
    assert number(value(few, body)) == number(value(few, body))
    steps = {
        number(few(BATCH.tensors[0], body(BATCH.tensors[0]), Batch(("a",), (), step=step)))
        for step in range(12)
    }
    assert len(steps) > 1, "other steps draw other items"


def test_several_guards_add_up_and_say_what_decides_them(tmp_path: Any):
    watched, body = part(tmp_path)
    one, other = L2Sp(past(), Retention(), 1.0), L2Sp(past(), Retention(), 2.0)
    term = Guards([one, other]).term(watched)
    move(body, [[1.0, 0.0], [0.0, 0.0]])
    assert number(value(term, body)) == pytest.approx(1.5)
    assert Guards([one, other]).identity == [{"l2_sp": 1.0}, {"l2_sp": 2.0}]


def test_between_the_ends_tensors_are_mixed_and_at_the_ends_they_are_theirs():
    start = {"w": torch.tensor([0.0, 2.0]), "n": torch.tensor(3)}
    end = {"w": torch.tensor([1.0, 0.0]), "n": torch.tensor(9)}
    assert between(start, end, 0.25)["w"].tolist() == [0.25, 1.5]
    assert int(between(start, end, 0.25)["n"]) == 9
    assert torch.equal(between(start, end, 0.0)["w"], start["w"])
    assert torch.equal(between(start, end, 1.0)["w"], end["w"])


def looking(kept: dict[float, float], placed: list[float]) -> Any:
    def look(alpha: float) -> Point:
        placed.append(alpha)
        return Point(alpha, alpha, {"old": kept[round(alpha, 2)]})

    return look


def test_the_largest_alpha_that_keeps_the_floor_is_chosen_and_left_in_place():
    placed: list[float] = []
    kept = {0.0: 1.0, 0.25: 0.97, 0.5: 0.96, 0.75: 0.8, 1.0: 0.5}
    point, seen = largest(looking(kept, placed), floor=0.95, points=4)
    assert point.alpha == 0.5 and placed[-1] == 0.5
    assert [one.alpha for one in seen] == [0.0, 0.5, 0.75, 1.0]
    assert largest(looking(kept, placed), floor=0.4, points=4)[0].alpha == 1.0


def test_where_nothing_keeps_the_floor_the_start_is_left_in_place():
    placed: list[float] = []
    point, _ = largest(looking({0.0: 1.0, 0.5: 0.6, 1.0: 0.3}, placed), floor=0.9, points=2)
    assert point.alpha == 0.0 and placed[-1] == 0.0


def test_what_was_lost_before_is_to_become_no_less():
    placed: list[float] = []
    point, _ = largest(looking({0.0: 0.6, 0.5: 0.65, 1.0: 0.3}, placed), floor=0.9, points=2)
    assert point.alpha == 0.5


@pytest.mark.parametrize("guards", [{"ewcc": 1.0}, {"interpolation": None}, {"ewc": 0.0}, {"lwf": -1.0}])
def test_unknown_guards_and_weights_that_are_not_above_zero_are_refused(guards: dict[str, float | None]):
    with pytest.raises(PlanError, match="guard"):
        Plan.from_json(json.dumps({"retention": {"guards": guards}}))
