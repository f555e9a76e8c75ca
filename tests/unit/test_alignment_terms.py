"""Terms of domain adaptation: their mathematics against values worked out by hand, and the direction they push in."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from headstart.core.errors import PlanError
from headstart.core.registry import names, resolve
from headstart.core.settings import Adapt
from headstart.methods.alignment import Rows, Sizes
from headstart.methods.alignment.afn import enlargement
from headstart.methods.alignment.cdan import Cdan
from headstart.methods.alignment.coral import Coral, covariance, distance
from headstart.methods.alignment.dann import Dann
from headstart.methods.alignment.fixmatch import FixMatch
from headstart.methods.alignment.jdot import Jdot, plan
from headstart.methods.alignment.masked import MaskedConsistency
from headstart.methods.alignment.mcc import Mcc, confusion
from headstart.methods.alignment.mmd import BANDWIDTHS, discrepancy
from headstart.methods.alignment.reversal import ramp, reverse
from headstart.methods.alignment.shot import Shot, centroid_labels
from headstart.methods.alignment.udalm import Udalm

SIZES = Sizes(width=4, num_classes=3, num_items=12, batch_size=6)


def made(name: str, sizes: Sizes = SIZES, **settings: Any) -> Any:
    """Return a term, the same each time."""
    torch.manual_seed(0)
    return resolve("term", name)(sizes, Adapt(**settings))


def rows(seed: int, *, count: int = 6, shift: float = 0.0, truth: bool = False) -> Rows:
    """Return random rows with gradients, features moved by `shift`."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, 4, generator=generator) + shift
    outputs = torch.randn(count, 3, generator=generator)
    more = torch.randn(3, count, 3, generator=generator)
    return Rows(
        features.requires_grad_(), outputs.requires_grad_(), items=torch.arange(count),
        truth=torch.arange(count) % 3 if truth else None, strong=more[0].requires_grad_(),
        hidden=more[1].requires_grad_(), teacher=5 * more[2], language=features.square().mean(),
    )  # fmt: skip


def gradient(value: Tensor, of: Tensor) -> Tensor:
    """Return a gradient."""
    return torch.autograd.grad(value, of, retain_graph=True)[0]


def improves(loss: Callable[[Tensor], Tensor], start: Tensor, *, rate: float, steps: int = 20) -> bool:
    """Tell whether plain descent along the gradient lowers a loss."""
    value, point = loss(start), start.detach().clone().requires_grad_()
    for _ in range(steps):
        point = (point - rate * gradient(loss(point), point)).detach().requires_grad_()
    return float(loss(point).detach()) < float(value.detach())


@pytest.mark.parametrize("name", names("term"))
def test_every_term_gives_a_finite_scalar_that_moves_the_target(name: str) -> None:
    term, source, target = made(name), rows(0, truth=True), rows(1, shift=0.5)
    value = term(source, target, progress=0.5)
    assert value.shape == ()
    assert torch.isfinite(value)
    tensors = [target.features, target.outputs, target.strong, target.hidden]
    moved = torch.autograd.grad(value, tensors, allow_unused=True)
    assert any(part is not None and part.abs().sum() > 0 for part in moved)


@pytest.mark.parametrize("name", names("term"))
def test_every_term_bears_a_batch_of_one_row_a_side_in_evaluation(name: str) -> None:
    term = made(name).eval()
    value = term(rows(0, count=1, truth=True), rows(1, count=1), progress=0.0)
    assert torch.isfinite(value)


def test_reversal_keeps_values_and_turns_gradients_round() -> None:
    features = torch.tensor([1.0, -2.0], requires_grad=True)
    turned = reverse(features, 0.25)
    assert torch.equal(turned, features)
    assert gradient((turned * torch.tensor([4.0, 8.0])).sum(), features).tolist() == [-1.0, -2.0]


def test_the_ramp_rises_from_nothing_to_all() -> None:
    assert ramp(0.0) == 0.0
    assert math.isclose(ramp(0.1), 2 / (1 + math.exp(-1)) - 1)
    assert 0.9999 < ramp(1.0) < 1


