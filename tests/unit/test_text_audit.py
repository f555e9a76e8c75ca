"""An audit of texts finds what would spoil a score or mislead a reader, and is silent about sound texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import numpy as np
import pytest

from headstart.core.settings import Source, Split
from headstart.core.types import Finding
from headstart.data import TableDataset, from_texts, open_dataset
from headstart.data.audit import Outcome, audit, inspect
from headstart.data.splits import split
from headstart.data.text_twins import near_texts
from headstart.modalities.text import facts


def sentence(seed: int, words: int = 14) -> str:
    """Return a text of its own."""
    letters = np.random.default_rng(seed).choice([*ascii_lowercase], (words, 6))
    return " ".join("".join(word) for word in letters)


def sound(count: int = 40, **columns: Any) -> TableDataset:
    """Return texts of two classes in which there is nothing to find."""
    texts = [sentence(seed) for seed in range(count)]
    return from_texts(texts, ["ab"[number % 2] for number in range(count)], **columns)


def changed(count: int = 40, /, *, texts: dict[int, Any] | None = None, **columns: Any) -> TableDataset:
    """Return sound texts, some of them exchanged."""
    found: list[Any] = [sentence(seed) for seed in range(count)]
    for row, text in (texts or {}).items():
        found[row] = text
    columns.setdefault("targets", ["ab"[number % 2] for number in range(count)])
    return from_texts(found, **columns)


def examine(data: TableDataset, features: np.ndarray | None = None) -> Outcome:
    source = Source()
    found, failures = inspect(data, settings=source, threads=2)
    return audit(data, found, failures, settings=source, features=features)


def only(outcome: Outcome, code: str) -> Finding:
    (finding,) = outcome.audit.by_code(code)
    return finding


def codes(outcome: Outcome) -> set[str]:
    return {finding.code for finding in outcome.audit.findings}


TAGS = [("O",) * 13 + ("B-X",), ("B-Y", "I-Y", *("O",) * 12)]
SOUND: dict[str, Callable[[], TableDataset]] = {
    "classes": sound,
    "splits": lambda: sound(
        splits=[("train", "test", "validation")[number // 2 % 3] for number in range(40)]
    ),
    "labels": lambda: changed(targets=[(["x"], ["y", "x"], [], ["y"])[number % 4] for number in range(40)]),
    "numbers": lambda: changed(targets=[number / 7 for number in range(40)]),
    "tags": lambda: from_texts(
        [tuple(sentence(seed).split()) for seed in range(40)],
        [TAGS[number % 2] for number in range(40)],
        task="tagging",
    ),
}


@pytest.mark.parametrize("kind", SOUND)
def test_sound_texts_have_no_findings(kind: str) -> None:
    outcome = examine(SOUND[kind]())
    assert outcome.audit.findings == ()
    assert outcome.keep == list(range(40))
    assert outcome.ties == []


def test_empty_texts_are_left_out_and_named() -> None:
    outcome = examine(changed(200, texts={3: ""}))
    finding = only(outcome, "empty-text")
    assert (finding.items, finding.action) == (("3",), "left out")
    assert "1 of 200 items cannot be used: 3: it is empty" in finding.message
    assert 3 not in outcome.keep


def test_exact_copies_stay_together_and_conflicting_labels_are_named() -> None:
    outcome = examine(changed(texts={7: sentence(2), 20: sentence(10)}))
    assert only(outcome, "exact-duplicate").items == ("2", "7", "10", "20")
    assert set(outcome.ties) == {(2, 7), (10, 20)}
    conflict = only(outcome, "conflicting-labels")
    assert conflict.items == ("2", "7")
    assert "2 'a' / 7 'b'" in conflict.message


def test_near_copies_are_found_by_sketch_whatever_their_case_and_spaces() -> None:
    copies = {
        5: sentence(1).upper(),
        8: sentence(4).replace(" ", "  "),
        9: sentence(6, 40).rsplit(" ", 1)[0] + " indeed",
        6: sentence(6, 40),
    }
    outcome = examine(changed(texts=copies))
    assert only(outcome, "near-duplicate").items == ("1", "4", "5", "6", "8", "9")
    assert set(outcome.ties) == {(1, 5), (4, 8), (6, 9)}


def test_texts_that_share_a_few_words_are_no_copies() -> None:
    shared = "the parcel came on "
    outcome = examine(changed(texts={row: shared + sentence(row, 10) for row in range(20)}))
    assert "near-duplicate" not in codes(outcome)


def test_near_copies_with_exchanged_words_are_found_by_embedding() -> None:
    words = sentence(3, 16).split()
    words[4], words[9] = "quarry", "bonnet"
    data = changed(texts={3: sentence(3, 16), 11: " ".join(words)})
    assert "near-duplicate" not in codes(examine(data))
    features = np.random.default_rng(0).normal(size=(40, 32)).astype(np.float32)
    features[11] = features[3] + 0.01
    assert only(examine(data, features), "near-duplicate").items == ("3", "11")
    # Alike to the network alone is no copy.
    features[25] = features[30]
    assert only(examine(data, features), "near-duplicate").items == ("3", "11")


def splits_of(count: int = 40) -> list[str]:
    """Return every fourth item as test, others as train."""
    return ["test" if number % 4 == 3 else "train" for number in range(count)]


def test_training_copies_of_test_texts_are_left_out_exact_and_near() -> None:
    data = changed(texts={0: sentence(3), 4: sentence(7).upper()}, splits=splits_of())
    outcome = examine(data)
    assert only(outcome, "leak-exact").items == ("0",)
    assert only(outcome, "leak-near").items == ("4",)
    assert "train texts are byte-identical to test texts" in only(outcome, "leak-exact").message
    assert [row for row in range(40) if row not in outcome.keep] == [0, 4]


def test_leaks_by_embedding_are_left_out() -> None:
    words = sentence(3, 16).split()
    words[4], words[9] = "quarry", "bonnet"
    data = changed(texts={3: sentence(3, 16), 12: " ".join(words)}, splits=splits_of())
    features = np.random.default_rng(0).normal(size=(40, 32)).astype(np.float32)
    features[12] = features[3] + 0.01
    outcome = examine(data, features)
    assert only(outcome, "leak-near").items == ("12",)
    assert 12 not in outcome.keep
    assert 3 in outcome.keep


def test_planted_near_copies_among_many_are_found_without_comparing_all() -> None:
    texts = [sentence(seed, 30) for seed in range(400)]
    planted = [(seed, 400 + seed) for seed in range(40)]
    texts += [f"{texts[seed]} {'!' * (1 + seed % 3)}" for seed, _ in planted]
    sketches = np.stack([facts(text).sketch for text in texts])
    assert near_texts(sketches, texts) == planted


@pytest.mark.parametrize(
    ("one", "other"),
    [("Positive", "positive"), ("not sure", "not_sure"), ("café", "cafe\u0301"), ("A B", "a-b")],
)
def test_label_names_that_look_alike(one: str, other: str) -> None:
    outcome = examine(changed(targets=[(one, other)[number % 2] for number in range(40)]))
    assert f"'{one}'" in only(outcome, "label-spelling").message


def test_spaces_around_labels_make_no_class_of_their_own(tmp_path: Path) -> None:
    rows = "".join(f"{sentence(number)},{'pos ' if number % 2 else 'pos'}\n" for number in range(6))
    path = tmp_path / "t.csv"
    path.write_text("text,label\n" + rows + "no,neg\n")
    assert open_dataset(Source(uri=str(path))).labels == ("neg", "pos")


def test_rare_misspellings_of_common_labels_are_named() -> None:
    def targets(rare: str, common: str) -> list[str]:
        return [rare if number == 5 else (common, "other")[number % 2] for number in range(60)]

    outcome = examine(changed(60, targets=targets("postive", "positive")))
    assert "'postive' (1) / 'positive' (30)" in only(outcome, "label-typo").message
    assert "label-typo" not in codes(examine(changed(60, targets=targets("grade 1", "grade 2"))))
    assert "label-typo" not in codes(examine(changed(60, targets=targets("negative", "positive"))))


def test_texts_in_several_scripts_are_counted() -> None:
    others = {1: "Очень хороший товар", 2: "Плохой товар", 3: "מוצר טוב מאוד", 5: "とても良い"}
    finding = only(examine(changed(texts=others)), "scripts")
    assert "Latin 36, Cyrillic 2, Hebrew 1" in finding.message
    assert finding.items == ("1", "2", "3", "5")


def test_many_very_short_texts_are_named() -> None:
    outcome = examine(changed(texts={row: chr(97 + row) * 2 for row in range(5)}))
    assert only(outcome, "short-texts").items == ("0", "1", "2", "3", "4")


def test_entity_types_with_few_spans_or_none_in_a_split_are_named() -> None:
    words = [tuple(sentence(seed).split()) for seed in range(40)]
    tags = [TAGS[number % 2] if number != 7 else ("B-Z", *("O",) * 13) for number in range(40)]
    outcome = examine(from_texts(words, tags, task="tagging", splits=splits_of()))
    assert "Z (1)" in only(outcome, "small-class").message
    missing = [finding.message for finding in outcome.audit.by_code("missing-class")]
    assert missing[-1] == "the train split has no span of 1 entity types: Z"
    assert missing[0] == "the test split has no span of 1 entity types: X"


def test_labels_that_few_have_or_all_or_a_split_lacks_are_named() -> None:
    targets = [
        ["all", *(["rare"] if number < 3 else []), *(["odd"] if number % 2 else [])] for number in range(40)
    ]
    outcome = examine(changed(targets=targets, splits=splits_of()))
    assert "rare (3)" in only(outcome, "small-class").message
    assert "every item has the label all" in only(outcome, "constant-label").message
    assert only(outcome, "missing-class").message == "the test split has no item with 1 labels: rare"


def test_numbers_far_from_all_others_are_named() -> None:
    outcome = examine(changed(targets=[1e6 + 0.5 if number == 9 else number / 7 for number in range(40)]))
    assert only(outcome, "number-outlier").items == ("9",)


def test_texts_without_labels_are_kept_for_training_and_never_in_a_score() -> None:
    targets: Sequence[str | None] = [None if number % 5 == 0 else "ab"[number % 2] for number in range(40)]
    data = changed(targets=targets)
    outcome = examine(data)
    assert only(outcome, "missing-label").items == tuple(str(row) for row in range(0, 40, 5))
    assert outcome.keep == list(range(40))
    splits = split(data.subset(outcome.keep), Split(), seed=0, ties=outcome.ties)
    assert {splits[row] for row in range(0, 40, 5)} == {"train"}


def test_an_unlabelled_copy_is_no_conflict_and_follows_its_twin() -> None:
    data = changed(
        texts={5: sentence(2)}, targets=[None if number == 5 else "ab"[number % 2] for number in range(40)]
    )
    outcome = examine(data)
    assert "conflicting-labels" not in codes(outcome)
    assert outcome.ties == [(2, 5)]


def test_files_in_other_encodings_and_garbled_texts_are_named(tmp_path: Path) -> None:
    for number in range(12):
        path = tmp_path / "ab"[number % 2] / f"{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(
            (sentence(number) + " déjà vu, très bien").encode("cp1252" if number < 2 else "utf-8")
        )
    finding = only(examine(open_dataset(Source(uri=str(tmp_path)))), "encoding-guessed")
    assert finding.items == ("a/0.txt", "b/1.txt")
    assert "2 of 12 files are not UTF-8: read as cp1252 (2)" in finding.message
    garbled = examine(changed(texts={4: "a cr\u00c3\u00a8me br\u00c3\u00bbl\u00c3\u00a9e " + sentence(4)}))
    assert only(garbled, "garbled-text").items == ("4",)
    assert "such as 'a cr" in only(garbled, "garbled-text").message
