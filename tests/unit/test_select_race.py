"""The race of networks: who is in it, who goes on, what it may take, how it ends; and `encoder="auto"` as a whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from picture_parts import digit_folder, digits, machine
from safetensors.numpy import load_file

from headstart import api
from headstart.core.errors import DataError, EncoderError, Interrupted, PlanError, TrainingError
from headstart.core.plan import Plan
from headstart.core.settings import Auto, Extract, FineTune
from headstart.data import from_arrays
from headstart.methods import finetune as fine_tuning
from headstart.planning import Opened, Pace
from headstart.result import Result
from headstart.select import auto, layout, rounds, search
from headstart.select.catalog import Entry
from headstart.select.race import (
    GOES_ON,
    LEADS,
    MARGIN,
    Budget,
    Halved,
    Round,
    expected_seconds,
    finalists,
    gap,
    halve,
    judged,
    longest,
    rungs_of,
)
from headstart.select.rank import Estimate, Ranked, Ranking
from headstart.select.rounds import lengthened
from headstart.train.runtime import Event, ignore

HERE = Path(__file__).parent


# -- parts -----------------------------------------------------------------------------------------------------


def entry(name: str, encoder: str | None = None, **values: Any) -> Entry:
    """Return a candidate of the catalog."""
    return Entry(
        name=name, modality="image", forms=("pooled",), parameters_m=1.0, gmacs=0.1, activations_m=1.0,
        input_side=32, pretraining="in1k", scores={}, licence="Apache-2.0",
        encoder={"name": encoder or name, **values},
    )  # fmt: skip


def ranked(name: str, score: float, *, half: float = 0.02, seconds: float = 10.0, **values: Any) -> Ranked:
    """Return a row of a ranking; `half` is half the width of the probe's 90 % interval."""
    probe = Estimate(score, score - half, score + half, 100) if half else None
    return Ranked(
        entry=entry(name, **values), score=score, frozen=probe, fine_tuned=probe, prior=0.0, knn=None, logme=None,
        h_score=None, encode_seconds=0.1, extract_seconds=0.5, finetune_seconds=seconds, latency_ms=1.0,
        note="" if probe else "its weights are not here",
    )  # fmt: skip


def ranking(*rows: Ranked) -> Ranking:
    """Return a ranking of rows, best first."""
    return Ranking(
        rows=rows, pick=rows[0].entry.name, reasons=("a", "b", "c"), notes=(), n=30, modality="image",
        task="classification",
    )  # fmt: skip


def round_of(
    name: str, right: Sequence[float], *, items: Sequence[int] | None = None, epochs: int = 1
) -> Round:
    """Return a round in which the network answered these items so well."""
    ids = tuple(str(item) for item in (items if items is not None else range(len(right))))
    quality = np.asarray(right, dtype=np.float64)
    return Round(name, epochs, ids, quality, float(quality.mean()), 1.0, True, 1.0)


def answers(share: float, count: int = 200) -> list[float]:
    """Return answers of which this share is right, the same ones first."""
    return [float(row < share * count) for row in range(count)]


@dataclass
class Runner:
    """An entrant whose answers and seconds are known; `slower` times as many seconds pass as it promises."""

    name: str
    share: Callable[[int], float]
    epoch: float = 1.0
    cost: float = 1.0
    slower: float = 1.0
    fails_at: int = 10_000
    count: int = 200
    trains: bool = True
    trained: list[int] = field(default_factory=list[int])

    def seconds(self, start: int, stop: int) -> float:
        return (stop - start) * self.epoch

    def train(self, epochs: int) -> Round:
        if epochs >= self.fails_at:
            raise TrainingError("the loss explodes", expected="", fix="")
        if not self.trains:
            return round_of(self.name, answers(self.share(0)), epochs=0)
        start = self.trained[-1] if self.trained else 0
        self.trained.append(epochs)
        spent = self.slower * self.epoch * (epochs - start)
        self.epoch = spent / (epochs - start)
        done = round_of(self.name, answers(self.share(epochs), self.count), epochs=epochs)
        return replace(done, seconds=spent)


