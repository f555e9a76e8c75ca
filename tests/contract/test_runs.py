"""Every tiny encoder by every method: trains, stays frozen where it should, is found again, predicts the same."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from picture_parts import digits, machine
from safetensors.torch import load_file
from sentence_parts import texts

from headstart import api
from headstart.core.settings import Pretrained
from headstart.data import TableDataset, from_memory
from headstart.methods.fewshot import TUNED
from headstart.model import open_encoder
from headstart.result import Result
from headstart.train.runtime import Event

PICTURES, TEXTS = ("tiny-cnn", "tiny-transformer"), ("tiny-gru", "tiny-text-transformer")
ENCODERS = PICTURES + TEXTS
METHODS: dict[str, dict[str, Any]] = {
    "extract": {"method": "extract", "settings": {"extract.views": 1}},
    "few-shot": {"method": "fewshot", "settings": {"fewshot.train_last": 1, "extract.views": 1}},
    "last group": {
        "method": "finetune",
        "settings": {"finetune.train_last": 1, "finetune.views": 2, "finetune.epochs": 2, "extract.views": 1},
    },
    "all groups": {
        "method": "finetune",
        "settings": {"finetune.train_last": None, "finetune.epochs": 2, "extract.views": 1},
    },
}
CASES = [(encoder, method) for encoder in ENCODERS for method in METHODS]


def items(encoder: str) -> tuple[list[Any], list[str]]:
    """Return what an encoder is trained on: pictures or texts, and their classes."""
    return digits() if encoder in PICTURES else texts(16)


def others(encoder: str) -> list[Any]:
    """Return items that it never saw, of different lengths where they are texts."""
    return digits(4, skip=20)[0] if encoder in PICTURES else [*texts(3, seed=1)[0], "it was so and " * 30]


def dataset_of(encoder: str) -> TableDataset:
    return from_memory(*items(encoder))


@dataclass(frozen=True)
class Run:
    """A finished run and how to do it again."""

    result: Result
    root: Path
    encoder: str
    method: dict[str, Any]

    def again(
        self, progress: Callable[[Event], None] = lambda _: None, *, root: Path | None = None
    ) -> Result:
        """Run the same thing once more, in this store or in another."""
        dataset = dataset_of(self.encoder)
        where = machine(root or self.root)
        plan = api.plan(dataset, encoder=self.encoder, machine=where, **self.method)
        output = (root or self.root) / "again"
        return api.run(plan, dataset=dataset, output=output, machine=where, progress=progress)


@pytest.fixture(scope="module")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[tuple[str, str]], Run]:
    """Return what runs each case once."""
    done: dict[tuple[str, str], Run] = {}

    def run(case: tuple[str, str]) -> Run:
        if case not in done:
            encoder, method = case
            root = tmp_path_factory.mktemp("run")
            result = api.fit(
                items(encoder),
                encoder=encoder,
                output=root / "model",
                machine=machine(root),
                **METHODS[method],
            )
            done[case] = Run(result, root, encoder, METHODS[method])
        return done[case]

    return run


every_case = pytest.mark.parametrize("case", CASES, ids=[" ".join(case) for case in CASES])


@every_case
def test_a_run_learns_and_every_number_is_finite(run_of, case) -> None:
    result = run_of(case).result
    scores = {score.name: score for score in result.evaluation.scores}
    assert scores["accuracy"].value > 0.5
    assert all(
        math.isfinite(value) for score in scores.values() for value in (score.value, score.low, score.high)
    )
    assert result.evaluation.n == len(result.predictions) > 0
    assert sum(candidate.chosen for candidate in result.race) == 1
    # What few labels tuned has a row a pass; where the frozen heads won there is none.
    assert len(result.history) in {"extract": (0,), "few-shot": (0, 3)}.get(case[1], (2,))
    assert all(math.isfinite(value) for row in result.history for value in row.values())


@every_case
def test_a_second_run_comes_from_the_store_with_an_equal_result(run_of, case) -> None:
    seen: list[str] = []
    run = run_of(case)
    again = run.again(lambda event: seen.append(event.stage))
    assert again.to_json() == run.result.to_json()
    assert not {"encode", "heads", "contrast", "finetune", "activations"} & set(seen)
    assert (run.root / "again" / "model.safetensors").read_bytes() == (
        run.root / "model" / "model.safetensors"
    ).read_bytes()


@every_case
def test_the_same_seed_gives_the_same_weights_in_another_store(run_of, case, tmp_path: Path) -> None:
    run = run_of(case)
    run.again(root=tmp_path)
    ours, theirs = (load_file(root / "model.safetensors") for root in (run.result.folder, tmp_path / "again"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@every_case
def test_the_saved_model_predicts_what_the_run_measured(run_of, case, tmp_path: Path) -> None:
    run = run_of(case)
    every, _ = items(case[0])
    given = [every[int(item.id)] for item in run.result.predictions]
    found = api.predict(run.result.folder, given, machine=machine(tmp_path))
    assert [row.label for row in found] == [item.label for item in run.result.predictions]
    assert [row.probability for row in found] == pytest.approx(
        [item.probability for item in run.result.predictions], rel=1e-6
    )
    assert all(sum(row.probabilities.values()) == pytest.approx(1) for row in found)


@every_case
def test_predictions_do_not_depend_on_what_else_is_predicted(run_of, case, tmp_path: Path) -> None:
    model = api.load(run_of(case).result.folder)
    given = others(case[0])
    together = api.predict(model, given, machine=machine(tmp_path / "a"))
    reverse = api.predict(model, given[::-1], machine=machine(tmp_path / "b", threads=2))
    assert [row.probabilities for row in reverse[::-1]] == [row.probabilities for row in together]
    for number in (0, 7):
        (alone,) = api.predict(model, [given[number]], machine=machine(tmp_path / f"alone {number}"))
        assert alone.probabilities == together[number].probabilities


@every_case
def test_frozen_layers_are_bit_identical_batchnorm_statistics_too(run_of, case) -> None:
    run = run_of(case)
    encoder = open_encoder(Pretrained(name=case[0]))
    before, after = encoder.module.state_dict(), load_file(run.result.folder / "model.safetensors")
    same = {name for name, tensor in before.items() if torch.equal(tensor, after[f"encoder.{name}"])}
    groups = encoder.layer_groups()
    tuned = {"extract": 0, "few-shot": 1, "last group": 1, "all groups": len(groups)}[case[1]]
    frozen = {name for group in groups[: len(groups) - tuned] for name in group.parameters}
    statistics = {name for name in before if "running" in name or "num_batches" in name}
    assert frozen | statistics <= same
    if tuned and next(item.name for item in run.result.race if item.chosen) in (
        "fine-tuned",
        TUNED,
    ):
        assert same != set(before), "the tuned model was chosen, but no weight moved"


@every_case
def test_the_model_folder_holds_all_that_is_promised_and_no_code(run_of, case) -> None:
    folder = run_of(case).result.folder
    names = {path.name for path in folder.iterdir()}
    assert {"model.safetensors", "headstart.json", "README.md", "report.html", "MANIFEST.json"} <= names
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} <= {
        ".safetensors", ".json", ".md", ".html",
    }  # fmt: skip
    facts = json.loads((folder / "headstart.json").read_text())
    assert facts["task"] == {"name": "classification", "labels": sorted(set(items(case[0])[1]))}
    assert facts["encoder"]["name"] == case[0]
    assert facts["input"].get("size", [32, 32]) == [32, 32]
    assert facts["input"].get("window", 64) == 64
    assert facts["modality"] == ("image" if case[0] in PICTURES else "text")
    assert len(facts["lineage"]) == (1 if case[1] == "extract" else 2)
    assert {"metrics", "versions", "licence", "temperature"} <= set(facts)


@pytest.mark.parametrize("method", ["last group", "all groups"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_fine_tuned_model_is_never_worse_on_validation_than_its_start(run_of, encoder, method) -> None:
    race = run_of((encoder, method)).result.race
    assert len(race) == 2
    (chosen,) = [candidate for candidate in race if candidate.chosen]
    assert all((chosen.score, -chosen.log_loss) >= (other.score, -other.log_loss) for other in race)
