"""Tags a word: BIO decoding that can only be legal, spans, sub-words, characters, and targets that do not fit."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from picture_parts import context
from seqeval.metrics import f1_score
from seqeval.scheme import IOB2
from text_parts import folder_of

from headstart.core.errors import DataError
from headstart.core.settings import Pretrained
from headstart.core.types import Sample, SpansPrediction
from headstart.data import from_texts
from headstart.data.tagged import from_tags
from headstart.evaluation import softmax
from headstart.evaluation.bio import spans_of, transitions, viterbi
from headstart.evaluation.spans import evaluate_spans
from headstart.model import Model, open_encoder
from headstart.tasks.tagging import IGNORED, Tagging

TAGS = ("O", "B-person", "I-person", "B-place", "I-place")


def legal(path: list[str]) -> bool:
    """Tell whether every I-x follows B-x or I-x."""
    return all(
        not tag.startswith("I-") or (place > 0 and path[place - 1] in (f"B-{tag[2:]}", tag))
        for place, tag in enumerate(path)
    )


def random_probabilities(seed: int, lengths: list[int], count: int, sharpness: float) -> list[np.ndarray]:
    """Return random word probabilities of texts, from nearly even to nearly certain."""
    draws = np.random.default_rng(seed)
    return [softmax(sharpness * draws.normal(size=(length, count))) for length in lengths]


# -- decoding -----------------------------------------------------------------------------------------------------


@given(
    seed=some.integers(0, 2**32 - 1),
    lengths=some.lists(some.integers(0, 12), min_size=1, max_size=6),
    kinds=some.integers(1, 4),
    sharpness=some.sampled_from([0.0, 0.1, 3.0, 300.0]),
    order=some.randoms(),
)
def test_decoding_never_emits_an_illegal_sequence(seed, lengths, kinds, sharpness, order) -> None:
    tags = ["O", *(f"{mark}-{kind}" for kind in range(kinds) for mark in "BI")]
    order.shuffle(tags)
    texts = random_probabilities(seed, lengths, len(tags), sharpness)
    for text, path in zip(texts, viterbi(texts, tags), strict=True):
        assert len(path) == len(text)
        assert legal([tags[index] for index in path])


@given(seed=some.integers(0, 2**32 - 1), length=some.integers(1, 5))
def test_decoding_finds_the_most_probable_legal_sequence(seed: int, length: int) -> None:
    (text,) = random_probabilities(seed, [length], len(TAGS), 2.0)
    logs = np.log(text)

    def weight(path) -> float:
        return float(logs[np.arange(length), list(path)].sum())

    paths = [p for p in product(range(len(TAGS)), repeat=length) if legal([TAGS[index] for index in p])]
    (found,) = viterbi([text], TAGS)
    assert weight(found.tolist()) == pytest.approx(max(map(weight, paths)))


@given(seed=some.integers(0, 2**32 - 1))
def test_a_text_is_decoded_alike_beside_any_others(seed: int) -> None:
    texts = random_probabilities(seed, [3, 0, 9, 1, 3], len(TAGS), 1.0)
    together = viterbi(texts, TAGS)
    for text, path in zip(texts, together, strict=True):
        assert np.array_equal(viterbi([text], TAGS)[0], path)


def test_decoding_stays_legal_where_the_model_is_certain_of_what_is_not() -> None:
    certain = np.zeros((3, 5))
    certain[[0, 1, 2], [2, 4, 2]] = 1  # I-person I-place I-person
    (path,) = viterbi([certain], TAGS)
    assert legal([TAGS[index] for index in path])


def test_which_tags_may_follow_which() -> None:
    starts, follows = transitions(TAGS)
    assert starts.tolist() == [True, True, False, True, False]
    assert [TAGS[index] for index in np.flatnonzero(follows[TAGS.index("B-person")])] == [
        "O", "B-person", "I-person", "B-place",
    ]  # fmt: skip
    assert "I-place" not in [TAGS[index] for index in np.flatnonzero(follows[0])]


def test_spans_are_read_strictly() -> None:
    tags = ["B-person", "I-person", "B-person", "O", "I-place", "B-place", "I-person"]
    assert spans_of(tags) == [(0, 2, "person"), (2, 3, "person"), (5, 6, "place")]


# -- scores -------------------------------------------------------------------------------------------------------


@given(seed=some.integers(0, 2**32 - 1))
def test_span_f1_is_seqeval_s_strict_f1(seed: int) -> None:
    lengths = [5, 1, 8, 3]
    texts = random_probabilities(seed, lengths, len(TAGS), 2.0)
    truth = [
        [TAGS[i] for i in path] for path in viterbi(random_probabilities(seed ^ 1, lengths, 5, 2.0), TAGS)
    ]
    said = [[TAGS[index] for index in path] for path in viterbi(texts, TAGS)]
    found = evaluate_spans(texts, truth, tags=TAGS, resamples=20)
    expected = f1_score(truth, said, mode="strict", scheme=IOB2, zero_division=0)
    assert found.scores[0].name == "span_f1"
    assert found.scores[0].value == pytest.approx(float(expected))
    rows, ids, items = Tagging(TAGS).flatten([np.log(text) for text in texts], list(map(tuple, truth)))
    assert Tagging(TAGS).measure(rows, ids, items)[0] == pytest.approx(float(expected))


def test_every_entity_type_has_its_own_precision_and_recall() -> None:
    truth = [("B-person", "I-person", "O", "B-place"), ("O", "B-place", "O", "O")]
    said = [("B-person", "I-person", "O", "O"), ("O", "B-place", "B-place", "O")]
    texts = [np.eye(5)[[TAGS.index(tag) for tag in row]] for row in said]
    found = Tagging(TAGS).evaluate(texts, truth, domains=None, groups=None, seed=0)
    rows = {row.label: row for row in found.per_class}
    assert set(rows) == {"person", "place"}
    assert (rows["person"].precision, rows["person"].recall) == (1, 1)
    assert (rows["place"].precision, rows["place"].recall) == (0.5, 0.5)


# -- targets ------------------------------------------------------------------------------------------------------


def test_an_unknown_tag_is_named() -> None:
    with pytest.raises(DataError, match="B-animal"):
        Tagging(TAGS).collate([("O", "B-animal")])
    with pytest.raises(DataError, match="B-animal"):
        Tagging(TAGS).encode([("O",), ("B-animal",)])


@pytest.mark.parametrize("bad", [("O", "person"), ("O", "I-person"), ("O", "S-person", "B-person")])
def test_labels_of_no_bio_scheme_are_refused(bad: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="no tag of the BIO scheme"):
        Tagging(bad)


def test_a_target_that_is_no_sequence_of_tags_is_refused() -> None:
    with pytest.raises(DataError, match="no sequence of tags"):
        Tagging(TAGS).collate(["O"])


def test_tags_that_are_more_or_fewer_than_words_are_refused() -> None:
    task = Tagging(TAGS)
    for count in (1, 3):
        with pytest.raises(DataError, match=f"text 1 has 2 words but {count} tags"):
            task.score([np.zeros((2, 5))], [("O",) * count])
    with pytest.raises(DataError, match="more tags"):
        task.loss(torch.zeros(1, 2, 5), task.collate([("O",) * 3]))
    with pytest.raises(DataError, match="2 words and 3 tags"):
        from_tags([["a", "b"]], [["O"] * 3], ["row"], ["row 1"])


def test_the_loss_is_the_mean_over_words_whatever_the_padding() -> None:
    task = Tagging(TAGS)
    torch.manual_seed(0)
    outputs = torch.randn(2, 4, 5)
    targets = task.collate([("O", "B-person", "I-person"), ("B-place",)])
    assert targets.tolist()[1] == [3, IGNORED, IGNORED]
    logs = outputs.log_softmax(-1)
    expected = -(logs[0, 0, 0] + logs[0, 1, 1] + logs[0, 2, 2] + logs[1, 0, 3]) / 4
    assert torch.allclose(task.loss(outputs, targets), expected)
    padded = torch.nn.functional.pad(targets, (0, 3), value=IGNORED)
    assert torch.equal(task.loss(outputs, padded), task.loss(outputs, targets))


# -- sub-words and characters -------------------------------------------------------------------------------------


def reading_model(text_words: tuple[str, ...]) -> Model:
    """Return a tiny BERT whose head is fitted to call a word of one letter a person, any other O."""
    encoder = open_encoder(Pretrained(name=f"transformers:{folder_of(Path(mkdtemp()), 'bert')}"))
    task = Tagging(("O", "B-person", "I-person"))
    with torch.inference_mode():
        vectors = encoder.network("sequence")(encoder.collate([text_words]))[0].double()
    wanted = torch.tensor([[-9.0, 9.0, -9.0] if len(word) == 1 else [9.0, -9.0, -9.0] for word in text_words])
    rows = torch.cat([vectors, torch.ones(len(vectors), 1)], 1)
    found = torch.linalg.lstsq(rows, wanted.double()).solution
    head = task.build_head(16)
    state = {**head.state_dict(), "weight": found[:-1].T.float(), "bias": found[-1].float()}
    head.load_state_dict(state)
    return Model(encoder, task, head.eval(), Pretrained(name="transformers:tiny"), lineage=())


def test_predictions_have_character_offsets_of_the_text_as_it_was_given(tmp_path: Path) -> None:
    text = "x, word by cafe\u0301  😀 ok"
    words = ("x", ",", "word", "by", "caf\u00e9", "😀", "ok")
    model = reading_model(words)
    (found,) = model.predict(from_texts([text]), context(tmp_path))
    assert isinstance(found, SpansPrediction)
    assert [(span.start, span.end, span.text) for span in found.spans] == [
        (0, 1, "x"),
        (1, 2, ","),
        (18, 19, "😀"),
    ]
    assert all(found.text[span.start : span.end] == span.text for span in found.spans)


def test_words_that_were_given_split_are_joined_by_spaces() -> None:
    task = Tagging(TAGS)
    said = np.eye(5)[[0, 1, 2, 0]]
    (found,) = task.decode([said], [Sample(("Dr", "Ada", "Lovelace", "."), id="one")])
    assert isinstance(found, SpansPrediction)
    assert found.text == "Dr Ada Lovelace ."
    (span,) = found.spans
    assert (span.start, span.end, span.label, span.text) == (3, 15, "person", "Ada Lovelace")


def test_the_tag_of_a_word_rests_on_its_first_sub_word_also_across_windows() -> None:
    encoder = open_encoder(
        Pretrained(name=f"transformers:{folder_of(Path(mkdtemp()), 'bert')}", window=16, overlap=4)
    )
    words = tuple("ab" if place % 3 else "wordy" for place in range(40))
    value = encoder.prepare(words).value
    assert len(value) > 3
    first = {"ab": "a", "wordy": "w"}
    alphabet = {value[0, 1, 0]: "w"}
    ids = {number: value[..., 0][value[..., 1] == number] for number in range(40)}
    assert all(len(found) == 1 for found in ids.values())
    letters = {first[word]: ids[number][0] for number, word in enumerate(words)}
    assert letters["w"] in alphabet
    assert {ids[number][0] for number, word in enumerate(words) if word == "ab"} == {letters["a"]}