def raced(*runners: Runner, epochs: int = 10, seconds: float = 1e6, said: list[str] | None = None) -> Halved:
    """Let entrants race."""
    budget = Budget(seconds)
    return halve(
        runners, epochs=epochs, budget=budget, group_of={}, tell=(said if said is not None else []).append
    )


def outcomes(done: Halved, epochs: int) -> dict[str, str]:
    """Return what became of each network at a rung."""
    return {row.network: row.outcome for row in done.rungs if row.epochs == epochs}


# -- who is in it ----------------------------------------------------------------------------------------------


def test_the_best_of_the_ranking_race():
    rows = [ranked(name, score) for name, score in (("a", 0.9), ("b", 0.8), ("c", 0.7), ("d", 0.6))]
    assert [row.entry.name for row in finalists(ranking(*rows))] == ["a", "b", "c"]
    assert [row.entry.name for row in finalists(ranking(*rows), most=2)] == ["a", "b"]


def test_the_cheapest_within_one_standard_error_of_the_best_is_always_among_the_finalists():
    rows = [ranked(f"large{number}", 0.9 - 0.001 * number, seconds=50) for number in range(4)]
    tiny, worse = ranked("tiny", 0.89, seconds=1), ranked("tiniest", 0.86, seconds=0.5)
    names = [row.entry.name for row in finalists(ranking(*rows, tiny, worse))]
    assert names == ["large0", "large1", "tiny"], "0.02 of half a 90 % interval is a standard error of 0.012"
    assert [row.entry.name for row in finalists(ranking(*rows, tiny, worse), most=1)] == ["large0"]


def test_what_could_not_be_probed_does_not_race():
    rows = ranking(ranked("absent", 0.95, half=0), ranked("a", 0.9), ranked("b", 0.8))
    assert [row.entry.name for row in finalists(rows)] == ["a", "b"]
    assert finalists(ranking(ranked("absent", 0.95, half=0))) == ()


# -- who goes on -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epochs", "rungs"),
    [(10, (1, 3, 10)), (5, (1, 2, 5)), (4, (1, 2, 4)), (3, (1, 3)), (2, (1, 2)), (1, (1,))],
)
def test_networks_are_compared_early_on_one_schedule(epochs: int, rungs: tuple[int, ...]):
    assert rungs_of(epochs) == rungs


def test_the_better_half_goes_on_and_one_reaches_the_end():
    runners = [
        Runner(name, lambda _, share=share: share) for name, share in (("a", 0.80), ("b", 0.81), ("c", 0.795))
    ]
    done = raced(*runners)
    assert [runner.trained for runner in runners] == [[1, 3], [1, 3, 10], [1]]
    assert done.winner and (done.winner.network, done.winner.epochs) == ("b", 10)
    assert outcomes(done, 1) == {"b": LEADS, "a": GOES_ON, "c": "dropped: the best 2 go on"}
    assert outcomes(done, 3) == {"b": LEADS, "a": "dropped: the leader alone goes on"}


def test_who_catches_up_overtakes():
    late = Runner("late", lambda epochs: 0.78 + 0.03 * epochs)
    early = Runner("early", lambda _: 0.82)
    done = raced(early, late)
    assert done.winner and done.winner.network == "late"


def test_a_race_stops_early_where_the_interval_excludes_the_rest():
    runners = [
        Runner(name, lambda _, share=share: share) for name, share in (("a", 0.9), ("b", 0.6), ("c", 0.5))
    ]
    done = raced(*runners)
    assert [runner.trained for runner in runners] == [[1, 10], [1], [1]], (
        "nobody is left to compare at 3 epochs"
    )
    assert outcomes(done, 1)["b"] == "dropped: its interval excludes the lead"


def test_the_cheapest_within_one_standard_error_goes_on_before_the_second_best():
    mixed = np.random.default_rng(0).permutation(answers(0.885)).tolist()
    rounds = [
        round_of("best", answers(0.9)),
        round_of("second", answers(0.895)),
        round_of("cheap", mixed),
    ]
    costs = {"best": 5.0, "second": 4.0, "cheap": 1.0}
    rows = {row.network: row for row in judged(rounds, costs, most=2, group_of={})}
    assert rows["cheap"].outcome == GOES_ON
    assert rows["second"].outcome.startswith("dropped")
    same = {row.network: row.outcome for row in judged(rounds, {**costs, "cheap": 9.0}, most=2, group_of={})}
    assert same["second"] == GOES_ON, "it is not the cheapest now"


