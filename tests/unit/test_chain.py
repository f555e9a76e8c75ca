"""Chains: second runs from the store, kills, heads by class name, forgetting, floors, folders, cards, bad input."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from chain_parts import QUICK, chained, data, links
from picture_parts import digit_folder, digits, machine
from safetensors.torch import load_file
from sentence_parts import texts

from headstart import api
from headstart.chaining.run import Chained
from headstart.chaining.wishes import read_links
from headstart.core.errors import DataError, ModelFolderError, PlanError
from headstart.core.lineage import is_noncommercial
from headstart.core.plan import Plan, Saved
from headstart.core.settings import FineTune, Pretrained
from headstart.encoders.tiny import open_tiny_cnn
from headstart.heads import LinearHead, NeighboursHead
from headstart.model import folder_sha256
from headstart.pipeline.carried import carry
from headstart.runs import alone_plan
from headstart.store import seal
from headstart.tasks.classification import Classification
from headstart.train.runtime import Event


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return data(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, places: dict[str, Path]) -> tuple[Path, Chained]:
    """Return where a chain of three links ran, with a floor in the last, and what it came to."""
    root = tmp_path_factory.mktemp("chain")
    asked = links(places, retention__floor=0.9, data__licence="CC-BY-NC-4.0")
    return root, chained(asked, root, compare=True)


def weights(folder: Path) -> Mapping[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(one: Path, other: Path) -> bool:
    mine, theirs = weights(one), weights(other)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


# -- runs --------------------------------------------------------------------------------------------------------


def test_each_link_gives_a_model_folder_and_begins_with_the_weights_before(whole: tuple[Path, Chained]):
    root, done = whole
    assert list(done.results) == ["plain", "inverted", "turned"]
    for name, result in done.results.items():
        assert api.load(root / "out" / name).task.labels == result.plan.labels
    assert "the link 'inverted'" in done.last.receipt.source
    assert [type(link) for link in done.last.plan.links()] == [Plan, Plan, Plan]
    assert done.last.plan.earlier == done.results["inverted"].plan


def test_a_second_run_is_all_store_hits_and_says_the_same(
    whole: tuple[Path, Chained], places: dict[str, Path]
):
    root, done = whole
    asked = links(places, retention__floor=0.9, data__licence="CC-BY-NC-4.0")
    events: list[Event] = []
    again = chained(asked, root, events.append, compare=True)
    said = [event.message for event in events if event.stage == "chain"]
    assert len(said) == 3 and all("comes from the store" in line for line in said)
    assert not {event.stage for event in events} - {"chain"}, "nothing else happened"
    assert again.to_json() == done.to_json()


def test_moving_the_data_changes_no_key(whole: tuple[Path, Chained], places: dict[str, Path], tmp_path: Path):
    root, done = whole
    moved = {name: shutil.copytree(place, tmp_path / name) for name, place in places.items()}
    asked = links(moved, retention__floor=0.9, data__licence="CC-BY-NC-4.0")
    plans = [link.opened.plan.key for link in api.open_chain(asked, machine=machine(root))]
    assert plans == [result.plan.key for result in done.results.values()]


def test_a_kill_in_the_second_link_resumes_to_the_bit(
    tmp_path: Path, whole: tuple[Path, Chained], places: dict[str, Path]
):
    asked = links(places)[:2]
    asked[1]["settings"] |= {"finetune.checkpoint_steps": 3, "retention.guards": {"ewc": 10, "replay": None}}
    kept = chained(asked, tmp_path / "kept")
    seen: list[int] = []

    def killer(event: Event) -> None:
        if event.stage == "chain" and "link 2" in event.message:
            seen.append(0)
        if seen and event.stage == "finetune" and not event.message and event.done == 11:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        chained(asked, tmp_path / "cut", killer)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    events: list[Event] = []
    done = chained(asked, tmp_path / "cut", events.append)
    lines = [event.message for event in events]
    assert any("link 1 of 2: plain comes from the store" in line for line in lines)
    assert any("resumed after step" in line for line in lines)
    assert same(kept.last.folder, done.last.folder)
    assert [row.now for row in kept.last.lineage.kept] == [row.now for row in done.last.lineage.kept]  # type: ignore[union-attr]


def test_a_chain_needs_no_data_of_links_that_are_stored_but_to_score_them(
    whole: tuple[Path, Chained], places: dict[str, Path], tmp_path: Path
):
    root, _ = whole
    own = shutil.copytree(root / "store", tmp_path / "store")
    start = api.open_chain(links(places)[:1], machine=machine(root))[0].opened.plan
    gone = start.model_copy(update={"data": start.data.model_copy(update={"uri": str(tmp_path / "gone")})})
    asked: list[Any] = [{"data": str(places["inverted"]), "settings": QUICK, "name": "inverted"}]
    link = api.open_chain([start, *asked], machine=machine(own.parent))[1].opened.plan
    first = link.extraction
    assert first is not None
    moved = link.model_copy(update={"start": first.model_copy(update={"start": gone})})
    assert moved.key == link.key
    result = api.run(
        moved.model_copy(update={"seed": 5}), output=tmp_path / "model", machine=machine(own.parent)
    )
    assert result.lineage is not None
    assert "gone" in result.lineage.kept[0].why_not and result.lineage.kept[0].n == 0


def test_data_in_memory_chain_too(tmp_path: Path):
    pictures, labels = digits(16)
    turned = ([255 - picture for picture in pictures], labels)
    asked = [
        {"data": (pictures, labels), "encoder": "tiny-cnn", "settings": QUICK},
        {"data": turned, "settings": {**QUICK, "retention.guards": {"lwf": None, "l2_sp": None}}},
    ]
    done = chained(asked, tmp_path)
    assert list(done.results) == ["link 1", "link 2"]
    lineage = done.last.lineage
    assert lineage is not None and lineage.kept[0].n > 0 and lineage.guards == ("lwf", "l2_sp")


def test_texts_chain_too(tmp_path: Path):
    sentences, labels = texts(12)
    settings = {
        "finetune.epochs": 2,
        "extract.heads": ["ridge"],
        "retention.floor": 0.5,
        "retention.points": 2,
    }
    first = {name: value for name, value in settings.items() if not name.startswith("retention")}
    asked = [
        {"data": (sentences, labels), "encoder": "tiny-text-transformer", "settings": first},
        {"data": ([f"well, {text}" for text in sentences], labels), "settings": settings},
    ]
    lineage = chained(asked, tmp_path).last.lineage
    assert lineage is not None and lineage.kept[0].n > 0 and lineage.floor == 0.5
    assert lineage.kept[0].share is not None and lineage.kept[0].share.value >= 0.5


# -- forgetting ----------------------------------------------------------------------------------------------------


def test_earlier_tasks_are_scored_again_with_paired_intervals(whole: tuple[Path, Chained]):
    _, done = whole
    assert done.results["plain"].lineage is None
    lineage = done.last.lineage
    assert lineage is not None
    assert [row.name for row in lineage.kept] == ["plain", "inverted"]
    for row in lineage.kept:
        assert row.share is not None and row.share.value == pytest.approx(row.now / row.then)
        assert row.change.low <= row.now - row.then <= row.change.high
        assert not row.is_seen, "the head had not learnt from the items that it is asked again"
    assert [row.name for row in done.tested] == ["plain", "inverted"]
    then = done.results["plain"].evaluation.primary
    assert done.tested[0].then == pytest.approx(then.value) and done.tested[0].n == then.n


def test_the_score_now_is_that_of_the_earlier_head_on_the_new_network(
    whole: tuple[Path, Chained], places: dict[str, Path]
):
    root, done = whole
    old, new = api.load(root / "out" / "plain"), api.load(root / "out" / "inverted")
    row = next(row for row in done.results["inverted"].lineage.kept if row.name == "plain")  # type: ignore[union-attr]
    old.encoder.module.load_state_dict(new.encoder.module.state_dict())
    split = _validation_ids(root, done, "plain")
    rows = api.predict(old, [places["plain"]], machine=machine(root))
    right = [item.label == Path(item.id).parent.name for item in rows if _short(item.id) in split]
    assert len(right) == row.n and sum(right) / len(right) == pytest.approx(row.now)


def _short(name: str) -> str:
    return "/".join(Path(name).parts[-2:])


def _validation_ids(root: Path, done: Chained, name: str) -> set[str]:
    """Return the validation items of a link as its own run split them."""
    from picture_parts import context

    from headstart.data import open_dataset
    from headstart.model import open_encoder
    from headstart.pipeline import gather
    from headstart.pipeline.course import Ledger
    from headstart.pipeline.gathering import parts_of

    plan = done.results[name].plan
    dataset = open_dataset(plan.data)
    _, _, material = gather(
        plan, dataset, open_encoder(plan.encoder), parts_of(plan)[0], Ledger(context(root)), strict=False
    )
    return {_short(material.dataset.ids[row]) for row in material.rows("validation")}


def test_the_floor_is_kept_on_validation_or_what_the_start_still_had(whole: tuple[Path, Chained]):
    _, done = whole
    lineage = done.last.lineage
    assert lineage is not None and lineage.alpha is not None
    at_start = lineage.way[0].kept
    for row in lineage.kept:
        assert row.share is not None and row.share.value >= min(0.9, at_start[row.name]) - 1e-9
    chosen = next(one for one in lineage.way if one.alpha == lineage.alpha)
    assert {row.name: row.share.value for row in lineage.kept if row.share} == pytest.approx(
        dict(chosen.kept)
    )


def test_a_floor_gives_back_what_plain_training_forgets(tmp_path: Path):
    many = data(tmp_path, 30)
    kept: dict[float | None, float] = {}
    for floor in (None, 0.95):
        asked = links({name: many[name] for name in ("plain", "inverted")})
        asked[0]["settings"]["finetune.epochs"] = 4
        asked[1]["settings"] |= {"finetune.epochs": 4, **({"retention.floor": floor} if floor else {})}
        lineage = chained(asked, tmp_path).last.lineage
        assert lineage is not None and lineage.kept[0].share is not None
        kept[floor] = lineage.kept[0].share.value
    assert kept[None] < 0.8 and kept[0.95] >= 0.95


def test_compare_tells_what_the_chain_gave_each_link(whole: tuple[Path, Chained]):
    _, done = whole
    lineage = done.last.lineage
    assert lineage is not None and done.last.baseline is not None
    assert lineage.links[0].gain is None
    assert all(link.gain is not None for link in lineage.links[1:])
    assert lineage.links[-1].gain == done.last.baseline.difference


def test_compare_leaves_out_the_folder_that_a_chain_begins_with(
    tmp_path: Path, whole: tuple[Path, Chained], places: dict[str, Path]
):
    (link,) = api.open_chain(from_folder(folder_of(tmp_path, whole), places), machine=machine(tmp_path))
    alone = alone_plan(link.opened.plan)
    assert alone.earlier is None
    assert alone.encoder.weights == "pretrained"
    first = json.loads((whole[0] / "out" / "plain" / "headstart.json").read_text())["encoder"]
    assert alone.encoder.weights_sha256 == first["weights_sha256"] != link.opened.plan.encoder.weights_sha256


def test_test_items_that_an_earlier_link_has_learnt_from_are_told(tmp_path: Path):
    few, more = digit_folder(tmp_path / "few", 20), digit_folder(tmp_path / "more", 30)
    done = chained(two({"plain": few, "inverted": more}), tmp_path)
    (found,) = done.last.audit.by_code("leak-earlier-link")
    assert found.severity == "warning" and "by the link 'few'" in found.message
    test = {item.id for item in done.last.predictions}
    assert found.items and test.issuperset(found.items)
    assert not done.results["few"].audit.by_code("leak-earlier-link")


# -- heads by name -------------------------------------------------------------------------------------------------


def test_head_rows_go_by_class_name_and_new_classes_begin_at_zero():
    encoder = open_tiny_cnn(Pretrained(name="tiny-cnn"))
    width = encoder.spec.width["pooled"]
    old = LinearHead(width, 3)
    with torch.no_grad():
        old.weight.copy_(torch.arange(3 * width).reshape(3, width).float())
        old.bias.copy_(torch.tensor([1.0, 2.0, 3.0]))
        old.mean.fill_(0.5)
    found = carry(old, ("cat", "dog", "eel"), Classification(("ant", "eel", "cat")), encoder)
    assert found is not None and found.known == ("eel", "cat") and found.fresh == ("ant",)
    assert torch.equal(found.head.weight[1], old.weight[2]) and torch.equal(
        found.head.weight[2], old.weight[0]
    )
    assert float(found.head.weight[0].detach().abs().sum()) == 0.0 and found.head.bias.tolist() == [
        0.0,
        3.0,
        1.0,
    ]
    assert torch.equal(found.head.mean, old.mean)
    assert "2 of 3 classes" in found.said and "fresh: ant" in found.said


def test_heads_without_rows_of_known_classes_are_not_carried():
    encoder = open_tiny_cnn(Pretrained(name="tiny-cnn"))
    task, width = Classification(("ant", "eel")), encoder.spec.width["pooled"]
    assert carry(LinearHead(width, 2), ("cat", "dog"), task, encoder) is None
    assert carry(LinearHead(width + 1, 2), ("ant", "dog"), task, encoder) is None
    neighbours = NeighboursHead(width, 2, count=4, neighbours=2, temperature=0.1)
    assert carry(neighbours, ("ant", "eel"), task, encoder) is None
    assert carry(None, (), task, encoder) is None


def test_the_same_classes_go_on_with_the_earlier_head_and_the_notes_say_so(tmp_path: Path):
    root = digit_folder(tmp_path / "many", 40)
    few = digit_folder(tmp_path / "few", 6, skip=60)
    asked = [
        {"data": str(root), "encoder": "tiny-cnn", "settings": QUICK},
        {
            "data": str(few),
            "method": "extract",
            "settings": {"extract.heads": ["prototype"], "extract.folds": 2},
        },
    ]
    result = chained(asked, tmp_path).last
    assert any(note.startswith("head rows of 3 of 3 classes carried over by name") for note in result.notes)
    assert "head of the earlier link" in [row.name for row in result.race]


# -- what is said --------------------------------------------------------------------------------------------------


def test_card_and_page_tell_the_lineage_and_mark_what_is_not_commercial(whole: tuple[Path, Chained]):
    root, done = whole
    folder = root / "out" / "turned"
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith('---\nlicense: "cc-by-nc-4.0"\n')
    assert "Not for commercial use" in card
    for result in done.results.values():
        assert result.plan.fingerprint[:12] in card
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert 'id="chain"' in page and "Transfer graph of the chain" in page and "2 of 3 classes" in page
    said = json.loads((folder / "report.json").read_text(encoding="utf-8"))["lineage"]
    assert [link["name"] for link in said["links"]] == ["plain", "inverted", "turned"]
    facts = json.loads((folder / "headstart.json").read_text(encoding="utf-8"))
    assert [plan["fingerprint"] for plan in facts["lineage"] if plan["method"]["kind"] == "finetune"] == [
        result.plan.fingerprint for result in done.results.values()
    ]
    plain = (root / "out" / "plain" / "README.md").read_text(encoding="utf-8")
    assert "## Lineage" not in plain and 'license: "apache-2.0"' in plain


@pytest.mark.parametrize(("licence", "is_so"), [
    ("CC-BY-NC-4.0", True), ("cc by-nc-sa 4.0", True), ("Non-commercial", True), ("research use", True),
    ("Apache-2.0", False), ("CC-BY-4.0", False), ("", False), (None, False), ("NCSA", False),
])  # fmt: skip
def test_licences_that_forbid_commercial_use_are_told_by_name(licence: str | None, is_so: bool):
    assert is_noncommercial(licence) is is_so


def test_explain_says_each_link_and_what_the_store_has(whole: tuple[Path, Chained], places: dict[str, Path]):
    root, _ = whole
    asked = links(places, retention__floor=0.8)
    said = api.explain_chain(asked, machine=machine(root))
    first, second, last = (line for line in said.splitlines() if line.startswith("Link"))
    assert "'plain' (from the store" in first and "'inverted' (from the store" in second
    assert "'turned' (runs)" in last and "what 'inverted' ends with" in last
    assert "Classes known by name: 2 of 3: one, zero." in said and "at least 80% of earlier scores" in said


def test_a_chain_file_is_read_beside_its_data(tmp_path: Path, places: dict[str, Path]):
    for name, place in places.items():
        shutil.copytree(place, tmp_path / name)
    file = tmp_path / "my tasks.yaml"
    file.write_text(
        "encoder: tiny-cnn\n"
        "links:\n"
        "  - {name: third, data: turned, from: second, settings: {finetune: {epochs: 2}, retention.floor: 0.9}}\n"
        "  - {name: first, data: plain, from: null, licence: MIT}\n"
        "  - {name: second, data: inverted, from: first, method: extract}\n".replace(", from: null", "")
    )
    # `third` names its start, `first` continues none but the one before it, so the file says a circle of none.
    with pytest.raises(PlanError, match="circle: third <- second <- first <- third"):
        api.open_chain(file, machine=machine(tmp_path))
    file.write_text(
        "links:\n"
        "  - {name: first, data: plain, encoder: tiny-cnn, licence: MIT}\n"
        "  - {name: second, data: inverted, method: extract}\n"
        "  - {name: third, data: turned, from: first, settings: {finetune: {epochs: 2}, retention.floor: 0.9}}\n"
    )
    first, second, third = (link.opened.plan for link in api.open_chain(file, machine=machine(tmp_path)))
    assert first.data.licence == "MIT" and second.method.kind == "extract"
    assert third.earlier == first and third.retention is not None and third.retention.floor == 0.9
    assert isinstance(third.method, FineTune) and third.method.epochs == 2


# -- model folders -------------------------------------------------------------------------------------------------


def folder_of(root: Path, whole: tuple[Path, Chained], name: str = "inverted") -> Path:
    """Return a copy of a link's folder."""
    return shutil.copytree(whole[0] / "out" / name, root / "start")


