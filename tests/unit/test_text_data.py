"""Tables, folders, CoNLL files and lists of texts become datasets; what was guessed is said, what is bad is refused."""

# ruff: noqa: RUF001 - letters of other alphabets are what is tested

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from headstart.core.errors import DataError
from headstart.core.settings import Source, Split
from headstart.core.types import Finding
from headstart.data import TableDataset, from_memory, from_texts, open_dataset, require_targets
from headstart.data.splits import split
from headstart.data.tagged import as_bio
from headstart.data.unlabelled import open_inputs
from headstart.modalities.encodings import decoded
from headstart.modalities.text import words

ROWS = [("A fine day, really", "good"), ("It broke\nafter a week", "bad"), ('He said "no"', "bad")]


def opened(path: Path, content: str | bytes = "", **settings: Any) -> TableDataset:
    """Write a file, if there is something to write, and open it."""
    if content:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return open_dataset(Source(uri=str(path), **settings))


def note(data: TableDataset, code: str) -> Finding:
    (found,) = (finding for finding in data.notes if finding.code == code)
    return found


def quoted(separator: str) -> str:
    """Write ROWS as a spreadsheet does."""
    lines = [separator.join('"' + cell.replace('"', '""') + '"' for cell in row) for row in ROWS]
    return "\r\n".join([separator.join(("Text", "Label")), *lines]) + "\r\n"


# Tables


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
def test_a_table_reads_the_same_in_every_dialect(tmp_path: Path, separator: str, encoding: str) -> None:
    data = opened(tmp_path / "reviews.csv", quoted(separator).encode(encoding))
    assert list(zip(data.inputs, data.targets, strict=True)) == ROWS
    assert (data.modality, data.task, data.labels) == ("text", "classification", ("bad", "good"))
    assert data.ids == ["row 2", "row 3", "row 4"]
    assert "text = 'Text', label = 'Label'" in note(data, "columns-guessed").message


def test_json_lines_parquet_and_gzip_read_as_csv_does(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in ROWS)
    texts, labels = zip(*ROWS, strict=True)
    parquet.write_table(pyarrow.table({"text": texts, "label": labels}), tmp_path / "a.parquet")
    for data in (
        opened(tmp_path / "a.jsonl", lines),
        opened(tmp_path / "a.jsonl.gz", gzip.compress(lines.encode())),
        opened(tmp_path / "a.csv.gz", gzip.compress(quoted(",").encode())),
        opened(tmp_path / "a.parquet"),
    ):
        assert list(zip(data.inputs, data.targets, strict=True)) == ROWS


def test_roles_of_columns_are_taken_by_their_names(tmp_path: Path) -> None:
    text = "id,review,sentiment,split,speaker,domain\n1,fine,pos,dev,ann,books\n2,poor,neg,TEST,bob,films\n"
    data = opened(tmp_path / "t.csv", text)
    assert (data.inputs, data.targets) == (["fine", "poor"], ["pos", "neg"])
    assert (data.splits, data.groups, data.domains) == (
        ["validation", "test"],
        ["ann", "bob"],
        ["books", "films"],
    )


def test_columns_without_known_names_are_known_by_what_they_hold(tmp_path: Path) -> None:
    rows = "".join(
        f"{number},the {number}th thing that they wrote,{'xy'[number % 2]}\n" for number in range(6)
    )
    data = opened(tmp_path / "t.csv", "what,utterance,how\n" + rows, label_column="how")
    assert data.inputs[1] == "the 1th thing that they wrote"
    assert "text = 'utterance'" in note(data, "columns-guessed").message
    only = opened(
        tmp_path / "u.csv", "utterance,how\n" + "".join(f"good to know {n},{n % 2}\n" for n in range(6))
    )
    assert only.labels == ("0", "1")
    assert "label = 'how'" in note(only, "columns-guessed").message


def test_a_table_of_texts_may_have_a_column_of_file_names(tmp_path: Path) -> None:
    data = opened(tmp_path / "t.csv", "file,text,label\nscan1.pdf,a text,x\nscan2.pdf,another,y\n")
    assert data.inputs == ["a text", "another"]
    (tmp_path / "one.txt").write_text("from a file")
    assert opened(tmp_path / "u.csv", "file,label\none.txt,x\n").inputs == [tmp_path / "one.txt"]


