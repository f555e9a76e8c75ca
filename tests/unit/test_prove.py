"""Proving: a whole proof on tiny networks, the schedule within the minutes, and what cannot be proven."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_parts import digit_folder, digits, machine
from sentence_parts import texts

from headstart import api
from headstart.core.errors import DataError, Interrupted, PlanError, StoreError, TrainingError
from headstart.proving import arms
from headstart.proving.conclude import FAIR, FEWEST_BLOCKS
from headstart.proving.outcome import Budget, Proof
from headstart.proving.page import DATA, PAGE, render
from headstart.proving.schedule import END_SECONDS, LEAST_SEEDS, MARGIN, Costs, Pace, Wish, scheduled
from headstart.train.runtime import Event

QUICK: dict[str, Any] = {
    "finetune.epochs": 3, "finetune.train_last": 1, "finetune.augment": "none", "extract.heads": ["ridge", "prototype"],
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _short() -> Iterator[None]:
    """Train from scratch on small pictures for a few epochs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headstart.runs.SCRATCH_EPOCHS", (4, 6))
        patch.setattr("headstart.runs.SCRATCH_SIZE", 16)
        patch.setattr("headstart.proving.proof.TIMINGS", 1)
        patch.setattr(
            "headstart.proving.proof.SPARE", 0.0
        )  # As long as others would be hundreds of tiny epochs.
        yield


def proven(data: Any, root: Path, *, encoder: str = "tiny-cnn", **values: Any) -> Proof:
    """Prove on tiny networks with plenty of minutes; `minutes`, `seeds` and `target` are settings."""
    asked = {"minutes": 30.0, "seeds": 2}
    asked |= {name: values.pop(name) for name in ("minutes", "seeds", "target") if name in values}
    settings = {**QUICK, **{f"prove.{name}": value for name, value in asked.items()}}
    settings |= values.pop("settings", {})
    return api.prove(data, encoder=encoder, settings=settings, machine=machine(root), **values)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Proof]:
    """Return a folder of digits, the root of the store, and the proof."""
    root = tmp_path_factory.mktemp("proof")
    data = digit_folder(root / "digits", 16)
    return data, root, proven(data, root, output=root / "out")


# -- a whole proof -----------------------------------------------------------------------------------------------


def test_all_arms_are_scored_on_the_same_test_items(whole: tuple[Path, Path, Proof]):
    proof = whole[2]
    assert [arm.name for arm in proof.arms] == ["frozen", "finetune", "scratch"]
    assert {one.score.n for one in proof.differences} == {proof.num_test}
    assert all(one.score.low <= one.score.value <= one.score.high for one in proof.differences)
    assert proof.deciding and proof.deciding.against == "scratch"
    full = {arm.name: arm.final for arm in proof.arms}
    gain = full[proof.deciding.arm].value - full["scratch"].value
    assert proof.deciding.score.value == pytest.approx(gain), "accuracy is the mean of what is right"


def test_the_verdict_follows_the_interval(whole: tuple[Path, Path, Proof]):
    proof = whole[2]
    assert proof.deciding
    score = proof.deciding.score
    seconds = {arm.name: arm.seconds for arm in proof.arms}
    longer = seconds["scratch"] / seconds[proof.deciding.arm]
    won = "worth it" if longer >= 1 / FAIR else "undecided"
    lost = "not worth it" if longer <= FAIR else "undecided"
    told = won if score.low > 0 else lost if score.high < 0 else "undecided"
    assert proof.verdict == (told if proof.num_test >= FEWEST_BLOCKS else "undecided")


def test_the_frozen_curve_covers_every_budget_and_trained_arms_get_few(whole: tuple[Path, Path, Proof]):
    frozen, tuned, scratch = whole[2].arms
    sizes = [point.budget.n for point in frozen.points]
    assert sizes == sorted(set(sizes)) and len(sizes) >= 4
    assert {point.budget.n for point in tuned.points} == {point.budget.n for point in scratch.points}
    assert {point.budget.n for point in tuned.points} < set(sizes)
    assert all(len(point.scores) == 2 for arm in whole[2].arms for point in arm.points)


def test_training_from_scratch_gets_the_time_of_the_dearest_other_arm(whole: tuple[Path, Path, Proof]):
    note = next(note for note in whole[2].notes if note.startswith("training from scratch got"))
    scratch, tuned = whole[2].arm("scratch"), whole[2].arm("finetune")
    assert scratch and tuned and scratch.epochs >= 4
    assert f"{scratch.seconds:.0f} s" in note and f"{tuned.seconds:.0f} s" in note


