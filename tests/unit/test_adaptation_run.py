"""`headstart adapt` from end to end on small real pictures: no leak, no loss, the store, labels, bad input."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from adaptation_parts import EACH, adapt, darkened, fitted, halves, write
from picture_parts import machine
from typer.testing import CliRunner

import headstart
from headstart.cli._app import app
from headstart.core.errors import DataError, Interrupted, PlanError, StoreError
from headstart.model import load_model
from headstart.train.runtime import Event

MODEL_FILES = ("model.safetensors", "calibration.safetensors", "headstart.json")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model, its source and a darkened target, made once for all tests here."""
    root = tmp_path_factory.mktemp("world")
    fitted(root)
    pictures, labels = halves()[1]
    write(root / "night", darkened(pictures), labels)
    return root


@pytest.fixture
def own(world: Path, tmp_path: Path) -> Path:
    """Return a copy of that folder, store included, which a test may change."""
    shutil.copytree(world / "model", tmp_path / "model")
    shutil.copytree(world / "store", tmp_path / "store")
    return tmp_path


def table(path: Path, pictures: Path, names: list[str], labels: list[str]) -> Path:
    """Write a table of paths and labels."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["path", "label"])
        rows.writerows(zip([str(pictures / name) for name in names], labels, strict=True))
    return path


def test_an_adapted_model_is_better_by_night_and_evaluate_reads_it(own: Path, world: Path):
    found = adapt(own, world / "night")
    before = headstart.evaluate(own / "model", world / "night", machine=machine(own)).primary.value
    after = headstart.evaluate(found.folder, world / "night", machine=machine(own)).primary.value
    assert found.shifted.measured is not None
    assert found.shifted.measured.kind == "appearance"
    assert found.chosen != "nothing"
    assert after > before + 0.2
    entry = load_model(found.folder).lineage[-1]
    assert (entry["kind"], entry["chosen"], entry["num_target"]) == (
        "adaptation",
        found.chosen,
        len(halves()[1][1]),
    )
    assert load_model(found.folder).lineage[:-1] == load_model(own / "model").lineage
    assert found.estimate is None and "confidence" in found.why_no_estimate


def test_only_where_the_looks_are_as_before_an_adapted_model_promises_a_rate_of_errors(
    own: Path, world: Path, tmp_path: Path
):
    moved = load_model(adapt(own, world / "night").folder)
    with pytest.raises(PlanError, match="no items like those it meets"):
        moved.threshold(0.2)
    alike = load_model(adapt(own, world / "day", output=tmp_path / "alike").folder)
    assert alike.threshold(0.2) == load_model(own / "model").threshold(0.2)


def test_a_source_in_a_table_is_read_as_it_was_when_the_model_was_fitted(tmp_path: Path, world: Path):
    pictures = write(tmp_path / "all", *halves()[0])
    names = sorted(path.relative_to(pictures).as_posix() for path in pictures.rglob("*.png"))
    rows = [f"{tmp_path}/all/{name},{name.partition('/')[0]}" for name in names]
    source = tmp_path / "pictures.csv"
    source.write_text("\n".join(["path,sort", *rows]))
    settings = {"data.label_column": "sort"}
    headstart.fit(
        source, encoder="tiny-cnn", output=tmp_path / "model", settings=settings, machine=machine(tmp_path)
    )
    moved = source.rename(tmp_path / "moved.csv")
    for given in ({}, settings):
        found = adapt(tmp_path, world / "night", source=moved, settings=given, output=tmp_path / "adapted")
        assert found.shifted.measured is not None
        assert found.shifted.num_source > 0
        shutil.rmtree(tmp_path / "adapted")
    unlabelled = tmp_path / "unlabelled.csv"
    unlabelled.write_text("\n".join(["path", *(row.rpartition(",")[0] for row in rows[:20])]))
    assert adapt(tmp_path, unlabelled, source=moved, settings=settings).shifted.num_target == 20


def test_settings_that_play_no_part_and_odd_seeds_are_refused(own: Path, world: Path):
    for given in ({"encoder": "tiny-cnn"}, {"settings": {"finetune.epochs": 3}}):
        with pytest.raises(PlanError, match="plays no part"):
            headstart.shift(own / "model", world / "night", machine=machine(own), **given)
    for seed in ("abc", -1, True, 0.5):
        with pytest.raises(PlanError, match="seed"):
            adapt(own, world / "night", settings={"seed": seed})


def test_folders_whose_names_differ_after_a_dot_keep_them(
    own: Path, world: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(own)
    shutil.copytree(world / "night", own / "night.v1")
    found = headstart.adapt("model", "night.v1", machine=machine(own))
    assert found.folder == Path("adapted/model-night.v1")
    assert "night.v1" in found.shifted.title


def test_permuting_the_labels_of_the_target_changes_no_byte_of_the_model(world: Path, tmp_path: Path):
    names = sorted(str(path.relative_to(world / "night")) for path in (world / "night").rglob("*.png"))
    labels = [Path(name).parent.name for name in names]
    permuted = list(np.random.default_rng(1).permutation(labels))
    for place, given in (("one", labels), ("other", permuted), ("none", [""] * len(labels))):
        shutil.copytree(world / "model", tmp_path / place / "model")
        night = shutil.copytree(world / "night", tmp_path / place / "night")
        target = table(tmp_path / place / "night.csv", night, names, given)
        adapt(tmp_path / place, target)
    assert labels != permuted
    for name in MODEL_FILES:
        first, *others = (
            (tmp_path / place / "adapted" / name).read_bytes() for place in ("one", "other", "none")
        )
        assert all(content == first for content in others), name


def test_a_second_call_comes_from_the_store_and_is_the_same(own: Path, world: Path):
    stages: list[str] = []

    def note(event: Event) -> None:
        stages.append(event.stage)

    first = adapt(own, world / "night", progress=note)
    assert "adapt" in stages
    stages.clear()
    second = adapt(own, world / "night", output=own / "again", progress=note)
    assert "adapt" not in stages
    assert first == second
    manifest = (own / "adapted" / "MANIFEST.json").read_bytes()
    assert manifest == (own / "again" / "MANIFEST.json").read_bytes()


def test_an_interrupted_call_goes_on_to_the_same_model(own: Path, world: Path, tmp_path: Path):
    settings = {"adapt.terms": {"mcc": 1.0}, "adapt.epochs": 3}
    laps: list[int] = []

    def stop(event: Event) -> None:
        if event.stage == "adapt" and event.total:
            laps.append(event.done)
            if len(laps) == 6:
                raise Interrupted("asked to stop", expected="time", fix="call again")

    with pytest.raises(Interrupted):
        adapt(own, world / "night", settings=settings, progress=stop)
    assert not (own / "adapted").exists()
    gone_on = adapt(own, world / "night", settings=settings)
    other = tmp_path / "other"
    shutil.copytree(world / "model", other / "model")
    at_once = adapt(other, world / "night", settings=settings)
    assert gone_on.chosen == at_once.chosen
    assert [row.changed for row in gone_on.tried] == [row.changed for row in at_once.tried]
    assert gone_on.tried[-1].name == "trained: mcc"


def test_without_its_source_folder_an_adaptation_goes_on_and_says_so(tmp_path: Path, world: Path):
    fitted(tmp_path)
    shutil.rmtree(tmp_path / "day")
    found = adapt(tmp_path, world / "night")
    assert found.shifted.measured is None
    assert any("source is not used" in note and "day" in note for note in found.shifted.notes)
    assert not any("standardised" in row.name for row in found.tried)
    assert {"nothing", "self-training"} <= {row.name for row in found.tried}
    assert headstart.evaluate(found.folder, world / "night", machine=machine(tmp_path)).primary.n == len(
        halves()[1][1]
    )


def test_a_source_that_changed_is_not_used_and_the_same_one_elsewhere_can_be_given(
    tmp_path: Path, world: Path
):
    fitted(tmp_path)
    (tmp_path / "day").rename(tmp_path / "moved")
    found = adapt(tmp_path, world / "night", source=tmp_path / "moved")
    assert found.shifted.num_source > 0
    shutil.copytree(tmp_path / "moved", tmp_path / "day")
    next((tmp_path / "day").rglob("*.png")).unlink()
    again = adapt(tmp_path, world / "night", output=tmp_path / "again")
    assert any("have changed" in note for note in again.shifted.notes)
    with pytest.raises(DataError, match="not what the model was trained on"):
        adapt(tmp_path, world / "night", source=tmp_path / "day", output=tmp_path / "third")


def test_a_target_equal_to_the_source_is_said_and_nothing_is_changed(own: Path, world: Path):
    found = adapt(own, world / "day")
    assert any("nothing to adapt to" in note for note in found.shifted.notes)
    assert found.changed == 0


def test_one_picture_is_too_few_and_the_model_stays(own: Path, world: Path):
    found = adapt(own, next((world / "night").rglob("*.png")))
    assert found.chosen == "nothing" and found.changed == 0
    assert "too few" in found.reasons[0]
    assert found.shifted.measured is None


def test_an_empty_target_and_one_of_texts_are_refused(own: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        adapt(own, tmp_path / "empty")
    with pytest.raises(DataError, match="nothing to predict"):
        adapt(own, [])
    texts = tmp_path / "texts.csv"
    texts.write_text("text\nfine weather today\nnot so fine today\n", encoding="utf-8")
    with pytest.raises(PlanError, match="the target holds texts, but the model is one of pictures"):
        adapt(own, texts)


def test_unreadable_items_are_listed_and_left_out(own: Path, world: Path, tmp_path: Path):
    target = shutil.copytree(world / "night", tmp_path / "night")
    (target / "one" / "broken.png").write_bytes(b"no picture")
    found = adapt(own, target)
    assert [name for name, _ in found.shifted.unreadable] == ["one/broken.png"]
    assert any("cannot be read" in note for note in found.shifted.notes)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="no item of the target can be read"):
        adapt(own, tmp_path / "bad")


def test_classes_missing_from_the_target_do_no_harm(own: Path, tmp_path: Path):
    pictures, labels = halves()[1]
    kept = [row for row, label in enumerate(labels) if label != "two"]
    target = write(tmp_path / "part", [pictures[row] for row in kept], [labels[row] for row in kept])
    found = adapt(own, target)
    before = headstart.evaluate(own / "model", target, machine=machine(own)).primary.value
    assert headstart.evaluate(found.folder, target, machine=machine(own)).primary.value >= before - 0.03


def test_labels_of_a_few_items_overrule_the_votes_and_are_asked_for(own: Path, world: Path, tmp_path: Path):
    runner = CliRunner()
    call = ["adapt", str(own / "model"), "--target", str(world / "night"), "-o", str(own / "out"),
            "--store", str(own / "store"), "--device", "cpu", "--threads", "1"]  # fmt: skip
    done = runner.invoke(app, [*call, "--ask", "20"])
    assert done.exit_code == 0, done.output
    path = own / "out-ask.csv"
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 20 and not any(row["label"] for row in rows)
    for row in rows:
        row["label"] = row["id"].split("/")[0]
    with path.open("w", newline="", encoding="utf-8") as stream:
        written = csv.DictWriter(stream, list(rows[0]))
        written.writeheader()
        written.writerows(rows)
    refused = runner.invoke(app, [*call, "--ask", "20"])
    assert refused.exit_code == StoreError.exit_code and "labels filled in" in refused.output
    taken = runner.invoke(app, [*call, "--labels", str(path), "--json"])
    assert taken.exit_code == 0, taken.output
    values = json.loads(taken.stdout)
    assert values["num_labels"] == 20
    assert any("20 labels" in reason for reason in values["reasons"])


def test_labels_that_are_no_class_of_the_model_are_refused_or_left_out(
    own: Path, world: Path, tmp_path: Path
):
    names = sorted(str(path.relative_to(world / "night")) for path in (world / "night").rglob("*.png"))[:4]
    few = tmp_path / "few.csv"
    few.write_text("id,label\n" + "".join(f"{name},nine\n" for name in names), encoding="utf-8")
    with pytest.raises(DataError, match="none of the 4 labels given is a class of the model"):
        adapt(own, world / "night", settings={"data.answers": str(few)})
    few.write_text(f"id,label\n{names[0]},nine\n{names[1]},one\n", encoding="utf-8")
    found = adapt(own, world / "night", settings={"data.answers": str(few)})
    assert found.num_labels == 1
    assert any("nine" in note for note in found.notes)


def test_the_model_itself_and_foreign_folders_are_never_written_over(own: Path, world: Path, tmp_path: Path):
    with pytest.raises(StoreError, match="is the model that is to be adapted"):
        adapt(own, world / "night", output=own / "model")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(StoreError, match="is not an adapted model"):
        adapt(own, world / "night", output=tmp_path / "mine")


def test_a_network_that_was_trained_on_the_source_also_tries_the_statistics_of_the_target(
    own: Path, world: Path
):
    other = own / "other"
    settings = {
        "finetune.epochs": 6,
        "finetune.learning_rate": 1e-3,
        "finetune.train_last": None,
        "finetune.augment": "none",
        "extract.heads": ["prototype"],
        "split.validation": 0.3,
    }
    source = write(other / "day", *halves()[0])
    headstart.fit(
        source, encoder="tiny-cnn", method="finetune", output=other / "model", machine=machine(other),
        settings=settings,
    )  # fmt: skip
    way = "statistics of the target"
    assert way in {row.name for row in adapt(other, world / "night").tried}
    assert way not in {row.name for row in adapt(own, world / "night").tried}


def test_source_pictures_can_be_trained_on_in_the_style_of_the_target(own: Path, world: Path):
    settings = {"adapt.terms": {"mcc": 1.0}, "adapt.train_last": 1, "adapt.style": "both", "adapt.epochs": 1}
    tried = {row.name: row for row in adapt(own, world / "night", settings=settings).tried}
    assert tried["trained: mcc"].family == "trained"


def test_masked_words_of_target_texts_train_a_network_further(tmp_path: Path):
    words = {"good": "fine bright happy", "bad": "awful dark sad"}
    texts = [f"{word} {number}" for number in range(12) for name in words for word in words[name].split()]
    labels = [name for _ in range(12) for name in words for _ in words[name].split()]
    headstart.fit(
        (texts, labels), encoder="tiny-text-transformer", method="extract", output=tmp_path / "model",
        machine=machine(tmp_path),
    )  # fmt: skip
    settings = {"adapt.terms": {"udalm": None, "masked": None}, "adapt.train_last": 1, "adapt.epochs": 1}
    target = [f"very {text} indeed" for text in texts]
    found = adapt(tmp_path, target, source=(texts, labels), settings=settings)
    assert "trained: udalm, masked" in {row.name for row in found.tried}


def test_arrays_in_memory_are_adapted_to(own: Path):
    pictures = darkened(halves()[1][0])
    found = adapt(own, pictures)
    assert found.shifted.num_target == len(pictures) == 3 * EACH


def test_classes_that_the_source_does_not_know_are_warned_of(own: Path):
    pictures = halves()[1][0]
    draw = np.random.default_rng(0)
    strange = [draw.choice([0, 255], one.shape).astype(np.uint8) for one in pictures[::2]]
    found = headstart.shift(own / "model", [*pictures, *strange], machine=machine(own))
    known = headstart.shift(own / "model", pictures, machine=machine(own))
    assert found.has_unknown and found.unlike is not None and found.unlike > 0.25
    assert not known.has_unknown
