"""The adapter for networks of the transformers library, over tiny random ones of every family."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import torch
from picture_parts import context
from safetensors.torch import load_file, save_file
from text_parts import FAMILIES, body_of, folder_of, tokenizer_of, write_gguf

from headstart.core.errors import DataError, EncoderError
from headstart.core.settings import Pretrained
from headstart.core.types import Limits, TextContract
from headstart.encoders import _windows
from headstart.encoders._windows import windows_of
from headstart.features.runtime import choose_runtime
from headstart.modalities.text import read, words
from headstart.model import open_encoder

TEXTS = ["Brave new world, " * 8, "short é 😀 one", "b", ("some", "words", "more")]
CAUSAL = ("gpt2", "llama", "qwen2")


@cache
def opened(family: str):
    """Open each family once; the tests leave it as it was."""
    return open_encoder(Pretrained(name=f"transformers:{folder_of(Path(mkdtemp()), family)}"))


every_family = pytest.mark.parametrize("family", sorted(FAMILIES))


def contract(**changes: int) -> TextContract:
    values = {"window": 10, "overlap": 2, "tokenizer_sha256": "", **changes}
    return TextContract(**values)  # type: ignore[arg-type]


# -- opening ----------------------------------------------------------------------------------------------------


@every_family
def test_every_tensor_of_a_family_comes_from_its_folder(family: str) -> None:
    encoder = opened(family)
    assert encoder.receipt.transferred == 1
    assert encoder.spec.width == {"pooled": 16, "layers": 16, "depths": 32, "sequence": 16}
    assert encoder.spec.contract.pooling == ("last" if family in CAUSAL else "mean")


@every_family
def test_layer_groups_hold_every_parameter_once_embeddings_first(family: str) -> None:
    encoder = opened(family)
    groups = encoder.layer_groups()
    assert [group.name for group in groups] == ["embeddings", "layer0", "layer1", "layer2"]
    held = [id(tensor) for group in groups for tensor in group.parameters.values()]
    assert sorted(held) == sorted(id(tensor) for tensor in encoder.module.parameters())


def test_what_belongs_to_the_first_and_the_last_layer_is_grouped_with_it() -> None:
    names = [set(group.parameters) for group in opened("deberta-v2").layer_groups()]
    assert any("encoder.conv" in name for name in names[1])
    assert any("rel_embeddings" in name for name in names[0])
    assert any(name.startswith("ln_f") for name in opened("gpt2").layer_groups()[-1].parameters)


def test_a_file_of_torch_is_read_as_tensors_only(tmp_path: Path) -> None:
    state = body_of("bert").state_dict()
    folder = folder_of(tmp_path, "bert")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    encoder = open_encoder(Pretrained(name=f"transformers:{folder}"))
    own = encoder.module.state_dict()
    assert all(torch.equal(own[name], state[name]) for name in own)
    torch.save({"weights": open}, folder / "pytorch_model.bin")
    with pytest.raises(EncoderError, match="cannot be read as weights"):
        open_encoder(Pretrained(name=f"transformers:{folder}"))


def test_weights_in_several_files_are_put_together(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "llama")
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(state)
    parts = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for part, held in parts.items():
        save_file({name: state[name] for name in held}, folder / part)
    index = {"weight_map": {name: part for part, held in parts.items() for name in held}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    own = open_encoder(Pretrained(name=f"transformers:{folder}")).module.state_dict()
    assert all(torch.equal(own[name], state[name]) for name in names)


@pytest.mark.parametrize(
    ("family", "prefix"), [("bert", "bert."), ("llama", "model."), ("gpt2", "transformer.")]
)
def test_names_of_a_model_with_a_head_are_understood(tmp_path: Path, family: str, prefix: str) -> None:
    folder = folder_of(tmp_path, family)
    state = load_file(folder / "model.safetensors")
    headed = {f"{prefix}{name}": tensor for name, tensor in state.items()} | {
        "lm_head.weight": torch.ones(3, 16)
    }
    save_file(headed, folder / "model.safetensors")
    encoder = open_encoder(Pretrained(name=f"transformers:{folder}"))
    assert encoder.receipt.transferred == 1
    assert "lm_head.weight" in encoder.receipt.unused
    assert encoder.spec.weights_sha256 == opened(family).spec.weights_sha256


def test_the_first_berts_names_of_norms_are_understood(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "bert")
    state = load_file(folder / "model.safetensors")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in state.items()
    }
    assert set(old) != set(state)
    save_file(old, folder / "model.safetensors")
    encoder = open_encoder(Pretrained(name=f"transformers:{folder}"))
    assert encoder.spec.weights_sha256 == opened("bert").spec.weights_sha256


def test_a_tensor_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "bert")
    state = load_file(folder / "model.safetensors")
    save_file(
        {n: t for n, t in state.items() if "layer.1.output.dense.weight" not in n},
        folder / "model.safetensors",
    )
    with pytest.raises(EncoderError, match=r"encoder\.layer\.1\.output\.dense\.weight"):
        open_encoder(Pretrained(name=f"transformers:{folder}"))


def test_random_weights_are_the_same_each_time_and_leave_the_caller_s_randomness_alone(
    tmp_path: Path,
) -> None:
    settings = Pretrained(name=f"transformers:{folder_of(tmp_path, 'gpt2')}", weights="random")
    torch.manual_seed(3)
    one, drawn = open_encoder(settings), torch.rand(1)
    torch.manual_seed(3)
    assert drawn == torch.rand(1)
    assert one.receipt.transferred == 0
    assert one.spec.weights_sha256 == open_encoder(settings).spec.weights_sha256
    assert one.spec.weights_sha256 != opened("gpt2").spec.weights_sha256


@every_family
def test_the_files_of_an_encoder_rebuild_it(tmp_path: Path, family: str) -> None:
    encoder = opened(family)
    for name, content in encoder.files().items():
        (tmp_path / name).write_bytes(content)
    save_file(
        {f"encoder.{n}": t for n, t in encoder.module.state_dict().items()}, tmp_path / "own.safetensors"
    )
    settings = Pretrained(
        name="transformers:gone", folder=str(tmp_path), weights=str(tmp_path / "own.safetensors")
    )
    again = open_encoder(settings)
    assert again.spec.contract == encoder.spec.contract
    assert again.spec.weights_sha256 == encoder.spec.weights_sha256
    for text in TEXTS:
        assert np.array_equal(again.prepare(text).value, encoder.prepare(text).value)


def test_a_gguf_file_is_read_with_its_own_tokenizer(tmp_path: Path) -> None:
    state = write_gguf(tmp_path / "tiny.gguf")
    encoder = open_encoder(Pretrained(name=f"transformers:{tmp_path / 'tiny.gguf'}"))
    assert encoder.receipt.transferred == 1
    assert encoder.receipt.source == "tiny.gguf"
    own = encoder.module.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in state.items())
    assert len(encoder.prepare("abc").value[0]) == 3  # The start, the merged "ab", and "c".


def test_a_gguf_file_that_is_none_is_an_error_with_a_fix(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF, or so it says")
    with pytest.raises(EncoderError, match=r"bad\.gguf cannot be opened"):
        open_encoder(Pretrained(name=f"transformers:{tmp_path / 'bad.gguf'}"))
    with pytest.raises(EncoderError, match="there is no file"):
        open_encoder(Pretrained(name=f"transformers:{tmp_path / 'none.gguf'}"))


# -- what cannot be opened ----------------------------------------------------------------------------------------


def test_a_hub_s_name_without_a_hub_says_what_always_works() -> None:
    with pytest.raises(EncoderError, match="cannot be opened") as caught:
        open_encoder(Pretrained(name="transformers:nobody/nothing"))
    assert "minilm" in caught.value.fix


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "bert")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(EncoderError, match="has no tokenizer"):
        open_encoder(Pretrained(name=f"transformers:{folder}"))


def test_a_damaged_tokenizer_is_an_error_of_ours(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "bert")
    (folder / "tokenizer.json").write_text('{"model": {"type": "BPE"}}')
    with pytest.raises(EncoderError, match="cannot be opened"):
        open_encoder(Pretrained(name=f"transformers:{folder}"))


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "bert")
    (folder / "model.safetensors").unlink()
    with pytest.raises(EncoderError, match="has no weights"):
        open_encoder(Pretrained(name=f"transformers:{folder}"))


def test_a_family_that_is_not_known_is_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "bert")
    (folder / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(EncoderError, match="type 't5'"):
        open_encoder(Pretrained(name=f"transformers:{folder}"))


def test_code_in_a_folder_is_never_run(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "bert")
    configuration = json.loads((folder / "config.json").read_text())
    configuration |= {"model_type": "mine", "auto_map": {"AutoConfig": "evil.Evil"}}
    (folder / "config.json").write_text(json.dumps(configuration))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    with pytest.raises(EncoderError):
        open_encoder(Pretrained(name=f"transformers:{folder}"))
    assert not (tmp_path / "ran").exists()


def test_a_window_beyond_the_positions_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "bert")
    with pytest.raises(EncoderError, match="has positions for 64 tokens"):
        open_encoder(Pretrained(name=f"transformers:{folder}", window=65))
    with pytest.raises(EncoderError, match="overlap is 40"):
        open_encoder(Pretrained(name=f"transformers:{folder}", overlap=40))
    assert (
        open_encoder(Pretrained(name=f"transformers:{folder}", window=32, overlap=16)).spec.contract.window
        == 32
    )


# -- tokens and words ---------------------------------------------------------------------------------------------


@every_family
def test_words_given_one_by_one_have_the_tokens_that_they_have_in_a_text(family: str) -> None:
    encoder = opened(family)
    words = ("brave", "new", "world")
    text, split = encoder.prepare(" ".join(words)).value, encoder.prepare(words).value
    begins = [value[..., 0][value[..., 1] >= 0] for value in (text, split)]
    # A text's own start may differ: byte-level BPE has no space before the first word.
    assert np.array_equal(begins[0][1:], begins[1][1:])


@every_family
def test_every_word_has_one_token_also_with_emoji_and_combining_characters(family: str) -> None:
    encoder = opened(family)
    for text in (
        "cafe\u0301 noir",
        "👍🏽 ok 👨‍👩‍👧 x",
        "a\u0301\u0323b zwölf",
        "\u200d \ufe0f",
        "\u0627\u0644\u064e عربي",
        "日本 語",
    ):
        cleaned = read(text)
        count = len(words(cleaned))
        for value in (
            encoder.prepare(text).value,
            encoder.prepare(tuple(w for w, _, _ in words(cleaned))).value,
        ):
            marked = sorted(value[..., 1][value[..., 1] >= 0].tolist())
            assert len(set(marked)) == len(marked), text
            assert marked[-1] == count - 1, text
            assert (value[..., 0][value[..., 1] >= 0] >= 0).all()


def test_words_without_a_token_of_their_own_share_one_and_add_none() -> None:
    encoder = opened("bert")
    value = encoder.prepare(("\u00ad", "a", "\u00ad", "\u00ad", "b", "\u00ad")).value
    letters = [tokenizer_of("bert").token_to_id(token) for token in ("a", "b")]
    assert value[0, 1:3].tolist() == [[letters[0], 3], [letters[1], 5]]
    with torch.inference_mode():
        words = encoder.network("sequence")(encoder.batch([value, encoder.prepare(("x",)).value]))
        plain = encoder.network("sequence")(encoder.collate([("a", "b")]))[0]
    assert torch.allclose(words[0], plain[[0, 0, 0, 0, 1, 1]], rtol=1e-4, atol=1e-6)
    assert not words[1, 1:].any()
    states = encoder.join(
        value,
        [encoder.module(torch.tensor([[2, *letters, 3]])).last_hidden_state.detach().numpy()],
        "sequence",
    )
    assert np.allclose(states, words[0], rtol=1e-4, atol=1e-6)


def test_a_text_of_swallowed_words_alone_is_one_unknown_token() -> None:
    value = opened("bert").prepare(("\ufffd", "\ufffd")).value
    assert value[0].tolist() == [[2, -1], [1, 1], [3, -1]]


def test_a_text_has_the_ids_that_the_library_gives_it(tmp_path: Path) -> None:
    import transformers

    folder = folder_of(tmp_path, "bert")
    library = transformers.AutoTokenizer.from_pretrained(folder)
    for text in ("na\u00c3\u00afve slice", "soft\u00adhyphen \u200b x", "400\ufffdf or so", "Ab  c\u0301d"):
        assert opened("bert").prepare(text).value[0, :, 0].tolist() == library(text)["input_ids"]


def test_a_tokenizer_that_cuts_texts_by_itself_is_told_not_to(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "bert")
    tokenizer = tokenizer_of("bert")
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(folder / "tokenizer.json"))
    encoder = open_encoder(Pretrained(name=f"transformers:{folder}"))
    assert (encoder.prepare("one two three four").value[0, :, 0] >= 0).sum() == 2 + 15
    assert encoder.spec.contract == opened("bert").spec.contract


def test_lower_casing_is_seen_from_what_the_tokenizer_does() -> None:
    assert opened("bert").spec.contract.is_lower_case
    assert not opened("roberta").spec.contract.is_lower_case


def test_windows_share_tokens_and_mark_each_word_where_it_stands_most_centrally() -> None:
    pieces = [[number] for number in range(20)]
    value = windows_of(pieces, contract(), (100,), (101,))
    assert value[:, 0, 0].tolist() == [100] * len(value)
    assert value[:, -1, 0].tolist() == [101] * len(value)
    assert sorted(value[..., 1][value[..., 1] >= 0].tolist()) == list(range(20))
    begins = value[:, 1, 0]
    assert (np.diff(begins) <= 6).all()
    for word in range(20):
        _, place = np.argwhere(value[..., 1] == word)[0]
        reach = [min(word - begin, begin + 7 - word) for begin in begins]
        assert min(place - 1, 8 - place) == max(reach), f"word {word} stands nearer to an end than it must"


def test_a_word_longer_than_a_window_is_spread_over_several() -> None:
    value = windows_of([[5] * 30, [6]], contract(), (1,), (2,))
    assert set(value[..., 0].ravel().tolist()) == {1, 2, 5, 6}
    assert sorted(value[..., 1][value[..., 1] >= 0].tolist()) == [0, 1]


@pytest.mark.parametrize("overlap", [0, 1, 5])
def test_no_token_of_a_long_text_is_lost(overlap: int) -> None:
    for count in range(1, 60):
        value = windows_of([[number] for number in range(count)], contract(overlap=overlap), (), ())
        assert set(value[..., 0][value[..., 0] >= 0].tolist()) == set(range(count))
        assert sorted(value[..., 1][value[..., 1] >= 0].tolist()) == list(range(count))


# -- features -----------------------------------------------------------------------------------------------------


@every_family
def test_an_item_s_features_do_not_depend_on_the_batch(family: str) -> None:
    encoder = opened(family)
    with torch.inference_mode():
        together = encoder.network("depths")(encoder.collate(TEXTS))
        alone = torch.cat([encoder.network("depths")(encoder.collate([text])) for text in TEXTS])
        words = encoder.network("sequence")(encoder.collate(TEXTS))
        own = encoder.network("sequence")(encoder.collate(TEXTS[3:]))
    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-6)
    assert torch.allclose(words[3:, :3], own, rtol=1e-4, atol=1e-6)


@every_family
@pytest.mark.parametrize("form", ["pooled", "sequence"])
def test_a_cut_at_any_depth_gives_the_same_bits(family: str, form) -> None:
    encoder = opened(family)
    batch = encoder.collate(TEXTS)
    with torch.inference_mode():
        whole = encoder.network(form)(batch)
        for depth in range(1, len(encoder.layer_groups()) + 1):
            prefix, suffix = encoder.split(depth, form)
            assert torch.equal(suffix(prefix(batch)), whole), f"cut after {depth} groups"


@every_family
def test_a_suffix_trains_exactly_the_groups_behind_the_cut(family: str) -> None:
    encoder = opened(family)
    batch = encoder.collate(TEXTS)
    groups = encoder.layer_groups()
    for depth in range(1, len(groups)):
        prefix, suffix = encoder.split(depth, "pooled")
        with torch.no_grad():
            crossing = prefix(batch)
        encoder.module.zero_grad(set_to_none=True)
        suffix(crossing).square().mean().backward()
        moved = {name for name, tensor in encoder.module.named_parameters() if tensor.grad is not None}
        behind = {name for group in groups[depth:] for name in group.parameters}
        shared = {
            name
            for name in groups[0].parameters
            if "rel_embeddings" in name or name.startswith("encoder.LayerN")
        }
        assert moved - shared == behind
    encoder.module.zero_grad(set_to_none=True)


@every_family
@pytest.mark.parametrize(("form", "depth"), [("depths", 0), ("sequence", 0), ("pooled", 2), ("pooled", 4)])
def test_onnxruntime_gives_torch_s_numbers(tmp_path: Path, family: str, form, depth: int) -> None:
    encoder = opened(family)
    values = [encoder.prepare(text).value for text in TEXTS]
    run = choose_runtime(encoder, form, context(tmp_path), depth=depth)
    module = encoder.split(depth, form)[0] if depth else encoder.network(form)
    with torch.inference_mode():
        rows = encoder.rows(values, module(encoder.batch(values)), form, depth=depth)
    for value, found, expected in zip(values, run(values), rows, strict=True):
        real = value[..., 0] >= 0 if depth else np.ones(len(expected), bool)
        assert np.abs(found - expected)[real].max() <= 1e-4 * max(1.0, float(np.abs(expected).max()))


@pytest.mark.parametrize("family", CAUSAL)
def test_a_causal_network_pools_the_last_token_and_sees_no_padding(family: str) -> None:
    encoder = opened(family)
    value = encoder.prepare("a b c").value
    ids = torch.from_numpy(value[:1, :, 0].astype(np.int64))
    batch = encoder.collate(["a b c", "something longer than that"])
    with torch.inference_mode():
        last = encoder.module(input_ids=ids).last_hidden_state[0, -1]
        pooled = encoder.network("pooled")(batch)[0]
    assert torch.allclose(pooled, last, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - set(CAUSAL)))
def test_an_encoder_pools_the_mean_of_its_tokens(family: str) -> None:
    encoder = opened(family)
    ids = torch.from_numpy(encoder.prepare("abc").value[:1, :, 0].astype(np.int64))
    with torch.inference_mode():
        states = encoder.module(input_ids=ids, output_hidden_states=True).hidden_states
        found = encoder.network("depths")(encoder.collate(["abc"]))[0]
    assert torch.allclose(found[:16], states[-1][0].mean(0), rtol=1e-4, atol=1e-6)
    assert torch.allclose(found[16:], torch.stack(states).mean((0, 2))[0], rtol=1e-4, atol=1e-6)


def test_word_vectors_are_the_states_of_first_sub_words() -> None:
    encoder = opened("bert")
    value = encoder.prepare(("ab", "c", "def")).value
    with torch.inference_mode():
        ids = torch.from_numpy(value[:1, :, 0].astype(np.int64))
        states = encoder.module(input_ids=ids).last_hidden_state[0]
        features = encoder(encoder.collate([("ab", "c", "def"), ("x",)]), "sequence")
    assert torch.allclose(features.value[0], states[[1, 3, 4]], rtol=1e-4, atol=1e-6)
    assert features.mask is not None
    assert features.mask.tolist() == [[True] * 3, [True, False, False]]


# -- long texts ---------------------------------------------------------------------------------------------------


def test_a_text_beyond_the_limit_is_refused_with_the_setting_that_raises_it() -> None:
    with pytest.raises(DataError, match="1,000,000 characters") as caught:
        opened("bert").prepare("a b " * 250_000)
    assert "data.max_characters" in caught.value.fix


def test_a_megabyte_of_text_is_read_in_windows_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = open_encoder(
        Pretrained(name=f"transformers:{folder_of(Path(mkdtemp()), 'bert', num_hidden_layers=1)}"),
        limits=Limits(characters=2_000_000),
    )
    value = encoder.prepare("word by word " * 80_000).value
    assert value.nbytes < 100e6
    assert sorted(value[..., 1][value[..., 1] >= 0].tolist()) == list(range(240_000))
    monkeypatch.setattr(_windows, "MOST_TOKENS", 4096)
    widest = []
    whole = encoder._body.whole

    def watched(ids, mask):
        widest.append(ids.numel())
        return whole(ids, mask)

    monkeypatch.setattr(encoder._body, "whole", watched)
    with torch.inference_mode():
        vector = encoder.network("pooled")(encoder.batch([value[:400]]))
    assert torch.isfinite(vector).all()
    assert max(widest) <= 4096 < sum(widest)


def test_parts_of_a_long_batch_give_the_same_features_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = opened("bert")
    batch = encoder.collate(TEXTS)
    found = []
    for most in (_windows.MOST_TOKENS, 128):
        monkeypatch.setattr(_windows, "MOST_TOKENS", most)
        encoder.module.zero_grad(set_to_none=True)
        value = encoder.network("pooled")(batch)
        value.square().sum().backward()
        found.append((value.detach(), [tensor.grad.clone() for tensor in encoder.module.parameters()]))
    encoder.module.zero_grad(set_to_none=True)
    assert torch.allclose(found[0][0], found[1][0], rtol=1e-5, atol=1e-6)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)


def test_windows_count_by_their_tokens() -> None:
    encoder = opened("bert")
    value = encoder.prepare("ab " * 100).value
    assert len(value) > 1
    with torch.inference_mode():
        joined = encoder.network("pooled")(encoder.batch([value]))[0]
        alone = torch.stack(
            [encoder.network("pooled")(encoder.batch([value[[row]]]))[0] for row in range(len(value))]
        )
    weight = torch.from_numpy((value[..., 0] >= 0).sum(1)).float()[:, None]
    assert torch.allclose(joined, (alone * weight).sum(0) / weight.sum(), rtol=1e-4, atol=1e-6)
