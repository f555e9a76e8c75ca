"""Ranking candidates on small real data: what is probed, what is told, what is refused, and how it is shown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_parts import context, digit_folder, digits, machine
from typer.testing import CliRunner

from headstart import api
from headstart.cli._app import app
from headstart.core.errors import DataError, EncoderError, PlanError
from headstart.core.hashing import plain
from headstart.core.settings import Source, Split
from headstart.data import TableDataset, from_arrays, from_texts, open_dataset
from headstart.evaluation import wilson
from headstart.planning import sample_values
from headstart.select import rank as ranking_module
from headstart.select import timing
from headstart.select.catalog import Entry
from headstart.select.history import History, Run, Traits
from headstart.select.page import render
from headstart.select.probe import look, probe, sampled, settled, untested
from headstart.select.rank import Ranked, Ranking, considered, num_trained, rank, shared_of
from headstart.train.runtime import Context, Event

SOURCE = Source()


def _entry(name: str, modality: str = "image", **facts: Any) -> Entry:
    """Return a candidate that opens the network of this name."""
    forms = ("pooled", "depths") if modality == "image" else ("pooled", "layers", "sequence")
    known: dict[str, Any] = {
        "parameters_m": 0.01, "gmacs": 0.001, "activations_m": 0.01, "input_side": 32, "pretraining": "none",
        "scores": {}, "licence": "Apache-2.0", "encoder": {"name": name},
    }  # fmt: skip
    return Entry(name=name, modality=modality, forms=forms, **{**known, **facts})


CNN, TRANSFORMER = _entry("tiny-cnn"), _entry("tiny-transformer", gmacs=0.002)
GRU, TEXT = _entry("tiny-gru", "text"), _entry("tiny-text-transformer", "text", gmacs=0.002)


@pytest.fixture(autouse=True)
def quick_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time networks for an instant, and none but the candidates; their weights are on this machine unless told."""
    monkeypatch.setattr(timing, "TIMED_SECONDS", 0.001)
    monkeypatch.setattr(ranking_module, "catalog", lambda *_, **__: (CNN, TRANSFORMER))
    monkeypatch.setattr(ranking_module, "whereabouts", lambda entry: entry.encoder.get("place", "installed"))


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """Return a context whose store the tests of this file share, so that each graph is exported once."""
    return context(tmp_path_factory.mktemp("ranking"))


def _pictures(each: int = 12, **columns: Any) -> TableDataset:
    """Return digits of three classes."""
    pictures, labels = digits(each)
    return from_arrays(pictures, labels, **columns)


def _sentences(count: int) -> list[str]:
    """Return texts that begin with a colour and a fruit and go on with words of their own."""
    draw = np.random.default_rng(0)
    starts = ["red apple", "green pear", "red pear", "green apple"]
    letters = np.array(list("abcdefghijklmnop"))
    endings = [" ".join("".join(draw.choice(letters, 5)) for _ in range(6)) for _ in range(count)]
    return [f"{starts[row % 4]} {ending}" for row, ending in enumerate(endings)]


def _rank(dataset: TableDataset, entries: tuple[Entry, ...], at: Context, **given: Any) -> Ranking:
    """Rank without any recorded run."""
    return rank(dataset, entries, source=SOURCE, context=at, **{"history": History(), **given})


