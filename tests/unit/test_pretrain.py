"""Pretraining: it learns, resumes to the same bits, keeps what is frozen, and refuses what cannot work."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from picture_parts import context, digit_folder, digits, machine
from PIL import Image
from sentence_parts import texts

from headstart import api
from headstart.core.errors import DataError, HeadstartError, Interrupted, ModelFolderError, PlanError
from headstart.core.settings import Pretrain, Pretrained
from headstart.core.types import Score
from headstart.data import from_memory
from headstart.methods.collapse import Watched, alarm
from headstart.methods.pretrain import Pretrained as Done
from headstart.methods.pretrain import pretrain
from headstart.model import open_encoder, open_folder
from headstart.pretraining import Outcome
from headstart.pretraining.pilot import answer_of, divided
from headstart.train.runtime import Event, ignore

QUICK = {"pretrain.epochs": 2}


def learnt(
    root: Path, name: str, *, stop_at: int | None = None, folder: str = "run", **values: Any
) -> tuple[Done, dict[str, torch.Tensor]]:
    """Pretrain a tiny network and return how it went and its weights."""
    encoder = open_encoder(Pretrained(name=name, weights="random"))
    data = from_memory(*(texts(8) if encoder.spec.modality == "text" else digits(8)))

    def progress(event: Event) -> None:
        if event.stage == "pretrain" and stop_at is not None and event.done == stop_at and not event.message:
            raise Interrupted("stopped", expected="nothing", fix="go on")

    inner = replace(context(root, progress=progress if stop_at else ignore), folder=root / folder, workers=1)
    settings = Pretrain(**{"epochs": 3, **values})
    done = pretrain(encoder, dataset=data, settings=settings, context=inner, is_pretrained=False)
    return done, {key: tensor.clone() for key, tensor in encoder.module.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "objective"),
    [("tiny-cnn", "spark"), ("tiny-cnn", "simmim"), ("tiny-transformer", "mae"),
     ("tiny-gru", "causal_language"), ("tiny-text-transformer", "masked_language")],
)  # fmt: skip
def test_the_loss_on_held_out_items_falls(tmp_path: Path, name: str, objective: str) -> None:
    done, _ = learnt(tmp_path, name, objective=objective, epochs=6)
    assert done.history[-1]["validation_loss"] < done.start_loss
    assert len(done.history) == 6
    assert done.objective == objective
    assert done.seen


def test_lejepa_learns_and_shows_nothing_as_nothing_is_hidden(tmp_path: Path) -> None:
    done, _ = learnt(tmp_path, "tiny-cnn", objective="lejepa", epochs=6, decoder_width=16)
    assert done.history[-1]["train_loss"] < done.history[0]["train_loss"]
    assert not done.seen


@pytest.mark.parametrize("name", ["tiny-cnn", "tiny-transformer", "tiny-gru", "tiny-text-transformer"])
def test_a_run_that_was_cut_ends_with_the_same_bits(tmp_path: Path, name: str) -> None:
    whole, wanted = learnt(tmp_path / "a", name)
    with pytest.raises(Interrupted):
        learnt(tmp_path / "b", name, stop_at=4)
    resumed, found = learnt(tmp_path / "b", name)
    assert resumed.steps == whole.steps
    assert all(torch.equal(found[key], tensor) for key, tensor in wanted.items())
    figures = [{key: row[key] for key in row if key != "seconds"} for row in whole.history]
    assert [{key: row[key] for key in row if key != "seconds"} for row in resumed.history] == figures


def test_frozen_groups_do_not_move_and_the_others_do(tmp_path: Path) -> None:
    before = open_encoder(Pretrained(name="tiny-cnn", weights="random")).module.state_dict()
    _, after = learnt(tmp_path, "tiny-cnn", train_last=1)
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"3"}


def test_pretrained_weights_get_lower_rates_the_shallower_they_are(tmp_path: Path) -> None:
    encoder = open_encoder(Pretrained(name="tiny-transformer"))
    data = from_memory(*digits(8))
    done = pretrain(
        encoder, dataset=data, settings=Pretrain(epochs=1), context=context(tmp_path), is_pretrained=True
    )
    # The decoder is new and learns faster than what was learnt before.
    assert done.history[0]["learning_rate"] < 1e-3


def test_labels_are_watched_and_change_nothing(tmp_path: Path) -> None:
    pictures, labels = digits(8)
    states = []
    for known in (None, np.unique(labels, return_inverse=True)[1]):
        encoder = open_encoder(Pretrained(name="tiny-cnn", weights="random"))
        done = pretrain(
            encoder, dataset=from_memory(pictures, labels), settings=Pretrain(epochs=2),
            context=context(tmp_path), is_pretrained=False, labels=known,
        )  # fmt: skip
        assert ("neighbours" in done.history[0]) == (known is not None)
        states.append(encoder.module.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_collapse_is_told() -> None:
    row = {"rank": 1.2, "neighbours": 0.3}
    notes = alarm(Watched(20.0, 0.9), [row], is_pretrained=True)
    assert "collapsed" in notes[0]
    assert "lost" in notes[1]
    assert not alarm(Watched(20.0, 0.9), [{"rank": 15.0, "neighbours": 0.9}], is_pretrained=True)


def test_more_groups_than_there_are_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="train_last"):
        learnt(tmp_path, "tiny-cnn", train_last=9)


# The verb


def pretrained(data: Any, root: Path, *, encoder: str = "tiny-cnn", **values: Any) -> Outcome:
    settings = {**QUICK, **values.pop("settings", {})}
    return api.pretrain(
        data, encoder=encoder, output=root / "net", settings=settings, machine=machine(root), **values
    )


def test_a_folder_of_pictures_becomes_a_network_that_fit_starts_from(tmp_path: Path) -> None:
    data = digit_folder(tmp_path / "data")
    found = pretrained(str(data), tmp_path, settings={"encoder.weights": "random"})
    assert found.folder is not None
    opened = open_folder(found.folder)
    assert opened.task is None
    assert opened.facts["lineage"][-1]["data_fingerprint"] == found.fingerprint
    plan = api.plan(str(data), encoder=str(found.folder), method="extract", machine=machine(tmp_path))
    assert plan.encoder.name == "tiny-cnn"
    assert plan.encoder.weights_sha256 == opened.encoder.spec.weights_sha256
    plain = open_encoder(Pretrained(name="tiny-cnn", weights="random")).spec.weights_sha256
    assert plan.encoder.weights_sha256 != plain
    page = (found.folder / "report.html").read_text(encoding="utf-8")
    assert page.count("<figure>") == 2
    assert "rank of the features" in page


def test_a_second_run_comes_from_the_store(tmp_path: Path) -> None:
    data = digit_folder(tmp_path / "data")
    first = pretrained(str(data), tmp_path)
    second = pretrained(str(data), tmp_path)
    assert not first.is_hit
    assert second.is_hit
    assert second == first


def test_texts_become_a_network_with_its_vocabulary(tmp_path: Path) -> None:
    data = tmp_path / "texts.jsonl"
    data.write_text("\n".join(json.dumps({"text": text}) for text in texts(20)[0]), encoding="utf-8")
    found = pretrained(str(data), tmp_path, encoder="recurrent:gru")
    assert found.folder is not None
    assert found.objective == "causal_language"
    opened = open_folder(found.folder)
    labelled = (texts(10)[0], texts(10)[1])
    plan = api.plan(labelled, encoder=str(found.folder), method="extract", machine=machine(tmp_path))
    assert plan.encoder.weights_sha256 == opened.encoder.spec.weights_sha256
    page = (found.folder / "report.html").read_text(encoding="utf-8")
    assert "<mark" in page


def test_the_lineage_and_licence_of_a_start_folder_are_kept(tmp_path: Path) -> None:
    data = digit_folder(tmp_path / "data")
    settings = {"data.licence": "CC-BY-NC-4.0"}
    first = pretrained(str(data), tmp_path, settings=settings)
    second = api.pretrain(
        str(data),
        encoder=str(first.folder),
        output=tmp_path / "again",
        settings=QUICK,
        machine=machine(tmp_path),
    )
    assert second.folder is not None
    lineage = open_folder(second.folder).facts["lineage"]
    assert [link["data_licence"] for link in lineage] == ["CC-BY-NC-4.0", None]
    assert "no commercial use" in (second.folder / "README.md").read_text(encoding="utf-8")


def test_a_model_fitted_from_a_pretrained_folder_tells_where_its_network_comes_from(tmp_path: Path) -> None:
    unlabelled, labelled = digit_folder(tmp_path / "unlabelled"), digit_folder(tmp_path / "labelled")
    first = pretrained(str(unlabelled), tmp_path, settings={"data.licence": "CC-BY-NC-4.0"})
    places = {"encoder": str(first.folder), "method": "extract", "machine": machine(tmp_path)}
    fitted = api.fit(str(labelled), output=tmp_path / "model", **places)
    assert fitted.lineage is not None
    assert [(link.method, link.fingerprint) for link in fitted.lineage.links] == [
        (f"pretrain {first.objective}", first.fingerprint), ("extract", fitted.plan.fingerprint),
    ]  # fmt: skip
    card = (fitted.folder / "README.md").read_text(encoding="utf-8")
    assert first.fingerprint[:12] in card
    assert "Not for commercial use" in card
    assert "This model is the last of 2 links" in (fitted.folder / "report.html").read_text(encoding="utf-8")
    assert len(open_folder(fitted.folder).facts["lineage"]) == 2
    assert any("pretrained on these items without their labels" in note for note in fitted.notes)


def test_broken_files_are_listed_and_left_out(tmp_path: Path) -> None:
    data = digit_folder(tmp_path / "data")
    (data / "one" / "kaputt ü.png").write_bytes(b"no picture")
    (data / "two" / "empty.png").write_bytes(b"")
    found = pretrained(str(data), tmp_path)
    assert set(found.left_out) == {"one/kaputt ü.png", "two/empty.png"}
    assert found.num_trained + found.num_held_out == 36
    assert found.folder is not None
    assert "kaputt ü.png" in (found.folder / "report.html").read_text(encoding="utf-8")


def test_a_folder_of_broken_files_alone_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for number in range(5):
        (data / f"{number}.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="5 cannot be read"):
        pretrained(str(data), tmp_path)


def test_pictures_that_are_all_the_same_are_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for number in range(6):
        Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(data / f"{number}.png")
    with pytest.raises(DataError, match="all 6 pictures are identical"):
        pretrained(str(data), tmp_path)


@pytest.mark.parametrize(("ratio", "why"), [(0, "nothing would be hidden"), (1, "nothing would be left")])
def test_a_mask_ratio_of_nothing_or_everything_is_refused(tmp_path: Path, ratio: int, why: str) -> None:
    data = digit_folder(tmp_path / "data")
    with pytest.raises(PlanError, match=why):
        pretrained(str(data), tmp_path, settings={"pretrain.mask_ratio": ratio})


def test_an_unknown_objective_is_refused_with_the_nearest(tmp_path: Path) -> None:
    data = digit_folder(tmp_path / "data")
    with pytest.raises(PlanError, match="did you mean 'spark'"):
        pretrained(str(data), tmp_path, settings={"pretrain.objective": "sparc"})


def test_an_altered_folder_is_no_start(tmp_path: Path) -> None:
    data = digit_folder(tmp_path / "data")
    found = pretrained(str(data), tmp_path)
    assert found.folder is not None
    (found.folder / "model.safetensors").write_bytes(b"x")
    with pytest.raises(HeadstartError):
        api.plan(str(data), encoder=str(found.folder), machine=machine(tmp_path))


def test_a_folder_of_a_newer_version_is_no_start(tmp_path: Path) -> None:
    from headstart.store import seal

    data = digit_folder(tmp_path / "data")
    found = pretrained(str(data), tmp_path)
    assert found.folder is not None
    facts = json.loads((found.folder / "headstart.json").read_text(encoding="utf-8"))
    (found.folder / "headstart.json").write_text(json.dumps({**facts, "format": 99}), encoding="utf-8")
    seal(found.folder)
    with pytest.raises(ModelFolderError, match="format 99"):
        api.plan(str(data), encoder=str(found.folder), machine=machine(tmp_path))


def test_the_test_split_is_not_learnt_from(tmp_path: Path) -> None:
    digit_folder(tmp_path / "data" / "train")
    digit_folder(tmp_path / "data" / "test", 4, skip=12)
    found = pretrained(str(tmp_path / "data"), tmp_path)
    assert found.num_trained + found.num_held_out == 36
    assert any("test split" in note for note in found.notes)


# The pilot


def test_a_pilot_says_with_an_interval_whether_the_long_run_is_worth_it(tmp_path: Path) -> None:
    data = digit_folder(tmp_path / "data", 20)
    settings = {
        "pretrain.epochs": 40,
        "finetune.epochs": 2,
        "finetune.train_last": 2,
        "extract.heads": ["ridge"],
    }
    found = pretrained(str(data), tmp_path, pilot=True, settings=settings)
    verdict = found.verdict
    assert verdict is not None
    assert (verdict.epochs, verdict.planned_epochs, len(found.history)) == (2, 40, 2)
    assert verdict.gain.low <= verdict.gain.value <= verdict.gain.high
    assert verdict.gain.value == pytest.approx(verdict.with_pretraining - verdict.without, abs=0.02)
    assert verdict.answer in ("likely", "unlikely", "unclear")
    assert found.folder is not None
    assert "Pilot" in (found.folder / "report.html").read_text(encoding="utf-8")
    assert Outcome.from_json(found.to_json()) == found


def test_a_pilot_does_not_learn_from_what_it_tests_on(tmp_path: Path) -> None:
    data = digit_folder(tmp_path / "data", 20)
    opened = api.open_plan(
        str(data), encoder="tiny-cnn", settings={"split.test": 0.3}, machine=machine(tmp_path)
    )
    pilot = divided(opened, threads=1)
    assert pilot.dataset.splits.count("test") == 18
    assert pilot.plan.fingerprint == pilot.dataset.fingerprint != opened.plan.fingerprint
    settings = {"pretrain.epochs": 20, "extract.heads": ["ridge"], "finetune.epochs": 1, "split.test": 0.3}
    found = pretrained(str(data), tmp_path, pilot=True, settings=settings)
    assert found.num_trained + found.num_held_out == 60 - 18
    assert found.verdict is not None and found.verdict.gain.n == 3 * 18


def test_a_pilot_of_too_few_labels_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    data = digit_folder(tmp_path / "data", 1)
    with pytest.raises(DataError, match="split would be empty"):
        pretrained(str(data), tmp_path, pilot=True)
    assert not (tmp_path / "store" / "checkpoints-v1").exists()


def test_a_pilot_leaves_the_long_run_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = digit_folder(tmp_path / "data", 20)
    monkeypatch.chdir(tmp_path)
    places = {"encoder": "tiny-cnn", "machine": machine(tmp_path)}
    long = api.pretrain(str(data), settings=QUICK, **places)
    short = api.pretrain(
        str(data), pilot=True, settings={**QUICK, "extract.heads": ["ridge"], "finetune.epochs": 1}, **places
    )
    assert (long.folder, short.folder) == (Path("pretrained/data"), Path("pretrained/data-pilot"))


@pytest.mark.parametrize("setting", ["retention.floor", "finetune.epochs"])
def test_settings_that_play_no_part_are_refused(tmp_path: Path, setting: str) -> None:
    with pytest.raises(PlanError, match="plays no part here"):
        pretrained(str(digit_folder(tmp_path / "data")), tmp_path, settings={setting: 1})


def test_an_interval_decides_the_answer_of_a_pilot() -> None:
    def gain(low: float, high: float) -> Score:
        return Score("accuracy_difference", (low + high) / 2, low, high, 10)

    assert answer_of(gain(0.01, 0.05)) == "likely"
    assert answer_of(gain(-0.05, -0.01)) == "unlikely"
    assert answer_of(gain(-0.01, 0.05)) == "unclear"


def test_a_pilot_without_labels_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for number, picture in enumerate(digits(4)[0]):
        Image.fromarray(picture).save(data / f"{number}.png")
    with pytest.raises(PlanError, match="no labels"):
        pretrained(str(data), tmp_path, pilot=True)