def test_a_cheap_network_that_is_worse_by_more_than_one_standard_error_is_not_spared():
    rounds = [
        round_of("best", answers(0.9)),
        round_of("second", answers(0.895)),
        round_of("cheap", answers(0.87)),
    ]
    rows = {
        row.network: row for row in judged(rounds, {"best": 5, "second": 4, "cheap": 1}, most=2, group_of={})
    }
    assert rows["second"].outcome == GOES_ON and rows["cheap"].outcome.startswith("dropped")


def test_few_items_prove_nothing():
    rounds = [round_of("a", [1.0] * 9), round_of("b", [0.0] * 9)]
    rows = judged(rounds, {"a": 1, "b": 1}, most=2, group_of={})
    assert [row.outcome for row in rows] == [LEADS, GOES_ON]


def test_networks_are_compared_on_the_items_that_both_were_validated_on():
    one, other = round_of("a", [1, 1, 0, 1], items=[1, 2, 3, 4]), round_of("b", [0, 1, 0], items=[4, 3, 9])
    behind = gap(one, other, group_of={})
    assert (behind.n, behind.value) == (2, 0.0), "of items 3 and 4 each is better on one"
    apart = gap(one, round_of("c", [1.0], items=[77]), group_of={})
    assert apart.n == 0 and apart.low == apart.high


def test_items_of_one_group_are_drawn_together():
    one, other = round_of("a", answers(0.9, 40)), round_of("b", answers(0.7, 40))
    alone = gap(one, other, group_of={})
    together = gap(one, other, group_of={str(row): f"patient {row // 10}" for row in range(40)})
    assert together.high - together.low > alone.high - alone.low


def test_a_finalist_whose_training_fails_is_dropped_and_told():
    said: list[str] = []
    done = raced(Runner("bad", lambda _: 0.99, fails_at=1), Runner("good", lambda _: 0.8), said=said)
    assert done.winner and done.winner.network == "good"
    assert (
        done.notes == ["bad was dropped: the loss explodes"] == [text for text in said if "explodes" in text]
    )


def test_a_leader_that_fails_late_wins_with_what_it_has():
    done = raced(Runner("a", lambda _: 0.9, fails_at=10), Runner("b", lambda _: 0.895))
    assert done.winner and (done.winner.network, done.winner.epochs) == ("a", 3)


@pytest.mark.parametrize(("share", "winner"), [(0.85, "frozen"), (0.75, "trained")])
def test_who_is_not_trained_is_compared_with_the_winner_in_the_end(share: float, winner: str):
    late = Runner("trained", lambda epochs: 0.7 + 0.01 * epochs)
    done = raced(Runner("frozen", lambda _: share, trains=False), late, Runner("other", lambda _: 0.7))
    assert late.trained[-1] == 10 and done.winner and done.winner.network == winner
    assert {row.epochs for row in done.rungs if row.network == "frozen"} == {0}


def test_who_is_not_trained_wins_where_all_training_fails():
    done = raced(Runner("a", lambda _: 0.9, fails_at=1), Runner("b", lambda _: 0.5, trains=False))
    assert done.winner and done.winner.network == "b"


def test_nobody_wins_where_nobody_can_be_trained():
    done = raced(Runner("a", lambda _: 0.9, fails_at=1), Runner("b", lambda _: 0.8, fails_at=1))
    assert done.winner is None and len(done.notes) == 2


# -- what it may take ------------------------------------------------------------------------------------------


@given(
    epochs=st.lists(st.floats(0.1, 5), min_size=2, max_size=5),
    slower=st.floats(1, 4),
    budget=st.floats(1, 60),
    end=st.floats(0, 5),
)
def test_a_race_exceeds_its_budget_by_one_round_at_most(
    epochs: list[float], slower: float, budget: float, end: float
):
    runners = [
        Runner(f"n{place}", lambda _, share=0.7 + 0.01 * place: share, epoch=each, slower=slower)
        for place, each in enumerate(epochs)
    ]
    purse = Budget(budget, end=end)
    done = halve(runners, epochs=10, budget=purse, group_of={}, tell=lambda _: None)
    rounds = [row.seconds for row in done.rungs]
    assert purse.spent == pytest.approx(sum(rounds)), "every round is in the list"
    assert purse.spent <= max(0.0, budget - end) + max(rounds, default=0.0)


