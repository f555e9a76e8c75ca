"""Text networks of the transformers library: BERT and its kin, GPT-2, Llama and its kin."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headstart.core.errors import EncoderError
from headstart.core.settings import Pretrained
from headstart.core.types import LIMITS, EncoderSpec, Limits, Receipt, TextContract
from headstart.encoders._hidden_states import FAMILIES, Family, HiddenStates
from headstart.encoders._text import TextEncoder
from headstart.encoders._weights import fill, origins, read_weights

LONGEST_WINDOW = 512
"""Tokens a window where the network would take more: attention grows with the square."""
SHARED = 8
"""Neighbouring windows share this part (1/8) of a window."""
_SEED = 20
_HEADS = ("pooler", "lm_head")
_TOKENIZER_FILES = (
    "tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model",
)  # fmt: skip
_INDEX = "model.safetensors.index.json"
_WEIGHTS_FILES = ("model.safetensors", _INDEX, "pytorch_model.bin")


class FastTokenizer:
    """A tokenizer of the transformers library; implements encoders._text.Tokenizer."""

    def __init__(self, tokenizer: Any, *, is_causal: bool) -> None:
        """Find the special tokens around a text."""
        empty = tokenizer("")["input_ids"]
        mark = tokenizer.sep_token_id if tokenizer.sep_token_id in empty else None
        cut = empty.index(mark) if mark is not None else len(empty)
        self.before, self.after = tuple(empty[:cut]), tuple(empty[cut:])
        if is_causal and not self.before and tokenizer.bos_token_id is not None:
            self.before = (tokenizer.bos_token_id,)
        unknown = tokenizer.unk_token_id
        self._fallback = [unknown if unknown is not None else tokenizer.eos_token_id or 0]
        mask = tokenizer.mask_token_id
        self.mask_id: int = self._fallback[0] if mask is None else mask
        self._inner = tokenizer.backend_tokenizer
        self._lead = self._lead_of_words()

    def _lead_of_words(self) -> str:
        """Return what a word needs before it to be tokenised as within a text (byte-level BPE: a space)."""
        text = self._inner.encode("word word", add_special_tokens=False)
        natural = [token for token, (_, end) in zip(text.ids, text.offsets, strict=True) if end > len("word")]
        leads = [lead for lead in ("", " ") if self._words(["word", f"{lead}word"])[1] == natural]
        return leads[0] if leads else ""

    def name(self, token: int) -> str:
        """Return how a token is written (byte-level ones in the tokenizer's own signs)."""
        return self._inner.id_to_token(token) or ""

    def encode(self, words: Sequence[str]) -> list[list[int]]:
        """Return the ids of each word; none of one that the tokenizer swallows."""
        return self._some(self._words([self._lead + word for word in words]))

    def _some(self, pieces: list[list[int]]) -> list[list[int]]:
        """Return the ids of words; where all of them were swallowed, the unknown token stands for the first."""
        return pieces if any(pieces) else [self._fallback, *pieces[1:]]

    def _words(self, words: Sequence[str]) -> list[list[int]]:
        """Return the ids of each word."""
        found = self._inner.encode(list(words), is_pretokenized=True, add_special_tokens=False)
        pieces: list[list[int]] = [[] for _ in words]
        for token, word in zip(found.ids, found.word_ids, strict=True):
            pieces[word].append(token)
        return pieces

    def encode_text(self, text: str, words: Sequence[tuple[str, int, int]]) -> list[list[int]]:
        """Return the ids of a text, each with the word in which it ends, or that follows a lone space."""
        found = self._inner.encode(text, add_special_tokens=False)
        stops = np.array([stop for _, _, stop in words])
        lasts = np.array([end - 1 for _, end in found.offsets])
        owners = np.minimum(np.searchsorted(stops, lasts, side="right"), len(words) - 1)
        pieces: list[list[int]] = [[] for _ in words]
        for token, word in zip(found.ids, owners.tolist(), strict=True):
            pieces[word].append(token)
        return self._some(pieces)


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
    source: str = "",
) -> TextEncoder:
    """Open a network from a folder or a hub's name; its weights from there, from a file, or random.

    `source` is what the receipt calls them where the encoder's name says too little.
    """
    library, where = _library(), _where(place)
    with _explained(place), _quiet(library):
        config = library.AutoConfig.from_pretrained(**where)
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise EncoderError(
            f"{place} is a network of type '{config.model_type}'",
            expected=f"one of {', '.join(FAMILIES)}",
            fix="choose a network of one of these families",
        )
    tokenizer = _tokenizer(library, where, place)
    body, receipt = _body(library, config, where, settings, family, source or settings.name)
    contract = _contract(tokenizer, config, settings, family, window=window)
    spec = EncoderSpec(
        name=settings.name, modality="text", width={}, contract=contract, weights_sha256="", licence=licence,
        source=receipt.source,
    )  # fmt: skip
    states, words = HiddenStates(body, family), FastTokenizer(tokenizer, is_causal=family.is_causal)
    files = _files(tokenizer, config)
    return TextEncoder(states, words, spec=spec, receipt=receipt, files=files, limits=limits)


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