@pytest.fixture(scope="module")
def ranked(here: Context) -> Ranking:
    """Return two networks ranked on digits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "TIMED_SECONDS", 0.001)
        patch.setattr(ranking_module, "catalog", lambda *_, **__: ())
        patch.setattr(ranking_module, "whereabouts", lambda _: "installed")
        return _rank(_pictures(), (CNN, TRANSFORMER), here)


def test_every_candidate_has_what_it_should_reach_and_what_it_takes(ranked: Ranking) -> None:
    assert [row.score for row in ranked.rows] == sorted((row.score for row in ranked.rows), reverse=True)
    assert ranked.pick == ranked.rows[0].entry.name
    assert (ranked.n, ranked.modality, ranked.task) == (30, "image", "classification"), (
        "six of 36 will be tested on"
    )
    for row in ranked.rows:
        assert row.frozen is not None
        assert row.frozen.low < row.frozen.value <= row.frozen.high <= 1
        assert row.frozen.value > 0.5  # A third of the digits is right by chance.
        assert row.knn is not None and row.knn <= row.frozen.value
        assert row.logme is not None and row.h_score is not None
        assert 0 < row.encode_seconds < row.extract_seconds
        assert min(row.finetune_seconds, row.latency_ms) > 0


def test_three_lines_say_why_and_too_little_history_is_told(ranked: Ranking) -> None:
    assert len(ranked.reasons) == 3
    assert ranked.pick in ranked.reasons[0] and "30 pictures" in ranked.reasons[0]
    assert ranked.rows[1].entry.name in ranked.reasons[1] and "the prior" in ranked.reasons[1]
    assert any("Too little history" in note for note in ranked.notes)
    assert all(row.fine_tuned is None for row in ranked.rows)


def test_a_ranking_is_plain_json(ranked: Ranking) -> None:
    values = json.loads(json.dumps(plain(ranked), allow_nan=False))
    assert values["rows"][0]["entry"]["name"] == ranked.pick


def test_the_same_ranking_again_encodes_nothing(here: Context, ranked: Ranking) -> None:
    stages: list[str] = []
    again = replace(here, progress=lambda event: stages.append(event.stage))
    found = _rank(_pictures(), (CNN, TRANSFORMER), again)
    assert "encode" not in stages
    assert [row.score for row in found.rows] == [row.score for row in ranked.rows]


def test_recorded_runs_give_an_interval_for_fine_tuning(here: Context) -> None:
    draw = np.random.default_rng(0)
    traits = {name: Traits(0.01, 0.001) for name in ("tiny-cnn", "tiny-transformer", "a", "b", "c", "d")}
    runs = tuple(
        Run(name, str(data), float(draw.uniform(0.8, 0.9)), float(draw.uniform(0.7, 0.8)), 0.02, 80, 100)
        for data in range(6)
        for name in traits
    )
    found = _rank(_pictures(), (CNN, TRANSFORMER), here, history=History(runs, traits))
    for row in found.rows:
        assert row.fine_tuned is not None
        assert row.fine_tuned.low < row.score == row.fine_tuned.value < row.fine_tuned.high
    assert "runs on 6 other data sets" in found.reasons[1]
    assert not any("Too little history" in note for note in found.notes)


def test_the_test_split_is_not_looked_at(here: Context, tmp_path: Path) -> None:
    pictures, labels = digits(8)
    kept = _pictures(8, splits=["test" if row % 4 == 0 else "train" for row in range(24)])
    inputs: list[Any] = [tmp_path / "gone.png" if row % 4 == 0 else one for row, one in enumerate(pictures)]
    found = _rank(replace(kept, inputs=inputs), (CNN,), here)
    assert found.n == 18
    assert len(labels) == 24


def test_copies_of_an_item_share_a_fold_so_that_none_is_recognised(here: Context) -> None:
    draw = np.random.default_rng(0)
    noise = [draw.integers(0, 255, (32, 32), np.uint8) for _ in range(60)]
    labels = [str(label) for label in draw.integers(0, 2, 60)]
    found = _rank(from_arrays(noise + noise, labels + labels), (CNN,), here)
    assert found.rows[0].knn is not None
    assert found.rows[0].knn < 0.75  # Whoever has seen the copy is always right.


def test_a_group_shares_a_fold(here: Context) -> None:
    dataset = _pictures(8, groups=[f"patient {row % 6}" for row in range(24)])
    seen = look(CNN, dataset, SOURCE, here)
    items = settled(dataset, seen.encoded, SOURCE)
    assert len(set(items.groups)) == 6


def test_a_sample_keeps_classes_in_proportion_and_rare_ones_in() -> None:
    counts = {"many": 80, "some": 18, "rare": 2}
    labels = [name for name, count in counts.items() for _ in range(count)]
    dataset = from_arrays([np.full((8, 8), row, np.uint8) for row in range(100)], labels)
    found = sampled(dataset, most=20, seed=0)
    held = {name: found.targets.count(name) for name in counts}
    assert sum(held.values()) == 20
    assert held["rare"] == 2
    assert 14 <= held["many"] <= 16
    assert sampled(dataset, most=20, seed=0).ids == found.ids
    assert sampled(dataset, most=20, seed=1).ids != found.ids


def test_a_sample_leaves_out_items_without_a_label() -> None:
    dataset = replace(_pictures(4), targets=["zero", None] * 6)
    assert len(sampled(dataset, most=100, seed=0)) == 6


def test_unreadable_items_are_left_out(here: Context, tmp_path: Path) -> None:
    folder = digit_folder(tmp_path / "digits", 8)
    from headstart.data import open_dataset

    (folder / "one" / "broken.png").write_bytes(b"no picture")
    source = Source(uri=str(folder))
    found = rank(open_dataset(source), (CNN,), source=source, context=here, history=History())
    assert found.n == 18, "six of 24 will be tested on"


@pytest.mark.parametrize("task", ["multilabel", "regression", "tagging", "classification"])
def test_any_task_on_texts_is_probed_by_its_own_quality(task: str, here: Context) -> None:
    texts = _sentences(40)
    targets: Mapping[str, list[Any]] = {
        "multilabel": [[word for word in ("red", "apple") if word in text] for text in texts],
        "regression": [float(text.startswith("red")) + 0.01 * row for row, text in enumerate(texts)],
        "tagging": [["B-colour", *["O"] * (len(text.split()) - 1)] for text in texts],
        "classification": [text.split()[0] for text in texts],
    }
    given: list[Any] = [tuple(text.split()) for text in texts] if task == "tagging" else texts
    dataset = from_texts(given, targets[task], task=task)
    found = _rank(dataset, (GRU, TEXT), here, sample=32)
    # Of each of five ranges of numbers two will be tested on.
    assert found.n == (30 if task == "regression" else 32)
    for row in found.rows:
        assert row.frozen is not None
        # R2 is below 0 where a number is told worse than by the mean of all; untrained networks hardly do better.
        assert row.frozen.value > (-0.5 if task == "regression" else 0.6)
        assert (row.knn is None) == (task == "tagging")
        assert (row.h_score is None) == (task in ("multilabel", "regression"))


def test_a_candidate_whose_weights_fail_to_load_is_listed_skipped_and_told(
    here: Context, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no weights")
    bad = _entry("broken", encoder={"name": "tiny-cnn", "weights": str(broken)}, gmacs=50.0)
    said: list[Event] = []
    found = _rank(_pictures(), (bad, CNN), replace(here, progress=said.append))
    last = found.rows[-1]
    assert (last.entry.name, last.frozen) == ("broken", None)
    assert last.note.startswith("cannot be used: ") and "broken.safetensors" in last.note
    assert found.pick == "tiny-cnn"
    assert any("broken is skipped" in event.message for event in said)
    assert any(note.startswith("broken cannot be used") for note in found.notes)


def test_where_no_candidate_can_be_loaded_an_error_names_them(here: Context) -> None:
    bad = _entry("bad", encoder={"name": "tiny-cnn", "weights": "/nowhere.safetensors"})
    with pytest.raises(EncoderError, match=r"none of the 1 candidates can be used \(bad: .*nowhere"):
        _rank(_pictures(), (bad,), here)


def test_a_candidate_whose_weights_are_elsewhere_is_placed_by_its_prior(here: Context) -> None:
    far = _entry(
        "far",
        gmacs=500.0,
        parameters_m=500.0,
        scores={"imagenet": 90.0},
        encoder={"name": "x", "place": "hub"},
    )
    weak = replace(CNN, scores={"imagenet": 10.0})
    found = _rank(_pictures(), (far, weak, TRANSFORMER), here)
    row = next(row for row in found.rows if row.entry.name == "far")
    assert row.frozen is None and row.logme is None
    assert row.note.startswith("not probed: its weights are not on this machine")
    assert found.rows[-1] is row
    assert any("1 candidate is placed by the prior alone" in note and "far" in note for note in found.notes)
    assert row.prior == max(row.prior for row in found.rows)
    assert found.pick != "far"
    assert row.finetune_seconds > max(one.finetune_seconds for one in found.rows if one is not row)


def test_without_any_weights_here_the_prior_alone_ranks(here: Context) -> None:
    far = [
        _entry(name, gmacs=gmacs, encoder={"name": name, "place": "absent"})
        for name, gmacs in (("a", 1.0), ("b", 9.0))
    ]
    found = _rank(_pictures(), tuple(far), here)
    assert found.pick == "b"
    assert found.n == 0
    assert "no candidate could be probed" in found.reasons[0]
    json.dumps(plain(found), allow_nan=False)


def test_one_class_is_refused(here: Context) -> None:
    with pytest.raises(DataError, match="only one class, 'zero'"):
        _rank(from_arrays(digits(4)[0][:4], ["zero"] * 4), (CNN,), here)


def test_three_pictures_are_refused(here: Context) -> None:
    pictures, _ = digits(2)
    with pytest.raises(DataError, match=r"3 labelled pictures .* too few to compare networks by"):
        _rank(from_arrays(pictures[:3], ["zero", "zero", "one"]), (CNN,), here)


@pytest.mark.parametrize("seed", [0, 3])
def test_what_a_fit_will_be_scored_on_plays_no_part_in_the_choice(tmp_path: Path, seed: int) -> None:
    inner = replace(context(tmp_path), seed=seed)
    data = from_arrays(*digits(12))
    result = api.fit(
        data, encoder="tiny-cnn", settings={"seed": seed}, output=tmp_path / "model",
        machine=machine(tmp_path / "fit"),
    )  # fmt: skip
    scored = {one.id for one in result.predictions}
    found = untested(data, [CNN], split=Split(), source=SOURCE, context=inner)
    assert {name for name, part in zip(found.ids, found.splits, strict=True) if part == "test"} == scored
    assert scored.isdisjoint(sampled(found, most=1000, seed=seed).ids)
    other = untested(data, [TRANSFORMER], split=Split(), source=SOURCE, context=inner)
    assert other.splits == found.splits, "another network draws the same"


def test_a_ranking_sees_no_label_of_the_test_split(here: Context) -> None:
    pictures, labels = digits(20)
    data = from_arrays(pictures, labels)
    held_out = [
        part == "test" for part in untested(data, [CNN], split=Split(), source=SOURCE, context=here).splits
    ]
    given = ["test" if held else None for held in held_out]
    wrong = [labels[0] if held else label for held, label in zip(held_out, labels, strict=True)]
    one, other = (
        _rank(from_arrays(pictures, names, splits=given), (CNN, TRANSFORMER), here)
        for names in (labels, wrong)
    )
    drawn = _rank(data, (CNN, TRANSFORMER), here)
    scores = [[(row.entry.name, row.score) for row in ranking.rows] for ranking in (one, other, drawn)]
    assert scores[0] == scores[1] == scores[2]


def test_three_numbers_are_refused(here: Context) -> None:
    with pytest.raises(DataError, match="8 different pictures"):
        _rank(from_arrays(digits(1)[0], [0.5, 1.5, 2.5]), (CNN,), here)


def test_where_no_candidate_suits_the_data_an_error_says_what_would(here: Context) -> None:
    with pytest.raises(PlanError, match=r"none of the candidates suits these data \(tiny-gru\)"):
        _rank(_pictures(), (GRU,), here)
    with pytest.raises(PlanError, match="no candidate"):
        _rank(_pictures(), (), here)


def test_a_candidate_that_is_not_in_the_catalog_is_named_with_the_nearest() -> None:
    with pytest.raises(PlanError, match=r"'tiny-cn' is not in the catalog \(did you mean 'tiny-cnn'\?\)"):
        considered(_pictures(), ["tiny-cn"])


def test_no_candidate_at_all_is_refused() -> None:
    with pytest.raises(PlanError, match="no candidate is named"):
        considered(_pictures(), [])


def test_a_candidate_for_another_kind_of_input_is_skipped_whatever_it_costs(here: Context) -> None:
    wrong = replace(CNN, name="wrong", modality="text", forms=("pooled", "layers", "sequence"), gmacs=1e-6)
    found = _rank(from_texts(_sentences(24), ["a", "b"] * 12), (wrong, TEXT), here)
    assert found.pick == TEXT.name
    note = next(row.note for row in found.rows if row.entry.name == "wrong")
    assert "opens a network for image, the data are text" in note


def test_a_share_of_bad_items_that_a_fit_takes_is_taken(tmp_path: Path, here: Context) -> None:
    folder = digit_folder(tmp_path / "data", 40)
    bad = next(folder.rglob("*.png"))
    bad.write_bytes(b"junk")
    source = Source(uri=str(folder))
    dataset = open_dataset(source)
    found = rank(dataset, (CNN, TRANSFORMER), source=source, context=here, sample=20, history=History())
    assert found.n in (19, 20)


def test_opening_counts_for_those_that_were_not_probed_too(
    here: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.select.probe._opened", lambda data, encoder: (
        sample_values(data, encoder, 4), 5.0
    ))  # fmt: skip
    far = replace(CNN, name="far", encoder={"name": "x", "place": "absent"})
    found = _rank(_pictures(), (CNN, far), here)
    assert all(
        row.finetune_seconds > 5.0 * 20 and row.encode_seconds > 5.0
        for row in found.rows
        if row.entry.name == "far"
    )
    assert all(row.finetune_seconds > 5.0 * 20 for row in found.rows)


def test_the_same_data_take_as_long_to_encode_when_the_store_has_them(tmp_path: Path) -> None:
    own = context(tmp_path)
    first, second = (_rank(_pictures(20), (TRANSFORMER,), own).rows[0] for _ in range(2))
    assert second.encode_seconds == pytest.approx(first.encode_seconds, rel=8)


def test_a_perfect_probe_of_few_items_is_not_sure(here: Context) -> None:
    black, white = (np.full((32, 32, 3), value, np.uint8) for value in (0, 255))
    pictures = [np.clip(base + np.uint8(row), 0, 255) for row in range(12) for base in (black, white - 12)]
    found = _rank(from_arrays(pictures, ["black", "white"] * 12), (CNN,), here)
    row = found.rows[0]
    assert row.frozen and row.frozen.value == 1.0
    assert row.frozen.low == pytest.approx(wilson(row.frozen.n, row.frozen.n, confidence=0.9)[0])


def test_items_that_no_head_was_asked_about_move_no_correlation() -> None:
    draws = np.random.default_rng(0)
    answers = [draws.random(1000).round() for _ in range(4)]
    half = [np.where(np.arange(1000) < 500, row, np.nan) for row in answers]
    assert shared_of(half) == pytest.approx(shared_of([row[:500] for row in answers]))
    assert shared_of(half) < 0.1
    assert shared_of([np.full(9, np.nan)] * 2) == 0.0


def test_a_file_of_weights_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, here: Context) -> None:
    mine = replace(
        CNN, name="mine", encoder={"name": "tiny-cnn", "weights": "/typo/mine.pth", "place": "absent"}
    )
    found = _rank(_pictures(), (CNN, mine), here)
    assert "/typo/mine.pth" in next(row.note for row in found.rows if row.entry.name == "mine")


def test_the_items_that_train_are_those_outside_other_splits() -> None:
    assert num_trained(_pictures(20)) == round(60 * 0.65)
    assert num_trained(_pictures(20), Split(validation=0.6, test=0.3)) == 6
    assert num_trained(_pictures(4, splits=["train"] * 12), Split(respect=False)) == round(12 * 0.65)
    given = _pictures(4, splits=["train"] * 6 + ["validation"] * 3 + ["test"] * 3)
    assert num_trained(given) == 6


def test_a_probe_of_what_the_features_hold_is_right_and_of_noise_is_not(here: Context) -> None:
    def quality(dataset: TableDataset) -> float:
        seen = look(CNN, dataset, SOURCE, here)
        return probe(seen, settled(dataset, seen.encoded, SOURCE), here).quality

    pictures, labels = digits(12)
    shuffled = np.random.default_rng(0).permutation(labels).tolist()
    assert quality(from_arrays(pictures, labels)) > quality(from_arrays(pictures, shuffled)) + 0.2


def test_the_page_holds_everything_and_runs_nothing(ranked: Ranking, tmp_path: Path) -> None:
    nasty = replace(ranked.rows[1], entry=replace(ranked.rows[1].entry, name="<script>x</script>"))
    shown = replace(ranked, rows=(ranked.rows[0], nasty))
    text = render(shown, title="my <data>", path=tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    assert ranked.pick in text and "my &lt;data&gt;" in text and "&lt;script&gt;" in text
    assert "<script" not in text and "http-equiv" in text and "<svg" in text
    assert all(reason[-30:] in text for reason in ranked.reasons)


def _called(monkeypatch: pytest.MonkeyPatch, ranked: Ranking) -> dict[str, Any]:
    """Let the verb get a ready ranking; return where it leaves what it asked for."""
    from headstart import api

    asked: dict[str, Any] = {}

    def fake(data: Any, **given: Any) -> Ranking:
        asked.update(given, data=data)
        return ranked

    monkeypatch.setattr(api, "rank", fake)
    return asked


def test_the_verb_prints_the_table_and_three_lines(ranked: Ranking, monkeypatch: pytest.MonkeyPatch) -> None:
    far = replace(ranked.rows[1], entry=_entry("far"), frozen=None, note="not probed")
    asked = _called(monkeypatch, replace(ranked, rows=(*ranked.rows, far)))
    done = CliRunner().invoke(
        app,
        [
            "rank",
            "photos",
            "--candidates",
            "tiny-cnn, tiny-transformer",
            "--offline",
            "--sample",
            "50",
            "--top",
            "1",
        ],
    )
    assert done.exit_code == 0
    assert asked["candidates"] == ["tiny-cnn", "tiny-transformer"]
    assert (asked["data"], asked["settings"]) == ("photos", {"rank.offline": True, "rank.sample": 50})
    assert all(reason in done.stdout for reason in ranked.reasons)
    assert all(row.entry.name in done.stdout for row in ranked.rows)  # What was probed is shown in any case.
    assert "far" not in done.stdout and "1 below these" in done.stdout


def test_the_verb_prints_json_and_writes_the_page(
    ranked: Ranking, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _called(monkeypatch, ranked)
    done = CliRunner().invoke(app, ["rank", "photos", "--json", "-o", str(tmp_path / "page.html"), "--quiet"])
    assert json.loads(done.stdout)["pick"] == ranked.pick
    assert (tmp_path / "page.html").exists()


def test_a_row_keeps_to_the_interface_that_a_race_reads(ranked: Ranking) -> None:
    fields = set(Ranked.__dataclass_fields__)
    assert {"entry", "score", "frozen", "fine_tuned", "extract_seconds", "finetune_seconds", "note"} <= fields
    assert isinstance(ranked.rows, tuple)
