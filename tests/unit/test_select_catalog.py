"""The catalog: facts that are there, filters that say why nothing is left, entries of the user's own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from headstart.cli._app import app
from headstart.core.errors import PlanError
from headstart.core.registry import names
from headstart.core.settings import Pretrained, parse
from headstart.model import open_encoder
from headstart.select import catalog as catalog_module
from headstart.select.catalog import Entry, Filters, catalog, licence_class, select, whereabouts


@pytest.fixture(autouse=True)
def _empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what this machine happens to have downloaded out of the tests."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


def entry(name: str, **facts: Any) -> Entry:
    """Return an entry of little interest."""
    usual = Entry(
        name=name, modality="image", forms=("pooled", "map"), parameters_m=1.0, gmacs=0.5, activations_m=2.0,
        input_side=64, pretraining="in1k", scores={}, licence="MIT", encoder={"name": "tiny-cnn"},
    )  # fmt: skip
    return replace(usual, **facts)


def named(name: str) -> Entry:
    """Return an entry of the catalog."""
    return next(one for one in catalog() if one.name == name)


def call(*arguments: object) -> Any:
    """Run the program."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def cached(repository: str, file: str, text: str = "{}") -> None:
    """Put a file where the hub's client keeps what it downloaded."""
    from huggingface_hub import constants

    home = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    (home / "refs").mkdir(parents=True, exist_ok=True)
    (home / "refs" / "main").write_text("0" * 40)
    (home / "snapshots" / ("0" * 40)).mkdir(parents=True, exist_ok=True)
    (home / "snapshots" / ("0" * 40) / file).write_text(text)


# -- facts -----------------------------------------------------------------------------------------------------


def test_the_facts_are_those_of_the_public_table():
    resnet = named("timm:resnet50.a1_in1k")
    assert (resnet.parameters_m, resnet.gmacs, resnet.activations_m, resnet.input_side) == (
        25.56,
        4.11,
        11.11,
        224,
    )
    assert (resnet.pretraining, resnet.licence, resnet.scores["imagenet"]) == ("in1k", "Apache-2.0", 80.382)


@pytest.mark.parametrize(
    ("network", "pretraining"),
    [("timm:convnext_tiny.fb_in22k_ft_in1k", "in22k-ft-in1k"), ("timm:vit_small_patch14_dinov2.lvd142m", "lvd142m"),
     ("timm:convnextv2_nano.fcmae_ft_in22k_in1k", "in1k-masked-ft-in22k-in1k"),
     ("timm:vit_base_patch16_clip_224.openai_ft_in12k_in1k", "wit400m-ft-in12k-in1k"),
     ("timm:tf_efficientnet_b0.ns_jft_in1k", "jft300m-noisy-student"), ("timm:resnet50.a1_in1k", "in1k")],
)  # fmt: skip
def test_the_data_of_pretraining_are_read_off_the_tag(network: str, pretraining: str):
    assert named(network).pretraining == pretraining


def test_texts_are_counted_as_their_authors_do():
    bert, deberta = named("transformers:bert-base-uncased"), named("transformers:microsoft/deberta-v3-base")
    assert bert.parameters_m == pytest.approx(109, abs=1)
    assert (bert.layers, bert.width, bert.context, bert.input_side) == (12, 768, 512, 128)
    # 85 million numbers of the layers multiply each token, and attention its 128 neighbours in both products.
    assert bert.gmacs == pytest.approx(128 * (12 * 12 * 768**2 + 12 * 2 * 128 * 768) / 1e9, rel=0.01)
    assert deberta.parameters_m == pytest.approx(184, abs=1)


def test_every_entry_can_be_asked_for_and_is_there_once():
    entries = catalog()
    assert len({one.name for one in entries}) == len(entries) > 1000
    libraries = names("encoder")
    for one in entries:
        assert parse(Pretrained, dict(one.encoder), what=one.name).name == one.name
        assert one.name.partition(":")[0] in libraries
        assert min(one.parameters_m, one.gmacs, one.activations_m, one.input_side) > 0
        assert one.licence
        assert one.pretraining


def test_neither_trial_nor_untrained_networks_are_candidates():
    assert not [one.name for one in catalog() if one.name.startswith(("tiny-", "recurrent", "timm:test_"))]


