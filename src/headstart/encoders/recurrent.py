"""Recurrent networks for texts: LSTM or GRU, one or both directions, untrained, on word vectors, or from a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headstart.core.errors import DataError, EncoderError, nearest
from headstart.core.settings import Pretrained, parse
from headstart.core.types import LIMITS, EncoderSpec, Limits, Receipt, TextContract
from headstart.encoders._recurrent_network import Architecture, Embedding, build
from headstart.encoders._stack import LayerStack, Stack
from headstart.encoders._text import TextEncoder
from headstart.encoders._vocabulary import (
    PlainTokenizer,
    WordVectors,
    read_vectors,
    word_vocabulary,
    words_in,
)
from headstart.encoders._weights import fill, origins, read_weights
from headstart.modalities import text

KINDS: Mapping[str, Architecture] = {
    "lstm": Architecture(),
    "gru": Architecture(cell="gru"),
    "bilstm": Architecture(bidirectional=True),
    "bigru": Architecture(cell="gru", bidirectional=True),
}
"""Networks that are made untrained, by name."""
LONGEST_WINDOW = 512
"""Tokens a window where config.json names no other number: gradients through more steps say little."""
SHARED = 8
"""Neighbouring windows share this part (1/8) of a window."""
CONFIG, TOKENIZER, WEIGHTS, OWN_FILES = "config.json", "tokenizer.json", "model.safetensors", "encoder"
_SEED = 20


def open_recurrent(settings: Pretrained, *, limits: Limits = LIMITS) -> TextEncoder:
    """Open `recurrent:KIND` (lstm, gru, bilstm, bigru) or `recurrent:FOLDER`.

    A folder holds config.json, tokenizer.json and model.safetensors, or is a model folder that was saved by a run.
    With `weights=random` an untrained network is made, on the vectors of the file `vectors` where one is given;
    `folder` then holds the vocabulary. EncoderError where something is missing or does not fit.
    """
    name = settings.name.partition(":")[2]
    if name not in KINDS and not settings.folder and not Path(name).is_dir():
        raise EncoderError(
            f"there is no recurrent network or folder '{name}'{nearest(name, KINDS)}",
            expected=f"one of {', '.join(KINDS)}, or a folder with {CONFIG}, {TOKENIZER} and {WEIGHTS}",
            fix="correct the name: --encoder recurrent:lstm",
        )
    place = settings.folder or ("" if name in KINDS else name)
    own = Path(place) / OWN_FILES if place and (Path(place) / OWN_FILES / CONFIG).is_file() else Path(place)
    if not place:
        raise EncoderError(
            f"{settings.name} has no vocabulary yet",
            expected="a plan, which counts the words of the data, or a folder with a tokenizer",
            fix="open it through `headstart fit` or headstart.plan, or name a folder: encoder.folder=FOLDER",
        )
    architecture = _architecture(own, name)
    content = _read(own / TOKENIZER)
    tokenizer = PlainTokenizer(content, before=architecture.before, name=str(own / TOKENIZER))
    vectors = _vectors(settings, tokenizer)
    if vectors is not None:
        architecture = architecture.model_copy(update={"embedding": vectors.rows.shape[1]})
    module = made(architecture, tokenizer.size)
    receipt = _filled(module, settings, vectors, Path(place))
    files = {CONFIG: (json.dumps(architecture.model_dump(mode="json"), indent=1) + "\n").encode()}
    return encoder_of(
        module, architecture, tokenizer, settings=settings, receipt=receipt, files={**files, TOKENIZER: content},
        limits=limits,
    )  # fmt: skip


def encoder_of(
    module: LayerStack,
    architecture: Architecture,
    tokenizer: PlainTokenizer,
    *,
    settings: Pretrained,
    receipt: Receipt,
    files: Mapping[str, bytes],
    limits: Limits = LIMITS,
) -> TextEncoder:
    """Join network and tokenizer; pooled features are last state, maximum and mean (ULMFiT, arXiv 1801.06146)."""
    widths = (architecture.embedding, *architecture.widths)
    names = ("embedding", *(f"layer{index}" for index in range(len(architecture.widths))))
    depths = tuple((name, 3 * width) for name, width in reversed(list(zip(names, widths, strict=True))[:-1]))
    body = Stack(module, width=3 * widths[-1], state_width=widths[-1], depths=depths)
    spec = EncoderSpec(
        name=settings.name, modality="text", width={},
        contract=_contract(architecture, settings, files.get(TOKENIZER, b"")), weights_sha256="", licence="unknown",
        source=receipt.source,
    )  # fmt: skip
    return TextEncoder(
        body, tokenizer, spec=spec, receipt=receipt, files=files, has_layers=False, limits=limits
    )


def made(architecture: Architecture, vocabulary: int, *, seed: int = _SEED) -> LayerStack:
    """Make an untrained network from numbers drawn by `seed`, whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(architecture, vocabulary)


def vocabulary(inputs: Iterable[Any], settings: Pretrained) -> bytes:
    """Return a tokenizer.json of the words of texts (or their words, or files); what cannot be read is left out."""
    known = words_in(settings.vectors) if settings.vectors else ()
    return word_vocabulary(_texts(inputs), known=known)