def test_page_and_json_say_the_same(whole: tuple[Path, Path, Proof]):
    _, root, proof = whole
    page = (root / "out" / PAGE).read_text()
    assert proof.verdict[1:] in page and "<polygon" in page and "default-src 'none'" in page
    assert Proof.from_json((root / "out" / DATA).read_text()) == proof
    assert "<script>" not in render(replace(proof, title="<script>alert(1)</script>"))


def test_a_second_proof_trains_nothing(whole: tuple[Path, Path, Proof], monkeypatch: pytest.MonkeyPatch):
    data, root, proof = whole

    def refuse(*given: Any) -> None:
        raise AssertionError("something was trained")

    monkeypatch.setattr("headstart.proving.arms.train", refuse)
    monkeypatch.setattr("headstart.proving.bench.extract_heads", refuse)
    assert proven(data, root) == proof


def test_another_question_uses_the_runs_that_are_there(
    whole: tuple[Path, Path, Proof], monkeypatch: pytest.MonkeyPatch
):
    data, root, proof = whole
    monkeypatch.setattr("headstart.proving.arms.train", lambda *_: pytest.fail("something was trained"))
    other = proven(data, root, target=0.5)
    assert [arm.points for arm in other.arms] == [arm.points for arm in proof.arms]
    assert any(one.target == 0.5 for one in other.reached)


def test_an_arm_more_is_one_function_and_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    given = arms.ARMS["frozen"]
    more = replace(given, name="pretrained-here", title="pretrained on these items")
    monkeypatch.setattr(arms, "ARMS", {**arms.ARMS, "pretrained-here": more})
    for place in ("proof", "conclude"):
        monkeypatch.setattr(f"headstart.proving.{place}.ARMS", arms.ARMS)
    proof = proven(digits(12), tmp_path)
    added = proof.arm("pretrained-here")
    assert added and added.is_transfer
    assert ("pretrained-here", "scratch") in {(one.arm, one.against) for one in proof.differences}


# -- interrupted ---------------------------------------------------------------------------------------------------


def test_a_network_pretrained_further_on_the_inputs_is_an_arm_where_it_is_asked_for(
    whole: tuple[Path, Path, Proof], tmp_path: Path
):
    assert whole[2].arm("selfsupervised") is None
    data = digit_folder(tmp_path / "data", 20)
    proof = proven(str(data), tmp_path, settings={"prove.selfsupervised": True, "prove.seeds": 2})
    arm = proof.arm("selfsupervised")
    assert arm is not None
    assert any((one.arm, one.against) == ("selfsupervised", "finetune") for one in proof.differences)


def stopping_at(stage: str, number: int) -> Any:
    """Return a progress that sends SIGTERM to this process at an event of a stage."""

    def progress(event: Event) -> None:
        if event.stage == stage and event.done == number:
            os.kill(os.getpid(), signal.SIGTERM)

    return progress


def test_an_interrupted_proof_goes_on_where_it_was(tmp_path: Path):
    data = digits(10)
    with pytest.raises(Interrupted):
        proven(data, tmp_path, progress=stopping_at("trained", 2))
    kept = sorted((tmp_path / "store" / arms.BUCKET).rglob("scored.json"))
    assert kept
    before = {path: path.stat().st_mtime_ns for path in kept}
    proof = proven(data, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in kept} == before, "nothing was done again"
    assert [arm.name for arm in proof.arms] == ["frozen", "finetune", "scratch"]


def test_a_proof_that_was_killed_goes_on(tmp_path: Path):
    data = digit_folder(tmp_path / "digits", 10)
    child = os.fork()
    if not child:
        proven(data, tmp_path, progress=lambda event: os.kill(os.getpid(), signal.SIGKILL)
               if (event.stage, event.done) == ("trained", 2) else None)  # fmt: skip
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    kept = list((tmp_path / "store" / arms.BUCKET).rglob("scored.json"))
    before = {path: path.stat().st_mtime_ns for path in kept}
    proof = proven(data, tmp_path)
    assert len(kept) > 4 and len(proof.arms) == 3
    assert {path: path.stat().st_mtime_ns for path in kept} == before, "nothing was done again"


# -- other data ----------------------------------------------------------------------------------------------------