def test_a_modality_has_its_own_entries():
    assert {one.modality for one in catalog("text")} == {"text"}
    assert (*catalog("image"), *catalog("text")) == catalog()


@pytest.mark.parametrize(
    ("network", "settings"),
    [("efficientnet-lite0", {"name": "tiny-cnn"}),
     ("minilm", {"name": "tiny-text-transformer"})],
)  # fmt: skip
def test_the_forms_are_those_that_an_encoder_gives(network: str, settings: dict[str, str]):
    opened = open_encoder(parse(Pretrained, settings, what=network))
    assert {*opened.spec.width} == {*named(network).forms}


@pytest.mark.parametrize(
    ("licence", "is_called"),
    [("Apache-2.0", "permissive"), ("mit", "permissive"), ("CC-BY-NC-4.0", "non-commercial"), ("unknown", "unknown"),
     ("seer-license", "own terms"), ("GPL-3.0", "share-alike")],
)  # fmt: skip
def test_licences_have_a_class(licence: str, is_called: str):
    assert licence_class(licence) == is_called


# -- where weights are -----------------------------------------------------------------------------------------


def test_an_embedded_network_is_installed_or_absent(monkeypatch: pytest.MonkeyPatch):
    assert whereabouts(named("efficientnet-lite0")) == "installed"
    monkeypatch.setattr("headstart.select.entry.find_spec", lambda name: None)
    assert whereabouts(named("efficientnet-lite0")) == "absent"
    assert whereabouts(named("transformers:roberta-base")) == "absent"


def test_a_hub_network_is_cached_once_its_weights_lie_on_disk(monkeypatch: pytest.MonkeyPatch):
    resnet = named("timm:resnet18.a1_in1k")
    assert whereabouts(resnet) == "hub"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert whereabouts(resnet) == "absent"
    cached("timm/resnet18.a1_in1k", "model.safetensors")
    assert whereabouts(resnet) == "cached"


def test_a_text_network_is_cached_with_its_configuration_and_all_parts_only():
    mistral = named("transformers:mistralai/Mistral-7B-v0.1")
    index = json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}})
    cached("mistralai/Mistral-7B-v0.1", "model.safetensors.index.json", index)
    cached("mistralai/Mistral-7B-v0.1", "one.safetensors")
    assert whereabouts(mistral) == "hub"
    cached("mistralai/Mistral-7B-v0.1", "config.json")
    assert whereabouts(mistral) == "hub"
    cached("mistralai/Mistral-7B-v0.1", "two.safetensors")
    assert whereabouts(mistral) == "cached"


def test_weights_from_an_address_are_looked_for_where_torch_keeps_them(tmp_path: Path):
    squeezenet = named("torchvision:squeezenet1_1")
    assert whereabouts(squeezenet) == "hub"
    place = tmp_path / "torch" / "hub" / "checkpoints" / squeezenet.origin.rpartition("/")[2]
    place.parent.mkdir(parents=True)
    place.touch()
    assert whereabouts(squeezenet) == "cached"


def test_a_file_is_there_or_not(tmp_path: Path):
    weights = tmp_path / "w.safetensors"
    one = entry("mine", encoder={"name": "timm:resnet18", "weights": str(weights)})
    assert whereabouts(one) == "absent"
    weights.touch()
    assert whereabouts(one) == "file"
    folder = entry("folder", encoder={"name": f"transformers:{tmp_path}"})
    assert whereabouts(folder) == "file"


def test_random_weights_need_nothing():
    assert whereabouts(entry("tiny", encoder={"name": "tiny-cnn"})) == "installed"
    assert whereabouts(entry("raw", encoder={"name": "timm:resnet18", "weights": "random"})) == "installed"


# -- filters ---------------------------------------------------------------------------------------------------


def test_no_filter_keeps_all_in_order():
    given = (entry("b"), entry("a"))
    assert select(given, Filters()) == given


def test_each_filter_keeps_what_fits():
    small, large = entry("small"), entry("large", parameters_m=50.0, gmacs=9.0, licence="CC-BY-NC-4.0")
    text = entry("text", forms=("pooled", "sequence"))
    given = (small, large, text)
    assert select(given, Filters(task="tagging")) == (text,)
    assert select(given, Filters(task="classification")) == given
    assert select(given, Filters(form="map")) == (small, large)
    assert select(given, Filters(licence="permissive")) == (small, text)
    assert select(given, Filters(licence="cc-by-nc-4.0")) == (large,)
    assert select(given, Filters(max_parameters_m=1.0)) == (small, text)
    assert select(given, Filters(max_gmacs=8.99)) == (small, text)
    assert select(given, Filters(pattern="LAR")) == (large,)
    assert select(given, Filters(pattern="[st]*")) == (small, text)


