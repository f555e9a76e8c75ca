"""Checks that third parties run on their own parts; each AssertionError says which promise is broken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from headstart.core.types import InputContract

if TYPE_CHECKING:
    from headstart.core.protocols import Encoder
    from headstart.core.types import Form

TOLERANCE = 1e-4
"""Largest relative difference of an item's features between batches."""
WHOLE: tuple[Form, ...] = ("pooled", "sequence")
"""Forms at whose networks a cut is tried, where an encoder has them."""


def check_encoder(encoder: Encoder, inputs: Sequence[Any] | None = None) -> None:
    """Check an encoder against the contract; AssertionError names the first promise that it breaks.

    Layer groups cover each parameter once; widths and forms are true; a cut at any depth gives the same bits; features
    depend on nothing beside the item, neither on the batch nor on padding; the pieces that a runtime sees give the same
    features; the weights' hash follows the weights. The encoder is left as it was, in eval mode. `inputs` are at least
    two raw items; without them, random pictures or some texts are taken, one of which needs several windows.
    """
    values = [encoder.prepare(raw).value for raw in (inputs or _inputs(encoder))]
    encoder.module.eval()
    _check_groups(encoder)
    with torch.inference_mode():
        _check_forms(encoder, encoder.batch(values))
        _check_cuts(encoder, encoder.batch(values))
        _check_items(encoder, values)
    _check_hash(encoder)


def _inputs(encoder: Encoder) -> list[Any]:
    """Return random pictures, or texts of very different lengths."""
    contract = encoder.spec.contract
    if isinstance(contract, InputContract):
        shape = (3, *contract.size, contract.channels)
        return list(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    words = ["a", "short", "text", "then", "one", "far", "longer", "which", "is", "read", "in", "windows"]
    long = " ".join(words[place * place % len(words)] for place in range(contract.window + len(words)))
    return ["A short text.", long, "Words", ("given", "one", "by", "one", "\N{GRINNING FACE}")]


def _whole(encoder: Encoder) -> list[Form]:
    """Return the forms that come from the end of the network."""
    return [form for form in WHOLE if encoder.spec.width.get(form)]


def _check_groups(encoder: Encoder) -> None:
    """Check that the layer groups hold every parameter exactly once."""
    groups = encoder.layer_groups()
    names = [group.name for group in groups]
    assert len(set(names)) == len(names), f"layer groups share a name: {names}"
    times = Counter(id(tensor) for group in groups for tensor in group.parameters.values())
    wrong = [name for name, tensor in encoder.module.named_parameters() if times[id(tensor)] != 1]
    assert not wrong, f"parameters that are not in exactly one layer group: {wrong[:5]}"
    for group in groups:
        own = {id(tensor) for tensor in group.parameters.values()}
        strays = [tensor for part in group.modules for tensor in part.parameters() if id(tensor) not in own]
        assert not strays, f"the modules of group {group.name} hold parameters of another group"


def _check_forms(encoder: Encoder, batch: Tensor) -> None:
    """Check shapes, widths and names of every form that the spec promises."""
    spec = encoder.spec
    assert "pooled" in spec.width, "every encoder gives pooled features"
    dimensions = {"map": 4, "sequence": 3}
    for form, width in spec.width.items():
        kind: Form = form  # type: ignore[assignment]
        features = encoder(batch, kind)
        value = features.value
        assert features.form == form, f"asked for {form}, got {features.form}"
        found = (value.shape[0], value.shape[-1 if form == "sequence" else 1])
        assert found == (len(batch), width), f"{form}: {tuple(value.shape)}, promised {width}"
        assert value.dim() == dimensions.get(form, 2), f"{form} has {value.dim()} dimensions"
        assert torch.isfinite(value).all(), f"{form} features are not finite"
        if form == "sequence":
            mask = features.mask
            assert mask is not None, "`sequence` says by its mask where there is a word"
            assert mask.shape == value.shape[:2], f"the mask of `sequence` is {tuple(mask.shape)}"
    assert sum(width for _, width in spec.depths) == spec.width.get("depths", 0), (
        "blocks of `depths` and width"
    )
    pooled, depths = encoder(batch, "pooled").value, encoder(batch, "depths").value
    assert torch.equal(depths[:, : pooled.shape[1]], pooled), "`depths` begins with the pooled features"


def _check_cuts(encoder: Encoder, batch: Tensor) -> None:
    """Check that suffix(prefix(x)) is the whole, bit for bit, wherever the encoder says it can be cut."""
    groups = encoder.layer_groups()
    for form in _whole(encoder):
        whole = encoder.network(form)(batch)
        for depth in range(1, len(groups) + 1):
            parts = encoder.split(depth, form)
            if parts is None:
                continue
            prefix, suffix = parts
            assert torch.equal(suffix(prefix(batch)), whole), f"{form} cut after {depth} groups: other bits"
            later = {id(tensor) for group in groups[depth:] for tensor in group.parameters.values()}
            used = {id(tensor) for node in _called(prefix) for tensor in node}
            assert not used & later, f"the prefix of depth {depth} uses later groups"


def _called(traced: torch.nn.Module) -> list[list[Tensor]]:
    """Return the parameters of every module that a traced part calls (nothing for other parts)."""
    if not isinstance(traced, torch.fx.GraphModule):
        return []
    nodes = [node for node in traced.graph.nodes if node.op == "call_module"]
    return [list(traced.get_submodule(str(node.target)).parameters()) for node in nodes]


def _check_items(encoder: Encoder, values: Sequence[np.ndarray]) -> None:
    """Check that an item's features depend neither on its batch and padding, nor on how a runtime goes about it."""
    for form in _whole(encoder):
        network = encoder.network(form)
        whole = encoder.rows(values, network(encoder.batch(values)), form)
        alone = [encoder.rows([value], network(encoder.batch([value])), form)[0] for value in values]
        difference = _difference(whole, alone)
        assert difference <= TOLERANCE, f"features depend on the batch (relative difference {difference:.1e})"
        graph = encoder.graph(form)
        if graph is None:
            continue
        outputs = [
            [graph.module(torch.from_numpy(piece)).numpy() for piece in encoder.pieces(value)]
            for value in values
        ]
        joined = [encoder.join(value, found, form) for value, found in zip(values, outputs, strict=True)]
        difference = _difference(whole, joined)
        assert difference <= TOLERANCE, f"pieces give other {form} features (difference {difference:.1e})"


def _difference(rows: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> float:
    """Return the largest difference of two lists of arrays, relative to the largest number."""
    shapes = [row.shape for row in rows], [other.shape for other in others]
    assert shapes[0] == shapes[1], f"shapes {shapes[0]} and {shapes[1]}"
    furthest = max(float(np.abs(row - other).max()) for row, other in zip(rows, others, strict=True))
    return furthest / max(1e-12, *(float(np.abs(row).max()) for row in rows))


def _check_hash(encoder: Encoder) -> None:
    """Check that the hash of the weights moves with them, and only with them."""
    before = encoder.spec.weights_sha256
    assert len(before) == 64, "weights_sha256 is a hexadecimal sha256"
    tensor = next(encoder.module.parameters())
    kept = tensor.detach().clone()
    with torch.no_grad():
        tensor[(0,) * tensor.dim()] += 1
    assert encoder.spec.weights_sha256 != before, "the weights moved, their hash did not"
    with torch.no_grad():
        tensor.copy_(kept)
    assert encoder.spec.weights_sha256 == before, "the same weights have another hash"