def from_folder(folder: Path, places: dict[str, Path], **settings: Any) -> list[dict[str, Any]]:
    return [{"data": str(places["turned"]), "from": str(folder), "settings": {**QUICK, **settings}}]


def test_a_chain_starts_from_a_model_folder_wherever_it_lies(
    tmp_path: Path, whole: tuple[Path, Chained], places: dict[str, Path]
):
    folder = folder_of(tmp_path, whole, "plain")
    asked = from_folder(folder, places, **{"retention.floor": 0.9, "retention.points": 2})
    result = chained(asked, tmp_path).last
    start = result.plan.earlier
    assert isinstance(start, Saved) and start.sha256 == folder_sha256(folder)
    lineage = result.lineage
    assert lineage is not None and [link.name for link in lineage.links] == ["start", "turned"]
    assert lineage.kept[0].n > 0, "the folder's plan says where its data are"
    other = shutil.copytree(folder, tmp_path / "elsewhere")
    (link,) = api.open_chain(from_folder(other, places, **asked[0]["settings"]), machine=machine(tmp_path))
    assert link.opened.plan.key == result.plan.key


def test_a_folder_that_knows_no_task_is_a_start(
    tmp_path: Path, whole: tuple[Path, Chained], places: dict[str, Path]
):
    folder = folder_of(tmp_path, whole, "plain")
    (folder / "result.json").unlink()
    facts = json.loads((folder / "headstart.json").read_text())
    lesson = {"method": "pretrain", "objective": "mim", "data": "heap", "data_fingerprint": "f" * 64,
              "data_licence": "CC-BY-NC-4.0", "licence": "Apache-2.0"}  # fmt: skip
    facts |= {"head": None, "task": None, "lineage": [lesson]}
    (folder / "headstart.json").write_text(json.dumps(facts))
    seal(folder)
    result = chained(from_folder(folder, places), tmp_path).last
    assert result.lineage is not None and result.lineage.kept == ()
    assert [(link.name, link.method) for link in result.lineage.links] == [
        ("heap", "pretrain mim"), ("turned", "finetune")
    ]  # fmt: skip
    assert result.lineage.restricted == ("the data of heap (CC-BY-NC-4.0)",)
    told = json.loads((tmp_path / "out" / "turned" / "headstart.json").read_text())["lineage"]
    assert told[0] == lesson
    with pytest.raises(ModelFolderError, match="knows no task"):
        api.load(folder)
    with pytest.raises(PlanError, match=r"retention\.floor = 0\.5, but no earlier task"):
        chained(from_folder(folder, places, **{"retention.floor": 0.5}), tmp_path)