def test_offline_keeps_what_is_on_this_machine():
    near, far = entry("near"), entry("far", encoder={"name": "timm:resnet18.a1_in1k"})
    assert select((near, far), Filters(offline=True)) == (near,)


def test_no_candidate_for_the_task_names_the_form_that_it_needs():
    with pytest.raises(PlanError, match=r"task tagging \(features of form 'sequence'\)") as raised:
        select((entry("a"),), Filters(task="tagging"))
    assert raised.value.fix == "the nearest: a (has pooled, map); networks for text give this form"


def test_no_candidate_of_a_licence_names_those_of_the_nearest():
    given = (entry("a", licence="CC-BY-NC-4.0"), entry("b", licence="unknown", gmacs=9.0))
    with pytest.raises(PlanError, match="is of licence permissive") as raised:
        select(given, Filters(licence="permissive"))
    assert raised.value.fix == "the nearest: a (licence CC-BY-NC-4.0), b (licence unknown)"


def test_the_filter_that_alone_stands_in_the_way_is_blamed_and_the_smallest_misfit_named():
    given = (
        entry("big", parameters_m=80.0),
        entry("mid", parameters_m=20.0),
        entry("tiny", licence="unknown"),
    )
    with pytest.raises(PlanError) as raised:
        select(given, Filters(licence="permissive", max_parameters_m=5.0))
    # Both would do; the one that is asked first is named.
    assert "is of licence permissive and of at most 5 M parameters" in raised.value.given
    assert raised.value.fix == "the nearest: tiny (licence unknown)"
    with pytest.raises(PlanError, match="of at most 5 M parameters") as raised:
        select(given[:2], Filters(licence="permissive", max_parameters_m=5.0))
    assert raised.value.fix == "the nearest: mid (20 M parameters), big (80 M parameters)"


def test_where_no_single_filter_is_to_blame_the_first_that_left_none_is():
    given = (entry("a", licence="unknown", parameters_m=9.0),)
    with pytest.raises(PlanError, match="no network of 1 is of licence MIT") as raised:
        select(given, Filters(licence="MIT", max_parameters_m=1.0))
    assert "a (licence unknown)" in raised.value.fix


def test_an_offline_choice_without_any_says_so():
    with pytest.raises(PlanError, match="is on this machine") as raised:
        select((entry("far", encoder={"name": "timm:resnet18.a1_in1k"}),), Filters(offline=True))
    assert "leave offline out" in raised.value.fix


def test_an_unknown_licence_or_task_is_refused_with_the_nearest():
    with pytest.raises(PlanError, match=r"unknown licence 'permisive' \(did you mean 'permissive'\?\)"):
        select((entry("a"),), Filters(licence="permisive"))
    with pytest.raises(PlanError, match="unknown task 'tagger'"):
        select((entry("a"),), Filters(task="tagger"))


def test_a_name_that_nothing_has_is_answered_with_the_nearest():
    with pytest.raises(PlanError, match="did you mean 'resnet18'"):
        select((entry("timm:resnet18"),), Filters(pattern="resnt18"))


# -- the user's own file ---------------------------------------------------------------------------------------


def written(folder: Path, name: str, text: str) -> Path:
    """Write a file."""
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


TOML = """
[[network]]
name = "birds"
licence = "CC-BY-4.0"
pretraining = "inat-birds"
encoder = { name = "timm:mobilenetv2_100", weights = "birds.safetensors", image_size = 128 }
scores = { imagenet = 12.5 }
"""
JSON = """[{"name": "birds", "licence": "CC-BY-4.0", "pretraining": "inat-birds", "scores": {"imagenet": 12.5},
"encoder": {"name": "timm:mobilenetv2_100", "weights": "birds.safetensors", "image_size": 128}}]"""
CSV = """\ufeffname, licence, pretraining, encoder, encoder.weights, encoder.image_size, scores.imagenet
birds, CC-BY-4.0, inat-birds, timm:mobilenetv2_100, birds.safetensors, 128, 12.5
"""


