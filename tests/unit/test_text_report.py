# ruff: noqa: RUF001 - letters of other alphabets are what is tested
"""The report of a run on texts shows them as they are written, says why the model answered, and speaks of texts."""

from __future__ import annotations

import html
import json
import re
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
import torch
from picture_parts import machine

from headstart import api
from headstart.data import TableDataset, from_texts
from headstart.model import load_model
from headstart.report.attribution import word_weights
from headstart.report.texts import SHORT, safe
from headstart.result import Result

GOOD, BAD = ("glad", "fine", "bright", "warm"), ("sad", "broken", "grim", "cold")
OTHERS = {
    0: "منتج رائع جدا glad",
    1: "מוצר גרוע מאוד sad",
    2: "这个产品非常好 glad",
    3: "बहुत खराब 😡 sad",
}


def sentence(number: int, length: int = 9) -> str:
    """Return a text of its own whose words say its class."""
    draw = np.random.default_rng(number)
    mood = (GOOD, BAD)[number % 2]
    return " ".join(
        [*draw.choice(mood, 2), *draw.choice([f"w{letter}" for letter in "abcdefghijklmnop"], length)]
    )


def classes() -> TableDataset:
    """Return texts in many scripts, one of them hostile, one very long; the test split holds all of these."""
    texts = [sentence(number) for number in range(60)]
    texts[:4] = list(OTHERS.values())
    texts[4] = 'glad <script>alert("x")</script> & <b>bold</b> \u202ereversed'
    texts[5] = sentence(5, 400)
    return from_texts(
        texts,
        ["good <&> bad", "bad"] * 30,
        splits=["test" if number < 6 else ("train", "validation")[number % 4 == 3] for number in range(60)],
    )


def numbers() -> TableDataset:
    return from_texts(
        [sentence(number) for number in range(60)], [number % 2 * 2 + number / 100 for number in range(60)]
    )


def labels() -> TableDataset:
    targets = [[("good", "bad")[number % 2], *(["odd"] if number % 3 else [])] for number in range(60)]
    return from_texts([sentence(number) for number in range(60)], targets)


def tags() -> TableDataset:
    words = [
        ("wa", "we", ("Ann", "Bonn")[number % 2], f"x{number}", "\u05d0\u05d1\u05d2") for number in range(60)
    ]
    return from_texts(
        words, [("O", "O", ("B-PER", "B-LOC")[number % 2], "O", "O") for number in range(60)], task="tagging"
    )


DATA = {"classification": classes, "regression": numbers, "multilabel": labels, "tagging": tags}


@cache
def run(task: str) -> tuple[Result, str]:
    """Fit a tiny network to a task's data, once, and return the result and its page."""
    root = Path(mkdtemp())
    result = api.fit(
        DATA[task](),
        encoder="tiny-text-transformer",
        method="extract",
        output=root / "model",
        machine=machine(root),
    )
    return result, (result.folder / "report.html").read_text("utf-8")


def passages(page: str) -> list[str]:
    return re.findall(r"<blockquote[^>]*>(.*?)</blockquote>", page, re.S)


def plain(fragment: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", fragment))


@pytest.mark.parametrize("task", DATA)
def test_the_page_speaks_of_texts_and_never_of_pictures(task: str) -> None:
    result, page = run(task)
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.S)
    assert not re.search(r"\b(pictures?|images?|photos?|Grad-CAM)\b", plain(body))
    assert "<h2>Texts</h2>" in page
    assert 'headstart predict MODEL "A text of your own" more.txt' in plain(body)
    card = (result.folder / "README.md").read_text("utf-8")
    assert not re.search(r"\b(pictures?|photos?)\b", card)
    assert json.loads((result.folder / "report.json").read_text("utf-8"))["task"] == task


@pytest.mark.parametrize("task", DATA)
def test_every_text_finds_its_own_direction(task: str) -> None:
    _, page = run(task)
    assert re.findall(r"<blockquote[^>]*>", page)
    assert all('dir="auto"' in tag for tag in re.findall(r"<blockquote[^>]*>", page))


def test_texts_in_every_script_are_shown_whole() -> None:
    _, page = run("classification")
    shown = [plain(fragment) for fragment in passages(page)]
    for text in OTHERS.values():
        assert text in shown


