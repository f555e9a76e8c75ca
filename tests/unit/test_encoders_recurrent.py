"""The recurrent adapter: layers, dropout, vocabulary, word vectors, folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from picture_parts import machine
from safetensors.torch import save_file
from torch import nn

from headstart import api
from headstart.core.errors import EncoderError, PlanError
from headstart.core.settings import Pretrained
from headstart.core.types import TextContract
from headstart.data import from_texts
from headstart.encoders._recurrent_network import (
    Architecture,
    Embedding,
    RecurrentLayer,
    build,
    locked_dropout,
    turning,
)
from headstart.encoders._vocabulary import PlainTokenizer, read_vectors, word_vocabulary
from headstart.encoders._windows import pool
from headstart.encoders.recurrent import KINDS, vocabulary
from headstart.modalities.text import words
from headstart.model import open_encoder
from headstart.train.runtime import seed_step

TEXTS = ["The cat sat on the mat.", "A dog! A dog, and a cat?", "On the mat: nothing", "a b"]
every_kind = pytest.mark.parametrize("kind", sorted(KINDS))


def opened(folder: Path, kind: str = "lstm", **changes: object):
    """Open an untrained network with the vocabulary of TEXTS."""
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_bytes(word_vocabulary(TEXTS))
    values = {"name": f"recurrent:{kind}", "weights": "random", "folder": str(folder), **changes}
    return open_encoder(Pretrained(**values))


def saved(encoder, folder: Path) -> Path:
    """Write an encoder as a folder."""
    folder.mkdir()
    for name, content in encoder.files().items():
        (folder / name).write_bytes(content)
    save_file(encoder.module.state_dict(), folder / "model.safetensors")
    return folder


def lengths_mask(lengths: Sequence[int]) -> torch.Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


# -- layers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_layer_reads_each_padded_text_as_torch_s_own_layer_reads_it_alone(cell, bidirectional) -> None:
    torch.manual_seed(0)
    layer = RecurrentLayer(cell, 5, 8, bidirectional=bidirectional, weights=0.5, numbers=0.5).eval()
    states, lengths = torch.randn(3, 7, 5), (7, 1, 4)
    found = layer(states, lengths_mask(lengths))
    for row, length in enumerate(lengths):
        alone, _ = layer.rnn(states[row : row + 1, :length])
        assert torch.allclose(found[row, :length], alone[0], atol=1e-6)


def test_texts_are_turned_round_within_their_own_length() -> None:
    assert turning(lengths_mask([3, 1])).tolist() == [[2, 1, 0], [0, 1, 2]]


def test_weight_dropout_zeroes_hidden_weights_in_training_alone_and_leaves_the_parameters_as_they_are() -> (
    None
):
    torch.manual_seed(0)
    layer = RecurrentLayer("lstm", 4, 32, bidirectional=False, weights=0.5, numbers=0.0)
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    dropped = dict(zip(dict(layer.rnn.named_parameters()), layer._weights(), strict=True))
    hidden = dropped["weight_hh_l0"]
    assert 0.4 < float((hidden == 0).float().mean()) < 0.6
    kept = hidden != 0
    assert torch.equal(hidden[kept], 2 * layer.rnn.weight_hh_l0[kept])
    assert torch.equal(dropped["weight_ih_l0"], layer.rnn.weight_ih_l0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())
    layer.eval()
    assert torch.equal(layer._weights()[1], layer.rnn.weight_hh_l0)


def test_weight_dropout_is_the_same_at_every_step_of_a_text() -> None:
    torch.manual_seed(0)
    layer = RecurrentLayer("gru", 4, 8, bidirectional=False, weights=0.5, numbers=0.0)
    states = torch.randn(1, 6, 4)
    seed_step(0, 1)
    found = layer(states)
    twin = nn.GRU(4, 8, batch_first=True)
    seed_step(0, 1)
    twin.load_state_dict(
        dict(zip(dict(layer.rnn.named_parameters()), map(torch.Tensor.detach, layer._weights()), strict=True))
    )
    assert torch.allclose(found, twin(states)[0], atol=1e-6)


def test_locked_dropout_drops_the_same_numbers_at_every_token_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    found = locked_dropout(torch.ones(64, 5, 50), 0.3, training=True)
    assert torch.equal(found, found[:, :1].expand_as(found))
    assert found.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert float(found.mean()) == pytest.approx(1, abs=0.05)
    assert not torch.equal(found[0], found[1])
    states = torch.randn(2, 3, 4)
    assert locked_dropout(states, 0.3, training=False) is states


def test_embedding_dropout_drops_a_word_everywhere_in_the_batch() -> None:
    torch.manual_seed(0)
    embedding = Embedding(100, 4, words=0.5, numbers=0.0)
    ids = torch.arange(100).repeat(2, 1)
    found = embedding(ids)
    gone = (found == 0).all(-1)
    assert torch.equal(gone[0], gone[1])
    assert 30 < int(gone[0].sum()) < 70
    assert torch.allclose(found[~gone], 2 * embedding.vectors(ids)[~gone])
    assert torch.equal(embedding.eval()(ids), embedding.vectors(ids))


@every_kind
def test_a_seeded_step_draws_the_same_dropout_again_and_another_step_another(
    tmp_path: Path, kind: str
) -> None:
    encoder = opened(tmp_path / "v", kind)
    network, batch = encoder.network("pooled").train(), encoder.collate(TEXTS)

    def drawn(step: int) -> torch.Tensor:
        seed_step(3, step)
        return network(batch)

    first, other, again = drawn(1), drawn(2), drawn(1)
    network.eval()
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, network(batch))


def test_pooling_is_last_maximum_and_mean_of_the_real_tokens() -> None:
    hidden = torch.tensor([[[1.0, 8.0], [3.0, 2.0], [9.0, 9.0]]])
    mask = torch.tensor([[True, True, False]])
    one = TextContract(8, 0, "", "concat")
    assert pool(hidden, mask, one).tolist() == [[3, 2, 3, 8, 2, 5]]
    both = TextContract(8, 0, "", "concat_both")
    assert pool(hidden, mask, both).tolist() == [[3, 8, 3, 8, 2, 5]]


def test_depths_are_the_pooled_features_of_every_layer_the_deepest_first(tmp_path: Path) -> None:
    config = Architecture(embedding=6, widths=(10, 4)).model_dump(mode="json")
    folder = tmp_path / "v"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    encoder = opened(folder)
    assert encoder.spec.depths == (("final", 12), ("layer0", 30), ("embedding", 18))
    assert [group.name for group in encoder.layer_groups()] == ["embedding", "layer0", "layer1"]
    batch = encoder.collate(["the cat"])
    with torch.inference_mode():
        found = encoder.network("depths")(batch)[0]
        vectors = encoder.module.embedding(batch[0, :, :, 0])[0]
    assert torch.equal(found[-18:-12], vectors[-1])
    assert torch.equal(found[-12:-6], vectors.amax(0))


def test_an_odd_width_of_two_directions_is_refused() -> None:
    with pytest.raises(ValueError, match="must be even"):
        Architecture(bidirectional=True, widths=(9,))


def test_the_forget_gate_begins_open() -> None:
    layer = build(Architecture(embedding=4, widths=(8,)), 3).layers[0]
    assert isinstance(layer, RecurrentLayer)
    assert layer.rnn.bias_ih_l0.tolist() == [0] * 8 + [1] * 8 + [0] * 16


# -- words ------------------------------------------------------------------------------------------------------


def test_a_vocabulary_is_the_words_in_lower_case_the_most_frequent_first() -> None:
    found = PlainTokenizer(word_vocabulary(["b a A", "a B c."]))
    assert found.words() == {"<unk>": 0, "a": 1, "b": 2, ".": 3, "c": 4}


def test_of_many_words_those_seen_once_are_unknown_but_for_words_with_vectors() -> None:
    many = " ".join(f"w{number}" for number in range(300))
    found = PlainTokenizer(word_vocabulary([many, "w1 w2"], known={"w5"})).words()
    assert set(found) == {"<unk>", "w1", "w2", "w5"}


def test_a_vocabulary_holds_a_bounded_number_of_words(monkeypatch: pytest.MonkeyPatch) -> None:
    from headstart.encoders import _vocabulary

    monkeypatch.setattr(_vocabulary, "MOST_WORDS", 2)
    assert set(PlainTokenizer(word_vocabulary(["a a b b c"])).words()) == {"<unk>", "a", "b"}


def test_a_vocabulary_reads_files_and_lists_of_words_and_leaves_out_what_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("From a file")
    (tmp_path / "bad.txt").write_bytes(b"\0\0")
    inputs = [tmp_path / "one.txt", ("given", "words"), "", tmp_path / "bad.txt", tmp_path / "none.txt"]
    found = PlainTokenizer(vocabulary(inputs, Pretrained(name="recurrent:lstm"))).words()
    assert set(found) == {"<unk>", "from", "a", "file", "given", "words"}


@pytest.mark.parametrize("text", [
    "Hello, don't :) stop!!!",
    "naïve e\N{COMBINING ACUTE ACCENT}tude \N{GRINNING FACE}\N{THUMBS UP SIGN}\N{EMOJI MODIFIER FITZPATRICK TYPE-4}",
    "\N{FAMILY}\u200d\N{HEAVY BLACK HEART}\ufe0f \U0001f1e9\U0001f1ea\U0001f1eb snake_case x2",
    "\u0915\u094d\u0937 \u0645\u06cc\u200c\u062e",
    "\u05e9\u05b8\u05dc\u05d5\u05b9\u05dd \u65e5\u672c 3.5%  x",
])  # fmt: skip
def test_each_word_has_tokens_of_its_own_in_a_text_as_in_a_list(text: str) -> None:
    tokenizer = PlainTokenizer(word_vocabulary([text]))
    places = words(text)
    found = tokenizer.encode_text(text, places)
    assert len(found) == len(places)
    assert all(found)
    assert 0 not in {token for piece in found for token in piece}
    assert max(map(len, found)) == 1
    assert tokenizer.encode([word for word, _, _ in places]) == found


def test_a_word_that_is_not_in_the_vocabulary_is_unknown() -> None:
    assert PlainTokenizer(word_vocabulary(["a b"])).encode(["A", "zebra", "b"]) == [[1], [0], [2]]


def test_a_damaged_tokenizer_is_an_error_of_ours() -> None:
    with pytest.raises(EncoderError, match=r"(?s)cannot be read.*tokenizer\.json"):
        PlainTokenizer(b'{"model": 3}')
    with pytest.raises(EncoderError, match="has no token '<s>'"):
        PlainTokenizer(word_vocabulary(["a"]), before=("<s>",))


# -- word vectors -----------------------------------------------------------------------------------------------


def written(path: Path, *lines: str) -> str:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("header", [(), ("4 3",)])
def test_an_embedding_begins_from_the_vectors_of_a_file_and_the_receipt_says_how_many(
    tmp_path: Path, header: tuple[str, ...]
) -> None:
    file = written(tmp_path / "v.txt", *header, "cat 1 2 3", "DOG 4 5 6", "zebra 7 8 9", ". . . -1 0 1")
    encoder = opened(tmp_path / "words", vectors=file)
    ids = encoder._tokenizer.words()
    weight = encoder.module.embedding.vectors.weight
    assert weight.shape == (len(ids), 3)
    assert weight[ids["cat"]].tolist() == [1, 2, 3]
    assert weight[ids["dog"]].tolist() == [4, 5, 6]
    assert weight[0].tolist() == [2.5, 3.5, 4.5]
    assert encoder.receipt.source == f"2 of {len(ids)} words from {file}"
    origin = {tensor.name: tensor.origin for tensor in encoder.receipt.tensors}
    assert origin["embedding.vectors.weight"] == "adapted"
    assert set(origin.values()) == {"adapted", "fresh"}


def test_a_word_s_own_line_goes_before_that_in_capitals(tmp_path: Path) -> None:
    file = written(tmp_path / "v.txt", "Cat 1 1", "cat 2 2", "CAT 3 3")
    assert read_vectors(file, {"cat": 5}).rows.tolist() == [[2, 2]]


@pytest.mark.parametrize(("lines", "said"), [
    (("cat 1 2", "dog 1"), r"line 2 .* has 1 numbers.*\n.*2 numbers"),
    (("cat 1 2", "dog 1 2 3"), "line 2 .* has 3 numbers"),
    (("cat",), "line 1 .* has 0 numbers"),
    (("cat 1 2", "dog 1 x"), "line 2 .* no finite number"),
    (("cat 1 2", "dog nan 1"), "line 2 .* no finite number"),
    (("zebra 1 2",), "holds none of the"),
])  # fmt: skip
def test_a_bad_line_of_a_file_of_vectors_is_named(tmp_path: Path, lines: tuple[str, ...], said: str) -> None:
    file = written(tmp_path / "v.txt", *lines)
    with pytest.raises(EncoderError, match=said):
        opened(tmp_path / "words", vectors=file)


def test_a_file_of_vectors_that_is_missing_or_binary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="cannot be read"):
        opened(tmp_path / "words", vectors=str(tmp_path / "none.txt"))
    (tmp_path / "v.bin").write_bytes(b"cat \xff\xfe\x00")
    with pytest.raises(EncoderError, match="is not UTF-8"):
        opened(tmp_path / "words", vectors=str(tmp_path / "v.bin"))


def test_vectors_beside_pretrained_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"(?s)encoder\.vectors .* weights are pretrained.*weights=random"):
        opened(tmp_path / "words", vectors="v.txt", weights="pretrained")


# -- opening ----------------------------------------------------------------------------------------------------


@every_kind
def test_a_network_is_rebuilt_from_its_files_and_weights(tmp_path: Path, kind: str) -> None:
    encoder = opened(tmp_path / "words", kind)
    with torch.no_grad():
        next(encoder.module.parameters()).add_(1)
    folder = saved(encoder, tmp_path / "saved")
    again = open_encoder(Pretrained(name=f"recurrent:{folder}"))
    assert again.receipt.transferred == 1
    assert again.spec.weights_sha256 == encoder.spec.weights_sha256
    assert again.spec.contract == encoder.spec.contract
    assert again.spec.contract.pooling == ("concat_both" if kind.startswith("bi") else "concat")
    batch = encoder.collate(TEXTS)
    assert torch.equal(again.collate(TEXTS), batch)
    with torch.inference_mode():
        assert torch.equal(again.network("pooled")(batch), encoder.network("pooled")(batch))


def test_random_weights_are_the_same_each_time_and_leave_the_caller_s_randomness_alone(
    tmp_path: Path,
) -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    one, other = opened(tmp_path / "words"), opened(tmp_path / "words")
    assert torch.equal(torch.rand(1), expected)
    assert one.spec.weights_sha256 == other.spec.weights_sha256
    assert one.receipt.transferred == 0


def test_weights_of_another_architecture_are_refused_by_name(tmp_path: Path) -> None:
    folder = saved(opened(tmp_path / "words", "gru"), tmp_path / "saved")
    (folder / "config.json").write_text(json.dumps(KINDS["lstm"].model_dump(mode="json")))
    with pytest.raises(EncoderError, match=r"wrong shape \(layers\.0\.rnn\.weight_ih_l0"):
        open_encoder(Pretrained(name=f"recurrent:{folder}"))


def test_a_name_that_is_neither_kind_nor_folder_is_refused_with_the_nearest() -> None:
    with pytest.raises(EncoderError, match="did you mean 'lstm'"):
        open_encoder(Pretrained(name="recurrent:lstn"))
    with pytest.raises(EncoderError, match=r"(?s)has no vocabulary yet.*headstart fit"):
        open_encoder(Pretrained(name="recurrent:lstm", weights="random"))


@pytest.mark.parametrize(("missing", "said"), [
    ("tokenizer.json", "texts cannot be read as in its training"),
    ("config.json", "has no config.json"),
    ("model.safetensors", r"(?s)has no pretrained weights.*encoder\.weights=random"),
])  # fmt: skip
def test_a_folder_with_a_part_missing_says_which(tmp_path: Path, missing: str, said: str) -> None:
    folder = saved(opened(tmp_path / "words"), tmp_path / "saved")
    (folder / missing).unlink()
    with pytest.raises(EncoderError, match=said):
        open_encoder(Pretrained(name=f"recurrent:{folder}"))


def test_a_configuration_that_is_bad_is_explained(tmp_path: Path) -> None:
    folder = saved(opened(tmp_path / "words"), tmp_path / "saved")
    (folder / "config.json").write_text('{"cells": "lstm"}')
    with pytest.raises(PlanError, match=r"cells: unknown key"):
        open_encoder(Pretrained(name=f"recurrent:{folder}"))
    (folder / "config.json").write_text("{")
    with pytest.raises(EncoderError, match="is not JSON"):
        open_encoder(Pretrained(name=f"recurrent:{folder}"))
    (folder / "config.json").write_text('{"cell": "gru"}')
    with pytest.raises(EncoderError, match=r"(?s)holds a network of cell gru.*a bilstm"):
        open_encoder(Pretrained(name="recurrent:bilstm", folder=str(folder), weights="random"))


def test_an_overlap_of_more_than_half_a_window_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="at most half a window"):
        opened(tmp_path / "words", window=16, overlap=9)


def test_tokens_before_each_window_and_its_size_come_from_the_configuration(tmp_path: Path) -> None:
    folder = tmp_path / "words"
    folder.mkdir()
    (folder / "config.json").write_text('{"before": ["the"], "window": 8, "embedding": 4, "widths": [4]}')
    encoder = opened(folder)
    value = encoder.prepare("cat dog mat " * 4).value
    the = encoder._tokenizer.words()["the"]
    assert value.shape[1] == 8
    assert set(value[:, 0, 0].tolist()) == {the}
    assert set(value[:, 0, 1].tolist()) == {-1}


# -- plans ------------------------------------------------------------------------------------------------------


def test_a_plan_makes_the_vocabulary_and_trains_from_scratch_wherever_the_store_lies(tmp_path: Path) -> None:
    data = from_texts([f"{text} {number}" for number in range(5) for text in TEXTS], ["a", "b"] * 10)
    one, other = (
        api.plan(data, encoder="recurrent:gru", machine=machine(tmp_path / name)) for name in ("x", "y")
    )
    assert one.encoder.weights == "random"
    assert one.method.kind == "finetune"
    assert (one.method.train_last, one.start) == (None, None)
    assert one.encoder.folder != other.encoder.folder
    assert one.key == other.key
    assert np.all([Path(plan.encoder.folder or "").is_dir() for plan in (one, other)])


def test_another_vocabulary_makes_another_plan(tmp_path: Path) -> None:
    folder = tmp_path / "words"
    opened(folder)
    data = from_texts([f"{text} {number}" for number in range(5) for text in TEXTS], ["a", "b"] * 10)

    def key() -> str:
        settings = {"encoder.folder": str(folder), "encoder.weights": "random"}
        return api.plan(data, encoder="recurrent:gru", settings=settings, machine=machine(tmp_path)).key

    before = key()
    assert key() == before
    # As many words, but others: the untrained weights are the same.
    (folder / "tokenizer.json").write_bytes(word_vocabulary([text.replace("cat", "cow") for text in TEXTS]))
    assert key() != before
