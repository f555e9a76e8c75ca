"""The choice without labels: the kind of shift, guards, votes; and what a few labels change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from headstart.adaptation.candidates import NOTHING, Candidate, Field, field_of
from headstart.adaptation.choose import SURER, Labels, choose, is_trained_unasked, paired_p
from headstart.adaptation.guards import effective_rank, objection
from headstart.adaptation.votes import cluster_agreement, ensemble_agreement, peer_agreement
from headstart.core.settings import Extract, Pretrained
from headstart.heads import LinearHead, OffsetHead
from headstart.methods.extract import extract
from headstart.model import Model
from headstart.pipeline.heads import calibrate
from headstart.store import Store
from headstart.tasks.classification import Classification
from headstart.train.runtime import Context, ignore

WIDTH, NAMES = 16, ("a", "b", "c")
MEANS = np.random.default_rng(0).normal(0, 1.1, (3, WIDTH))


def draw(
    count: int, seed: int, shares: tuple[float, ...] = (0.34, 0.33, 0.33)
) -> tuple[np.ndarray, np.ndarray]:
    """Draw features [n, WIDTH] and class ids [n]."""
    generator = np.random.default_rng(seed)
    truth = generator.choice(3, count, p=shares)
    return (MEANS[truth] + generator.normal(0, 1, (count, WIDTH))).astype(np.float32), truth


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Model, np.ndarray, np.ndarray]:
    """Return a model of three Gaussians, and what it was trained on."""
    context = Context(Store(tmp_path), torch.device("cpu"), 1, 0, ignore, workers=0)
    features, truth = draw(400, 1)
    task = Classification(NAMES)
    names = [str(row) for row in range(len(truth))]
    done = extract({"pooled": [features]}, truth, names, task=task, settings=Extract(), context=context)
    model = Model(None, task, done.head.eval(), Pretrained())  # type: ignore[arg-type]
    calibrate(model, done.held_out_logits, [NAMES[index] for index in truth[done.held_out]])
    return model, features, truth


def contest(model: Model, *outputs: tuple[str, str, np.ndarray]) -> Field:
    """Return a field of candidates with these names, families and outputs."""
    return Field(
        tuple(Candidate(name, family, model, values) for name, family, values in outputs),  # type: ignore[arg-type]
        np.zeros(0, np.int64),
        np.zeros((0, 3)),
    )


def says(answers: np.ndarray, sure: float = 4.0) -> np.ndarray:
    """Return outputs [m, 3] that name these classes."""
    return sure * np.eye(3, dtype=np.float32)[answers]


def test_each_kind_of_shift_is_answered_in_its_own_way(trained: tuple[Model, np.ndarray, np.ndarray]) -> None:
    model, source, truth = trained
    moved, wanted = draw(500, 2)
    moved = moved * 2 + 4
    skewed, rare = draw(500, 3, (0.85, 0.1, 0.05))
    for target, goal, kind, way in (
        (moved, wanted, "appearance", "standardised, self-training"),
        (skewed, rare, "label", "prior by EM"),
    ):
        found = field_of(model, target, source=source, truth=truth)
        choice = choose(found, kind, clusters=goal)
        assert choice.chosen == way
        score = {one.name: (one.target.argmax(1) == goal).mean() for one in found.candidates}
        assert score[way] > score[NOTHING]
        assert {row.name for row in choice.verdicts} == set(score)


@pytest.mark.parametrize(
    ("source_shares", "distance", "way"),
    [
        ((0.34, 0.33, 0.33), 0.4, "self-training"),
        ((0.34, 0.33, 0.33), 0.1, "standardised, self-training"),
        ((0.7, 0.2, 0.1), 0.1, "self-training"),
    ],
)
def test_domains_whose_classes_have_other_shares_are_not_aligned(
    trained: tuple[Model, np.ndarray, np.ndarray], source_shares: tuple[float, ...], distance: float, way: str
) -> None:
    model, source, truth = trained
    target, wanted = draw(500, 3, (0.8, 0.15, 0.05))
    found = field_of(model, target + 0.8, source=source, truth=truth)
    sureness = {one.name: one.sureness or 0.0 for one in found.candidates}
    assert sureness["standardised by shares"] > sureness["standardised"] + SURER
    shares = SimpleNamespace(source_shares=source_shares, share_distance=distance)
    score = {one.name: (one.target.argmax(1) == wanted).mean() for one in found.candidates}
    assert score["standardised by shares"] > score["standardised"] + 0.1
    alike = next(one for one in found.candidates if one.name == way).target.argmax(1)
    assert choose(found, "appearance", clusters=alike, shares=shares).chosen == way


def test_a_guard_counts_source_items_by_the_shares_that_a_way_believes_in(
    trained: tuple[Model, np.ndarray, np.ndarray],
) -> None:
    model, _, _ = trained
    truth = np.arange(120) % 3
    wrong = says(np.where(truth == 2, 0, truth))
    nothing = Candidate(NOTHING, "nothing", model, says(truth), says(truth))
    one = Candidate("by shares", "cached", model, says(truth), wrong, weights=np.where(truth == 2, 0.01, 1.0))
    field = Field((nothing, one), truth, says(truth))
    assert objection(one, field) == ""
    assert "forgot the source" in objection(replace(one, weights=None), field)


@pytest.mark.parametrize(
    ("kind", "source_shares", "distance", "is_trained"),
    [
        ("appearance", (0.34, 0.33, 0.33), 0.1, True),
        ("appearance", (0.34, 0.33, 0.33), 0.4, False),
        ("appearance", (0.7, 0.2, 0.1), 0.1, False),
        ("label", (0.34, 0.33, 0.33), 0.1, False),
        ("mixed", (0.34, 0.33, 0.33), 0.1, False),
    ],
)
def test_mcc_is_trained_unasked_where_classes_are_even_on_both_sides_and_the_looks_changed(
    trained: tuple[Model, np.ndarray, np.ndarray],
    kind: str,
    source_shares: tuple[float, ...],
    distance: float,
    *,
    is_trained: bool,
) -> None:
    model, source, truth = trained
    target, _ = draw(200, 2)
    found = field_of(model, target + 1, source=source, truth=truth)
    shares = SimpleNamespace(source_shares=source_shares, share_distance=distance)
    assert is_trained_unasked(found, kind, shares) is is_trained
    assert not is_trained_unasked(found, kind, None)


def test_every_candidate_is_a_model_that_says_what_it_was_judged_by(
    trained: tuple[Model, np.ndarray, np.ndarray],
) -> None:
    model, source, truth = trained
    target, _ = draw(120, 2)
    for one in field_of(model, target, source=source, truth=truth).candidates:
        with torch.inference_mode():
            np.testing.assert_allclose(
                one.model.head(torch.from_numpy(target)).numpy(), one.target, atol=1e-5
            )


def test_without_the_source_the_ways_that_need_it_are_left_out(
    trained: tuple[Model, np.ndarray, np.ndarray],
) -> None:
    model, _, _ = trained
    target, _ = draw(120, 2)
    names = {one.name for one in field_of(model, target).candidates}
    assert names == {NOTHING, "prior by EM", "prior by BBSE", "self-training", "propagation", "centroids"}


def test_label_transport_takes_part_where_it_is_asked_for(
    trained: tuple[Model, np.ndarray, np.ndarray],
) -> None:
    pytest.importorskip("ot")
    model, source, truth = trained
    target, wanted = draw(120, 2)
    found = field_of(model, target, source=source, truth=truth, with_transport=True)
    carried = next(one for one in found.candidates if one.name == "transport")
    assert (carried.target.argmax(1) == wanted).mean() > 0.8


def test_one_item_and_missing_classes_are_adapted_to_without_a_crash(
    trained: tuple[Model, np.ndarray, np.ndarray],
) -> None:
    model, source, truth = trained
    one, _ = draw(1, 5)
    lone, _ = draw(80, 5, (1.0, 0.0, 0.0))
    for target in (one, lone):
        assert all(
            np.isfinite(each.target).all()
            for each in field_of(model, target, source=source, truth=truth).candidates
        )


def test_nothing_is_done_where_nothing_moved_or_only_labels_could_tell(
    trained: tuple[Model, np.ndarray, np.ndarray],
) -> None:
    model, source, truth = trained
    target, wanted = draw(120, 2)
    found = field_of(model, target, source=source, truth=truth)
    assert choose(found, "none", clusters=wanted).chosen == NOTHING
    both = choose(found, "both", clusters=wanted)
    assert both.chosen == NOTHING
    assert "labels" in both.reasons[0]


def test_a_collapsed_candidate_is_rejected(trained: tuple[Model, np.ndarray, np.ndarray]) -> None:
    model, _, _ = trained
    answers = np.arange(90) % 3
    way = "standardised, self-training"
    found = contest(model, (NOTHING, "nothing", says(answers)), (way, "cached", says(np.zeros(90, int))))
    assert "collapsed" in objection(found.candidates[1], found)
    assert choose(found, "appearance", clusters=answers).chosen == NOTHING


def test_outputs_that_are_not_finite_are_rejected(trained: tuple[Model, np.ndarray, np.ndarray]) -> None:
    model, _, _ = trained
    bad = says(np.arange(9) % 3)
    bad[0, 0] = np.nan
    found = contest(model, (NOTHING, "nothing", says(np.arange(9) % 3)), ("self-training", "cached", bad))
    assert "finite" in objection(found.candidates[1], found)


def test_a_candidate_that_forgot_the_source_is_rejected(
    trained: tuple[Model, np.ndarray, np.ndarray],
) -> None:
    model, _, _ = trained
    truth = np.arange(60) % 3
    one = Candidate("self-training", "cached", model, says(truth), held_out=says((truth + 1) % 3))
    found = Field((Candidate(NOTHING, "nothing", model, says(truth)), one), truth, says(truth))
    assert "forgot the source" in objection(one, found)


def test_an_aligned_head_that_is_torn_is_rejected(trained: tuple[Model, np.ndarray, np.ndarray]) -> None:
    model, _, _ = trained
    truth = np.arange(60) % 3
    unsure = 0.1 * says(truth)
    one = Candidate("standardised, self-training", "cached", model, says(truth), says(truth), untaught=unsure)
    found = Field((Candidate(NOTHING, "nothing", model, says(truth)), one), truth, says(truth))
    assert "torn" in objection(one, found)
    assert choose(found, "appearance", clusters=truth).chosen == NOTHING


def test_features_that_lost_their_variety_are_noticed(trained: tuple[Model, np.ndarray, np.ndarray]) -> None:
    model, _, _ = trained
    answers = np.arange(60) % 3
    rich, _ = draw(60, 1)
    poor = np.outer(np.arange(60), np.ones(WIDTH)).astype(np.float32)
    assert effective_rank(rich) > 10 > 2 > effective_rank(poor)
    found = Field(
        (
            Candidate(NOTHING, "nothing", model, says(answers), features=rich),
            Candidate("mcc", "trained", model, says(answers), features=poor),
        ),
        np.zeros(0, np.int64),
        np.zeros((0, 3)),
    )
    assert "effective rank" in objection(found.candidates[1], found)


def test_a_trained_rival_must_win_every_vote(trained: tuple[Model, np.ndarray, np.ndarray]) -> None:
    model, _, _ = trained
    truth = np.arange(300) % 3
    noise = np.random.default_rng(0)

    def spoilt(share: float) -> np.ndarray:
        wrong = noise.random(300) < share
        return np.where(wrong, (truth + 1 + noise.integers(0, 2, 300)) % 3, truth)

    found = contest(
        model,
        (NOTHING, "nothing", says(spoilt(0.5))),
        ("standardised, self-training", "cached", says(spoilt(0.3))),
        ("standardised", "cached", says(spoilt(0.2))),
        ("mcc", "trained", says(spoilt(0.02))),
    )
    assert choose(found, "appearance", clusters=truth).chosen == "mcc"
    assert choose(found, "appearance", clusters=found.candidates[1].target.argmax(1)).chosen != "mcc"


def test_labels_overrule_the_votes_both_ways(trained: tuple[Model, np.ndarray, np.ndarray]) -> None:
    model, _, _ = trained
    truth = np.arange(120) % 3
    wrong = (truth + 1) % 3
    good, bad = says(truth), says(np.where(np.arange(120) < 60, wrong, truth))
    few = Labels(np.arange(20), truth[:20])
    found = contest(model, (NOTHING, "nothing", bad), ("self-training", "cached", good))
    assert choose(found, "none", clusters=truth, labels=few).chosen == "self-training"
    way = "standardised, self-training"
    harmful = contest(model, (NOTHING, "nothing", good), (way, "cached", bad))
    assert choose(harmful, "appearance", clusters=bad.argmax(1)).chosen == way
    choice = choose(harmful, "appearance", clusters=bad.argmax(1), labels=few)
    assert choice.chosen == NOTHING
    assert "speak against" in choice.reasons[-1]


def test_labels_change_nothing_where_chance_alone_sets_two_ways_apart(
    trained: tuple[Model, np.ndarray, np.ndarray],
) -> None:
    truth = np.arange(120) % 3
    wrong = (truth + 1) % 3
    place = np.arange(120)
    before = says(np.where(place % 2 == 0, wrong, truth))
    good, better = (says(np.where(place < count, wrong, truth)) for count in (2, 1))
    few = Labels(np.arange(20), truth[:20])
    found = contest(
        trained[0], (NOTHING, "nothing", before), ("standardised, self-training", "cached", good),
        ("propagation", "cached", better),
    )  # fmt: skip
    choice = choose(found, "appearance", clusters=truth, labels=few)
    counted = {row.name: row.labelled for row in choice.verdicts}
    assert (counted["standardised, self-training"], counted["propagation"]) == ((9, 1), (9, 0))
    assert choice.chosen == "standardised, self-training"


def test_a_partial_shift_is_answered_only_where_the_model_is_less_sure_than_before(
    trained: tuple[Model, np.ndarray, np.ndarray],
) -> None:
    model, _, _ = trained
    answers = np.arange(90) % 3
    way = ("self-training", "cached", says(answers))
    mistaken = np.where(np.arange(90) % 9 == 0, (answers + 1) % 3, answers)
    sure, unsure = says(answers, 9.0), says(mistaken, 0.5)
    assert (
        choose(contest(model, (NOTHING, "nothing", sure), way), "mixed", clusters=answers).chosen == NOTHING
    )
    assert (
        choose(contest(model, (NOTHING, "nothing", unsure), way), "mixed", clusters=answers).chosen == way[0]
    )


def test_a_way_that_changes_no_answer_gives_way_to_doing_nothing(
    trained: tuple[Model, np.ndarray, np.ndarray],
) -> None:
    answers = np.arange(90) % 3
    same = contest(
        trained[0], (NOTHING, "nothing", says(answers)), ("prior by EM", "prior", says(answers, 5.0))
    )
    choice = choose(same, "label", clusters=answers)
    assert choice.chosen == NOTHING
    assert "changes no answer" in choice.reasons[-1]


def test_the_paired_test_is_exact() -> None:
    assert paired_p(0, 0) == 1
    assert paired_p(5, 0) == pytest.approx(1 / 32)
    assert paired_p(3, 1) == pytest.approx(5 / 16)


def test_votes_prefer_whoever_stands_in_the_middle(trained: tuple[Model, np.ndarray, np.ndarray]) -> None:
    model, _, _ = trained
    truth = np.arange(90) % 3
    crowd = [says(np.where(np.arange(90) % 10 == part, (truth + 1) % 3, truth)) for part in range(3)]
    stray = says((truth + 1) % 3)
    every = contest(
        model, *((str(part), "cached", one) for part, one in enumerate([*crowd, stray]))
    ).candidates
    assert ensemble_agreement(every).argmin() == 3
    assert peer_agreement(every).argmin() == 3
    assert cluster_agreement(every, truth)[3] == pytest.approx(1)


def test_an_offset_head_is_rebuilt_from_its_arguments() -> None:
    inner = LinearHead(4, 3)
    torch.nn.init.normal_(inner.weight)
    head = OffsetHead.of(inner, torch.tensor([1.0, 0.0, -1.0]))
    again = OffsetHead(**head.arguments())
    again.load_state_dict(head.state_dict())
    features = torch.randn(5, 4)
    torch.testing.assert_close(again(features), inner(features) + torch.tensor([1.0, 0.0, -1.0]))