def test_a_table_without_a_header_is_told(tmp_path: Path) -> None:
    text = "I like it,good\n" + "".join(
        f"number {number},{'good' if number % 2 else 'bad'}\n" for number in range(6)
    )
    with pytest.raises(DataError, match=r"its first row looks like data[^$]*add a row of names"):
        opened(tmp_path / "t.csv", text)


def test_a_folder_of_split_tables_is_one_dataset(tmp_path: Path) -> None:
    for name, label in (("train", "a"), ("dev", "b"), ("test", "a")):
        (tmp_path / f"{name}.csv").write_text(f"text,label\none of {name},{label}\ntwo of {name},b\n")
    data = opened(tmp_path)
    assert [data.splits.count(name) for name in ("train", "validation", "test")] == [2, 2, 2]
    assert data.ids[0] == "dev.csv row 2"
    assert "dev.csv = validation" in note(data, "splits-from-files").message
    (tmp_path / "test.csv").write_text("text,class\none,a\n")
    with pytest.raises(DataError, match=r"test\.csv has the columns text, class"):
        opened(tmp_path)


def test_rows_without_a_label_are_unlabelled_and_train_only(tmp_path: Path) -> None:
    rows = "".join(f"text {number},{('a', 'b', '')[number % 3]}\n" for number in range(60))
    data = opened(tmp_path / "t.csv", "text,label\n" + rows)
    assert [data.targets.count(None), data.labels] == [20, ("a", "b")]
    splits = split(data, Split(), seed=0)
    assert {name for name, target in zip(splits, data.targets, strict=True) if target is None} == {"train"}


def test_separators_of_lines_inside_texts_end_no_row(tmp_path: Path) -> None:
    data = opened(tmp_path / "t.csv", "text,label\none\u2028two\x0cthree\x85four,x\nfive,y\n")
    assert data.inputs[0] == "one\u2028two\x0cthree\x85four"
    lines = '{"text": "one\u2028two", "label": "x"}\n{"text": "three", "label": "y"}\n'
    assert opened(tmp_path / "t.jsonl", lines).inputs == ["one\u2028two", "three"]


# What labels mean


def labelled(tmp_path: Path, labels: list[str], **settings: Any) -> TableDataset:
    rows = "".join(f'text {number},"{label}"\n' for number, label in enumerate(labels))
    return opened(tmp_path / "t.csv", "text,label\n" + rows, **settings)


def test_floats_that_are_whole_are_classes_and_the_other_reading_is_named(tmp_path: Path) -> None:
    data = labelled(tmp_path, ["1.0", "2.0", "10.0", "1.0", ""])
    assert (data.task, data.labels, data.targets) == (
        "classification",
        ("1", "2", "10"),
        ["1", "2", "10", "1", None],
    )
    found = note(data, "labels-as-floats")
    assert "taken for 3 classes" in found.message
    assert "data.task=regression" in found.action


@pytest.mark.parametrize("labels", [["0.5", "1", "2.25"], ["1,5", "2", "-3,25"], ["1e-3", ".5", "2."]])
def test_fractions_are_numbers_to_predict_and_the_other_reading_is_named(
    tmp_path: Path, labels: list[str]
) -> None:
    data = labelled(tmp_path, labels)
    assert (data.task, data.labels) == ("regression", ())
    assert data.targets[1] == float(labels[1])
    assert "data.task=classification" in note(data, "task-guessed").action
    classes = labelled(tmp_path, labels, task="classification")
    assert (classes.task, len(classes.labels)) == ("classification", 3)


def test_many_whole_numbers_are_classes_only_where_they_count_up(tmp_path: Path) -> None:
    assert labelled(tmp_path, [str(number) for number in range(77)]).task == "classification"
    assert labelled(tmp_path, [str(number**2) for number in range(77)]).task == "regression"
    assert labelled(tmp_path, [str(number**2) for number in range(9)]).task == "classification"


def test_the_setting_decides_what_labels_are(tmp_path: Path) -> None:
    grades = labelled(tmp_path, ["1", "2", "3", "2"], task="regression")
    assert (grades.task, grades.targets) == ("regression", [1.0, 2.0, 3.0, 2.0])
    with pytest.raises(DataError, match=r"t\.csv row 3 has the label 'two'[^$]*data\.task=classification"):
        labelled(tmp_path, ["1", "two"], task="regression")
    assert labelled(tmp_path, ["007", "12"]).labels == ("007", "12")


