"""Text networks of the transformers library: BERT and its kin, GPT-2, Llama and its kin."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headstart.core.errors import EncoderError
from headstart.core.settings import Pretrained
from headstart.core.types import LIMITS, EncoderSpec, Limits, Receipt, TextContract
from headstart.encoders._network import groups_of
from headstart.encoders._text import TextEncoder
from headstart.encoders._weights import fill, origins, read_weights

LONGEST_WINDOW = 512
"""Tokens a window where the network would take more: attention grows with the square."""
SHARED = 8
"""Neighbouring windows share this part (1/8) of a window."""
_SEED = 20


@dataclass(frozen=True, slots=True)
class Family:
    """Where a family of networks keeps its embeddings, layers and last norm (dotted names), and how it reads."""

    embeddings: tuple[str, ...]
    layers: str
    last: tuple[str, ...] = ()
    is_causal: bool = False
    beside: tuple[str, ...] = ()
    """What every layer uses (relative positions); it counts as part of the embeddings."""


_BERT = Family(("embeddings",), "encoder.layer")
_LLAMA = Family(("embed_tokens",), "layers", ("norm",), is_causal=True)
FAMILIES: Mapping[str, Family] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra"), _BERT),
    "distilbert": Family(("embeddings",), "transformer.layer"),
    **dict.fromkeys(
        ("deberta", "deberta-v2"),
        Family(("embeddings",), "encoder.layer", beside=("encoder.rel_embeddings",)),
    ),
    "gpt2": Family(("wte", "wpe", "drop"), "h", ("ln_f",), is_causal=True),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "smollm3", "gemma"), _LLAMA),
}
"""By the `model_type` of a configuration."""


class HiddenStates:
    """A network in parts that share its parameters; implements TextBody."""

    def __init__(self, module: nn.Module, family: Family) -> None:
        """Name the layers and group the parameters."""
        self.module, self.family = module, family
        self.layers: nn.ModuleList = module.get_submodule(family.layers)  # type: ignore[assignment]
        self.width = int(module.config.hidden_size)
        self.groups = groups_of(module, self._named())

    def _named(self) -> dict[str, list[str]]:
        """Return parameter names by group: embeddings, one group a layer, the last norm with the last layer."""
        named: dict[str, list[str]] = {"embeddings": []}
        named |= {f"layer{index}": [] for index in range(len(self.layers))}
        for name, _ in self.module.named_parameters():
            rest = name.removeprefix(f"{self.family.layers}.")
            is_last = name.startswith(tuple(f"{last}." for last in self.family.last))
            group = "embeddings" if rest == name else f"layer{rest.partition('.')[0]}"
            named[f"layer{len(self.layers) - 1}" if is_last else group].append(name)
        return named

    def whole(self, ids: Tensor, mask: Tensor | None) -> list[Tensor]:
        """Return the hidden states [N, T, D] of the embeddings and of every layer."""
        given = None if mask is None else mask.long()
        return list(self.module(input_ids=ids, attention_mask=given, output_hidden_states=True).hidden_states)

    def prefix(self, depth: int) -> nn.Module:
        """Return (ids, mask) -> hidden states after the embeddings and the first `depth - 1` layers."""
        return _Until(self._part(slice(0, depth - 1), first=True, last=depth == len(self.groups)))

    def suffix(self, depth: int) -> nn.Module:
        """Return (hidden states, mask) -> last hidden states."""
        if depth == len(self.groups):
            return _Same()
        return _After(self._part(slice(depth - 1, None), first=False, last=True))

    def _part(self, layers: slice, *, first: bool, last: bool) -> nn.Module:
        """Return a shallow copy of the network with some of its layers, without embeddings or last norm where asked."""
        part = _shallow(self.module)
        _put(part, self.family.layers, nn.ModuleList(list(self.layers)[layers]))
        if not first:
            for name in self.family.embeddings:
                _put(part, name, _ABSENT.get(name, _GivenStates)())
        if not last:
            for name in self.family.last:
                _put(part, name, nn.Identity())
        return part


class _Until(nn.Module):
    """Run a part from ids."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return hidden states [N, T, D]."""
        given = None if mask is None else mask.long()
        return self.part(input_ids=ids, attention_mask=given).last_hidden_state


