"""How a plan is made: the recipe's proposal, the user's settings, and what measuring this machine decides."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from headstart.core.errors import DataError, PlanError, nearest
from headstart.core.hashing import digest
from headstart.core.plan import Plan
from headstart.core.settings import Extract, FewShot, FineTune, Pretrained, Settings, Source, Split, parse
from headstart.features.prefix import Figures, choose, measure
from headstart.heads import LinearHead
from headstart.model import named, open_encoder
from headstart.recipes import Facts, propose
from headstart.train.step import is_out_of_memory, too_large

if TYPE_CHECKING:
    from pathlib import Path

    from headstart.core.protocols import Encoder
    from headstart.core.types import Form
    from headstart.data import TableDataset
    from headstart.result import Selection
    from headstart.train.runtime import Context

DEFAULT_ENCODER = {"image": "efficientnet-lite0", "text": "minilm"}
"""The embedded network of each modality."""
DISK_SHARE = 0.1
"""Share of the free disk that cached activations may take."""
TIMED_ITEMS, PACED_ITEMS, TRIED_ITEMS = 8, 16, 64
BYTES_KEPT = 2
"""Bytes of a number that is cached (float16)."""
KINDS = ("extract", "fewshot", "finetune")
VERBS = ("auto", "rank", "prove", "pretrain", "adapt")
"""Sections of settings that are no part of a plan."""


@dataclass(frozen=True)
class Opened:
    """A plan with its data open, and its network where that is open too, so that neither is opened twice.

    `selection` says how the network was chosen where it was not named.
    """

    plan: Plan
    dataset: TableDataset
    encoder: Encoder | None = None
    selection: Selection | None = None
    earlier: Mapping[str, TableDataset] = field(default_factory=dict)
    """Data of earlier links by fingerprint, where they lie in memory or are open already."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What fine-tuning should take here, in seconds: once (cached views of the frozen part), and each epoch."""

    once: float
    epoch: float


def proposed(
    dataset: TableDataset,
    source: Source,
    *,
    encoder: str | None,
    method: str | Extract | FewShot | FineTune,
    given: dict[str, Any],
    context: Context,
) -> Opened:
    """Return the plan for a dataset; `given` are the user's settings by section, `method` may be fully set already."""
    name = encoder or DEFAULT_ENCODER[dataset.modality]
    chosen = parse(Pretrained, {**named(name), **given.pop("encoder", {})}, what="--set encoder.*")
    chosen = _with_vocabulary(chosen, dataset, context)
    opened = open_encoder(chosen, limits=source.limits)
    _require_modality(opened, dataset)
    facts = facts_of(dataset, context, is_pretrained=chosen.weights != "random")
    last, start = propose(facts, method if isinstance(method, str) else method.kind)
    last = method if not isinstance(method, str) else last
    changes = {kind: given.pop(kind, {}) for kind in KINDS}
    _refuse_unused(changes, {last.kind, start.kind if start else last.kind})
    last, start = _changed(last, changes), _changed(start, changes)
    # A cut keeps what was learnt before; an untrained network has nothing to keep.
    is_open = isinstance(last, FineTune) and not isinstance(method, FineTune) and last.train_last is None
    if is_open and facts.is_pretrained and "train_last" not in changes["finetune"]:
        last = _kept_cut(cast("FineTune", last), dataset, opened, context)
    common: dict[str, Any] = {
        "task": dataset.task,
        "encoder": chosen.model_copy(update=_hashes(opened)),
        "data": source,
        "split": parse(Split, given.pop("split", {}), what="--set split.*"),
        "fingerprint": dataset.fingerprint,
        "labels": dataset.labels,
        **given,
    }
    first = parse(Plan, {**common, "method": start}, what="the plan") if start else None
    return Opened(parse(Plan, {**common, "method": last, "start": first}, what="the plan"), dataset, opened)


def facts_of(dataset: TableDataset, context: Context, *, is_pretrained: bool = True) -> Facts:
    """Return what a recipe needs to know of data and machine."""
    splits = zip(dataset.targets, dataset.splits, strict=True)
    return Facts(
        num_items=sum(target is not None for target in dataset.targets),
        num_classes=len(dataset.labels),
        has_gpu=context.device.type != "cpu",
        modality=dataset.modality,
        task=dataset.task,
        is_pretrained=is_pretrained,
        num_taught=sum(target is not None and split != "test" for target, split in splits),
    )