def test_fields_of_several_labels_are_divided_and_said(tmp_path: Path) -> None:
    data = labelled(tmp_path, ["red|round", "red", "blue | round|", ""])
    assert (data.task, data.labels) == ("multilabel", ("blue", "red", "round"))
    assert data.targets == [("red", "round"), ("red",), ("blue", "round"), None]
    assert (
        "'red|round'" in note(data, "task-guessed").message or "'blue" in note(data, "task-guessed").message
    )
    whole = labelled(tmp_path, ["Law; Order", "Sports", "Law; Order"])
    assert (whole.task, whole.labels) == ("classification", ("Law; Order", "Sports"))


def test_lists_of_labels_are_read_from_every_kind_of_table(tmp_path: Path) -> None:
    wanted = [("a", "b"), (), ("b",)]
    lists = [list(row) for row in wanted]
    parquet.write_table(pyarrow.table({"text": ["1", "2", "3"], "labels": lists}), tmp_path / "t.parquet")
    lines = "".join(json.dumps({"text": str(row), "labels": row}) + "\n" for row in lists)
    cells = "text,labels\n" + "".join(f'x,"{row}"\n' for row in lists)
    for data in (
        opened(tmp_path / "t.parquet"),
        opened(tmp_path / "t.jsonl", lines),
        opened(tmp_path / "t.csv", cells),
    ):
        assert (data.task, data.targets, data.labels) == ("multilabel", wanted, ("a", "b"))


def test_columns_of_yes_and_no_are_labels(tmp_path: Path) -> None:
    text = "id,comment_text,toxic,insult\n7,you,1,0\n8,they,0,0\n9,we,TRUE,yes\n10,it,,\n"
    data = opened(tmp_path / "t.csv", text)
    assert (data.task, data.targets) == ("multilabel", [("toxic",), (), ("toxic", "insult"), None])
    assert "labels = 'toxic, insult'" in note(data, "columns-guessed").message
    chosen = opened(tmp_path / "t.csv", label_column="insult,toxic")
    assert chosen.targets == [("toxic",), (), ("insult", "toxic"), None]
    with pytest.raises(DataError, match=r"t\.csv row 2 says 'maybe' of the label 'toxic'"):
        opened(tmp_path / "t.csv", text.replace("you,1", "you,maybe"), label_column="toxic,insult")


def test_what_nothing_can_be_learnt_from_is_refused_by_task() -> None:
    for targets, task, said in (
        ([None, None], None, "no labelled item"),
        (["a", "a"], None, "only one class, 'a'"),
        ([1.5, 1.5], "regression", "only one number"),
        ([[], []], None, "no item with a label"),
    ):
        with pytest.raises(DataError, match=said):
            require_targets(from_texts(["one", "two"], targets, task=task))
    with pytest.raises(DataError, match="no tagged word"):
        require_targets(from_texts([("a", "b")], [("O", "O")], task="tagging"))


# In memory


def test_texts_in_memory_with_every_kind_of_target() -> None:
    assert from_texts(["a", "b"], ["x", None]).targets == ["x", None]
    assert from_texts(["a", "b"], np.array([1, 0])).targets == ["1", "0"]
    assert from_texts(["a", "b"], [0.5, float("nan")]).targets == [0.5, None]
    assert from_texts(["a", "b"], [["x", "y"], []]).targets == [("x", "y"), ()]
    assert from_texts(["a", "b"], [1, 2], task="regression").targets == [1.0, 2.0]
    assert from_texts([None, float("nan"), 3], ["x", "y", "x"]).inputs == ["", "", "3"]  # type: ignore[list-item]
    tagged = from_memory([["Ann", "left"], ("We", "did")], [["B-PER", "O"], None])
    assert (tagged.task, tagged.targets) == ("tagging", [("B-PER", "O"), None])
    assert from_memory(["a"], ["x"]).modality == "text"
    assert from_memory([np.zeros((4, 4))], ["x"]).modality == "image"


