"""Well-known networks for texts: how each is built, what it was trained on, and its licence; for the catalog.

Sizes are those of the published configurations; parameters and operations are counted from them, never typed in.
MNLI is the accuracy (matched, in per cent) that the authors report: of BERT, RoBERTa and DistilBERT in their papers, of
ELECTRA and DeBERTa in the tables of the DeBERTa-v3 model cards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

BOOKS = "books-wikipedia"
ROBERTA = "160gb-english"
SENTENCES = "sentence-pairs"


@dataclass(frozen=True, slots=True)
class TextNetwork:
    """A network by its hub's name: its kind, width, layers and heads, what else its configuration says, and facts."""

    name: str
    kind: str
    sizes: tuple[int, int, int]
    vocabulary: int
    pretraining: str
    licence: str
    context: int
    more: Mapping[str, Any] = field(default_factory=dict)
    mnli: float | None = None

    @property
    def is_decoder(self) -> bool:
        """Tell whether it reads from left to right."""
        return self.kind in ("gpt2", "llama", "mistral", "qwen2", "qwen3")

    def configuration(self) -> Any:
        """Return the configuration of the transformers library."""
        from transformers import CONFIG_MAPPING

        width, layers, heads = self.sizes
        made = _NAMES.get(self.kind, _NAMES["bert"])
        named = dict(zip(made, (width, layers, heads, _inner(self)), strict=True))
        return CONFIG_MAPPING[self.kind](vocab_size=self.vocabulary, **{**named, **self.more})


_NAMES: Mapping[str, tuple[str, ...]] = {
    "bert": ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    "distilbert": ("dim", "n_layers", "n_heads", "hidden_dim"),
    "gpt2": ("n_embd", "n_layer", "n_head", "n_inner"),
}
_DEBERTA_V3 = {
    "relative_attention": True, "position_buckets": 256, "norm_rel_ebd": "layer_norm", "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"], "max_relative_positions": -1, "position_biased_input": False,
    "type_vocab_size": 0, "max_position_embeddings": 512, "pad_token_id": None,
}  # fmt: skip


def _inner(network: TextNetwork) -> int:
    """Return the inner width of the layers: four times the width, unless it is said."""
    return network.more.get("intermediate_size", 4 * network.sizes[0])


def _bert(
    name: str, sizes: tuple[int, int, int], vocabulary: int = 30_522, *facts: Any, **more: Any
) -> TextNetwork:
    """Return a BERT."""
    pretraining, licence = facts or (BOOKS, "Apache-2.0")
    mnli = more.pop("mnli", None)
    return TextNetwork(name, "bert", sizes, vocabulary, pretraining, licence, 512, more, mnli)


def _roberta(
    name: str, sizes: tuple[int, int, int], *facts: Any, kind: str = "roberta", **more: Any
) -> TextNetwork:
    """Return a RoBERTa or a kin of it, by vocabulary, pretraining and licence."""
    vocabulary, pretraining, licence = facts or (50_265, ROBERTA, "MIT")
    mnli = more.pop("mnli", None)
    more = {"max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": 1, **more}
    return TextNetwork(name, kind, sizes, vocabulary, pretraining, licence, 512, more, mnli)


def _deberta(name: str, sizes: tuple[int, int, int], mnli: float | None, *facts: Any) -> TextNetwork:
    """Return a DeBERTa-v3."""
    vocabulary, pretraining = facts or (128_100, ROBERTA)
    return TextNetwork(name, "deberta-v2", sizes, vocabulary, pretraining, "MIT", 512, _DEBERTA_V3, mnli)