@pytest.mark.parametrize(("suffix", "text"), [(".toml", TOML), (".json", JSON), (".CSV", CSV)])
def test_a_file_adds_networks_and_facts_come_from_their_architecture(tmp_path: Path, suffix: str, text: str):
    (tmp_path / "birds.safetensors").touch()
    first = catalog("image", own=written(tmp_path, f"my networks{suffix}", text))[0]
    known = named("timm:mobilenetv2_100.ra_in1k")
    assert (first.name, first.licence, first.pretraining, first.scores) == (
        "birds", "CC-BY-4.0", "inat-birds", {"imagenet": 12.5},
    )  # fmt: skip
    assert (first.parameters_m, first.gmacs, first.input_side) == (
        known.parameters_m,
        known.gmacs,
        known.input_side,
    )
    assert first.encoder == {
        "name": "timm:mobilenetv2_100", "weights": str((tmp_path / "birds.safetensors").resolve()), "image_size": 128,
    }  # fmt: skip
    assert whereabouts(first) == "file"


def test_a_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    row = '{"name": "mine", "encoder": {"name": "timm:resnet18", "weights": "~/mine.safetensors"}}'
    mine = catalog("image", own=written(tmp_path, "n.json", f"[{row}]"))[0]
    assert mine.encoder["weights"] == str((tmp_path / "mine.safetensors").resolve())


def test_an_own_entry_takes_the_place_of_one_of_the_same_name(tmp_path: Path):
    own = written(
        tmp_path,
        "n.json",
        '[{"name": "efficientnet-lite0", "encoder": "efficientnet-lite0", "licence": "MIT"}]',
    )
    found = [one for one in catalog(own=own) if one.name == "efficientnet-lite0"]
    assert [one.licence for one in found] == ["MIT"]


def test_a_network_may_be_like_one_above_it_in_the_same_file(tmp_path: Path):
    rows = (
        '{"name": "one", "encoder": "tiny-cnn", "modality": "image", "parameters_m": 0.01, "gmacs": 0.002, '
        '"activations_m": 0.1, "input_side": 32}, {"name": "two", "encoder": "timm:resnet10t", "like": "one"}'
    )
    one, two = catalog("image", own=written(tmp_path, "n.json", f"[{rows}]"))[:2]
    assert (one.name, two.name) == ("one", "two")
    assert (two.parameters_m, two.gmacs, two.input_side) == (0.01, 0.002, 32)


def test_a_folder_of_a_text_network_is_meant_from_the_file(tmp_path: Path):
    (tmp_path / "bert").mkdir()
    row = (
        '{"name": "mine", "encoder": "transformers:bert", "like": "transformers:roberta-base", "gmacs": 0.1}'
    )
    mine = catalog("text", own=written(tmp_path, "n.json", f"[{row}]"))[0]
    assert (mine.gmacs, mine.parameters_m) == (0.1, named("transformers:roberta-base").parameters_m)
    assert mine.encoder == {"name": f"transformers:{(tmp_path / 'bert').resolve()}"}
    assert mine.forms == named("minilm").forms
    assert whereabouts(mine) == "file"


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("n.json", '[{"name": "a"}]', r"n\.json, network 1: encoder: field required"),
        ("n.json", '[{"name": "a", "encoder": "tiny-cnn", "licens": "MIT"}]', r"unknown field \(did you mean 'lic"),
        ("n.json", '[{"name": "a", "encoder": "timm:resnet18", "gmacs": -1}]', r"gmacs: .*greater than 0 \(it is -1\)"),
        ("n.json", '[{"name": "a", "encoder": "keras:resnet"}]', "unknown network 'keras:resnet'"),
        ("n.json", '[{"name": "a", "encoder": {"name": "tiny-cnn", "wights": "x"}}]', "network 1, encoder"),
        ("n.json", '[{"name": "a", "encoder": "tiny-cnn"}]', "parameters_m, gmacs, activations_m, input_side are"),
        ("n.json", '[{"name": "a", "encoder": "tiny-cnn", "like": "minilmm"}]', r"like: .*did you mean 'minilm'"),
        ("n.json", '[{"name": "a", "encoder": {"weights": "m.pth"}}]', "network 1: encoder.name is missing"),
        ("n.csv", "name,encoder.image_size\na,64\n", "line 2: encoder.name is missing"),
        ("n.json", "[3]", "network 1: the row"),
        ("n.json", "{", "cannot be read"),
        ("n.json", '{"networks": []}', "beside `network` it holds networks"),
        ("n.json", "[]", "is empty"),
        ("n.toml", "[[network", "cannot be read"),
        ("n.toml", TOML + TOML, "network 2: there are two networks called 'birds'"),
        ("n.csv", "name,encoder\na,tiny-cnn,3\n", "line 2 has not as many cells as the header"),
        ("n.csv", "name,encoder,gmacs\n\nresnet,timm:resnet18,many\n", r"line 3: gmacs: .*\(it is 'many'\)"),
        ("n.csv", "", "is empty"),
        ("n.yaml", "", "unknown kind"),
    ],
)  # fmt: skip
def test_a_file_that_is_wrong_is_told_with_its_place(tmp_path: Path, file: str, text: str, said: str):
    own = written(tmp_path, file, text)
    with pytest.raises(PlanError, match=said) as raised:
        catalog(own=own)
    assert str(own) in raised.value.given


