"""Recurrent networks and decoders end to end: fit, save, load, predict, and go on to the bit after a crash."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
import torch
from picture_parts import machine
from safetensors.torch import load_file
from sentence_parts import FILLERS, WORDS, texts
from text_parts import folder_of, write_gguf

from headstart import api
from headstart.core.settings import FineTune
from headstart.data import TableDataset, from_texts
from headstart.model import open_encoder
from headstart.result import Result
from headstart.train.runtime import Event

SETTINGS: dict[str, Any] = {
    "epochs": 4,
    "batch_size": 8,
    "learning_rate": 0.01,
    "layer_decay": 1.0,
    "checkpoint_steps": 1,
    "patience": 4,
    "weight_decay": 0.0,
}
NETWORKS = ("recurrent:lstm", "recurrent:bigru", "gpt2", "llama", "gguf")
every_network = pytest.mark.parametrize("network", NETWORKS)


class CutError(Exception):
    """Stands for a crash: the loop saves nothing on its way out."""


@cache
def encoder_name(network: str) -> str:
    """Return the name of an encoder; decoders are tiny random ones in a folder or file."""
    if network.startswith("recurrent:"):
        return network
    place = Path(mkdtemp())
    if network == "gguf":
        write_gguf(place / "tiny.gguf")
        return f"transformers:{place / 'tiny.gguf'}"
    return f"transformers:{folder_of(place / network, network)}"


def data() -> TableDataset:
    return from_texts(*texts(16))


def fitted(network: str, root: Path, progress: Callable[[Event], None] = lambda _: None) -> Result:
    """Fine-tune a network on the texts, in a store of its own."""
    where, dataset = machine(root), data()
    opened = api.open_plan(dataset, encoder=encoder_name(network), method=FineTune(**SETTINGS), machine=where)
    return api.run(opened, output=root / "model", machine=where, progress=progress)


def learned(root: Path) -> Result:
    """Train an LSTM from scratch for as long as it needs."""
    where = machine(root)
    method = FineTune(**{**SETTINGS, "epochs": 12})
    opened = api.open_plan(from_texts(*texts(30)), encoder="recurrent:lstm", method=method, machine=where)
    return api.run(opened, output=root / "model", machine=where)


@cache
def whole(network: str) -> Result:
    """Return the run that nobody cut."""
    return fitted(network, Path(mkdtemp()))


@every_network
def test_a_network_is_fitted_and_learns(network: str) -> None:
    result = whole(network)
    assert len(result.history) == SETTINGS["epochs"]
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]
    assert all(np.isfinite(value) for row in result.history for value in row.values())
    assert result.evaluation.n == len(result.predictions) > 0


def test_a_recurrent_network_from_scratch_tells_texts_apart_by_their_words(tmp_path: Path) -> None:
    assert learned(tmp_path).evaluation.primary.value > 0.8


@every_network
def test_a_saved_network_is_loaded_and_predicts_what_the_run_measured(network: str, tmp_path: Path) -> None:
    result = whole(network)
    every, _ = texts(16)
    given = [every[int(item.id)] for item in result.predictions]
    found = api.predict(result.folder, given, machine=machine(tmp_path))
    assert [row.label for row in found] == [item.label for item in result.predictions]
    assert [row.probability for row in found] == pytest.approx(
        [item.probability for item in result.predictions], rel=1e-5
    )


@every_network
def test_a_model_folder_alone_rebuilds_the_network(network: str, tmp_path: Path) -> None:
    """Neither the store with the vocabulary nor the folder that the network came from is needed."""
    result = whole(network)
    moved = result.folder.rename(result.folder.with_name("moved"))
    try:
        model = api.load(moved)
        (row,) = api.predict(model, ["we saw the red cat"], machine=machine(tmp_path))
    finally:
        moved.rename(result.folder)
    facts = json.loads((result.folder / "headstart.json").read_text())
    assert (result.folder / "encoder" / "tokenizer.json").is_file()
    assert facts["input"]["pooling"] == model.encoder.spec.contract.pooling
    assert sum(row.probabilities.values()) == pytest.approx(1)
    weights = load_file(result.folder / "model.safetensors")
    own = model.encoder.module.state_dict()
    assert all(torch.equal(tensor, weights[f"encoder.{name}"]) for name, tensor in own.items())


@every_network
def test_predictions_do_not_depend_on_what_else_is_predicted(network: str, tmp_path: Path) -> None:
    model = api.load(whole(network).folder)
    given, _ = texts(3, seed=1)
    given.append("then it was so and " * 40)
    together = api.predict(model, given, machine=machine(tmp_path / "a"))
    reverse = api.predict(model, given[::-1], machine=machine(tmp_path / "b", threads=2))
    (alone,) = api.predict(model, [given[0]], machine=machine(tmp_path / "c"))
    assert [row.probabilities for row in reverse[::-1]] == [row.probabilities for row in together]
    assert alone.probabilities == together[0].probabilities


@pytest.mark.parametrize("at", [3, 8])
@every_network
def test_a_run_that_crashed_goes_on_to_the_same_bits(network: str, at: int, tmp_path: Path) -> None:
    def crash(event: Event) -> None:
        if event.stage == "finetune" and not event.message and event.done == at:
            raise CutError

    with pytest.raises(CutError):
        fitted(network, tmp_path, crash)
    assert not (tmp_path / "model").exists()
    said: list[str] = []
    again = fitted(network, tmp_path, lambda event: said.append(event.message))
    assert any(message.startswith("resumed after step") for message in said)
    ours = load_file(again.folder / "model.safetensors")
    theirs = load_file(whole(network).folder / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    assert again.evaluation == whole(network).evaluation


def test_a_saved_recurrent_model_is_the_start_of_another(tmp_path: Path) -> None:
    source = learned(tmp_path / "source").folder
    settings = {"extract.heads": ["logistic"]}
    result = api.fit(
        texts(8, seed=2), encoder=f"recurrent:{source}", method="extract", settings=settings,
        output=tmp_path / "model", machine=machine(tmp_path),
    )  # fmt: skip
    assert result.receipt.transferred == 1
    assert result.evaluation.primary.value > 0.7
    before = load_file(source / "model.safetensors")
    after = load_file(result.folder / "model.safetensors")
    assert all(torch.equal(after[name], before[name]) for name in before if name.startswith("encoder."))


def test_a_recurrent_network_tags_words(tmp_path: Path) -> None:
    names = {word for group in ("animals", "colours") for word in WORDS[group]}
    given = [tuple(text.split()) for text in texts(20)[0]]
    tags = [tuple("B-thing" if word in names else "O" for word in line) for line in given]
    dataset = from_texts(given, tags, task="tagging")
    where = machine(tmp_path)
    method = FineTune(**{**SETTINGS, "epochs": 20})
    plan = api.open_plan(dataset, encoder="recurrent:bilstm", method=method, machine=where)
    result = api.run(plan, output=tmp_path / "model", machine=where)
    assert result.evaluation.primary.name == "span_f1"
    assert result.evaluation.primary.value > 0.9
    (found,) = api.predict(result.folder, ["then it saw the horse, so blue"], machine=where)
    assert {span.text for span in found.spans} == {"horse", "blue"}


def test_word_vectors_in_a_file_help_an_lstm_on_words_that_training_never_shows(tmp_path: Path) -> None:
    """Half of each class's words stand in test texts alone; only their vectors say what they mean."""
    every = [word for words in WORDS.values() for word in words]
    noise = np.random.default_rng(0)
    vectors = {word: noise.normal(size=8) * 0.3 for word in (*every, *FILLERS)}
    for place, words in enumerate(WORDS.values()):
        for word in words:
            vectors[word][place] += 2
    lines = [" ".join([word, *map(str, row.round(4))]) for word, row in vectors.items()]
    file = tmp_path / "vectors.txt"
    file.write_text("\n".join(lines))
    given, labels, splits = [], [], []
    for number, (text, label) in enumerate(zip(*texts(30), strict=True)):
        unseen = set(WORDS[label][2:]) & set(text.split())
        seen = set(WORDS[label][:2]) & set(text.split())
        if not (unseen and seen):
            given.append(text)
            labels.append(label)
            splits.append("test" if unseen else ("train", "validation")[number % 4 == 0])
    dataset, where = from_texts(given, labels, splits=splits), machine(tmp_path)
    scores = {}
    for name, settings in (("vectors", {"encoder.vectors": str(file)}), ("none", {})):
        opened = api.open_plan(
            dataset, encoder="recurrent:lstm", method=FineTune(**{**SETTINGS, "epochs": 10}), settings=settings,
            machine=where,
        )  # fmt: skip
        result = api.run(opened, output=tmp_path / name, machine=where)
        scores[name] = result.evaluation.primary.value
        assert result.receipt.source.startswith("20 of" if name == "vectors" else "random"), (
            result.receipt.source
        )
        load = open_encoder(opened.plan.encoder)
        assert load.spec.weights_sha256 == opened.plan.encoder.weights_sha256
    assert scores["vectors"] > scores["none"] + 0.2