def _decoder(
    name: str, kind: str, sizes: tuple[int, int, int], inner: int, shared: int, *facts: Any, **more: Any
) -> TextNetwork:
    """Return a kin of Llama: `shared` is the number of heads of keys and values."""
    vocabulary, pretraining, licence, context = facts
    more = {
        "intermediate_size": inner, "num_key_value_heads": shared, "max_position_embeddings": context,
        "head_dim": more.pop("head_dim", sizes[0] // sizes[2]), **more,
    }  # fmt: skip
    return TextNetwork(name, kind, sizes, vocabulary, pretraining, licence, context, more)


def _gpt2(name: str, sizes: tuple[int, int, int], licence: str, pretraining: str) -> TextNetwork:
    """Return a GPT-2."""
    return TextNetwork(name, "gpt2", sizes, 50_257, pretraining, licence, 1024)


_BASE, _LARGE, _MINI = (768, 12, 12), (1024, 24, 16), (384, 12, 12)
_MANY = 250_002
_SMOLLM = "smollm-corpus"

TEXT_NETWORKS: tuple[TextNetwork, ...] = (
    _bert("google/bert_uncased_L-2_H-128_A-2", (128, 2, 2)),
    _bert("google/bert_uncased_L-4_H-256_A-4", (256, 4, 4)),
    _bert("google/bert_uncased_L-4_H-512_A-8", (512, 4, 8)),
    _bert("google/bert_uncased_L-8_H-512_A-8", (512, 8, 8)),
    _bert("bert-base-uncased", _BASE, mnli=84.6),
    _bert("bert-base-cased", _BASE, 28_996),
    _bert("bert-large-uncased", _LARGE, mnli=86.7),
    _bert("bert-large-cased", _LARGE, 28_996),
    _bert("bert-base-multilingual-cased", _BASE, 119_547, "wikipedia-104-languages", "Apache-2.0"),
    TextNetwork(
        "distilbert-base-uncased", "distilbert", (768, 6, 12), 30_522, BOOKS, "Apache-2.0", 512, mnli=82.2
    ),
    TextNetwork("distilbert-base-cased", "distilbert", (768, 6, 12), 28_996, BOOKS, "Apache-2.0", 512),
    TextNetwork(
        "distilbert-base-multilingual-cased", "distilbert", (768, 6, 12), 119_547, "wikipedia-104-languages",
        "Apache-2.0", 512,
    ),
    _bert("sentence-transformers/all-MiniLM-L12-v2", _MINI, 30_522, SENTENCES, "Apache-2.0"),
    _bert("BAAI/bge-small-en-v1.5", _MINI, 30_522, SENTENCES, "MIT"),
    _bert("BAAI/bge-base-en-v1.5", _BASE, 30_522, SENTENCES, "MIT"),
    _bert("BAAI/bge-large-en-v1.5", _LARGE, 30_522, SENTENCES, "MIT"),
    _bert("intfloat/e5-small-v2", _MINI, 30_522, SENTENCES, "MIT"),
    _bert("intfloat/e5-base-v2", _BASE, 30_522, SENTENCES, "MIT"),
    _bert("intfloat/multilingual-e5-small", _MINI, 250_037, "sentence-pairs-100-languages", "MIT"),
    _roberta("roberta-base", _BASE, mnli=87.6),
    _roberta("roberta-large", _LARGE, mnli=90.2),
    _roberta("distilroberta-base", (768, 6, 12), 50_265, "openwebtext", "Apache-2.0"),
    _roberta("xlm-roberta-base", _BASE, _MANY, "commoncrawl-100-languages", "MIT", kind="xlm-roberta"),
    _roberta("xlm-roberta-large", _LARGE, _MANY, "commoncrawl-100-languages", "MIT", kind="xlm-roberta"),
    _roberta(
        "intfloat/multilingual-e5-base", _BASE, _MANY, "sentence-pairs-100-languages", "MIT", kind="xlm-roberta"
    ),
    _roberta("camembert-base", _BASE, 32_005, "commoncrawl-french", "MIT", kind="camembert"),
    TextNetwork(
        "google/electra-small-discriminator", "electra", (256, 12, 4), 30_522, BOOKS, "Apache-2.0", 512,
        {"embedding_size": 128},
    ),
    TextNetwork(
        "google/electra-base-discriminator", "electra", _BASE, 30_522, BOOKS, "Apache-2.0", 512,
        {"embedding_size": 768}, 88.8,
    ),
    TextNetwork(
        "google/electra-large-discriminator", "electra", _LARGE, 30_522, "books-wikipedia-news-web", "Apache-2.0",
        512, {"embedding_size": 1024},
    ),
    _deberta("microsoft/deberta-v3-xsmall", (384, 12, 6), 88.1),
    _deberta("microsoft/deberta-v3-small", (768, 6, 12), 88.3),
    _deberta("microsoft/deberta-v3-base", _BASE, 90.6),
    _deberta("microsoft/deberta-v3-large", _LARGE, 91.8),
    _deberta("microsoft/mdeberta-v3-base", _BASE, None, 251_000, "commoncrawl-100-languages"),
    _gpt2("distilgpt2", (768, 6, 12), "Apache-2.0", "openwebtext"),
    _gpt2("gpt2", _BASE, "MIT", "webtext"),
    _gpt2("gpt2-medium", _LARGE, "MIT", "webtext"),
    _decoder("HuggingFaceTB/SmolLM2-135M", "llama", (576, 30, 9), 1536, 3, 49_152, _SMOLLM, "Apache-2.0", 8192),
    _decoder("HuggingFaceTB/SmolLM2-360M", "llama", (960, 32, 15), 2560, 5, 49_152, _SMOLLM, "Apache-2.0", 8192),
    _decoder("HuggingFaceTB/SmolLM2-1.7B", "llama", (2048, 24, 32), 8192, 32, 49_152, _SMOLLM, "Apache-2.0", 8192),
    _decoder("meta-llama/Llama-3.2-1B", "llama", (2048, 16, 32), 8192, 8, 128_256, "web", "Llama-3.2", 131_072),
    _decoder("Qwen/Qwen2.5-0.5B", "qwen2", (896, 24, 14), 4864, 2, 151_936, "web", "Apache-2.0", 32_768),
    _decoder("Qwen/Qwen2.5-1.5B", "qwen2", (1536, 28, 12), 8960, 2, 151_936, "web", "Apache-2.0", 131_072),
    _decoder(
        "Qwen/Qwen3-0.6B-Base", "qwen3", (1024, 28, 16), 3072, 8, 151_936, "web", "Apache-2.0", 32_768, head_dim=128
    ),
    _decoder("mistralai/Mistral-7B-v0.1", "mistral", (4096, 32, 32), 14_336, 8, 32_000, "web", "Apache-2.0", 32_768),
)  # fmt: skip
"""All are of families that the adapter opens. "web" stands for corpora that their makers do not name."""

MINILM = _bert("minilm", (384, 6, 12), 30_522, SENTENCES, "Apache-2.0")
"""all-MiniLM-L6-v2, which an installed package carries."""