def test_a_file_that_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(PlanError, match="is no file"):
        catalog(own=tmp_path / "gone.toml")


# -- the verb --------------------------------------------------------------------------------------------------


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put three networks in the catalog's place."""
    small = entry("timm:small", gmacs=0.2, scores={"imagenet": 70.0}, encoder={"name": "timm:small"})
    large = entry("timm:large", parameters_m=300.0, scores={"imagenet": 85.0}, encoder={"name": "timm:large"})
    here = entry("here", parameters_m=9.0, gmacs=0.3, scores={"imagenet": 60.0})
    monkeypatch.setattr(catalog_module, "_shipped", lambda: (small, large, here))


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("sort", "order"),
    [("accuracy", ["timm:large", "timm:small", "here"]), ("size", ["timm:small", "here", "timm:large"]),
     ("speed", ["timm:small", "here", "timm:large"]), (None, ["here", "timm:large", "timm:small"])],
)  # fmt: skip
def test_the_verb_sorts(sort: str | None, order: list[str]):
    result = call("models", "--for", "image", "--json", *(("--sort", sort) if sort else ()))
    assert [row["name"] for row in json.loads(result.stdout)["networks"]] == order


@pytest.mark.usefixtures("few")
def test_the_verb_shows_some_and_says_how_many_more():
    lines = call("models", "--for", "image", "--limit", 1).stdout.splitlines()
    assert lines[0].split() == ["size", "GMACs", "top-1", "here", "licence", "network"]
    assert lines[1].split() == ["9.0M", "0.3", "60.0", "yes", "MIT", "here"]
    assert lines[2].startswith("2 more for image")
    assert len(call("models", "--for", "image", "--limit", 0).stdout.splitlines()) == 4


@pytest.mark.usefixtures("few")
def test_the_verb_filters_and_fails_in_plain_words():
    def found(*arguments: object) -> list[str]:
        return [row["name"] for row in json.loads(call("models", *arguments, "--json").stdout)["networks"]]

    assert found("--offline") == ["here"]
    assert found("--max-parameters", 5) == ["timm:small"]
    assert found("large") == ["timm:large"]
    assert found("--max-gmacs", 0.25, "--licence", "MIT", "--form", "pooled", "--task", "classification") == [
        "timm:small"
    ]
    failed = call("models", "--licence", "Apache-2.0")
    assert failed.exit_code == 2
    assert "no network of 3 is of licence Apache-2.0" in failed.stderr


def test_the_verb_lists_own_networks(tmp_path: Path):
    (tmp_path / "birds.safetensors").touch()
    result = call("models", "birds", "--catalog", written(tmp_path, "n.toml", TOML), "--json")
    assert [(row["name"], row["weights"]) for row in json.loads(result.stdout)["networks"]] == [
        ("birds", "file")
    ]


def test_what_the_verb_prints_fits_a_hundred_columns(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for arguments in ((), ("--for", "image", "--limit", 0), ("--for", "text", "--limit", 0)):
        lines = call("models", *arguments).stdout.splitlines()
        assert max(len(line) for line in lines) <= 100
