"""Checks that third parties run on their own parts; each AssertionError says which promise is broken."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from headstart.core.protocols import Encoder
    from headstart.core.types import Form

TOLERANCE = 1e-4
"""Largest relative difference of an item's features between batches."""


def check_encoder(encoder: Encoder) -> None:
    """Check an image encoder against the contract; AssertionError names the first promise that it breaks.

    Layer groups cover each parameter once; widths and forms are true; a cut at any depth gives the same bits; features
    depend on nothing beside the item; the weights' hash follows the weights. The encoder is left as it was.
    """
    contract = encoder.spec.contract
    generator = torch.Generator().manual_seed(0)
    shape = (3, contract.channels, *contract.size)
    pictures = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    encoder.module.eval()
    _check_groups(encoder)
    with torch.inference_mode():
        _check_forms(encoder, pictures)
        _check_cuts(encoder, pictures)
        _check_batches(encoder, pictures)
    _check_hash(encoder)


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


def _check_forms(encoder: Encoder, pictures: Tensor) -> None:
    """Check shapes, widths and names of every form that the spec promises."""
    spec = encoder.spec
    assert "pooled" in spec.width, "every encoder gives pooled features"
    for form, width in spec.width.items():
        kind: Form = form  # type: ignore[assignment]
        features = encoder(pictures, kind)
        value = features.value
        assert features.form == form, f"asked for {form}, got {features.form}"
        assert value.shape[:2] == (len(pictures), width), f"{form}: {tuple(value.shape)}, promised {width}"
        assert value.dim() == (4 if form == "map" else 2), f"{form} has {value.dim()} dimensions"
        assert torch.isfinite(value).all(), f"{form} features are not finite"
    assert sum(width for _, width in spec.depths) == spec.width.get("depths", 0), (
        "blocks of `depths` and width"
    )
    pooled, depths = encoder(pictures, "pooled").value, encoder(pictures, "depths").value
    assert torch.equal(depths[:, : pooled.shape[1]], pooled), "`depths` begins with the pooled features"


def _check_cuts(encoder: Encoder, pictures: Tensor) -> None:
    """Check that suffix(prefix(x)) is the whole, bit for bit, wherever the encoder says it can be cut."""
    whole = encoder.network("pooled")(pictures)
    groups = encoder.layer_groups()
    for depth in range(1, len(groups) + 1):
        parts = encoder.split(depth, "pooled")
        if parts is None:
            continue
        prefix, suffix = parts
        assert torch.equal(suffix(prefix(pictures)), whole), f"cut after {depth} groups: other bits"
        later = {id(tensor) for group in groups[depth:] for tensor in group.parameters.values()}
        used = {id(tensor) for node in _called(prefix) for tensor in node}
        assert not used & later, f"the prefix of depth {depth} uses later groups"


def _called(traced: torch.nn.Module) -> list[list[Tensor]]:
    """Return the parameters of every module that a traced part calls (nothing for other parts)."""
    if not isinstance(traced, torch.fx.GraphModule):
        return []
    nodes = [node for node in traced.graph.nodes if node.op == "call_module"]
    return [list(traced.get_submodule(str(node.target)).parameters()) for node in nodes]


def _check_batches(encoder: Encoder, pictures: Tensor) -> None:
    """Check that an item's features do not depend on what is encoded beside it."""
    whole = encoder.network("pooled")(pictures)
    alone = torch.cat([encoder.network("pooled")(picture) for picture in pictures.split(1)])
    difference = float((whole - alone).abs().max() / whole.abs().max().clamp(min=1e-12))
    assert difference <= TOLERANCE, f"features depend on the batch (relative difference {difference:.1e})"


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