def test_dann_starts_at_log_2_and_its_discriminator_and_features_pull_against_each_other() -> None:
    term, source, target = made("dann"), rows(0, count=32), rows(1, count=32, shift=1.0)
    last = term.discriminator.layers[-1]
    nn.init.zeros_(last.weight), nn.init.zeros_(last.bias)
    assert math.isclose(float(term(source, target, progress=1.0).detach()), math.log(2), rel_tol=1e-6)
    nn.init.normal_(last.weight)
    plain = term.discriminator.loss(source.features, target.features)
    forward = gradient(plain, target.features)
    turned = gradient(term(source, target, progress=1.0), target.features)
    assert torch.allclose(turned, -ramp(1.0) * forward, atol=1e-6)
    own = dict(term.discriminator.named_parameters())["layers.0.weight"]
    assert torch.allclose(gradient(term(source, target, progress=1.0), own), gradient(plain, own), atol=1e-6)


def test_each_domain_counts_one_half_whatever_its_rows() -> None:
    term = made("dann").eval()
    source, target = rows(0, count=3), rows(1, count=5)
    logits = term.discriminator(torch.cat([source.features, target.features])).detach()
    truth = torch.tensor([1.0] * 3 + [0.0] * 5)
    losses = nn.functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    expected = (losses[:3].mean() + losses[3:].mean()) / 2
    assert torch.allclose(term(source, target, progress=0.3).detach(), expected)


def test_cdan_joins_features_and_predictions_and_draws_the_product_at_random_where_it_is_large() -> None:
    small = made("cdan")
    features, shares = torch.tensor([[1.0, 2, 0, 0]]), torch.tensor([[0.25, 0.75, 0]])
    assert not small.is_random
    assert small.joined(features, shares)[0, :6].tolist() == [0.25, 0.75, 0, 0.5, 1.5, 0]
    large = made("cdan", Sizes(width=64, num_classes=65, num_items=9, batch_size=6))
    assert large.is_random
    first, second = torch.randn(2, 400, 64), torch.rand(2, 400, 65)
    products = (large.joined(first[0], second[0]) * large.joined(first[1], second[1])).sum(1)
    exact = (first[0] * first[1]).sum(1) * (second[0] * second[1]).sum(1)
    assert torch.corrcoef(torch.stack([products, exact]))[0, 1] > 0.8
    assert "of_features" in large.state_dict()


def test_cdan_lets_sure_rows_count_more_and_holds_predictions_fixed() -> None:
    term, source, target = made("cdan").eval(), rows(0), rows(1)
    value = term(source, target, progress=1.0)
    assert torch.autograd.grad(value, target.outputs, allow_unused=True)[0] is None
    sure = Rows(target.features, torch.tensor([[50.0, 0, 0]] * 5 + [[0.0, 0, 0]]))
    moved = gradient(term(source, sure, progress=1.0), target.features).norm(dim=1)
    alone = gradient(Cdan.forward(term, source, target, progress=1.0), target.features).norm(dim=1)
    assert float((moved[:5] / alone[:5]).mean()) > float(moved[5] / alone[5])