class _After(nn.Module):
    """Run a part from hidden states."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return hidden states [N, T, D]."""
        given = None if mask is None else mask.long()
        return self.part(inputs_embeds=hidden, attention_mask=given).last_hidden_state


class _Same(nn.Module):
    """The part behind the last layer: nothing."""

    def forward(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Return the hidden states."""
        return hidden


class _GivenStates(nn.Module):
    """Stands for embeddings where their output is given."""

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> Tensor:
        """Return what was given."""
        return inputs_embeds


class _NoPositions(nn.Module):
    """Stands for position embeddings that the given states hold already."""

    def forward(self, positions: Tensor) -> Tensor:
        """Return zero."""
        return torch.zeros((), device=positions.device)


_ABSENT: Mapping[str, type[nn.Module]] = {"wpe": _NoPositions, "drop": nn.Identity, "wte": nn.Identity}


def _shallow(module: nn.Module) -> nn.Module:
    """Return a copy of a module that shares its parts, so that parts can be exchanged without touching it."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    return twin


def _put(module: nn.Module, name: str, part: nn.Module) -> None:
    """Exchange a part of a shallow copy by its dotted name."""
    *owners, last = name.split(".")
    for owner in owners:
        inner = _shallow(module.get_submodule(owner))
        module._modules[owner] = inner
        module = inner
    module._modules[last] = part


class FastTokenizer:
    """A tokenizer of the transformers library; implements encoders._text.Tokenizer."""

    def __init__(self, tokenizer: Any, *, is_causal: bool) -> None:
        """Find the special tokens around a text."""
        self._tokenizer = tokenizer
        empty = tokenizer("")["input_ids"]
        mark = tokenizer.sep_token_id if tokenizer.sep_token_id in empty else None
        cut = empty.index(mark) if mark is not None else len(empty)
        self.before, self.after = tuple(empty[:cut]), tuple(empty[cut:])
        if is_causal and not self.before and tokenizer.bos_token_id is not None:
            self.before = (tokenizer.bos_token_id,)
        unknown = tokenizer.unk_token_id
        self._fallback = [unknown if unknown is not None else tokenizer.eos_token_id or 0]

    def encode(self, words: Sequence[str]) -> list[list[int]]:
        """Return the ids of each word; one that the tokenizer swallows is its unknown token."""
        if not words:
            return []
        found = self._tokenizer(
            list(words), is_split_into_words=True, add_special_tokens=False, verbose=False
        )
        pieces: list[list[int]] = [[] for _ in words]
        for token, word in zip(found["input_ids"], found.word_ids(), strict=True):
            pieces[word].append(token)
        return [piece or self._fallback for piece in pieces]

    def encode_text(self, text: str, words: Sequence[tuple[str, int, int]]) -> list[list[int]]:
        """Return the ids of a text, each with the word in which it ends."""
        found = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        starts = np.array([start for _, start, _ in words])
        ends = np.array([end - 1 for _, end in found["offset_mapping"]])
        owners = np.maximum(np.searchsorted(starts, ends, side="right") - 1, 0)
        pieces: list[list[int]] = [[] for _ in words]
        for token, word in zip(found["input_ids"], owners, strict=True):
            pieces[word].append(token)
        return [piece or self._fallback for piece in pieces]


def open_transformers(settings: Pretrained, *, limits: Limits = LIMITS) -> TextEncoder:
    """Open `transformers:NAME` (a hub's name), `transformers:FOLDER` or `transformers:FILE.gguf`."""
    name = settings.name.removeprefix("transformers:")
    return open_folder(settings.folder or name, settings, limits=limits)


def open_folder(
    place: str,
    settings: Pretrained,
    *,
    window: int | None = None,
    licence: str = "unknown",
    limits: Limits = LIMITS,
) -> TextEncoder:
    """Open a network from a folder or a hub's name; its weights from there, from a file, or random."""
    library = _library()
    where = _where(place)
    with _explained(place), _quiet():
        config = library.AutoConfig.from_pretrained(**where)
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise EncoderError(
            f"{place} is a network of type '{config.model_type}'",
            expected=f"one of {', '.join(FAMILIES)}",
            fix="choose a network of one of these families",
        )
    tokenizer = _tokenizer(library, where, place, family)
    body, receipt = _body(library, config, where, settings, family)
    contract = _contract(tokenizer, config, settings, family, window=window)
    files = _files(tokenizer, config)
    spec = EncoderSpec(
        name=settings.name, modality="text", width={}, contract=contract, weights_sha256="", licence=licence,
        source=receipt.source,
    )  # fmt: skip
    words = FastTokenizer(tokenizer, is_causal=family.is_causal)
    return TextEncoder(
        HiddenStates(body, family), words, spec=spec, receipt=receipt, files=files, limits=limits
    )


def _library() -> Any:
    """Import transformers, or say how to get it."""
    try:
        import transformers
    except ModuleNotFoundError:
        raise EncoderError(
            "networks for text need the package transformers, which is not installed",
            expected="the extra for texts",
            fix="pip install 'headstart[text]'",
        ) from None
    return transformers


def _where(place: str) -> dict[str, str]:
    """Return the arguments by which transformers finds a hub's name, a folder or a GGUF file."""
    if place.lower().endswith(".gguf"):
        file = Path(place)
        return {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    return {"pretrained_model_name_or_path": place}


def _tokenizer(library: Any, where: Mapping[str, str], place: str, family: Family) -> Any:
    """Open the tokenizer; it must be a fast one, as only these say which word a token is of."""
    folder = Path(place)
    known = (
        "tokenizer.json",
        "vocab.txt",
        "vocab.json",
        "spiece.model",
        "tokenizer.model",
        "sentencepiece.bpe.model",
    )
    if folder.is_dir() and not any((folder / name).is_file() for name in known):
        raise EncoderError(
            f"the folder {place} has no tokenizer",
            expected="tokenizer.json beside the weights",
            fix="copy it from where the network came from: without it texts cannot be read as in its training",
        )
    extra = {"add_prefix_space": True} if family is not _LLAMA else {}
    with _explained(place), _quiet():
        tokenizer = library.AutoTokenizer.from_pretrained(**where, use_fast=True, **extra)
    if not getattr(tokenizer, "is_fast", False):
        raise EncoderError(
            f"the tokenizer of {place} is a slow one, which does not say which word a token is of",
            expected="a tokenizer.json",
            fix="convert it once: AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER)",
        )
    return tokenizer


def _body(
    library: Any, config: Any, where: Mapping[str, str], settings: Pretrained, family: Family
) -> tuple[nn.Module, Receipt]:
    """Make the network without any head and fill it; a tensor that is missing is an error."""
    config._attn_implementation = "sdpa" if family.beside == () else "eager"
    if "gguf_file" in where and settings.weights == "pretrained":
        with _explained(where["gguf_file"]), _quiet():
            body = library.AutoModel.from_pretrained(**where, dtype=torch.float32)
        return body, origins(body, source=where["gguf_file"], taken=set(body.state_dict()))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        body = library.AutoModel.from_config(config, dtype=torch.float32)
    for name in ("pooler", "lm_head"):
        if getattr(body, name, None) is not None:
            setattr(body, name, None)
    if settings.weights == "random":
        return body, origins(body, source="random numbers")
    file = _weights_file(where["pretrained_model_name_or_path"], settings)
    state = _own_names(read_weights(file), body)
    return body, fill(body, state, source=settings.name if settings.weights == "pretrained" else file)


def _own_names(state: Mapping[str, Tensor], body: nn.Module) -> dict[str, Tensor]:
    """Return a state under the body's own names: without the prefix that a model with a head puts before them."""
    wanted = set(body.state_dict())
    prefixes = {"", *(name.partition(".")[0] + "." for name in state)}
    best = max(
        sorted(prefixes),
        key=lambda prefix: len(wanted & {n.removeprefix(prefix) for n in state if n.startswith(prefix)}),
    )
    renamed = {name.removeprefix(best): tensor for name, tensor in state.items()}
    old = {".gamma": ".weight", ".beta": ".bias"}
    for name in list(renamed):
        for end, new in old.items():
            if name.endswith(end):
                renamed[name.removesuffix(end) + new] = renamed.pop(name)
    return renamed


def _weights_file(place: str, settings: Pretrained) -> str:
    """Return the path of the weights: as given, in the folder, or fetched from the hub."""
    if settings.weights != "pretrained":
        return settings.weights
    names = ("model.safetensors", "pytorch_model.bin")
    folder = Path(place)
    if folder.is_dir():
        found = next((folder / name for name in names if (folder / name).is_file()), None)
        if found is None:
            raise EncoderError(
                f"the folder {place} has no weights",
                expected="model.safetensors (one file) in it",
                fix="put it there, or name a file: --set encoder.weights=FILE.safetensors",
            )
        return str(found)
    from transformers.utils.hub import cached_file

    with _explained(place):
        return str(cached_file(place, "model.safetensors"))


def _contract(
    tokenizer: Any, config: Any, settings: Pretrained, family: Family, *, window: int | None
) -> TextContract:
    """Return how texts are read."""
    limits = [getattr(config, "max_position_embeddings", None), tokenizer.model_max_length]
    most = min(int(limit) for limit in limits if limit)
    if config.model_type in ("roberta", "xlm-roberta", "camembert"):
        most = min(most, int(config.max_position_embeddings) - int(config.pad_token_id) - 1)
    if settings.window and settings.window > most:
        raise EncoderError(
            f"encoder.window is {settings.window}, but {settings.name} has positions for {most} tokens",
            expected=f"at most {most}",
            fix=f"--set encoder.window={most} (longer texts are read in several windows)",
        )
    size = settings.window or min(window or most, most, LONGEST_WINDOW)
    overlap = size // SHARED if settings.overlap is None else settings.overlap
    if overlap > size // 2:
        raise EncoderError(
            f"encoder.overlap is {overlap} of a window of {size} tokens",
            expected="at most half a window",
            fix=f"--set encoder.overlap={size // SHARED}",
        )
    text = tokenizer.backend_tokenizer.to_str()
    return TextContract(
        size, overlap, hashlib.sha256(text.encode()).hexdigest(), "last" if family.is_causal else "mean",
        is_causal=family.is_causal, is_lower_case=bool(getattr(tokenizer, "do_lower_case", False)),
    )  # fmt: skip


def _files(tokenizer: Any, config: Any) -> dict[str, bytes]:
    """Return the files from which tokenizer and network are rebuilt."""
    kept = {"model_max_length": tokenizer.model_max_length, "tokenizer_class": "PreTrainedTokenizerFast"}
    kept |= {
        f"{name}_token": getattr(tokenizer, f"{name}_token")
        for name in ("unk", "bos", "eos", "sep", "cls", "pad", "mask")
    }
    if getattr(tokenizer, "do_lower_case", None) is not None:
        kept["do_lower_case"] = tokenizer.do_lower_case
    return {
        "tokenizer.json": tokenizer.backend_tokenizer.to_str().encode(),
        "tokenizer_config.json": json.dumps(
            {name: value for name, value in kept.items() if value is not None}
        ).encode(),
        "config.json": config.to_json_string(use_diff=False).encode(),
    }


@contextmanager
def _explained(place: str) -> Iterator[None]:
    """Turn what the library raises for a place that cannot be had into an error with a fix."""
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError) as error:
        said = str(error).strip().splitlines()
        raise EncoderError(
            f"{place} cannot be opened ({type(error).__name__}: {said[0] if said else ''})",
            expected="a folder with config.json, tokenizer.json and model.safetensors, or a name on a hub in reach",
            fix="give a folder: --encoder transformers:FOLDER; without a connection `--encoder minilm` always works",
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's own warnings out of our output: what they say of weights stands in the receipt."""
    logger = logging.getLogger("transformers")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