def test_a_network_that_is_slower_than_expected_ends_with_what_it_has_trained():
    slow = Runner("a", lambda _: 0.9, epoch=1.0, slower=3.0)
    done = raced(slow, Runner("b", lambda _: 0.5, slower=3.0), seconds=20)
    assert done.winner and done.winner.network == "a" and done.winner.epochs < 10
    assert done.winner.epochs == 5, "(20 s - 3 s) / 1.3 are four more epochs of 3 s"
    assert done.notes[-1] == "a stayed at 5 of 10 epochs: too little time is left"


def test_what_the_leader_still_needs_goes_before_more_comparisons():
    runners = [Runner("a", lambda _: 0.9), Runner("b", lambda _: 0.89, epoch=6.0)]
    done = raced(*runners, seconds=14)
    assert runners[0].trained == [1, 10], "ten epochs were to be had"
    assert runners[1].trained == [] and done.notes == ["b was not trained: too little time is left"]


def test_the_longest_schedule_that_fits_is_taken():
    runners = [Runner("a", lambda _: 0.9), Runner("b", lambda _: 0.8), Runner("c", lambda _: 0.7)]
    assert expected_seconds(runners, 10) == 3 * 1 + 2 * 2 + 7
    assert longest(runners, most_epochs=10, budget=Budget(MARGIN * 14)) == 10
    assert longest(runners, most_epochs=10, budget=Budget(MARGIN * 14 - 0.1)) == 9
    assert longest(runners, most_epochs=10, budget=Budget(3)) is None
    assert longest(runners, most_epochs=2, budget=Budget(100)) == 2, "as the user wished"


# -- training in parts -----------------------------------------------------------------------------------------


def test_training_in_parts_is_training_at_once(tmp_path: Path):
    from finetune_parts import state, tune

    whole, done = tune(tmp_path / "whole", epochs=4)
    parts: Any = None
    for stop in (1, 3, None):
        parts, again = tune(tmp_path / "parts", epochs=4, stop_after=stop)
        assert len(again.history) == (stop or 4)
        assert any("as asked for" in note for note in again.notes) == (stop is not None)
    assert state(parts) == state(whole)
    assert again.best == done.best


def test_an_earlier_stop_than_what_is_trained_begins_anew(tmp_path: Path):
    from finetune_parts import state, tune

    first, _ = tune(tmp_path / "run", epochs=3, stop_after=1)
    tune(tmp_path / "run", epochs=3, stop_after=2)
    again, done = tune(tmp_path / "run", epochs=3, stop_after=1)
    assert state(again) == state(first) and len(done.history) == 1


# -- encoder="auto" --------------------------------------------------------------------------------------------


CNN, TRANSFORMER = (
    ranked("cnn", 0.9, encoder="tiny-cnn"),
    ranked("transformer", 0.85, encoder="tiny-transformer"),
)
SHORT: dict[str, Any] = {
    "finetune.epochs": 4,
    "finetune.learning_rate": 0.003,
    "finetune.train_last": None,  # else the clock decides
    "extract.views": 1,
    "extract.heads": ["prototype", "ridge"],
    "auto.minutes": 60,
}


def noisy(each: int = 40) -> tuple[list[np.ndarray], list[str]]:
    """Return digits under so much noise that fine-tuning gains something."""
    pictures, labels = digits(each)
    draws = np.random.default_rng(0)
    dim = [picture * 0.4 + draws.normal(60, 40, picture.shape) for picture in pictures]
    return [np.clip(picture, 0, 255).astype(np.uint8) for picture in dim], labels


def use(patch: pytest.MonkeyPatch, *rows: Ranked) -> None:
    """Make rows the candidates, ranked as they stand."""
    patch.setattr(search, "present", lambda dataset, wish: tuple(row.entry for row in rows))

    def rank(dataset: Any, entries: Sequence[Entry], **values: Any) -> Ranking:
        return ranking(*(replace(row, entry=one) for row, one in zip(rows, entries, strict=True)))

    patch.setattr(search, "rank", rank)