def test_arguments_of_other_lengths_are_named() -> None:
    with pytest.raises(DataError, match="targets has 1 values for 2 texts"):
        from_texts(["a", "b"], ["x"])
    with pytest.raises(DataError, match="groups has 1 values for 2 texts"):
        from_texts(["a", "b"], ["x", "y"], groups=["g"])
    with pytest.raises(DataError, match="two texts have the id 'n'"):
        from_texts(["a", "b"], ["x", "y"], ids=["n", "n"])


# Folders of text files


def test_class_folders_of_text_files(tmp_path: Path) -> None:
    for name in ("train/pos/1.txt", "train/neg/2.txt", "test/pos/3.txt", "test/neg/4.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"this is {name}")
    (tmp_path / "train" / "pos" / "logo.png").write_bytes(b"no text")
    data = opened(tmp_path)
    assert (data.modality, data.labels, len(data)) == ("text", ("neg", "pos"), 4)
    assert sorted(set(map(str, data.splits))) == ["test", "train"]
    assert "no texts by their name" in note(data, "not-a-text").message


# CoNLL


CONLL = "-DOCSTART- -X- O O\n\nEU NNP B-NP I-ORG\nrejects VBZ B-VP O\n\nPeter NNP B-NP I-PER\nBlack NNP I-NP I-PER\n"


def test_conll_files_with_documents_and_several_columns(tmp_path: Path) -> None:
    data = opened(tmp_path / "a.conll", CONLL + "\n-DOCSTART- -X- O O\n\nBonn NNP B-NP I-LOC\n")
    assert data.inputs == [("EU", "rejects"), ("Peter", "Black"), ("Bonn",)]
    assert data.targets == [("B-ORG", "O"), ("B-PER", "I-PER"), ("B-LOC",)]
    assert len(set(data.groups)) == 2
    assert data.groups[0] == data.groups[1]
    assert data.ids == ["a.conll:3", "a.conll:6", "a.conll:11"]
    assert data.labels == ("O", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-PER", "I-PER")
    assert "scheme IOB1: 3 texts" in note(data, "tag-scheme").message


@pytest.mark.parametrize(
    ("tags", "wanted"),
    [
        ("I-A I-A B-A O I-B", "B-A I-A B-A O B-B"),  # IOB1
        ("B-A I-A B-A O B-B", "B-A I-A B-A O B-B"),  # IOB2
        ("B-A E-A S-A O S-B", "B-A I-A B-A O B-B"),  # BIOES
        ("B-A L-A U-A O U-B", "B-A I-A B-A O B-B"),  # BILOU
        ("I-A I-B O I-B E-B", "B-A B-B O B-B I-B"),
    ],
)
def test_every_scheme_of_tags_becomes_bio(tags: str, wanted: str) -> None:
    assert as_bio(tags.split()) == tuple(wanted.split())


def test_broken_bio_is_not_called_iob1(tmp_path: Path) -> None:
    data = opened(tmp_path / "a.conll", "a B-X\nb O\nc I-X\n")
    assert "some spans begin with I-" in note(data, "tag-scheme").message
    assert data.targets == [("B-X", "O", "B-X")]


def test_a_folder_of_conll_files_brings_its_splits(tmp_path: Path) -> None:
    for name in ("eng.train", "eng.testa", "eng.testb"):
        (tmp_path / name).write_text(f"{name} B-X\n")
    (tmp_path / "README.md").write_text("about these files")
    data = opened(tmp_path)
    assert dict(zip([words[0] for words in data.inputs], data.splits, strict=True)) == {  # type: ignore[index]
        "eng.train": "train",
        "eng.testa": "validation",
        "eng.testb": "test",
    }
    plain = tmp_path / "plain"
    plain.mkdir()
    for name in ("train.txt", "test.txt"):
        (plain / name).write_text("Ann B-PER\nleft O\n\nBob B-PER\n")
    assert opened(plain).task == "tagging"
    assert opened(plain / "test.txt").task == "tagging"


def test_words_may_be_signs_that_look_like_line_ends(tmp_path: Path) -> None:
    data = opened(tmp_path / "a.conll", "a\u00a0b\tO\n\u2028\tO\n\tO\nAnn\tB-PER\r\n")
    assert data.inputs == [("a\u00a0b", "_", "_", "Ann")]


def test_tables_of_words_and_tags(tmp_path: Path) -> None:
    rows = [
        {"tokens": ["Ann", "left"], "ner_tags": ["I-PER", "O"], "split": "train", "domain": "news"},
        {"tokens": ["Bonn"], "ner_tags": ["I-LOC"], "split": "dev", "domain": "mail"},
    ]
    data = opened(tmp_path / "t.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert (data.task, data.targets) == ("tagging", [("B-PER", "O"), ("B-LOC",)])
    assert (data.splits, data.domains) == (["train", "validation"], ["news", "mail"])
    assert "words = 'tokens', tags = 'ner_tags'" in data.notes[0].message


# Encodings


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "Je n’ai pas aimé — trop cher, à éviter\n"),
        ("cp1252", "Não funciona, as ações são péssimas\n"),
        ("cp1250", "Příliš žluťoučký kůň úpěl\n"),
        ("cp1250", "Nagyon jó minőségű termék\n"),
        ("cp1254", "Hiç beğenmedim, şişe kırık geldi\n"),
        ("cp1251", "Очень хороший товар, рекомендую\n"),
        ("koi8_r", "Очень хороший товар, рекомендую\n"),
        ("cp1253", "Πολύ καλό προϊόν, μου άρεσε. Δεν ήρθε ποτέ και κανείς δεν απάντησε στο τηλέφωνο\n"),
        ("cp1255", "מוצר טוב מאוד, אהבתי. לא הגיע בכלל ואף אחד לא ענה לטלפון של החברה\n"),
        ("cp1256", "منتج جيد جدا لم يعجبني\n"),
        ("cp932", "とても良い商品です。また買います。\n"),
        ("gb18030", "这个产品很好，我非常喜欢它的设计。\n"),
        ("cp949", "정말 좋은 제품입니다. 추천합니다.\n"),
        ("utf-16-le", "Plain English in UTF-16 without a mark\n"),
    ],
)
def test_the_encoding_is_told_by_the_letters(encoding: str, text: str) -> None:
    found, name = decoded((text * 3).encode(encoding), "file")
    assert found == text * 3
    assert name == encoding