def _where(place: str) -> dict[str, Any]:
    """Return the arguments by which transformers finds a hub's name, a folder or a GGUF file; code is never run."""
    if place.lower().endswith(".gguf"):
        file = Path(place)
        if not file.is_file():
            raise EncoderError(
                f"there is no file {place}",
                expected="a GGUF file",
                fix="correct the path: transformers:FILE.gguf",
            )
        folder = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
        return {**folder, "trust_remote_code": False}
    return {"pretrained_model_name_or_path": place, "trust_remote_code": False}


def _tokenizer(library: Any, where: Mapping[str, Any], place: str) -> Any:
    """Open the tokenizer; it must be a fast one, as only these say which word a token is of."""
    folder = Path(place)
    if folder.is_dir() and not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise EncoderError(
            f"the folder {place} has no tokenizer",
            expected="tokenizer.json beside the weights",
            fix="copy it from where the network came from: without it texts cannot be read as in its training",
        )
    with _explained(place), _quiet(library):
        tokenizer = library.AutoTokenizer.from_pretrained(**where, use_fast=True)
    if not getattr(tokenizer, "is_fast", False):
        raise EncoderError(
            f"the tokenizer of {place} is a slow one, which does not say which word a token is of",
            expected="a tokenizer.json",
            fix="convert it once: AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER)",
        )
    # Some tokenizer.json cut texts by themselves; ours are read to their end.
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def _body(
    library: Any,
    config: Any,
    where: Mapping[str, Any],
    settings: Pretrained,
    family: Family,
    source: str,
) -> tuple[nn.Module, Receipt]:
    """Make the network without any head and fill it; a tensor that is missing is an error."""
    config._attn_implementation, config.use_cache = family.attention, False
    is_gguf = "gguf_file" in where and settings.weights == "pretrained"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        if is_gguf:
            with _explained(where["gguf_file"]), _quiet(library):
                body = library.AutoModel.from_pretrained(**where, config=config, dtype=torch.float32)
        else:
            body = library.AutoModel.from_config(config, dtype=torch.float32)
    for name in _HEADS:
        if getattr(body, name, None) is not None:
            setattr(body, name, None)
    if is_gguf:
        return body, origins(body, source=where["gguf_file"], taken=set(body.state_dict()))
    if settings.weights == "random":
        return body, origins(body, source="random numbers")
    own = settings.weights == "pretrained"
    state = _hub_weights(where["pretrained_model_name_or_path"]) if own else read_weights(settings.weights)
    return body, fill(body, _own_names(state, body), source=source if own else settings.weights)