@pytest.fixture(autouse=True)
def candidates(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let two tiny networks be the candidates; return what makes others."""
    use(monkeypatch, CNN, TRANSFORMER)
    return lambda *rows: use(monkeypatch, *rows)


def opened(
    root: Path, data: Any = None, progress: Callable[[Event], None] = ignore, **settings: Any
) -> Opened:
    """Choose the network, the store under `root`; settings are named `auto_minutes` for `auto.minutes`."""
    given = {name.replace("_", ".", 1): value for name, value in settings.items() if name != "method"}
    return api.open_plan(
        data or noisy(), encoder="auto", method=settings.get("method", "auto"), settings={**SHORT, **given},
        machine=machine(root), progress=progress,
    )  # fmt: skip


def reasons(chosen: Opened) -> str:
    """Return why a network was chosen."""
    assert chosen.selection
    return "; ".join(chosen.selection.reasons)


def finish(root: Path, chosen: Opened) -> Result:
    """Run a plan, its model under `root`."""
    return api.run(chosen, output=root / "model", machine=machine(root))


def weights(folder: Path) -> dict[str, bytes]:
    """Return the bytes of a model's weights."""
    return {name: array.tobytes() for name, array in load_file(folder / "model.safetensors").items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """Return a root and what a race there gave that nobody interrupted."""
    root = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        use(patch, CNN, TRANSFORMER)
        result = api.fit(
            noisy(),
            encoder="auto",
            output=root / "model",
            settings={**SHORT, "auto.minutes": 60},
            machine=machine(root),
        )
    return root, result


def test_the_winner_is_trained_and_the_result_says_why(whole: tuple[Path, Result]):
    _, result = whole
    assert result.selection
    chosen = result.selection
    assert [row.network for row in chosen.ranked] == ["cnn", "transformer"]
    assert [(row.network, row.epochs) for row in chosen.rungs] == [
        ("cnn", 1), ("transformer", 1), ("cnn", 2), ("transformer", 2), ("cnn", 4),
    ]  # fmt: skip
    assert chosen.network == "cnn" and result.plan.encoder.name == "tiny-cnn"
    assert isinstance(result.plan.method, FineTune) and len(result.history) == 4
    assert "cnn and transformer raced over 4 epochs" in chosen.reasons[0]
    best = max(row["validation_quality"] for row in result.history)
    assert chosen.rungs[-1].score == best, "the run ends where the race did"


def test_the_report_the_card_and_the_terminal_tell_of_the_race(whole: tuple[Path, Result]):
    from headstart.cli._show import result_lines

    _, result = whole
    assert result.selection
    page = (result.folder / "report.html").read_text()
    assert "Race of the networks" in page and "transformer" in page
    told = json.loads((result.folder / "report.json").read_text())["selection"]
    assert told["network"] == "cnn" and len(told["rungs"]) == 5
    assert "raced over" in (result.folder / "README.md").read_text()
    assert ("network", "\n".join(["cnn", *result.selection.reasons])) in result_lines(result, result.folder)
    assert Result.from_json(result.to_json(), folder=result.folder).selection == result.selection


def test_the_stored_plan_gives_the_same_model_without_a_race(whole: tuple[Path, Result], tmp_path: Path):
    _, result = whole
    again = api.run(
        result.plan, dataset=from_arrays(*noisy()), output=tmp_path / "model", machine=machine(tmp_path)
    )
    assert weights(again.folder) == weights(result.folder)
    assert again.selection is None and again.evaluation == result.evaluation


def test_the_same_race_again_comes_from_the_store(whole: tuple[Path, Result], tmp_path: Path):
    root, first = whole
    events: list[Event] = []
    chosen = opened(root, progress=events.append)
    second = api.run(chosen, output=tmp_path / "model", machine=machine(root), progress=events.append)
    assert not {"finetune", "heads", "encode", "report"} & {event.stage for event in events}
    assert second.selection == first.selection and second.cost == first.cost


def test_no_checkpoints_are_left(whole: tuple[Path, Result]):
    root, _ = whole
    assert not any((root / "store" / "checkpoints-v1").iterdir())


KILLED = """
import os, signal, sys
from pathlib import Path
import pytest
import test_select_race as parts

steps = 0

def progress(event):
    global steps
    steps += event.stage == "finetune" and not event.message
    if steps == 40:
        os.kill(os.getpid(), signal.SIGKILL)

parts.use(pytest.MonkeyPatch(), parts.CNN, parts.TRANSFORMER)
parts.opened(Path(sys.argv[1]), progress=progress)
"""


def test_a_race_that_was_killed_goes_on_to_the_same_model(whole: tuple[Path, Result], tmp_path: Path):
    path = os.pathsep.join([str(HERE), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], env={**os.environ, "PYTHONPATH": path}, check=False
    )
    assert done.returncode == -signal.SIGKILL
    again, result = finish(tmp_path, opened(tmp_path)), whole[1]
    assert weights(again.folder) == weights(result.folder)
    assert again.selection and result.selection and again.plan.key == result.plan.key
    assert [replace(row, seconds=0) for row in again.selection.rungs] == [
        replace(row, seconds=0) for row in result.selection.rungs
    ]


def test_a_stop_saves_the_race_and_says_how_to_go_on(tmp_path: Path):
    def progress(event: Event) -> None:
        if event.stage == "finetune":
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted) as error:
        opened(tmp_path, progress=progress)
    assert error.value.exit_code == 143 and error.value.fix


def test_where_tuning_gains_nothing_the_network_stays_frozen(tmp_path: Path):
    chosen = opened(tmp_path, finetune_learning_rate=0.03)
    assert isinstance(chosen.plan.method, Extract) and chosen.plan.start is None
    assert chosen.plan.method.use_validation
    assert "stays frozen: fine-tuning did not make it better" in reasons(chosen)


def test_a_winner_whose_time_is_up_is_trained_as_far_as_it_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real = rounds.Finalist.train

    def train(self: rounds.Finalist, epochs: int) -> Round:
        done = real(self, epochs)
        if self.name == "cnn" and epochs == 2:
            self.costs = replace(self.costs, epoch=1e6)
        return done

    monkeypatch.setattr(rounds.Finalist, "train", train)
    chosen = opened(tmp_path)
    assert isinstance(chosen.plan.method, FineTune)
    assert (chosen.plan.method.epochs, chosen.plan.method.stop_after) == (4, 2)
    result = finish(tmp_path, chosen)
    assert len(result.history) == 2
    assert "cnn stayed at 2 of 4 epochs: too little time is left" in reasons(chosen)


def test_one_candidate_does_not_race(tmp_path: Path, candidates: Any):
    candidates(CNN)
    chosen = opened(tmp_path, method="finetune")
    assert chosen.plan.method.kind == "finetune" and chosen.selection and chosen.selection.rungs == ()
    assert reasons(chosen).startswith("cnn is the only candidate whose weights are on this machine")


def test_a_budget_too_small_for_any_race_trains_the_pick_frozen(tmp_path: Path):
    chosen = opened(tmp_path, auto_minutes=0.001)
    assert chosen.plan.method.kind == "extract" and chosen.plan.encoder.name == "tiny-cnn"
    assert "no race: 0.001 minutes are too short" in reasons(chosen)
    assert "(--minutes 1); the ranking's pick stays frozen" in reasons(chosen)


def test_few_labelled_texts_are_learnt_by_the_few_shot_method(tmp_path: Path, candidates: Any):
    from sentence_parts import texts

    names = ("tiny-text-transformer", "tiny-gru")
    candidates(*(ranked(name, score) for name, score in zip(names, (0.9, 0.8), strict=True)))
    chosen = api.open_plan(texts(10), encoder="auto", machine=machine(tmp_path))
    assert (chosen.plan.encoder.name, chosen.plan.method.kind) == ("tiny-text-transformer", "fewshot")
    assert "with so few labels a class the few-shot method is taken" in reasons(chosen)


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let no race be run; return the names of those that would be trained in it."""
    names: list[str] = []

    def halve(entrants: Sequence[rounds.Finalist], **values: Any) -> Halved:
        names.extend(entrant.name for entrant in entrants if entrant.trains)
        return Halved()

    monkeypatch.setattr(auto, "halve", halve)
    return names


def test_what_would_take_too_long_to_train_competes_frozen(tmp_path: Path, candidates: Any):
    candidates(TRANSFORMER, CNN)

    def pace(plan: Any, *others: Any, **values: Any) -> Pace:
        return Pace(0.0, 1e5 if plan.encoder.name == "tiny-cnn" else 0.01)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "pace", pace)
        chosen = opened(tmp_path)
    assert "cnn competes frozen: its training would take too long" in reasons(chosen)
    assert "cnn stays frozen, and so beat those that were trained" in reasons(chosen)
    assert (chosen.plan.encoder.name, chosen.plan.method.kind) == ("tiny-cnn", "extract")
    assert chosen.selection and {row.is_tuned for row in chosen.selection.rungs if row.network == "cnn"} == {
        False
    }


def test_a_finalist_that_cannot_be_opened_is_told_of(tmp_path: Path, candidates: Any, entered: list[str]):
    gone = str(tmp_path / "gone.pth")
    candidates(CNN, TRANSFORMER, ranked("broken", 0.8, encoder="tiny-cnn", weights=gone))
    assert f"broken does not race: there is no weights file {gone}" in reasons(opened(tmp_path))
    assert entered == ["cnn", "transformer"]


def test_with_extraction_the_ranking_decides(tmp_path: Path):
    settings = {name: value for name, value in SHORT.items() if not name.startswith("finetune")}
    chosen = api.open_plan(
        noisy(), encoder="auto", method="extract", settings=settings, machine=machine(tmp_path)
    )
    assert chosen.plan.encoder.name == "tiny-cnn" and chosen.plan.method.kind == "extract"
    assert "no race: with method extract the ranking decides" in reasons(chosen)


@pytest.mark.parametrize("failing", [{"tiny-cnn"}, {"tiny-cnn", "tiny-transformer"}])
def test_a_finalist_whose_training_fails_does_not_win(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: set[str]
):
    real = fine_tuning.train

    def train(network: Any, **values: Any) -> Any:
        if values["settings"].identity["encoder"]["name"] in failing:
            raise TrainingError("the loss explodes", expected="", fix="lower the rate")
        return real(network, **values)

    monkeypatch.setattr(fine_tuning, "train", train)
    chosen = opened(tmp_path)
    assert "cnn was dropped: the loss explodes" in reasons(chosen)
    if len(failing) == 1:
        assert chosen.plan.encoder.name == "tiny-transformer"
    else:
        assert (chosen.plan.encoder.name, chosen.plan.method.kind) == ("tiny-cnn", "extract")
        assert "none of them could be trained: the ranking's pick stays frozen" in reasons(chosen)


def test_no_candidate_that_can_be_used_is_an_error(tmp_path: Path, candidates: Any):
    candidates(ranked("a", 0.9, half=0, encoder="tiny-cnn"), ranked("b", 0.9, half=0, encoder="tiny-cnn"))
    with pytest.raises(EncoderError, match="none of the 2 candidates can be used"):
        opened(tmp_path)


@pytest.mark.parametrize("download", [False, True])
def test_nothing_is_fetched_unless_that_is_allowed(
    tmp_path: Path, candidates: Any, monkeypatch: pytest.MonkeyPatch, download: bool
):
    candidates(ranked("far", 0.95, half=0, encoder="tiny-cnn"), CNN, TRANSFORMER)
    real, seen = search.Search.settings, list[str]()
    monkeypatch.setattr(search, "whereabouts", lambda entry: "hub" if entry.name == "far" else "installed")
    monkeypatch.setattr(
        search.Search, "settings", lambda self, entry: seen.append(entry.name) or real(self, entry)
    )
    events: list[Event] = []
    opened(tmp_path, auto_minutes=0.001, auto_download=download, progress=events.append)
    assert ("far" in seen) == download
    assert any(event.message == "far is fetched from the hub" for event in events) == download


def test_one_class_is_refused(tmp_path: Path):
    pictures, _ = digits(4)
    with pytest.raises(DataError, match="only one class"):
        opened(tmp_path, (pictures, ["same"] * len(pictures)))


def test_three_pictures_end_in_a_plain_error(tmp_path: Path):
    with pytest.raises(DataError, match="split would be empty"):
        opened(tmp_path, digits(1))


def test_limits_of_the_choice_want_a_choice(tmp_path: Path):
    settings = {"auto.minutes": 3}
    with pytest.raises(PlanError, match=r"auto\.minutes set, but not --encoder auto"):
        api.fit(digits(), encoder="tiny-cnn", settings=settings, machine=machine(tmp_path))


@pytest.mark.parametrize(
    ("name", "value"), [("encoder_name", "minilm"), ("encoder_weights", "x.pth"), ("auto_finalists", 0)]
)
def test_settings_that_cannot_be_are_refused(tmp_path: Path, name: str, value: Any):
    with pytest.raises(PlanError, match=name.partition("_")[2]):
        opened(tmp_path, **{name: value})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"finetune.epoch": 3}, "epoch"),
        ({"rank.sample": 50}, "rank"),
        ({"encoder.imagesize": 50}, "imagesize"),
        ({"split.tset": 0.1}, "tset"),
        ({"finetune.stop_after": 2}, "stop_after"),
        ({"method": "extract", "finetune.epochs": 3}, "the plan has no finetune"),
        ({"method": "nonsense"}, "unknown method 'nonsense'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_ranked(
    tmp_path: Path, settings: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("headstart.select.search.rank", lambda *_, **__: pytest.fail("it was ranked"))
    data, method = digit_folder(tmp_path / "data", 4), settings.pop("method", "auto")
    given: dict[str, Any] = {"settings": settings, "method": method, "machine": machine(tmp_path)}
    with pytest.raises(PlanError, match=words):
        api.open_plan(data, encoder="auto", **given)
    with pytest.raises(PlanError, match=words):
        api.foresee(data, **given)


def test_a_schedule_that_is_shortened_leaves_an_epoch_for_the_network():
    plan = Plan.model_validate(
        {"task": "classification", "labels": ["a", "b"], "encoder": {"name": "tiny-cnn"}, "data": {"uri": "x"},
         "method": {"kind": "finetune", "head_epochs": 5, "epochs": 5}}
    )  # fmt: skip
    method = lengthened(plan, 3).method
    assert isinstance(method, FineTune) and (method.head_epochs, method.epochs) == (2, 1)


def test_a_finalist_that_memory_does_not_hold_is_told_of(
    tmp_path: Path, candidates: Any, monkeypatch: pytest.MonkeyPatch
):
    def measure(encoder: Any, head: Any, inputs: Any, **_: Any) -> Any:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr("headstart.planning.measure", measure)
    said = reasons(opened(tmp_path))
    assert "does not race: memory ran out with a single item" in said


def test_settings_of_any_network_reach_every_candidate(tmp_path: Path):
    assert opened(tmp_path, auto_minutes=0.001, encoder_image_size=40).plan.encoder.image_size == 40


def test_explain_says_what_would_be_ranked(tmp_path: Path):
    text = api.foresee(digit_folder(tmp_path / "data", 4), settings={"auto.minutes": 2})
    assert "cnn" in text and "transformer" in text and "within 2 minutes" in text
    text = api.foresee(tmp_path / "data", method="extract")
    assert "race by" not in text and "with method extract the ranking decides" in text


def test_the_flags_of_the_command_line_are_limits_of_the_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from headstart.cli import main

    given: dict[str, Any] = {}

    def choose(dataset: Any, source: Any, wish: Any, **values: Any) -> Any:
        given["wish"] = wish
        raise PlanError("seen", expected="", fix="")

    monkeypatch.setattr(auto, "choose", choose)
    data, own = digit_folder(tmp_path / "data", 4), tmp_path / "my networks.json"
    arguments = ["--encoder", "auto", "--minutes", "2.5", "--download", "--catalog", str(own)]
    with pytest.raises(SystemExit):
        main(["fit", str(data), *arguments])
    assert given["wish"] == Auto(minutes=2.5, download=True, catalog=str(own))