def test_texts_are_proven_too(tmp_path: Path):
    proof = proven(texts(10), tmp_path, encoder="tiny-text-transformer")
    assert (proof.modality, proof.task, len(proof.arms)) == ("text", "classification", 3)


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_several_labels_and_numbers_are_proven_too(tmp_path: Path, task: str):
    pictures, names = digits(10)
    targets: Sequence[Any] = (
        [(name, "round") if name == "zero" else (name,) for name in names]
        if task == "multilabel"
        else [
            ("zero", "one", "two").index(name) + 0.25 * place / len(names) for place, name in enumerate(names)
        ]
    )
    proof = proven((pictures, targets), tmp_path)
    assert proof.task == task
    assert proof.deciding
    assert PAGE and "labels" in render(proof)


def test_the_unit_of_a_number_changes_nothing(tmp_path: Path):
    pictures, names = digits(12)
    numbers = [("zero", "one", "two").index(name) + 0.1 * (place % 5) for place, name in enumerate(names)]
    small, large = (
        proven((pictures, [unit * number for number in numbers]), tmp_path / f"{unit}", seeds=2)
        for unit in (1, 1000)
    )
    for name in ("frozen", "scratch"):
        first, second = small.arm(name), large.arm(name)
        assert first and second and first.final.value == pytest.approx(second.final.value, abs=0.15)


def test_an_arm_that_fails_in_its_trial_drops_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fails(*_: Any) -> float:
        raise TrainingError("the loss is nan", expected="finite numbers", fix="check the pictures")

    monkeypatch.setattr("headstart.proving.proof.epoch_seconds", fails)
    proof = proven(digits(12), tmp_path)
    assert [arm.name for arm in proof.arms] == ["frozen", "finetune"] and proof.verdict == "undecided"
    assert any("from scratch failed with seed 0: the loss is nan" in note for note in proof.notes)


def test_other_things_at_the_output_are_kept(tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / DATA).write_text('{"thesis": 1}')
    (tmp_path / "file").write_text("precious")
    for place in ("mine", "file"):
        with pytest.raises(StoreError, match="is no proof"):
            proven(digits(8), tmp_path / "root", output=tmp_path / place)


# -- what cannot be proven ----------------------------------------------------------------------------------------


def test_one_class_is_refused(tmp_path: Path):
    pictures, _ = digits(5)
    with pytest.raises(DataError, match="only one class"):
        proven((pictures, ["one"] * len(pictures)), tmp_path)


def test_three_pictures_are_refused(tmp_path: Path):
    pictures, names = digits(1)
    with pytest.raises(DataError, match="split would be empty"):
        proven((pictures, names), tmp_path)


def test_a_network_that_is_not_pretrained_is_refused(tmp_path: Path):
    with pytest.raises(PlanError, match="not pretrained"):
        proven(digits(8), tmp_path, settings={"encoder.weights": "random"})


def test_one_seed_or_no_minutes_are_refused(tmp_path: Path):
    with pytest.raises(PlanError, match="seeds: Input should be greater than or equal to 2, got 1"):
        proven(digits(8), tmp_path, seeds=1)
    with pytest.raises(PlanError, match="minutes: Input should be greater than 0, got 0"):
        proven(digits(8), tmp_path, minutes=0.0)


def test_too_few_minutes_name_what_was_cut_and_what_would_do(tmp_path: Path):
    proof = proven(digits(12), tmp_path, minutes=0.01)
    assert [arm.name for arm in proof.arms] == ["frozen"]
    assert proof.verdict == "undecided" and "nothing to compare" in proof.cuts[0]
    assert "would keep every arm" in proof.cuts[0]
    assert proof.least_minutes and proof.least_minutes > 0.01
    assert json.loads(proof.to_json())["cuts"] and "nothing would be cut" in render(proof)


# -- the schedule --------------------------------------------------------------------------------------------------

FULL, TENTH, LITTLE = Budget(1.0, 1000, 200), Budget(0.1, 100, 20), Budget(0.01, 10, 2)
COSTS = Costs(
    Pace(0.001, 0.002, 0.0005),
    Pace(0.0, 0.003, 0.001),
    {FULL.n: 2.0, TENTH.n: 1.0, LITTLE.n: 0.5},
    0.005,
    300,
)


