"""A model folder: checked byte by byte, loaded without running anything in it, the same numbers after."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from picture_parts import NAMES, context, digits, machine
from torch import nn

from headstart import api
from headstart.core.errors import DataError, ModelFolderError
from headstart.core.settings import Pretrained
from headstart.core.types import InputContract
from headstart.data import from_arrays
from headstart.encoders.module import from_module
from headstart.heads import LinearHead
from headstart.model import Model, load_model, open_encoder
from headstart.store import seal
from headstart.tasks.classification import Classification


def model(name: str = "tiny-cnn") -> Model:
    """Return a model with a head of seeded numbers."""
    encoder = open_encoder(Pretrained(name=name))
    head = LinearHead(encoder.spec.width["pooled"], 3)
    with torch.no_grad():
        head.weight.normal_(generator=torch.Generator().manual_seed(0))
    held_out = {
        "logits": torch.randn(40, 3, generator=torch.Generator().manual_seed(1)),
        "targets": torch.arange(40) % 3,
    }
    return Model(encoder, Classification(NAMES), head.eval(), Pretrained(name=name), 1.5, held_out)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a sealed model folder."""
    model().save(tmp_path / "model", facts={"metrics": {}})
    seal(tmp_path / "model")
    return tmp_path / "model"


def probabilities(given: Model, root: Path) -> list[list[float]]:
    rows = given.predict(from_arrays(*digits(2)), context(root))
    return [list(row.probabilities.values()) for row in rows]


def test_a_loaded_model_gives_the_same_bits(folder: Path, tmp_path: Path) -> None:
    loaded = load_model(folder)
    assert probabilities(loaded, tmp_path / "a") == probabilities(model(), tmp_path / "b")
    assert loaded.temperature == 1.5
    assert loaded.task.labels == NAMES
    assert loaded.encoder.spec.contract == model().encoder.spec.contract
    assert loaded.threshold(0.6) == model().threshold(0.6)


def test_a_loaded_model_is_in_eval_mode(folder: Path) -> None:
    loaded = load_model(folder)
    assert not loaded.head.training and not loaded.encoder.module.training


def test_a_moved_folder_loads(folder: Path, tmp_path: Path) -> None:
    folder.rename(tmp_path / "elsewhere")
    assert load_model(tmp_path / "elsewhere").task.labels == NAMES


def test_probabilities_are_the_logits_at_the_temperature() -> None:
    logits = np.array([[1.5, 0.0, -3.0]])
    expected = np.exp(logits / 1.5) / np.exp(logits / 1.5).sum()
    assert np.allclose(model().probabilities(logits), expected)


def test_logits_carry_gradients() -> None:
    given = model()
    batch = given.encoder.collate(digits(1)[0])
    given.logits(batch).sum().backward()
    assert all(tensor.grad is not None for tensor in given.encoder.module.parameters())


@pytest.mark.parametrize("name", ["model.safetensors", "headstart.json", "calibration.safetensors"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_file_is_refused_by_name(folder: Path, name: str, damage: str) -> None:
    path, content = folder / name, bytearray((folder / name).read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[:-1])
    else:
        path.unlink()
    with pytest.raises(ModelFolderError, match=name.replace(".", r"\.")) as caught:
        load_model(folder)
    assert caught.value.fix


@pytest.mark.parametrize("content", ["", "{", '{"files": 3}', "[]"])
def test_a_damaged_manifest_is_refused(folder: Path, content: str) -> None:
    (folder / "MANIFEST.json").write_text(content)
    with pytest.raises(ModelFolderError, match="manifest cannot be read"):
        load_model(folder)


def test_a_folder_without_a_manifest_is_no_model_folder(folder: Path, tmp_path: Path) -> None:
    (folder / "MANIFEST.json").unlink()
    for place in (folder, tmp_path / "nowhere", tmp_path):
        with pytest.raises(ModelFolderError, match="is no model folder"):
            load_model(place)


def test_a_folder_of_a_newer_version_is_refused(folder: Path) -> None:
    facts = json.loads((folder / "headstart.json").read_text())
    (folder / "headstart.json").write_text(json.dumps({**facts, "format": 99}))
    seal(folder)
    with pytest.raises(ModelFolderError, match="has format 99"):
        load_model(folder)


def test_a_pickle_in_the_place_of_the_weights_is_never_run(folder: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "owned",)

    (folder / "model.safetensors").write_bytes(pickle.dumps(Evil()))
    seal(folder)
    with pytest.raises(Exception, match=r"(?i)cannot be read as weights|header"):
        load_model(folder)
    assert not (tmp_path / "owned").exists()


def test_extra_files_are_not_looked_at(folder: Path, tmp_path: Path) -> None:
    (folder / "setup.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w')")
    load_model(folder)
    assert not (tmp_path / "owned").exists()


def test_a_user_s_own_network_comes_back_through_its_encoder(tmp_path: Path) -> None:
    def own(seed: int):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        contract = InputContract((16, 16), (0.5,) * 3, (0.5,) * 3)
        return from_module(network, {"all": ["0", "1"]}, contract=contract)

    saved = Model(own(0), Classification(NAMES), LinearHead(4, 3), Pretrained(name="module:network"))
    with torch.no_grad():
        saved.head.weight.normal_(generator=torch.Generator().manual_seed(0))
    saved.save(tmp_path / "model", facts={})
    seal(tmp_path / "model")
    loaded = load_model(tmp_path / "model", encoder=own(1))
    assert probabilities(loaded, tmp_path / "a") == probabilities(saved, tmp_path / "b")


def test_abstaining_leaves_labels_open_below_the_threshold(tmp_path: Path) -> None:
    given = model()
    rows = given.predict(from_arrays(*digits(4)), context(tmp_path), abstain=0.6)
    least = given.threshold(0.6)
    assert all((row.label is None) == (row.probability < least) for row in rows)
    assert all(sum(row.probabilities.values()) == pytest.approx(1) for row in rows)


def test_a_model_without_held_out_items_cannot_promise_an_error_rate(tmp_path: Path) -> None:
    given = model()
    few = {"logits": torch.zeros(2, 3), "targets": torch.zeros(2, dtype=torch.int64)}
    lone = Model(given.encoder, given.task, given.head, given.pretrained, calibration=few)
    with pytest.raises(DataError):
        lone.predict(from_arrays(*digits(1)), context(tmp_path), abstain=0.01)


def test_a_published_folder_loads_after_a_copy(tmp_path: Path) -> None:
    result = api.fit(digits(), encoder="tiny-cnn", output=tmp_path / "model", machine=machine(tmp_path))
    shutil.copytree(result.folder, tmp_path / "copy")
    assert load_model(tmp_path / "copy").task.labels == tuple(sorted(NAMES))