def test_markup_in_texts_is_shown_and_not_run() -> None:
    _, page = run("classification")
    assert "<script" not in page
    assert "<b>bold" not in page
    (hostile,) = {plain(fragment) for fragment in passages(page) if "alert" in fragment}
    assert hostile == 'glad <script>alert("x")</script> & <b>bold</b> \u301aU+202E\u301breversed'
    assert "good <&> bad" not in page
    assert "good &lt;&amp;&gt; bad" in page


def test_controls_are_seen_and_marks_stay() -> None:
    assert safe("a\x07b\x7f") == "a\u2407b\u2421"
    assert safe("\u2066x\u2069") == "\u301aU+2066\u301bx\u301aU+2069\u301b"
    kept = "می\u200cخواهم 👩\u200d👧 e\u0301 tab\tline\n"
    assert safe(kept) == kept


def test_long_texts_are_shortened_and_open_on_a_click() -> None:
    _, page = run("classification")
    long = sentence(5, 400)
    assert len(long) > SHORT
    assert f"The whole text, {len(long):,} characters" in page
    shown = [plain(fragment).strip("\u2026 ") for fragment in passages(page)]
    assert long in shown
    short = [text for text in shown if text and text in long and text != long]
    assert short
    assert all(len(text) <= SHORT for text in short)


def test_words_that_decided_are_tinted_for_and_against() -> None:
    _, page = run("classification")
    assert re.search(r'<span class="for w\d">(glad|sad|fine|broken|bright|grim|warm|cold)</span>', page)
    assert "Tinted words moved the answer" in page


def test_word_weights_sum_to_what_the_words_changed() -> None:
    result, _ = run("classification")
    model = load_model(result.folder)
    text = sentence(10)
    found = word_weights(model, text.split(), text, column=0)
    assert found.weights is not None
    batch = model.encoder.collate([text])

    def answer(share: float) -> float:
        """Return the log-odds of the first class with the embedded words scaled."""

        def scaled(_module: Any, _inputs: Any, output: Any) -> Any:
            return output * share

        hooks = [module.register_forward_hook(scaled) for module in model.encoder.layer_groups()[0].modules]
        with torch.no_grad():
            outputs = model.head(model.encoder(batch, model.head.form).value)[0]
        for hook in hooks:
            hook.remove()
        return float(outputs[0] - outputs[1])

    moved = answer(1.0) - answer(0.0)
    assert abs(moved) > 0.1
    assert found.weights.sum() == pytest.approx(moved, rel=0.15)
    assert text.split()[int(np.argmax(np.abs(found.weights)))] in GOOD


def test_least_sure_and_confused_texts_have_shelves() -> None:
    _, page = run("multilabel")
    assert "Least sure" in page
    _, page = run("classification")
    assert "<h3>Confusion matrix</h3>" in page
    assert "<h3><bdi>Least sure</bdi></h3>" in page


def test_several_labels_have_a_table_each_and_no_confusion() -> None:
    result, page = run("multilabel")
    for row in result.evaluation.per_class:
        assert f'<th scope="row">{row.label}</th><td class="number">{row.support}</td>' in page
    assert "Confusion matrix" not in page
    assert "Of the texts with this label" in page or "of the texts with this label" in page


def test_numbers_have_a_scatter_and_no_empty_axes() -> None:
    result, page = run("regression")
    assert "<h3>Predicted against true</h3>" in page
    scores = page[page.index('id="scores"') :]
    assert '<span class="ends">' not in scores[: scores.index("</table>")]
    assert page.count('<circle class="dot"') >= len(result.predictions) or "<circle" in scores
    assert "raised the number" in page
    assert "Too high" in page or "Too low" in page


def test_entities_are_coloured_with_their_types_and_a_legend() -> None:
    _, page = run("tagging")
    legend = page[page.index('<p class="legend"><span><span class="entity') :].split("</p>")[0]
    assert "LOC" in legend
    assert "PER" in legend
    tagged = r'<span class="entity t(\d)[^"]*">(\w+)</span><bdi class="tag [^"]*">(PER|LOC)</bdi>'
    found: set[tuple[str, str, str]] = set(re.findall(tagged, page))
    assert found
    for colour, word, kind in found:
        assert {"PER": "Ann", "LOC": "Bonn"}[kind] == word
        assert f'<span class="entity said t{colour}">{kind}</span>' in legend
    assert "What becomes of entities" in page