def wish(seconds: float, **values: Any) -> Wish:
    """Return what is asked within so many seconds."""
    least = {FULL.n: 10, TENTH.n: 30, LITTLE.n: 30}
    given = {"seeds": 5, "epochs": 10, "all_budgets": False, "spent": 5.0, **values}
    return Wish(scratch_least=least, budgets=(LITTLE, TENTH, FULL), seconds=seconds, **given)


def test_with_time_enough_nothing_is_cut():
    found = scheduled(COSTS, wish(3600))
    assert (found.seeds, found.budgets, found.finetune_epochs, found.cuts) == (5, (TENTH, FULL), 10, ())
    assert scheduled(COSTS, wish(36_000, all_budgets=True)).budgets == (LITTLE, TENTH, FULL)


def test_budgets_go_before_seeds_and_training_from_scratch_is_as_long():
    tuned = COSTS.finetune_seconds(FULL, 3)
    other = tuned + COSTS.encode * (FULL.n + COSTS.num_test)
    epochs = COSTS.scratch_epochs(FULL, other, least=10)
    assert COSTS.scratch_seconds(FULL, epochs) >= other
    seconds = MARGIN * 5 * (tuned + COSTS.scratch_seconds(FULL, epochs)) + 5.0 + END_SECONDS
    found = scheduled(COSTS, wish(seconds + 0.1))
    assert (found.seeds, found.budgets, found.finetune_epochs) == (5, (FULL,), 3)
    assert found.cuts == ("fine-tuning took 3 epochs instead of 10",)
    fewer = scheduled(COSTS, wish(0.6 * seconds))
    assert LEAST_SEEDS <= fewer.seeds < 5 and f"{fewer.seeds} of 5 seeds" in fewer.cuts[0]
    assert fewer.least_minutes and scheduled(COSTS, wish(60 * fewer.least_minutes + 1)).cuts == ()


def test_a_further_arm_takes_half_as_long_again():
    usual, more = (scheduled(COSTS, wish(60, arms_more=one)) for one in (0.0, 0.5))
    assert usual.least_minutes and more.least_minutes
    fixed = 5.0 + END_SECONDS
    assert 60 * more.least_minutes - fixed == pytest.approx(1.5 * (60 * usual.least_minutes - fixed))
    assert scheduled(COSTS, wish(60 * more.least_minutes + 1, arms_more=0.5)).cuts == ()


def test_seeds_that_took_longer_are_told_of_once():
    found = scheduled(COSTS, wish(60, seeds=5)).shortened(2, 5)
    assert sum("of 5 seeds were trained" in cut for cut in found.cuts) == 1 and "2 of 5" in found.cuts[0]


def test_fine_tuning_is_cut_before_training_from_scratch():
    dear = replace(COSTS, finetune=Pace(1.0, 1.0, 0.1))
    found = scheduled(dear, wish(300))
    assert found.finetune_epochs is None and not found.scratch_cut and "fine-tuning was cut" in found.cuts[0]
    assert scheduled(dear, wish(20)).scratch_cut


@pytest.mark.parametrize("seconds", np.linspace(30, 600, 20))
def test_what_is_scheduled_fits(seconds: float):
    found = scheduled(COSTS, wish(float(seconds)))
    if found.finetune_epochs and not found.scratch_least:
        least = {FULL.n: 10, TENTH.n: 30}
        each = sum(
            (tuned := COSTS.finetune_seconds(one, found.finetune_epochs))
            + COSTS.scratch_seconds(
                one,
                COSTS.scratch_epochs(
                    one, tuned + COSTS.encode * (one.n + COSTS.num_test), least=least[one.n]
                ),
            )
            for one in found.budgets
        )
        assert 5.0 + END_SECONDS + MARGIN * found.seeds * each <= seconds + 1e-6


# -- negative transfer ---------------------------------------------------------------------------------------------


def test_rates_that_are_too_high_are_named_with_what_to_change(tmp_path: Path):
    settings = {"finetune.learning_rate": 2.0, "finetune.train_last": 4, "finetune.layer_decay": 1.0}
    proof = proven(digits(12), tmp_path, settings=settings)
    assert any("fine-tuning lost to a frozen network's head" in line for line in proof.negative)
    cause = next(cause for cause in proof.causes if cause.name == "rates too high")
    assert cause.is_likely and "finetune.learning_rate" in cause.change
    assert {"label noise", "domain gap"} <= {cause.name for cause in proof.causes}
    assert cause.change in render(proof)
