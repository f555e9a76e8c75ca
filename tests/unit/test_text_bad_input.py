"""What people give by mistake as texts: each ends in an error that names file and row, or is left out and named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_parts import machine

from headstart import api
from headstart.core.errors import DataError, EncoderError
from headstart.core.types import Audit, SpansPrediction
from headstart.data import from_texts
from headstart.result import Result

GOOD, BAD = ("glad", "fine", "bright", "warm"), ("sad", "broken", "grim", "cold")


def sentence(number: int) -> str:
    """Return a text of its own whose words say its class."""
    draw = np.random.default_rng(number)
    mood = (GOOD, BAD)[number % 2]
    return " ".join([*draw.choice(mood, 2), *draw.choice([f"w{letter}" for letter in "abcdefghijklmnop"], 9)])


def rows(count: int = 40) -> list[tuple[str, str]]:
    return [(sentence(number), ("good", "bad")[number % 2]) for number in range(count)]


def table(root: Path, content: list[tuple[Any, Any]], name: str = "reviews.jsonl") -> Path:
    """Write texts with labels as JSON lines."""
    path = root / name
    path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in content))
    return path


def fit(root: Path, data: Any, **values: Any) -> Result:
    """Fit a tiny network with its store and output under `root`."""
    given = {"encoder": "tiny-text-transformer", "method": "extract", "output": root / "model", **values}
    return api.fit(data, machine=machine(root), **given)


def audit(root: Path, data: Any) -> Audit:
    return api.audit(data, machine=machine(root))


def conll(root: Path, text: str, name: str = "train.conll") -> Path:
    path = root / name
    path.write_text(text, encoding="utf-8")
    return path


# Tagged texts


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "Ann\tB-PER\nleft\n",
            r"train\.conll line 2 has 1 columns[^$]*expected: 2[^$]*fix: correct the line",
        ),
        ("Ann NNP B-PER\n\nleft\tVBD\tO\tx\n", r"train\.conll line 3 has 4 columns[^$]*expected: 3"),
        ("Ann\nleft\n", r"train\.conll line 1 has 1 columns[^$]*a word first, its tag last"),
        ("Ann B-PER\nleft PER-B\n", r"train\.conll line 2 has the tag 'PER-B'[^$]*such as B-PER"),
        ("Ann 3\nleft 0\n", r"line 1 has the tag '3'[^$]*names of the tags instead of their numbers"),
        ("Ann B-\n", r"line 1 has the tag 'B-'"),
        ("\n\n", r"train\.conll holds no words"),
        ("Ann O\nleft O\n", "no tagged word"),
    ],
)
def test_a_broken_conll_file_is_refused_by_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        fit(tmp_path, conll(tmp_path, text))
    assert not (tmp_path / "model").exists()


def test_another_number_of_tags_than_words_is_refused_by_row(tmp_path: Path) -> None:
    path = tmp_path / "entities.jsonl"
    path.write_text('{"tokens": ["a", "b"], "tags": ["O", "B-X"]}\n{"tokens": ["a", "b"], "tags": ["O"]}\n')
    with pytest.raises(
        DataError, match=r"entities\.jsonl row 2 has 2 words and 1 tags[^$]*a tag for each word"
    ):
        fit(tmp_path, path)
    with pytest.raises(DataError, match=r"targets\[1\] has 1 words and 2 tags"):
        fit(tmp_path, ([("a", "b"), ("c",)], [("O", "B-X"), ("O", "O")]))


def test_an_unknown_tag_in_a_table_is_refused_by_row(tmp_path: Path) -> None:
    path = tmp_path / "entities.jsonl"
    path.write_text('{"tokens": ["a", "b"], "tags": ["O", "B-X"]}\n{"tokens": ["a"], "tags": ["X"]}\n')
    with pytest.raises(DataError, match=r"entities\.jsonl row 2 has the tag 'X'"):
        fit(tmp_path, path)


def test_an_unknown_tag_to_score_names_those_that_the_model_has(tmp_path: Path) -> None:
    lines = "".join(f"w{number} O\n{'Ann' if number % 2 else 'Bo'} B-PER\nw O\n\n" for number in range(30))
    result = fit(tmp_path, conll(tmp_path, lines))
    with pytest.raises(DataError, match="B-LOC"):
        api.evaluate(result.folder, conll(tmp_path, "Bonn B-LOC\n", "b.conll"), machine=machine(tmp_path))


# Texts that are none


@pytest.mark.parametrize("nothing", ["", "   ", None, float("nan"), "\u200b \n"])
def test_missing_texts_are_left_out_and_named(tmp_path: Path, nothing: Any) -> None:
    content = rows()
    texts: list[Any] = [text for text, _ in content]
    texts[5] = nothing
    result = fit(tmp_path, (texts, [label for _, label in content]))
    (finding,) = result.audit.by_code("empty-text")
    assert finding.items == ("5",)


def test_a_text_of_a_megabyte_is_left_out_with_the_setting_that_allows_it(tmp_path: Path) -> None:
    content = [*rows(), ("long " * 200_000, "good")]
    (finding,) = audit(tmp_path, table(tmp_path, content)).by_code("oversized")
    assert finding.items == ("row 41",)
    assert "1,000,000 characters" in finding.message
    with pytest.raises(DataError, match=r"row 1: 1,000,000 characters[^$]*data\.max_bad"):
        fit(tmp_path, table(tmp_path, [("long " * 200_000, "good"), ("long. " * 200_000, "bad")]))


def test_a_text_of_a_megabyte_can_be_predicted_by_none(tmp_path: Path) -> None:
    result = fit(tmp_path, table(tmp_path, rows()))
    with pytest.warns(UserWarning, match=r"text 1: a text is oversized: 1,000,000 characters"):
        found = api.predict(result.folder, ["glad", "long " * 200_000], machine=machine(tmp_path))
    assert [row.id for row in found] == ["text 0"]


def test_null_bytes_are_refused_with_their_place(tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    path.write_bytes(b"text,label\nfine,good\nbro\0ken,bad\n")
    with pytest.raises(DataError, match=r"reviews\.csv cannot be read: it holds a NUL byte at 24 \(line 3\)"):
        fit(tmp_path, path)
    content = [*rows(), ("a\0b", "good")]
    (finding,) = audit(tmp_path, table(tmp_path, content)).by_code("not-a-text")
    assert finding.items == ("row 41",)


def test_a_few_wrong_bytes_in_utf8_are_refused_by_line_and_not_guessed(tmp_path: Path) -> None:
    good = "".join(f"tr\u00e8s bien \u00e7a {number},{number % 2}\n" for number in range(40))
    path = tmp_path / "reviews.csv"
    path.write_bytes(b"text,label\n" + good.encode() + b"d\xe9j\xe0,1\n")
    with pytest.raises(DataError, match=r"UTF-8 but for 2 bytes, the first in line 42[^$]*save it as UTF-8"):
        fit(tmp_path, path)


def test_a_file_that_is_no_text_at_all(tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    path.write_bytes(np.random.default_rng(0).bytes(4000))
    with pytest.raises(DataError, match=r"reviews\.csv cannot be read"):
        fit(tmp_path, path)
    path = tmp_path / "reviews.csv.gz"
    path.write_bytes(b"not gzip")
    with pytest.raises(DataError, match=r"reviews\.csv\.gz cannot be read[^$]*expected: a gzip file"):
        fit(tmp_path, path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"text": "a", "label": }', r"reviews\.jsonl line 2 is not JSON"),
        ('["a", "b"]', r"reviews\.jsonl line 2 holds a list[^$]*one object a line"),
    ],
)
def test_broken_json_lines_are_refused_by_line(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "reviews.jsonl"
    path.write_text('{"text": "a", "label": "x"}\n' + line + "\n")
    with pytest.raises(DataError, match=said):
        fit(tmp_path, path)


def test_a_row_with_an_unquoted_separator_is_refused_by_row(tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    path.write_text("text,label\nfine,good\nbroken, sadly,bad\n")
    with pytest.raises(DataError, match=r"reviews\.csv row 3 has 3 values[^$]*quote values"):
        fit(tmp_path, path)


# Texts from which nothing can be learnt


def test_texts_that_are_all_the_same(tmp_path: Path) -> None:
    data = table(tmp_path, [("the same text again", ("good", "bad")[number % 2]) for number in range(40)])
    found = audit(tmp_path, data)
    assert found.by_code("exact-duplicate")
    assert found.by_code("conflicting-labels")
    with pytest.raises(DataError, match=r"all 40 texts are the same[^$]*check which column holds the texts"):
        fit(tmp_path, data)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_one_two_or_three_texts(tmp_path: Path, count: int) -> None:
    with pytest.raises(DataError, match=r"only one class|would be empty"):
        fit(tmp_path, table(tmp_path, rows(count)))


def test_floats_that_were_meant_as_classes_are_classes(tmp_path: Path) -> None:
    content = [(text, float(label == "good")) for text, label in rows()]
    result = fit(tmp_path, table(tmp_path, content))
    assert result.plan.task == "classification"
    assert result.plan.labels == ("0", "1")


def test_a_number_among_classes_or_a_word_among_numbers(tmp_path: Path) -> None:
    content: list[tuple[str, Any]] = [(text, number / 3) for number, (text, _) in enumerate(rows())]
    content[7] = (content[7][0], "unknown")
    with pytest.raises(
        DataError, match=r"reviews\.jsonl row 8 has the label 'unknown'[^$]*data\.task=classification"
    ):
        fit(tmp_path, table(tmp_path, content), settings={"data.task": "regression"})


# Letters that fall apart


def test_emoji_and_combining_characters_keep_their_words_whole(tmp_path: Path) -> None:
    names = [
        "Zo\u0065\u0308",
        "\U0001f469\u200d\U0001f469\u200d\U0001f467",
        "\u0939\u093f\u0928\u094d\u0926\u0940",
    ]
    lines = "".join(f"w{number} O\n{names[number % 3]} B-PER\n\U0001f600 O\n\n" for number in range(36))
    result = fit(tmp_path, conll(tmp_path, lines))
    text = f"w1 {names[0]} \U0001f600 {names[1]} {names[2]}!"
    (found,) = api.predict(result.folder, [text], machine=machine(tmp_path))
    assert isinstance(found, SpansPrediction)
    assert found.spans
    whole = found.text.split()
    for span in found.spans:
        assert found.text[span.start : span.end] == span.text
        # No span begins or ends inside a word, whatever its tokens were.
        for word in span.text.split():
            assert any(word in (other, other.rstrip("!"), "!") for other in whole)


def test_texts_of_emoji_alone_are_texts(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    faces = [[chr(0x1F600 + 20 * side + number) for number in range(20)] for side in (0, 1)]
    content = [
        ("".join(draw.choice(faces[number % 2], 12)), ("good", "bad")[number % 2]) for number in range(40)
    ]
    result = fit(tmp_path, table(tmp_path, content))
    assert result.audit.num_kept == 40


# Networks


def test_a_local_folder_without_a_tokenizer(tmp_path: Path) -> None:
    folder = tmp_path / "network"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 16}))
    with pytest.raises(EncoderError, match="tokenizer"):
        fit(tmp_path, table(tmp_path, rows()), encoder=f"transformers:{folder}")


def test_a_network_for_pictures_on_texts(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"network for image, the data are text[^$]*minilm"):
        fit(tmp_path, table(tmp_path, rows()), encoder="tiny-cnn")


def test_many_unreadable_texts_are_refused_with_the_first_ten(tmp_path: Path) -> None:
    data = from_texts(
        ["" if number < 15 else sentence(number) for number in range(40)], [label for _, label in rows()]
    )
    with pytest.raises(DataError, match=r"15 of 40 items cannot be read[^$]*and 5 more"):
        fit(tmp_path, data)


def test_an_error_about_a_table_names_the_table(tmp_path: Path) -> None:
    table = tmp_path / "one.csv"
    table.write_text("text,label\nfirst,a\nsecond,a\n")
    with pytest.raises(DataError, match=r"one\.csv has only one class"):
        api.plan(str(table), machine=machine(tmp_path))
