"""The pages of a shift and of an adaptation: what they say, what they hold, and that nothing of the data escapes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from adaptation_parts import adapt, darkened, fitted, halves, write
from picture_parts import machine
from typer.testing import CliRunner

import headstart
from headstart.adaptation.outcome import Adaptation, Sketch
from headstart.adaptation.picture import MOST_COLOURS, colour, draw_map
from headstart.cli._app import app


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Adaptation]:
    """Return a folder with a model and an adaptation to a darkened target with an odd file name."""
    root = tmp_path_factory.mktemp("page")
    fitted(root)
    pictures, labels = halves()[1]
    target = write(root / "night", darkened(pictures), labels)
    next(target.rglob("*.png")).rename(target / "one" / "<script>alert(1)&ü.png")
    (target / "two" / "<i>broken.png").write_bytes(b"no picture")
    return root, adapt(root, target)


def test_the_page_says_what_was_chosen_and_why_and_loads_nothing(world: tuple[Path, Adaptation]):
    root, found = world
    page = (root / "adapted" / "report.html").read_text(encoding="utf-8")
    for words in (
        found.chosen,
        "Appearance shift",
        "Spoken against",
        "Most typical of the target",
        "Unreadable",
    ):
        assert words.lower() in page.lower()
    assert page.count("<svg") >= 2
    assert "<script" not in page and "<i>broken" not in page
    assert not re.search(r'(?:src|href)="(?!data:)', page)


def test_the_json_beside_it_says_the_same_and_reads_back(world: tuple[Path, Adaptation]):
    root, found = world
    text = (root / "adapted" / "report.json").read_text(encoding="utf-8")
    assert Adaptation.from_json(text) == found
    values = json.loads(text)
    assert values["chosen"] == found.chosen
    assert str(root) not in text, "a path of this machine"
    shares = [row["after"] for row in values["changes"]]
    assert sum(shares) == pytest.approx(1)


def test_an_item_of_every_list_is_of_the_target(world: tuple[Path, Adaptation]):
    root, found = world
    ids = {str(path.relative_to(root / "night")) for path in (root / "night").rglob("*.png")}
    assert set(found.shifted.typical.target) <= ids
    assert {item.id for item in found.asked} <= ids
    assert len({item.id for item in found.asked}) == len(found.asked) == 100


def test_the_verb_shift_measures_labelled_data_and_model_folders_alike(world: tuple[Path, Adaptation]):
    root, found = world
    common = ["--store", str(root / "store"), "--device", "cpu", "--threads", "1"]
    runner = CliRunner()
    of_model = runner.invoke(
        app, ["shift", str(root / "model"), str(root / "night"), "-o", str(root / "a"), *common]
    )
    assert of_model.exit_code == 0, of_model.output
    assert "appearance shift" in of_model.output
    of_data = headstart.shift(
        root / "day", root / "night", encoder="tiny-cnn", output=root / "b", machine=machine(root)
    )
    assert of_data.measured is not None and found.shifted.measured is not None
    assert of_data.measured.kind == "appearance"
    assert of_data.measured.num_source == found.shifted.measured.num_source
    for folder in ("a", "b"):
        assert json.loads((root / folder / "shift.json").read_text(encoding="utf-8"))["num_target"] > 0
        assert "Appearance shift" in (root / folder / "shift.html").read_text(encoding="utf-8")


def test_a_map_draws_every_item_and_classes_beyond_the_colours_share_one():
    points = tuple((float(x), float(y)) for x, y in np.random.default_rng(0).normal(size=(20, 2)))
    answers = tuple(range(20))
    drawn = draw_map(Sketch(points, points, answers), [f"<{n}>" for n in range(20)], name="Before")
    assert drawn.count('class="from"') == 20
    assert len(re.findall(r'class="to k\d"', drawn)) == 20
    assert "&lt;3&gt;" in drawn and "<3>" not in drawn
    assert colour(19) == colour(MOST_COLOURS - 1) != colour(0)
    assert draw_map(Sketch((), (), ()), [], name="nothing") == ""
