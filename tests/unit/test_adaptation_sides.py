"""Both sides of an adaptation: the target has no labels, the source is never the test split."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from adaptation_parts import fitted, halves
from picture_parts import context, digits, machine

import headstart
from headstart.adaptation.sides import (
    encode_target,
    masked,
    open_source,
    open_target,
    plan_of,
    require_classes,
    said_of,
    unseen,
)
from headstart.core.errors import PlanError
from headstart.core.settings import Source
from headstart.data import from_arrays
from headstart.model import load_model
from headstart.tasks.regression import Regression


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model, made once for all tests here."""
    root = tmp_path_factory.mktemp("sides")
    fitted(root)
    return root


def test_a_masked_target_has_no_trace_of_its_labels_not_even_their_order():
    pictures, labels = digits(8)
    order = np.random.default_rng(0).permutation(len(labels))
    shuffled = [pictures[row] for row in order]
    one = masked(from_arrays(pictures, labels))
    other = masked(from_arrays(shuffled, list(np.random.default_rng(1).permutation(labels))))
    assert one.targets == [None] * len(labels) and one.labels == () and set(one.splits) == {None}
    assert set(one.groups) == {""} and one.notes == ()
    assert one.item_hashes() == other.item_hashes()
    assert all(
        np.array_equal(np.asarray(first), np.asarray(second))
        for first, second in zip(one.inputs, other.inputs, strict=True)
    )


def test_the_source_is_what_was_trained_and_validated_and_never_what_was_tested(world: Path):
    model = load_model(world / "model")
    origin = open_source(model, context(world))
    assert origin.side is not None and origin.missing == ""
    report = headstart.fit(world / "day", encoder="tiny-cnn", output=world / "again", machine=machine(world))
    tested = {item.id for item in report.predictions}
    ids = set(origin.side.dataset.ids)
    assert tested and not tested & ids
    assert len(ids) + len(tested) == report.audit.num_kept
    names = [model.task.labels[number] for number in origin.side.targets]  # type: ignore[union-attr]
    assert names == [Path(one).parent.name for one in origin.side.dataset.ids]
    assert origin.side.features.shape == (len(ids), model.head.width)


def test_the_features_of_the_source_are_those_that_the_head_was_fitted_on(world: Path):
    model = load_model(world / "model")
    side = open_source(model, context(world)).side
    assert side is not None
    again = encode_target(replace(side.dataset), model, context(world))
    assert np.allclose(side.features, again.features, atol=1e-5)


def test_a_target_that_is_the_source_is_said_and_one_of_both_is_counted(world: Path):
    model = load_model(world / "model")
    origin = open_source(model, context(world))
    target = encode_target(open_target(world / "day", "image", Source()), model, context(world))
    assert origin.side is not None
    assert any("nothing to adapt to" in line for line in said_of(origin, target)), (
        "those of its test split too"
    )
    assert not len(unseen(origin, target))
    part = replace(origin, known=frozenset(sorted(origin.known)[:3]))
    assert len(unseen(part, target)) == len(target) - 3
    assert any(f"3 of {len(target)} items" in line for line in said_of(part, target))


def test_a_target_may_be_files_arrays_or_an_opened_dataset(world: Path):
    pictures, labels = halves()[1]
    files = sorted((world / "day").rglob("*.png"))[:5]
    assert len(open_target(files, "image", Source())) == 5
    assert len(open_target(files[0], "image", Source())) == 1
    assert len(open_target(pictures[:7], "image", Source())) == 7
    opened = open_target(from_arrays(pictures, labels), "image", Source())
    assert opened.targets == [None] * len(pictures)


def test_what_is_missing_of_the_source_is_said(world: Path, tmp_path: Path):
    model = load_model(world / "model")
    plan = plan_of(model)
    assert plan is not None and plan.data.uri
    gone = {**model.lineage[-1], "data": {**model.lineage[-1]["data"], "uri": str(tmp_path / "gone")}}
    assert "cannot be opened" in open_source(replace(model, lineage=(gone,)), context(world)).missing
    memory = {**gone, "data": {**gone["data"], "uri": ""}}
    assert "in memory" in open_source(replace(model, lineage=(memory,)), context(world)).missing
    assert "does not say" in open_source(replace(model, lineage=()), context(world)).missing
    shutil.copytree(world / "day", tmp_path / "gone")
    next((tmp_path / "gone").rglob("*.png")).unlink()
    assert "have changed" in open_source(replace(model, lineage=(gone,)), context(world)).missing


def test_a_model_that_predicts_numbers_is_refused(world: Path):
    model = replace(load_model(world / "model"), task=Regression(()))
    with pytest.raises(PlanError, match="regression"):
        require_classes(model)