# To predict


def test_texts_files_folders_and_tables_are_listed_to_predict(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("first")
    (tmp_path / "rows.csv").write_text("name,body\nx,second\ny,third\n")
    (tmp_path / "lines.jsonl").write_text('{"note": "fourth of them all", "n": 1}\n')
    (tmp_path / "words.jsonl").write_text('{"tokens": ["a", "b"]}\n')
    given = [
        "a text",
        "and/or",
        tmp_path / "one.txt",
        tmp_path / "rows.csv",
        tmp_path / "lines.jsonl",
        ("w", "x"),
    ]
    data = open_inputs([*given, tmp_path / "words.jsonl"], modality="text")
    texts = [
        "a text",
        "and/or",
        tmp_path / "one.txt",
        "second",
        "third",
        "fourth of them all",
        ("w", "x"),
        ("a", "b"),
    ]
    assert data.inputs == texts
    assert data.ids[3:6] == ["rows.csv row 2", "rows.csv row 3", "lines.jsonl row 1"]
    named = open_inputs([tmp_path / "rows.csv"], modality="text", source=Source(text_column="name"))
    assert named.inputs == ["x", "y"]
    with pytest.raises(DataError, match="is not there"):
        open_inputs([tmp_path / "none.txt"], modality="text")
    with pytest.warns(UserWarning, match="is taken for a text"):
        open_inputs([str(tmp_path / "one.txt")], modality="text")


def test_paths_in_a_table_are_listed_to_predict(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "t.csv").write_text("path,other\na.png,1\n")
    assert open_inputs([tmp_path / "t.csv"]).inputs == [tmp_path / "a.png"]


# Words


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("It's 3.5, e-mail!", ["It", "'", "s", "3", ".", "5", ",", "e", "-", "mail", "!"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("Zoe\u0308 cafe\u0301", ["Zoe\u0308", "cafe\u0301"]),
        ("今天OK", ["今", "天", "OK"]),
        ("👩\u200d👩\u200d👧👍🏽🇩🇪", ["👩\u200d👩\u200d👧", "👍🏽", "🇩🇪"]),
        ("نَص عربي", ["نَص", "عربي"]),
    ],
)
def test_marks_and_joined_signs_stay_with_their_word(text: str, wanted: list[str]) -> None:
    found = words(text)
    assert [word for word, _, _ in found] == wanted
    assert all(text[start:end] == word for word, start, end in found)