def sections(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Turn dotted keys into nested ones; a PlanError names an unknown section."""
    known = {*VERBS, "data", "split", "encoder", *KINDS, "retention", "seed"}
    nested: dict[str, Any] = {}
    for name, value in settings.items():
        section, _, key = name.partition(".")
        if section not in known or bool(key) == (section == "seed"):
            raise PlanError(
                f"unknown setting '{name}'{nearest(section, known)}",
                expected=f"{'.*, '.join(sorted(known - {'seed'}))}.* or seed",
                fix="`headstart explain --schema` lists every setting",
            )
        if key:
            nested.setdefault(section, {})[key] = value
        else:
            nested[section] = value
    return nested


def require_settings(
    dataset: TableDataset,
    *,
    method: str | Extract | FewShot | FineTune,
    given: Mapping[str, Any],
    context: Context,
) -> None:
    """Refuse settings by section that no plan for this method could have, before any network is opened (PlanError)."""
    left = dict(given)
    parse(
        Pretrained,
        {"name": DEFAULT_ENCODER[dataset.modality], **left.pop("encoder", {})},
        what="--set encoder.*",
    )
    parse(Split, left.pop("split", {}), what="--set split.*")
    changes = {kind: left.pop(kind, {}) for kind in KINDS}
    if method != "auto":
        own = propose(facts_of(dataset, context), method if isinstance(method, str) else method.kind)
        _refuse_unused(changes, {one.kind for one in own if one})
    for settings in (Extract, FewShot, FineTune):
        kind = settings.model_fields["kind"].default
        parse(settings, changes[kind], what=f"--set {kind}.*")
    left.pop("seed", None)
    if left:
        raise PlanError(
            f"settings of {', '.join(left)} have no part in this",
            expected=f"encoder.*, {'.*, '.join(KINDS)}.*, split.*, auto.*, data.* or seed",
            fix="leave them out",
        )


def choose_cut(settings: FineTune, dataset: TableDataset, encoder: Encoder, context: Context) -> FineTune:
    """Return the settings with `train_last` and `views`: by measured time and free disk, for texts by rule."""
    values = sample_values(dataset, encoder, TIMED_ITEMS)
    if not values:
        return settings
    form = "sequence" if dataset.task == "tagging" else "pooled"
    most_bytes = int(DISK_SHARE * shutil.disk_usage(context.store.root).free)
    if dataset.modality == "text":
        on_gpu = context.device.type != "cpu"
        last, views = (
            (None, None) if on_gpu else _deeper_half(encoder, values, form, most_bytes // len(dataset))
        )
        return settings.model_copy(update={"train_last": last, "views": settings.views or views})
    figures = _measured(encoder, values, form, max(2, len(dataset.labels)), context)
    choice = choose(figures, items=len(dataset), epochs=settings.epochs, most_bytes=most_bytes)
    if choice is None:
        return settings
    last = len(encoder.layer_groups()) - choice.depth
    return settings.model_copy(update={"train_last": last, "views": settings.views or choice.views})


def _kept_cut(settings: FineTune, dataset: TableDataset, encoder: Encoder, context: Context) -> FineTune:
    """Return what `choose_cut` gave first: it rests on timings, and the same call shall give the same plan."""
    asked = settings.model_dump(mode="json")
    data, spec = (dataset.fingerprint, dataset.task), encoder.spec
    key = digest("cut", data, spec.name, spec.weights_sha256, spec.contract, asked, context.device.type)

    def write(folder: Path) -> None:
        chosen = choose_cut(settings, dataset, encoder, context)
        (folder / "finetune.json").write_text(chosen.model_dump_json(), encoding="utf-8")

    folder, _ = context.store.get_or("cuts-v1", key, write)
    return FineTune.model_validate_json((folder / "finetune.json").read_text(encoding="utf-8"))


def pace(plan: Plan, dataset: TableDataset, encoder: Encoder, context: Context, *, items: int) -> Pace:
    """Return what the plan's fine-tuning on so many items should take here, by timing the part that trains on a few."""
    settings = cast("FineTune", plan.method)
    values = sample_values(dataset, encoder, PACED_ITEMS)
    if not values:
        return Pace(0.0, 0.0)
    form: Form = "sequence" if plan.task == "tagging" else "pooled"
    groups = len(encoder.layer_groups())
    depth = 0 if settings.train_last is None else groups - settings.train_last
    depths = (depth,) if depth else ()
    figures = _measured(encoder, values, form, max(2, len(dataset.labels)), context, depths=depths)
    return _pace(figures[-1], settings, items)


def _measured(
    encoder: Encoder,
    values: Sequence[np.ndarray],
    form: Form,
    outputs: int,
    context: Context,
    *,
    depths: Sequence[int] | None = None,
) -> tuple[Figures, ...]:
    """Time the cuts of a network with a linear head where they will run, on fewer items where memory runs out."""
    encoder.module.to(context.device)
    head = LinearHead(encoder.spec.width[form], outputs).to(context.device)
    try:
        inputs = encoder.batch(values).to(context.device)
        return measure(encoder, head, inputs, form=form, context=context, depths=depths)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if len(values) == 1:
            raise too_large(error) from error
    # Behind the block above, as what an error holds on to is not freed inside.
    return _measured(encoder, values[: len(values) // 2], form, outputs, context, depths=depths)


def _pace(figures: Figures, settings: FineTune, items: int) -> Pace:
    """Sum a cut's figures over the items; where its output is not kept, the frozen part runs in every epoch."""
    step = figures.step_seconds
    if figures.depth and settings.views:
        return Pace(items * settings.views * figures.prefix_seconds, items * step)
    return Pace(0.0, items * (figures.prefix_seconds + step))


def _deeper_half(
    encoder: Encoder, values: Sequence[np.ndarray], form: Form, most_bytes: int
) -> tuple[int | None, int | None]:
    """Return the layer groups that train, and one cached view where it takes at most `most_bytes` an item.

    A quarter of a language model's layers, the last ones, learn nine tenths of what all of them do (Lee et al. 2019,
    arXiv 1911.03090). Measured time, by which pictures choose, would leave the head alone here.
    """
    count = len(encoder.layer_groups())
    parts = encoder.split(count - count // 2, form) if count > 1 else None
    if parts is None:
        return None, None
    with torch.no_grad():
        crossing = parts[0](encoder.batch(values))
    item_bytes = BYTES_KEPT * crossing.numel() // len(values)
    return count // 2, 1 if item_bytes <= most_bytes else None


def sample_values(dataset: TableDataset, encoder: Encoder, count: int) -> list[np.ndarray]:
    """Return up to `count` items, spread over the data, as the encoder prepares them; what is bad is left out."""
    values: list[np.ndarray] = []
    for index in np.unique(np.linspace(0, len(dataset) - 1, min(TRIED_ITEMS, len(dataset))).astype(int)):
        try:
            values.append(encoder.prepare(dataset[int(index)].input).value)
        except DataError:
            continue  # The run lists it among what cannot be read.
        if len(values) == count:
            break
    return values


def _with_vocabulary(chosen: Pretrained, dataset: TableDataset, context: Context) -> Pretrained:
    """Return the settings of a recurrent network with the vocabulary that its untrained embedding needs."""
    source, _, kind = chosen.name.partition(":")
    if source != "recurrent" or chosen.folder:
        return chosen
    from headstart.encoders.recurrent import KINDS, vocabulary

    if kind not in KINDS or chosen.weights not in ("pretrained", "random"):
        return chosen
    key = digest("vocabulary", dataset.fingerprint, chosen.vectors)

    def write(folder: Any) -> None:
        # The words of all texts, whatever their split: a vocabulary knows nothing of targets.
        (folder / "tokenizer.json").write_bytes(vocabulary(dataset.inputs, chosen))

    folder, _ = context.store.get_or("vocabularies-v1", key, write)
    # A kind that is named alone has no weights of its own to start from.
    return chosen.model_copy(update={"folder": str(folder), "weights": "random"})


def _hashes(encoder: Encoder) -> dict[str, str | None]:
    """Return the hashes of a network's weights and of its own files."""
    files = encoder.files()
    own = digest("files", {name: hashlib.sha256(content).hexdigest() for name, content in files.items()})
    return {"weights_sha256": encoder.spec.weights_sha256, "files_sha256": own if files else None}


def _require_modality(encoder: Encoder, dataset: TableDataset) -> None:
    """Refuse a network for one kind of input on data of another."""
    if encoder.spec.modality != dataset.modality:
        raise PlanError(
            f"{encoder.spec.name} is a network for {encoder.spec.modality}, the data are {dataset.modality}",
            expected=f"a network for {dataset.modality}, such as {DEFAULT_ENCODER[dataset.modality]}",
            fix="choose another --encoder, or say which column is meant (data.path_column, data.text_column)",
        )


def _refuse_unused(changes: Mapping[str, Mapping[str, Any]], kinds: set[str]) -> None:
    """Refuse settings of a method that the plan does not use."""
    for kind, values in changes.items():
        if values and kind not in kinds:
            raise PlanError(
                f"{', '.join(f'{kind}.{name}' for name in values)} set, but the plan has no {kind}",
                expected=f"settings of {' and '.join(sorted(kinds))}",
                fix=f"leave them out, or choose --method {kind}",
            )


def _changed(method: Any, changes: Mapping[str, Mapping[str, Any]]) -> Any:
    """Return a method with the settings given for its kind."""
    if method is None or not changes[method.kind]:
        return method
    kind = cast("type[Settings]", type(method))
    values = {**method.model_dump(), **changes[method.kind]}
    return parse(kind, values, what=f"--set {method.kind}.*")
