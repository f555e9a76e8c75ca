"""A text network as an Encoder: features of every form, word vectors, cuts at every layer, graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from headstart.core.errors import EncoderError
from headstart.core.types import (
    LIMITS,
    EncoderSpec,
    Features,
    Form,
    Graph,
    LayerGroup,
    Limits,
    Prepared,
    Receipt,
    TextContract,
)
from headstart.encoders._network import state_sha256
from headstart.encoders._windows import (
    WORD_BASE,
    Tokens,
    in_parts,
    joined,
    marks,
    take_apart,
    vectors,
    windows_of,
)
from headstart.modalities import text

_EXAMPLE_TOKENS = 12


class Tokenizer(Protocol):
    """Words to token ids: what a text encoder needs of any library's tokenizer."""

    def encode(self, words: Sequence[str]) -> list[list[int]]:
        """Return the ids of each word, without special tokens; none where it has no token of its own."""
        ...

    def encode_text(self, text: str, words: Sequence[tuple[str, int, int]]) -> list[list[int]]:
        """Return the same of a text as it stands, whose words are given with where they start and end."""
        ...

    @property
    def before(self) -> tuple[int, ...]:
        """Special tokens at the start of a window."""
        ...

    @property
    def after(self) -> tuple[int, ...]:
        """Special tokens at the end of a window."""
        ...

    @property
    def mask_id(self) -> int:
        """The token that stands for a hidden one: the tokenizer's own, else the unknown token."""
        ...

    def name(self, token: int) -> str:
        """Return how a token is written."""
        ...


class TextBody(Protocol):
    """What an adapter gives: the network in parts, each a function of ids or hidden states and a mask."""

    module: nn.Module
    groups: tuple[LayerGroup, ...]
    """Embeddings first, then one group a layer."""
    width: int

    def whole(self, ids: Tensor, mask: Tensor | None) -> list[Tensor]:
        """Return the hidden states [N, T, D] of the embeddings and of every layer."""
        ...

    def prefix(self, depth: int) -> nn.Module:
        """Return the module (ids, mask) -> hidden states after the first `depth` groups."""
        ...

    def suffix(self, depth: int) -> nn.Module:
        """Return the module (hidden states, mask) -> last hidden states."""
        ...