def test_an_altered_start_folder_is_refused(
    tmp_path: Path, whole: tuple[Path, Chained], places: dict[str, Path]
):
    folder = folder_of(tmp_path, whole)
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(bytes(content))
    with pytest.raises(ModelFolderError, match="altered"):
        chained(from_folder(folder, places), tmp_path)


def test_a_start_folder_from_a_newer_version_is_refused(
    tmp_path: Path, whole: tuple[Path, Chained], places: dict[str, Path]
):
    folder = folder_of(tmp_path, whole)
    facts = json.loads((folder / "headstart.json").read_text())
    (folder / "headstart.json").write_text(json.dumps({**facts, "format": facts["format"] + 1}))
    seal(folder)
    with pytest.raises(ModelFolderError, match="pip install --upgrade headstart"):
        chained(from_folder(folder, places), tmp_path)


def test_another_model_in_the_start_folder_than_planned_is_refused(
    tmp_path: Path, whole: tuple[Path, Chained], places: dict[str, Path]
):
    folder = folder_of(tmp_path, whole)
    (link,) = api.open_chain(from_folder(folder, places), machine=machine(tmp_path))
    shutil.rmtree(folder)
    shutil.copytree(whole[0] / "out" / "plain", folder)
    with pytest.raises(PlanError, match="another model than when the plan was made"):
        api.run(link.opened, output=tmp_path / "out", machine=machine(tmp_path))