def _texts(inputs: Iterable[Any]) -> Iterable[str]:
    """Yield the texts that can be read; the run lists the others."""
    for raw in inputs:
        try:
            read = text.read(raw)
        except DataError:
            continue
        yield read if isinstance(read, str) else " ".join(read)


def _architecture(folder: Path, name: str) -> Architecture:
    """Return what config.json says, or what the kind stands for where there is none."""
    if not (folder / CONFIG).is_file():
        if name in KINDS:
            return KINDS[name]
        raise EncoderError(
            f"the folder {folder} has no {CONFIG}",
            expected=f"{CONFIG} (cell, bidirectional, embedding, widths, ...) beside the weights",
            fix="copy it from where the network came from",
        )
    try:
        values = json.loads(_read(folder / CONFIG))
    except ValueError as error:
        raise EncoderError(
            f"{folder / CONFIG} is not JSON ({error})",
            expected="the settings of a recurrent network",
            fix="copy it anew from where the network came from",
        ) from None
    found = parse(Architecture, values, what=str(folder / CONFIG))
    kind = KINDS.get(name, found)
    if (kind.cell, kind.bidirectional) != (found.cell, found.bidirectional):
        raise EncoderError(
            f"{folder} holds a network of cell {found.cell}, bidirectional {str(found.bidirectional).lower()}",
            expected=f"a {name}, as the name of the encoder says",
            fix=f"name the folder alone: --encoder recurrent:{folder}",
        )
    return found


def _vectors(settings: Pretrained, tokenizer: PlainTokenizer) -> WordVectors | None:
    """Return the vectors of the vocabulary's words where a file of them is given."""
    if not settings.vectors:
        return None
    if settings.weights != "random":
        raise EncoderError(
            f"encoder.vectors is {settings.vectors}, but the weights are {settings.weights}",
            expected="word vectors for a network that is trained from scratch",
            fix="--set encoder.weights=random, or leave encoder.vectors out",
        )
    return read_vectors(settings.vectors, tokenizer.words())


def _filled(module: LayerStack, settings: Pretrained, vectors: WordVectors | None, place: Path) -> Receipt:
    """Give a network its weights: none, those of word vectors, of a file, or of the folder."""
    if vectors is not None:
        return _on_vectors(module, vectors, str(settings.vectors))
    if settings.weights == "random":
        return origins(module, source="random numbers")
    if settings.weights != "pretrained":
        return fill(module, read_weights(settings.weights), source=settings.weights)
    file = place / WEIGHTS
    if not file.is_file():
        raise EncoderError(
            f"{settings.name} has no pretrained weights in {place}",
            expected=f"{WEIGHTS} in the folder, or a network that is trained from scratch",
            fix="--set encoder.weights=random, or encoder.weights=FILE.safetensors",
        )
    return fill(module, read_weights(str(file)), source=str(place))


def _on_vectors(module: LayerStack, vectors: WordVectors, path: str) -> Receipt:
    """Put vectors into the embedding; other words begin near their mean, the unknown word at it."""
    assert isinstance(module.embedding, Embedding), "recurrent networks embed tokens"
    rows = torch.from_numpy(vectors.rows)
    mean, spread = rows.mean(0), rows.std(0, correction=0)
    weight: Tensor = module.embedding.vectors.weight
    with torch.no_grad():
        # The untrained rows are normal with a standard deviation of 0.1.
        weight.mul_(spread / 0.1).add_(mean)
        weight[0] = mean
        weight[torch.from_numpy(vectors.ids)] = rows
    source = f"{len(rows)} of {len(weight)} words from {path}"
    name = "embedding.vectors.weight"
    return origins(module, source=source, taken={name}, adapted={name})


def _contract(architecture: Architecture, settings: Pretrained, tokenizer: bytes) -> TextContract:
    """Return how texts are read."""
    size = settings.window or architecture.window or LONGEST_WINDOW
    overlap = size // SHARED if settings.overlap is None else settings.overlap
    if overlap > size // 2:
        raise EncoderError(
            f"encoder.overlap is {overlap} of a window of {size} tokens",
            expected="at most half a window",
            fix=f"--set encoder.overlap={size // SHARED}",
        )
    normalizer = json.dumps(json.loads(tokenizer).get("normalizer")) if tokenizer else ""
    return TextContract(
        size, overlap, hashlib.sha256(tokenizer).hexdigest(),
        "concat_both" if architecture.bidirectional else "concat", is_causal=not architecture.bidirectional,
        is_lower_case="Lowercase" in normalizer,
    )  # fmt: skip


def _read(path: Path) -> bytes:
    """Read a file of the network; EncoderError where it is missing."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise EncoderError(
            f"{path} cannot be read ({error.strerror})",
            expected=f"a folder with {CONFIG}, {TOKENIZER} and {WEIGHTS}",
            fix="copy it from where the network came from: without it texts cannot be read as in its training",
        ) from None