def _own_names(state: Mapping[str, Tensor], body: nn.Module) -> dict[str, Tensor]:
    """Return a state under the body's own names: without the prefix that a model with a head puts before them."""
    old = {".gamma": ".weight", ".beta": ".bias"}
    modern: dict[str, Tensor] = {}
    for name, tensor in state.items():
        end = next((end for end in old if name.endswith(end)), "")
        modern[name.removesuffix(end) + old.get(end, "")] = tensor
    wanted = set(body.state_dict())
    prefixes = {"", *(name.partition(".")[0] + "." for name in modern)}
    best = max(
        sorted(prefixes),
        key=lambda prefix: len(wanted & {n.removeprefix(prefix) for n in modern if n.startswith(prefix)}),
    )
    return {name.removeprefix(best): tensor for name, tensor in modern.items()}


def _hub_weights(place: str) -> dict[str, Tensor]:
    """Read the weights of a folder or of a hub's name, in one file or in several."""
    if Path(place).is_dir():
        files = {name: str(Path(place) / name) for name in _WEIGHTS_FILES if (Path(place) / name).is_file()}
    else:
        files = _fetched(place)
    if not files:
        raise EncoderError(
            f"{place} has no weights",
            expected=f"one of {', '.join(_WEIGHTS_FILES)} in it",
            fix="put it there, or name a file: --set encoder.weights=FILE.safetensors",
        )
    name, file = next(iter(files.items()))
    if name != _INDEX:
        return read_weights(file)
    parts = sorted(set(json.loads(Path(file).read_text(encoding="utf-8"))["weight_map"].values()))
    paths = [_fetched_part(place, part) for part in parts]
    return {name: tensor for path in paths for name, tensor in read_weights(path).items()}


def _fetched(place: str) -> dict[str, str]:
    """Fetch the first kind of weights that a hub's name has."""
    from transformers.utils.hub import cached_file

    with _explained(place):
        for name in _WEIGHTS_FILES:
            found = cached_file(place, name, _raise_exceptions_for_missing_entries=False)
            if found is not None:
                return {name: str(found)}
    return {}


def _fetched_part(place: str, part: str) -> str:
    """Return the path of one of several files, in a folder or from the hub."""
    if Path(place).is_dir():
        return str(Path(place) / Path(part).name)
    from transformers.utils.hub import cached_file

    with _explained(place):
        return str(cached_file(place, part))


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
    backend = tokenizer.backend_tokenizer
    return TextContract(
        size, overlap, hashlib.sha256(backend.to_str().encode()).hexdigest(), "last" if family.is_causal else "mean",
        is_causal=family.is_causal,
        is_lower_case=backend.normalizer is not None and "ab" in backend.normalizer.normalize_str("AB"),
    )  # fmt: skip


def _files(tokenizer: Any, config: Any) -> dict[str, bytes]:
    """Return the files from which tokenizer and network are rebuilt."""
    kept = {"model_max_length": tokenizer.model_max_length, "tokenizer_class": "PreTrainedTokenizerFast"}
    kept |= {
        f"{name}_token": getattr(tokenizer, f"{name}_token")
        for name in ("unk", "bos", "eos", "sep", "cls", "pad", "mask")
    }
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
    except Exception as error:  # A tokenizer that is damaged raises no class of its own.
        said = str(error).strip().splitlines()
        raise EncoderError(
            f"{place} cannot be opened ({type(error).__name__}: {said[0] if said else ''})",
            expected="a folder with config.json, tokenizer.json and model.safetensors, or a name on a hub in reach",
            fix="give a folder: --encoder transformers:FOLDER; without a connection `--encoder minilm` always works",
        ) from error


@contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """Keep the library's warnings and bars out of our output: what they say of weights stands in the receipt."""
    logger, said = logging.getLogger("transformers"), library.utils.logging
    level, has_bars = logger.level, said.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    said.disable_progress_bar()
    try:
        yield
    finally:
        logger.setLevel(level)
        if has_bars:
            said.enable_progress_bar()