# -- bad input -----------------------------------------------------------------------------------------------------


def two(places: dict[str, Path], **second: Any) -> list[dict[str, Any]]:
    return [
        {"data": str(places["plain"]), "encoder": "tiny-cnn", "settings": QUICK},
        {"data": str(places["inverted"]), "settings": QUICK, **second},
    ]


@pytest.mark.parametrize(("second", "match"), [
    ({"from": "plan"}, r"starts from 'plan' \(did you mean 'plain'\?\), which is neither a link"),
    ({"from": "/no/such/folder"}, "neither a link of this chain nor a model folder"),
    ({"from": "inverted"}, "circle: inverted <- inverted"),
    ({"encoder": "tiny-transformer"}, "names the network tiny-transformer, but what it starts from has tiny-cnn"),
    ({"settings": {"encoder.image_size": 64}}, r"names encoder.image_size = 64"),
    ({"settings": {"encoder.channels": 1}}, r"names encoder.channels = 1"),
    ({"name": "plain"}, "two links are named 'plain'"),
    ({"name": "a/b"}, "a name that can be that of a folder"),
    ({"method": "dream"}, "dream"),
    ({"setings": {}}, r"has the key 'setings' \(did you mean 'settings'\?\)"),
    ({"settings": {"retention.guards": {"ewcc": 1}}}, r"unknown guard 'ewcc' \(did you mean 'ewc'\?\)"),
    ({"settings": {"retention.flor": 0.9}}, r"did you mean 'floor'"),
    ({"settings": 3}, "the settings of link 2 are 3"),
    ({"data": None}, "link 2 has no data"),
])  # fmt: skip
def test_links_that_cannot_be_are_refused_before_anything_runs(
    tmp_path: Path, places: dict[str, Path], second: dict[str, Any], match: str
):
    with pytest.raises(PlanError, match=match):
        chained(two(places, **second), tmp_path)
    assert not (tmp_path / "store" / "models-v1").exists()


