"""Tiny text networks with random weights and tokenizers of their own, as local folders; no hub is needed."""

from __future__ import annotations

import json
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import nn

SIZE = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertConfig", SIZE),
    "roberta": ("RobertaConfig", {**SIZE, "max_position_embeddings": 66, "pad_token_id": 1}),
    "distilbert": ("DistilBertConfig", {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 24}),
    "electra": ("ElectraConfig", {**SIZE, "embedding_size": 8}),
    "deberta-v2": (
        "DebertaV2Config",
        {
            **SIZE,
            "relative_attention": True,
            "position_buckets": 8,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"],
            "conv_kernel_size": 3,
        },
    ),
    "gpt2": ("GPT2Config", {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 64}),
    "llama": ("LlamaConfig", {**SIZE, "num_key_value_heads": 1}),
    "qwen2": (
        "Qwen2Config",
        {
            **SIZE,
            "num_key_value_heads": 1,
            "use_sliding_window": True,
            "sliding_window": 4,
            "max_window_layers": 1,
        },
    ),
}
"""Configuration class and sizes of each family; MiniLM is a BERT."""
POSITIONS = 64


def tokenizer_of(family: str) -> Tokenizer:
    """Return a tokenizer of the family's kind whose longest tokens are single letters."""
    if family in ("roberta", "gpt2", "qwen2"):
        return _byte_level(family)
    if family in ("deberta-v2", "llama"):
        return _metaspace(family)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [*ascii_lowercase, *"0123456789.,!é😀"]
    vocabulary = {
        token: index for index, token in enumerate([*special, *letters, *(f"##{one}" for one in letters)])
    }
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return made


def _byte_level(family: str) -> Tokenizer:
    """Return a byte-level BPE without merges."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"] if family == "roberta" else ["<|endoftext|>"]
    tokens = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    made = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    if family == "roberta":
        made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    made.add_special_tokens(special)
    return made


def _metaspace(family: str) -> Tokenizer:
    """Return a Unigram model over letters that marks where words begin."""
    special = (
        ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"] if family == "deberta-v2" else ["<unk>", "<s>", "</s>"]
    )
    letters = ["▁", *ascii_lowercase, *ascii_uppercase, *"0123456789.,!é😀"]
    made = Tokenizer(
        models.Unigram(
            [(token, -1.0) for token in [*special, *letters]],
            special.index(special[3 if len(special) > 3 else 0]),
        )
    )
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    if family == "deberta-v2":
        made.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    made.add_special_tokens(special)
    return made


_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_MARKS = {
    "roberta": "<s> </s> <unk> </s> <pad> <s> <mask>",
    "gpt2": "<|endoftext|> <|endoftext|> <|endoftext|>",
    "qwen2": "- <|endoftext|>",
    "llama": "<s> </s> <unk>",
}
_BERT_MARKS = "- - [UNK] [SEP] [PAD] [CLS] [MASK]"
"""The tokens of the roles, in order; `-` where there is none."""


def body_of(family: str, **changes: Any) -> nn.Module:
    """Return a network of a family with random weights."""
    kind, sizes = FAMILIES[family]
    count = tokenizer_of(family).get_vocab_size()
    given = {"vocab_size": count, "max_position_embeddings": POSITIONS, **sizes, **changes}
    if "n_positions" in given:
        given.pop("max_position_embeddings")
    config = getattr(transformers, kind)(**given)
    torch.manual_seed(0)
    return transformers.AutoModel.from_config(config)


def folder_of(path: Path, family: str, **changes: Any) -> Path:
    """Write a network of a family with its tokenizer into a folder."""
    body_of(family, **changes).save_pretrained(path)
    write_tokenizer(path, family)
    return path


def write_tokenizer(path: Path, family: str) -> None:
    """Write a family's tokenizer into a folder."""
    tokenizer_of(family).save(str(path / "tokenizer.json"))
    marks = zip(_ROLES, _MARKS.get(family, _BERT_MARKS).split(), strict=False)
    settings = {f"{role}_token": mark for role, mark in marks if mark != "-"}
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))


_GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def write_gguf(path: Path) -> dict[str, torch.Tensor]:
    """Write a Llama of 258 byte tokens as a GGUF file and return its weights."""
    import gguf

    state = body_of("llama", num_key_value_heads=2, vocab_size=258).state_dict()
    tokenizer = tokenizer_of("gpt2").get_vocab()
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(POSITIONS)
    writer.add_embedding_length(16)
    writer.add_block_count(3)
    writer.add_feed_forward_length(24)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(258)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([*sorted(tokenizer, key=lambda token: tokenizer[token]), "ab"])
    writer.add_token_types([3] + [1] * 257)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    for name, tensor in state.items():
        values = tensor.numpy()
        if name.startswith("layers."):
            _, layer, rest = name.removesuffix(".weight").split(".", 2)
            if rest in ("self_attn.q_proj", "self_attn.k_proj"):
                # The format keeps the two halves of a rotated pair beside each other.
                values = values.reshape(2, 2, 4, 16).swapaxes(1, 2).reshape(16, 16)
            writer.add_tensor(f"blk.{layer}.{_GGUF_NAMES[rest]}.weight", values.copy())
        else:
            writer.add_tensor(
                {"embed_tokens.weight": "token_embd.weight"}.get(name, "output_norm.weight"), values
            )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return state