class _Network(nn.Module):
    """A batch int64 [N, W, T, 2] to a form's value."""

    form: Form

    def __init__(self, body: TextBody, contract: TextContract, form: Form) -> None:
        super().__init__()
        self.network, self.form, self.contract = body.module, form, contract
        self._body = body

    def forward(self, batch: Tensor) -> Tensor:
        """Encode a batch."""
        tokens = take_apart(batch)
        return joined(in_parts(self._vectors, tokens.ids, tokens.mask), tokens, self.form)

    def _vectors(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return what is kept of windows [M, T]."""
        return vectors(self._body.whole(ids, mask), mask, self.form, self.contract)


class _Prefix(nn.Module):
    """A batch [N, W, T, 2] to [N, W, T, D + 3]: hidden states, mask, and the two digits of each word number."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, batch: Tensor) -> Tensor:
        """Encode a batch up to the cut; the states of windows that are all padding are zero."""
        tokens = take_apart(batch)
        ids, words = batch[..., 0], batch[..., 1]
        found = in_parts(self.part, tokens.ids, tokens.mask)
        hidden = torch.zeros(*ids.shape, found.shape[-1], dtype=found.dtype, device=found.device)
        hidden = hidden.index_put((ids[..., 0] >= 0,), found)
        return torch.cat([hidden, *(part[..., None].to(hidden.dtype) for part in marks(ids >= 0, words))], -1)


class _Suffix(nn.Module):
    """What `_Prefix` gives to a form's value."""

    form: Form

    def __init__(self, part: nn.Module, contract: TextContract, form: Form) -> None:
        super().__init__()
        self.part, self.contract, self.form = part, contract, form

    def forward(self, crossing: Tensor) -> Tensor:
        """Run the rest of the network."""
        flat = crossing.flatten(0, 1)
        item = torch.arange(crossing.shape[0], device=flat.device).repeat_interleave(crossing.shape[1])
        kept = flat[:, 0, -3] > 0
        flat, item = flat[kept], item[kept]
        words = (flat[..., -2] * WORD_BASE + flat[..., -1]).round().long()
        tokens = Tokens(words, flat[..., -3] > 0, words, item, crossing.shape[0])
        states = flat[..., :-3].contiguous()  # Rows of another stride may come to other bits.
        return joined(in_parts(self._vectors, states, tokens.mask), tokens, self.form)

    def _vectors(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return what is kept of windows [M, T, D]."""
        return vectors([self.part(hidden, mask)], mask, self.form, self.contract)


class _Piece(nn.Module):
    """One window without padding, ids [1, T], to what is kept of it: a vector [1, D'] or its tokens [1, T, D]."""

    form: Form

    def __init__(self, body: TextBody, contract: TextContract, form: Form, depth: int) -> None:
        super().__init__()
        self.network, self.contract, self.form, self.depth = body.module, contract, form, depth
        self._body = body
        self.part = body.prefix(depth) if depth else None

    def forward(self, ids: Tensor) -> Tensor:
        """Encode a window."""
        if self.part is not None:
            return self.part(ids, None)
        real = torch.ones_like(ids, dtype=torch.bool)
        return vectors(self._body.whole(ids, None), real, self.form, self.contract)


class TextEncoder:
    """Implements Encoder for any text network that an adapter describes."""

    def __init__(
        self,
        body: TextBody,
        tokenizer: Tokenizer,
        *,
        spec: EncoderSpec,
        receipt: Receipt,
        files: Mapping[str, bytes],
        has_layers: bool = True,
        limits: Limits = LIMITS,
    ) -> None:
        """Join a network with its tokenizer; `has_layers` where all layers are of one width and worth averaging."""
        assert isinstance(spec.contract, TextContract), "texts have a text contract"
        self._contract, self._limits = spec.contract, limits
        self._body, self._tokenizer, self._receipt, self._files = body, tokenizer, receipt, files
        body.module.eval()
        beside = (("layers", body.width),) if has_layers else getattr(body, "depths", ())
        blocks = (("final", body.width), *beside)
        wide = {"layers": body.width} if has_layers else {}
        wide["depths"] = sum(width for _, width in blocks)
        widths = {"pooled": body.width, **wide, "sequence": self._sequence_width()}
        self._spec = replace(spec, width=widths, depths=blocks)
        self._networks: dict[Form, nn.Module] = {}
        self._tensors: list[Tensor] = []
        self._moved: list[tuple[int, int]] | None = None

    def _sequence_width(self) -> int:
        """Return the width of the last layer's states."""
        return getattr(self._body, "state_width", self._body.width)

    @property
    def spec(self) -> EncoderSpec:
        """What is known of the network without running it; its weights are hashed again once they have moved."""
        if self._moved != [(tensor.data_ptr(), tensor._version) for tensor in self._tensors]:
            self._tensors = list(self.module.state_dict(keep_vars=True).values())
            self._moved = [(tensor.data_ptr(), tensor._version) for tensor in self._tensors]
            self._spec = replace(self._spec, weights_sha256=state_sha256(self.module))
        return self._spec

    @property
    def module(self) -> nn.Module:
        """The network itself; its state has the source library's own names."""
        return self._body.module

    @property
    def receipt(self) -> Receipt:
        """Which of its tensors came from where."""
        return self._receipt

    def prepare(
        self,
        raw: Any,
        *,
        draw: np.random.Generator | None = None,
        strength: str = "none",  # noqa: ARG002
    ) -> Prepared:
        """Turn a text (or its words, or a file) into windows, int32 [W, T, 2]; texts are not augmented."""
        if isinstance(raw, np.ndarray):
            return Prepared(raw)
        read = text.read(raw, self._limits)
        if isinstance(read, str):
            pieces = self._tokenizer.encode_text(read, text.words(read))
        else:
            pieces = self._tokenizer.encode(read)
        value = windows_of(pieces, self._contract, self._tokenizer.before, self._tokenizer.after)
        return Prepared(value, text.facts(read) if draw is None else None)

    def batch(self, values: Sequence[np.ndarray]) -> Tensor:
        """Put values into int64 [N, W, T, 2], padded with -1."""
        shape = np.max([value.shape for value in values], axis=0)
        out = np.full((len(values), *shape), -1, np.int64)
        for row, value in enumerate(values):
            out[row, : value.shape[0], : value.shape[1]] = value
        return torch.from_numpy(out)

    def collate(
        self,
        inputs: Sequence[Any],
        *,
        draws: Sequence[np.random.Generator] | None = None,
        strength: str = "none",  # noqa: ARG002
    ) -> Tensor:
        """Tokenise and batch texts."""
        pairs = zip(inputs, draws or [None] * len(inputs), strict=True)
        return self.batch([self.prepare(raw, draw=draw).value for raw, draw in pairs])

    def __call__(self, inputs: Tensor, form: Form) -> Features:
        """Encode a batch; the mask of `sequence` [N, L] is true where there is a word."""
        value = self.network(form)(inputs)
        if form != "sequence":
            return Features(form, value)
        counts = inputs[..., 1].flatten(1).amax(1) + 1
        return Features(form, value, torch.arange(value.shape[1], device=value.device) < counts[:, None])

    def network(self, form: Form) -> nn.Module:
        """Return the module from a batch to a form's value."""
        if form not in self._spec.width:
            raise EncoderError(
                f"{self._spec.name} has no features of form '{form}'",
                expected=f"one of {', '.join(self._spec.width)}",
                fix="choose another task or encoder",
            )
        if form not in self._networks:
            self._networks[form] = _Network(self._body, self._contract, form)
        return self._networks[form]

    def rows(
        self, values: Sequence[np.ndarray], outputs: Tensor, form: Form, *, depth: int = 0
    ) -> list[np.ndarray]:
        """Return each text's own part: its vector, its words [L, D], or its windows [W, T, D + 3]."""
        found = outputs.cpu().numpy()
        if depth:
            pairs = zip(found, values, strict=True)
            return [row[: value.shape[0], : value.shape[1]] for row, value in pairs]
        if form == "sequence":
            return [row[: int(value[..., 1].max()) + 1] for row, value in zip(found, values, strict=True)]
        return list(found)

    # Language modelling: what an objective over single tokens asks for.

    @property
    def embedding(self) -> nn.Embedding:
        """The vectors of the tokens that the network reads (of its embeddings, the first)."""
        return next(part for part in self.module.modules() if isinstance(part, nn.Embedding))

    @property
    def mask_id(self) -> int:
        """The token that stands for a hidden one."""
        return self._tokenizer.mask_id

    @property
    def special_ids(self) -> tuple[int, ...]:
        """Tokens around a window, which nobody wrote."""
        return (*self._tokenizer.before, *self._tokenizer.after)

    def token_name(self, token: int) -> str:
        """Return how a token is written."""
        return self._tokenizer.name(token)

    def windows(self, batch: Tensor) -> Tensor:
        """Return the windows of a batch as token ids int64 [M, T], padded with -1."""
        tokens = take_apart(batch)
        return torch.where(tokens.mask, tokens.ids, -1)

    def states(self, ids: Tensor) -> Tensor:
        """Return the last hidden states [M, T, D] of windows of token ids [M, T], padded with -1."""
        return in_parts(lambda ids, mask: self._body.whole(ids, mask)[-1], ids.clamp(min=0), ids >= 0)

    def layer_groups(self) -> Sequence[LayerGroup]:
        """Return embeddings and layers, shallow to deep."""
        return self._body.groups

    def split(self, depth: int, form: Form) -> tuple[nn.Module, nn.Module] | None:
        """Return (prefix, suffix) around the first `depth` groups; forms that need every layer cannot be cut."""
        if form not in ("pooled", "sequence") or not 0 < depth <= len(self._body.groups):
            return None
        return _Prefix(self._body.prefix(depth)), _Suffix(self._body.suffix(depth), self._contract, form)

    def stack(self, rows: Sequence[np.ndarray]) -> Tensor:
        """Batch activations [W, T, D + 3], padded with zeros (whose mask is 0)."""
        shape = np.max([row.shape for row in rows], axis=0)
        out = np.zeros((len(rows), *shape), rows[0].dtype)
        for target, row in zip(out, rows, strict=True):
            target[: row.shape[0], : row.shape[1]] = row
            target[row.shape[0] :, :, -2] = target[: row.shape[0], row.shape[1] :, -2] = -1
            target[row.shape[0] :, :, -1] = target[: row.shape[0], row.shape[1] :, -1] = WORD_BASE - 1
        return torch.from_numpy(out)

    def graph(self, form: Form, *, depth: int = 0) -> Graph | None:
        """Return the network over one window without padding, ids int64 [1, T]."""
        word = next(iter(self._tokenizer.encode(["word"])[0]))
        before, after = self._tokenizer.before, self._tokenizer.after
        example = torch.tensor([[*before, *([word] * _EXAMPLE_TOKENS), *after]])
        return Graph(_Piece(self._body, self._contract, form, depth).eval(), example, (1,))

    def pieces(self, value: np.ndarray) -> list[np.ndarray]:
        """Return the ids [1, t] of each window."""
        return [window[None, window[:, 0] >= 0, 0].astype(np.int64) for window in value]

    def join(
        self, value: np.ndarray, outputs: Sequence[np.ndarray], form: Form, *, depth: int = 0
    ) -> np.ndarray:
        """Put a text's windows together: a weighted mean, one vector a word, or the activations of a cut."""
        real = value[..., 0] >= 0
        if not depth and form != "sequence":
            rows = np.concatenate(outputs)
            return (
                rows[0]
                if len(rows) == 1
                else np.average(rows, axis=0, weights=real.sum(1)).astype(rows.dtype)
            )
        hidden = np.zeros((*real.shape, outputs[0].shape[-1]), np.float32)
        for window, output in enumerate(outputs):
            hidden[window, : output.shape[1]] = output[0]
        words = value[..., 1]
        if depth:
            digits = [words // WORD_BASE, words % WORD_BASE]
            return np.concatenate(
                [hidden, *(part[..., None].astype(np.float32) for part in (real, *digits))], -1
            )
        numbers, states = words[words >= 0], hidden[words >= 0]
        order = np.argsort(numbers)
        # Words that share a token take the vector of the last of them.
        return states[order][np.searchsorted(numbers[order], np.arange(numbers.max() + 1))]

    def files(self) -> Mapping[str, bytes]:
        """Return the tokenizer's and the configuration's files."""
        return self._files


Opener = Callable[..., TextEncoder]