def test_links_of_different_modalities_are_refused(tmp_path: Path, places: dict[str, Path]):
    sentences, labels = texts(8)
    asked = [two(places)[0], {"data": (sentences, labels)}]
    with pytest.raises(PlanError, match="has text data, but what it starts from is a network for image"):
        chained(asked, tmp_path)


def test_starts_in_a_circle_are_refused(tmp_path: Path, places: dict[str, Path]):
    first, second = two(places)
    asked = [{**first, "from": "inverted"}, {**second, "from": "plain"}]
    with pytest.raises(PlanError, match="circle: plain <- inverted <- plain"):
        chained(asked, tmp_path)


@pytest.mark.parametrize(("settings", "match"), [
    ({"retention.floor": 0.9}, "starts from no other"),
    ({"retention.floor": 1.5}, "retention|starts from no other"),
])  # fmt: skip
def test_retention_without_anything_to_keep_is_refused(
    tmp_path: Path, places: dict[str, Path], settings: dict[str, Any], match: str
):
    with pytest.raises(PlanError, match=match):
        chained([{"data": str(places["plain"]), "encoder": "tiny-cnn", "settings": settings}], tmp_path)
    with pytest.raises(PlanError, match="retention"):
        api.fit(
            places["plain"], encoder="tiny-cnn", settings={**QUICK, **settings}, output=tmp_path / "m",
            machine=machine(tmp_path),
        )  # fmt: skip