def test_the_discrepancy_of_equal_samples_is_zero_and_that_of_two_points_is_as_computed() -> None:
    sample = torch.randn(8, 4)
    assert abs(float(discrepancy(sample, sample.flip(0)))) < 1e-5
    # One row a side: the mean squared distance is theirs, so K_a = exp(-1 / (2 a)).
    expected = sum(2 - 2 * math.exp(-1 / (2 * a)) for a in BANDWIDTHS)
    value = discrepancy(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
    assert math.isclose(float(value), expected, rel_tol=1e-5)


def test_descent_on_the_discrepancy_brings_the_samples_nearer() -> None:
    source, target = torch.randn(16, 3), torch.randn(16, 3) + 2
    assert improves(lambda moved: discrepancy(source, moved), target, rate=1.0)
    pull = -gradient(discrepancy(source, (point := target.clone().requires_grad_())), point).mean(0)
    assert float(pull @ (source.mean(0) - target.mean(0))) > 0


def test_coral_is_zero_for_equal_covariances_and_as_computed_for_others() -> None:
    sample = torch.randn(9, 4)
    assert float(distance(sample, sample + 5)) < 1e-9
    first = torch.tensor([[1.0, 0], [-1, 0]])  # Covariance diag(2, 0).
    second = torch.tensor([[0.0, 2], [0, -2]])  # Covariance diag(0, 8).
    assert covariance(first).tolist() == [[2, 0], [0, 0]]
    assert math.isclose(float(distance(first, second)), (4 + 64) / (4 * 4))
    assert improves(lambda moved: distance(sample, moved), 3 * torch.randn(9, 4), rate=0.1)
    assert torch.allclose(covariance(sample), torch.from_numpy(np.cov(sample.numpy().T)).float(), atol=1e-5)


def test_coral_aligns_the_last_layer_as_in_the_paper() -> None:
    source, target = rows(0), rows(1)
    value = Coral(SIZES, Adapt())(source, target, progress=0.0)
    assert torch.equal(value, distance(source.outputs, target.outputs))


def test_class_confusion_is_as_worked_out_by_hand() -> None:
    # Two rows with P = (3/4, 1/4) and (1/4, 3/4) at T = 1 have equal entropy, so weights of 1:
    # M = [[10, 6], [6, 10]] / 16, row-normalised off-diagonals 6/16, loss (6/16 + 6/16) / 2.
    outputs = torch.tensor([[math.log(3), 0], [0, math.log(3)]])
    assert math.isclose(float(confusion(outputs, 1.0)), 0.375, rel_tol=1e-6)
    # P = (1, 0) and (1/2, 1/2): weights 2 c and 1.5 c with c = 1 / 1.75.
    weights = [2 / 1.75, 1.5 / 1.75]
    matrix = weights[0] * np.array([[1, 0], [0, 0]]) + weights[1] * np.full((2, 2), 0.25)
    even = matrix / matrix.sum(1, keepdims=True)
    outputs = torch.tensor([[60.0, 0], [0, 0]])
    assert math.isclose(float(confusion(outputs, 1.0)), (even[0, 1] + even[1, 0]) / 2, rel_tol=1e-5)


def test_the_temperature_divides_the_outputs_and_descent_makes_classes_distinct() -> None:
    outputs = torch.randn(12, 3)
    assert torch.allclose(confusion(outputs, 2.5), confusion(outputs / 2.5, 1.0))
    assert improves(lambda moved: confusion(moved, 2.5), outputs, rate=1.0)


def test_more_classes_than_rows_are_remembered_from_earlier_batches() -> None:
    sizes = Sizes(width=4, num_classes=10, num_items=99, batch_size=6)
    term = made("mcc", sizes)
    assert not len(made("mcc").memory)
    assert term.memory.shape == (40, 10)
    batches = [torch.randn(6, 10) for _ in range(8)]
    values = [term(rows(0), Rows(torch.zeros(6, 4), outputs), progress=0.0) for outputs in batches]
    assert torch.allclose(values[0], confusion(batches[0], 2.5))
    assert torch.allclose(values[2], confusion(torch.cat([batches[2], batches[1], batches[0]]), 2.5))
    assert int(term.filled) == 40
    assert torch.equal(term.memory[:6], batches[7])
    before = term.memory.clone()
    with torch.no_grad():
        term(rows(0), Rows(torch.zeros(6, 4), batches[0]), progress=0.0)
    assert torch.equal(term.memory, before)


def test_afn_has_the_value_of_its_step_and_lengthens_features() -> None:
    features = torch.tensor([[3.0, 4.0], [0.6, 0.8]], requires_grad=True)
    value = enlargement(features)
    assert math.isclose(float(value.detach()), 1.0, rel_tol=1e-6)
    # d/df mean (|f| - const)^2 = 2 (-1) f / |f| / N.
    assert torch.allclose(gradient(value, features), torch.tensor([[-0.6, -0.8], [-0.6, -0.8]]), atol=1e-6)
    both = made("afn")(rows(0), rows(1), progress=0.0)
    empty = Rows(torch.zeros(0, 4), torch.zeros(0, 3))
    assert math.isclose(float(both.detach()), 2.0, rel_tol=1e-5)
    assert math.isclose(float(made("afn")(empty, rows(1), progress=0.0).detach()), 1.0, rel_tol=1e-5)


def test_the_transport_plan_is_the_cheapest_and_jdot_its_cost() -> None:
    pytest.importorskip("ot")
    cost = torch.tensor([[0.0, 5], [5, 1]])
    assert plan(cost).tolist() == [[0.5, 0], [0, 0.5]]
    source = Rows(torch.tensor([[0.0, 0], [4, 0]]), torch.zeros(2, 2), truth=torch.tensor([0, 1]))
    features = torch.tensor([[4.0, 0], [0, 2]], requires_grad=True)
    target = Rows(features, torch.zeros(2, 2, requires_grad=True))
    # Row 0 goes to the second target (squared distance 4), row 1 to the first (0); each halved; CE = log 2.
    value = Jdot(SIZES, Adapt())(source, target, progress=0.0)
    assert math.isclose(float(value.detach()), 0.5 * (4 / 2) + 0.1 * math.log(2), rel_tol=1e-6)
    assert gradient(value, features).tolist() == [[0, 0], [0, 1]]
    assert torch.allclose(gradient(value, target.outputs), torch.tensor([[0.025, -0.025], [-0.025, 0.025]]))


def test_jdot_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name == "ot":
            raise ModuleNotFoundError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(PlanError, match=r"POT .* is not installed"):
        Jdot(SIZES, Adapt())


def test_fixmatch_follows_the_teacher_only_where_it_is_sure() -> None:
    strong = torch.zeros(2, 2, requires_grad=True)
    target = Rows(
        torch.zeros(2, 4), torch.zeros(2, 2), teacher=torch.tensor([[0.0, 9], [0, 0.1]]), strong=strong
    )
    value = FixMatch(SIZES, Adapt())(rows(0), target, progress=0.0)
    assert math.isclose(float(value.detach()), math.log(2) / 2, rel_tol=1e-6)
    assert torch.allclose(gradient(value, strong), torch.tensor([[0.25, -0.25], [0, 0]]))


def test_masked_consistency_weighs_by_the_teachers_certainty() -> None:
    hidden = torch.zeros(2, 2, requires_grad=True)
    teacher = torch.tensor([[0.0, math.log(3)], [0, 0]])  # Certainties 3/4 and 1/2.
    target = Rows(torch.zeros(2, 4), torch.zeros(2, 2), teacher=teacher, hidden=hidden)
    value = MaskedConsistency(SIZES, Adapt())(rows(0), target, progress=0.0)
    assert math.isclose(float(value.detach()), (0.75 + 0.5) / 2 * math.log(2), rel_tol=1e-6)


def test_shot_finds_clusters_and_mends_labels_that_outputs_get_wrong() -> None:
    centres = torch.tensor([[4.0, 0, 0, 0], [0, 4, 0, 0], [0, 0, 4, 0]])
    truth = torch.arange(30) % 3
    features = centres[truth] + 0.3 * torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    shares = nn.functional.one_hot(truth, 3) * 0.6 + 0.4 / 3
    shares[:4] = shares[:4].roll(1, 1)
    assert not torch.equal(shares.argmax(1), truth)
    assert torch.equal(centroid_labels(features, shares), truth)


def test_shot_gives_no_label_of_a_class_that_nothing_is_predicted_as() -> None:
    shares = torch.tensor([[0.5, 0.1, 0.4], [0.1, 0.5, 0.4]]).repeat(5, 1)
    assert set(centroid_labels(torch.randn(10, 4), shares).tolist()) <= {0, 1}


def test_shots_loss_is_as_worked_out_by_hand() -> None:
    term = Shot(SIZES, Adapt())
    term.refresh(torch.eye(4)[torch.arange(12) % 3], 9 * torch.eye(3)[torch.arange(12) % 3])
    assert term.labels.tolist() == [0, 1, 2] * 4
    uniform = Rows(torch.zeros(3, 4), torch.zeros(3, 3), items=torch.tensor([0, 4, 8]))
    # Each row and the mean have entropy log 3; the labels cost 0.3 log 3.
    value = term(rows(0), uniform, progress=0.0)
    assert math.isclose(float(value), 0.3 * math.log(3), rel_tol=1e-5)
    sure = Rows(torch.zeros(3, 4), 60 * torch.eye(3), items=torch.tensor([0, 4, 8]))
    assert math.isclose(float(term(rows(0), sure, progress=0.0)), -math.log(3), rel_tol=1e-5)


def test_udalm_weighs_the_language_loss_by_the_shares_of_the_batch() -> None:
    target = Rows(torch.zeros(2, 4), torch.zeros(2, 3), language=torch.tensor(3.0))
    value = Udalm(SIZES, Adapt())(rows(0, count=6), target, progress=0.0)
    assert float(value) == 1.0  # lambda = 6/8: (1 - lambda) / lambda x 3.


def test_unknown_terms_and_bad_weights_are_refused_by_name() -> None:
    from headstart.core.settings import parse

    with pytest.raises(PlanError, match=r"unknown term 'mmc' \(did you mean 'mcc'\?\)"):
        parse(Adapt, {"terms": {"mmc": 1.0}}, what="adapt")
    with pytest.raises(PlanError, match="the weight of mcc is -1"):
        parse(Adapt, {"terms": {"mcc": -1}}, what="adapt")


def test_random_parts_are_the_same_for_the_same_seed() -> None:
    first, second = made("dann"), made("dann")
    assert isinstance(first, Dann) and isinstance(made("mcc"), Mcc)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
