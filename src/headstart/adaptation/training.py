"""Candidates that change the network: trained by terms, or with BatchNorm statistics of the target."""

from __future__ import annotations

import math
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from headstart.adaptation.candidates import FOLDS, Candidate
from headstart.adaptation.sides import Side
from headstart.core.settings import Adapt, Pretrain
from headstart.methods.adapt import adapt
from headstart.methods.alignment.material import Changes
from headstart.methods.heads.folds import assign_folds
from headstart.methods.objectives.masked_language import MaskedLanguage
from headstart.methods.statistics import has_statistics, reestimate, use_statistics
from headstart.modalities.hiding import hide_blocks, hide_tokens
from headstart.modalities.style import restyle
from headstart.model import Model, load_model
from headstart.pipeline.heads import calibrate
from headstart.train.runtime import Context

BLOCKS = 8
"""Blocks, at least, along the shorter side of a picture of which a share is hidden."""


def trained(folder: Path, source: Side | None, target: Side, settings: Adapt, context: Context) -> Candidate:
    """Train the model of a folder by the terms of the settings and return it as a candidate.

    The source items that no other candidate sees are held out here too, so that one rule judges them all.
    """
    began = time.perf_counter()
    model = load_model(folder)
    kept_out = _kept_out(source, context.seed)
    first = source.dataset.subset(np.flatnonzero(~kept_out)) if source is not None else None
    held_out = source.dataset.subset(np.flatnonzero(kept_out)) if source is not None else None
    done = adapt(
        model, source=first, target=target.dataset, settings=settings, context=context, held_out=held_out,
        changes=_changes(model, settings),
    )  # fmt: skip
    if done.held_out is not None and held_out is not None:
        calibrate(model, done.held_out, [str(one) for one in held_out.targets])
    encoded = model.encode(target.dataset, context)
    outputs = np.asarray(model.logits_of(encoded, model.head.form))
    features = np.asarray(encoded.features, np.float32) if settings.train_last != 0 else None
    name = f"trained: {', '.join(settings.terms) or 'source alone'}"
    return Candidate(
        name, "trained", model, outputs, done.held_out, features, seconds=time.perf_counter() - began,
        note="; ".join(done.notes),
    )  # fmt: skip


def restated(folder: Path, target: Side, context: Context) -> Candidate | None:
    """Return the model of a folder with the target's BatchNorm statistics blended into its own.

    None for a network without such layers, and for one that rests as it was pretrained: its head knows the source under
    the statistics that came with it.
    """
    began = time.perf_counter()
    model = load_model(folder)
    if len(target) < 2 or not has_statistics(model.encoder) or not _was_trained(model):
        return None
    found = reestimate(model.encoder, target.dataset, context=context, form=model.head.form)
    use_statistics(model.encoder, found)
    encoded = model.encode(target.dataset, context)
    outputs = np.asarray(model.logits_of(encoded, model.head.form))
    features = np.asarray(encoded.features, np.float32)
    return Candidate(
        "statistics of the target", "statistics", model, outputs, None, features,
        seconds=time.perf_counter() - began,
    )  # fmt: skip


def _was_trained(model: Model) -> bool:
    """Tell whether the network's weights are others than those that its last plan began with."""
    begun = model.lineage[-1].get("encoder", {}).get("weights_sha256") if model.lineage else None
    return begun is not None and begun != model.encoder.spec.weights_sha256


def _kept_out(source: Side | None, seed: int) -> np.ndarray:
    """Return which source items [n] the other candidates' heads did not see: the first fold."""
    if source is None or source.targets is None:
        return np.zeros(0, bool)
    return assign_folds(source.targets.tolist(), list(source.groups), folds=FOLDS, seed=seed) == 0


def _changes(model: Model, settings: Adapt) -> Changes:
    """Return what only the modality knows: how inputs are partly hidden, restyled, or read as language."""
    encoder: Any = model.encoder
    if encoder.spec.modality == "text":
        language = MaskedLanguage(encoder, Pretrain()) if "udalm" in settings.terms else None
        return Changes(hide=_hidden_words(encoder), language=language)
    size = getattr(encoder.spec.contract, "size", None)
    if not size:
        return Changes()
    common, most = math.gcd(*size), max(1, min(size) // BLOCKS)
    block = next(edge for edge in range(most, 0, -1) if common % edge == 0)
    changed = None if settings.style == "none" else partial(restyle, kind=settings.style)
    return Changes(hide=partial(hide_blocks, block=block), restyle=changed)


def _hidden_words(encoder: Any) -> Any:
    """Return what hides words of a batch of texts; None for a network that knows no token for a hidden one."""
    if getattr(encoder, "mask_id", None) is None:
        return None
    known = {"vocabulary": encoder.embedding.num_embeddings, "special": encoder.special_ids}
    return partial(hide_tokens, mask_id=encoder.mask_id, **known)