@pytest.mark.parametrize("method", ["extract", "fewshot"])
def test_what_does_not_fine_tune_cannot_be_guarded(tmp_path: Path, places: dict[str, Path], method: str):
    settings = {"extract.heads": ["ridge"], "retention.floor": 0.9}
    with pytest.raises(PlanError, match=f"its method is {method}"):
        chained(two(places, method=method, settings=settings), tmp_path)


def test_links_may_be_written_in_any_order_and_named_by_numbers(places: dict[str, Path], tmp_path: Path):
    wishes = read_links([
        {"name": 2023, "from": 2022, "data": str(places["inverted"])},
        {"name": 2022, "data": str(places["plain"]), "encoder": "tiny-cnn"},
    ])  # fmt: skip
    assert [(wish.name, wish.start) for wish in wishes] == [("2022", None), ("2023", "2022")]


def test_low_rank_updates_and_guards_are_refused_together(tmp_path: Path, places: dict[str, Path]):
    asked = two(places)
    asked[1]["settings"] = {**QUICK, "retention.guards": {"l2_sp": None}, "finetune.lora_rank": 2}
    with pytest.raises(PlanError, match="lora_rank together with retention"):
        chained(asked, tmp_path)


@pytest.mark.parametrize(
    "text", ["links: [", "links: 3", "- 1", "links: []", "lynx: []", "!!python/object:os.system {}"]
)
def test_a_chain_file_that_is_none_is_refused(tmp_path: Path, text: str):
    file = tmp_path / "chain.yaml"
    file.write_text(text)
    with pytest.raises(PlanError, match="chain"):
        api.chain(file, machine=machine(tmp_path))


def test_missing_files_are_refused(tmp_path: Path):
    with pytest.raises(PlanError, match="cannot be read"):
        api.chain(tmp_path / "none.yaml", machine=machine(tmp_path))
    with pytest.raises(DataError):
        chained([{"data": str(tmp_path / "none"), "encoder": "tiny-cnn"}], tmp_path)
