"""Links as plans: each begins with the plan, or the model folder, that it starts from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.chaining.wishes import Wish
from headstart.core.errors import ModelFolderError, PlanError, nearest
from headstart.core.plan import Plan, Saved
from headstart.core.settings import Extract, Pretrained, Source
from headstart.data import TableDataset, open_dataset
from headstart.model import OWN_FILES, WEIGHTS, folder_sha256, open_folder
from headstart.pipeline.origin import require_guardable
from headstart.planning import Opened, proposed, sections
from headstart.train.runtime import Context

NETWORK = (
    "name",
    "image_size",
    "channels",
    "interpolation",
    "mean",
    "std",
    "order",
    "window",
    "overlap",
    "arguments",
)
"""What of a network's settings says how it is built and how it reads its inputs."""

OpenData = Callable[[Any, Mapping[str, Any]], tuple[Source, TableDataset]]
"""Opens labelled data with the settings `data.*`."""


@dataclass(frozen=True)
class Planned:
    """A link by name, with its plan and data."""

    name: str
    opened: Opened


def planned(
    wishes: Sequence[Wish], open_data: OpenData, context: Context, *, folder: Path = Path()
) -> tuple[Planned, ...]:
    """Return the links with their plans; `folder` is where relative model folders are seen from.

    Refused (PlanError): a start that is no link and no folder, links of another modality, network or input than
    their start. ModelFolderError for a folder that was altered or comes from a newer version.
    """
    done: dict[str, Planned] = {}
    data: dict[str, TableDataset] = {}
    for wish in wishes:
        start = _start(wish, done, folder)
        opened = _given(wish, start, data) if wish.plan else _made(wish, start, done, open_data, context)
        data[opened.dataset.fingerprint] = opened.dataset
        plan = opened.plan.model_copy(update={"name": wish.name})
        require_guardable(plan)
        done[wish.name] = Planned(wish.name, Opened(plan, opened.dataset, opened.encoder, None, data))
    return tuple(done.values())


def _start(wish: Wish, done: Mapping[str, Planned], folder: Path) -> Plan | Saved | None:
    """Return what a link starts from."""
    if wish.start is None:
        return None
    if wish.start in done:
        return done[str(wish.start)].opened.plan
    place = folder / Path(wish.start).expanduser()
    if not place.is_dir():
        raise PlanError(
            f"the link '{wish.name}' starts from '{wish.start}'{nearest(str(wish.start), done)}, which is neither a "
            "link of this chain nor a model folder",
            expected=f"one of {', '.join(done) or 'the links'}, or a folder that headstart wrote",
            fix="correct `from`",
        )
    return Saved(folder=str(place), sha256=folder_sha256(place))


def _given(wish: Wish, start: Plan | Saved | None, data: Mapping[str, TableDataset]) -> Opened:
    """Return a link that was given as a plan, continuing its start."""
    assert wish.plan is not None, "it is a plan"
    plan = wish.plan if start is None else continued(wish.plan, start)
    if start is not None:
        _require_fitting(wish, plan, start)
    dataset = data.get(plan.fingerprint)
    if dataset is None and not plan.data.uri:
        raise PlanError(
            f"the link '{wish.name}' is a plan over data in memory",
            expected="data in a file or folder, or a mapping with `data`",
            fix="give the link as {'data': dataset, ...}",
        )
    return Opened(plan, dataset or open_dataset(plan.data))


def _made(
    wish: Wish, start: Plan | Saved | None, done: Mapping[str, Planned], open_data: OpenData, context: Context
) -> Opened:
    """Return a link's plan as the recipe proposes it, with its settings, continuing its start."""
    given = sections(wish.settings)
    source, dataset = open_data(wish.data, given.pop("data", {}))
    own = given.pop("encoder", {})
    network, modality = _network(start)
    if isinstance(start, Plan):
        modality = done[str(wish.start)].opened.dataset.modality
    name = wish.encoder or network.get("name")
    if start is not None:
        _require_modality(wish, dataset, modality)
        _require_own(wish, own, network)
        name, own = network["name"], {key: value for key, value in network.items() if key != "name"}
    changes = dict(given.get("extract", {}))
    retention = given.get("retention")
    if retention is not None and start is None:
        raise PlanError(
            f"retention.* set in the link '{wish.name}', which starts from no other",
            expected="a link behind another", fix="leave it out, or name a start with `from`",
        )  # fmt: skip
    opened = proposed(
        dataset, source, encoder=name, method=wish.method, given={**given, "encoder": own}, context=context
    )
    plan = _handing_on(opened.plan, changes)
    plan = continued(plan, start) if start is not None else plan
    return Opened(plan, opened.dataset, opened.encoder)


def continued(plan: Plan, start: Plan | Saved) -> Plan:
    """Return a plan that begins with what `start` ends with; its own extraction stays between."""
    if plan.extraction is not None:
        return plan.model_copy(update={"start": plan.extraction.model_copy(update={"start": start})})
    return plan.model_copy(update={"start": start})


def _handing_on(plan: Plan, changes: Mapping[str, Any]) -> Plan:
    """Return a plan whose head is of use to later links: over final features, and unseen validation items kept."""
    wished = {"depths": False, "use_validation": False}
    update = {name: value for name, value in wished.items() if name not in changes}

    def kept(one: Plan) -> Plan:
        if not isinstance(one.method, Extract):
            return one
        return one.model_copy(update={"method": one.method.model_copy(update=update)})

    plan = kept(plan)
    return plan.model_copy(update={"start": kept(plan.start)}) if isinstance(plan.start, Plan) else plan


def _network(start: Plan | Saved | None) -> tuple[dict[str, Any], str]:
    """Return the settings of the network that a start ends with, and its modality."""
    if start is None:
        return {}, ""
    if isinstance(start, Plan):
        values = start.encoder.model_dump(exclude={"weights_sha256", "files_sha256"})
        return {name: value for name, value in values.items() if value is not None}, ""
    folder = Path(start.folder)
    opened = open_folder(folder)
    if opened.pretrained.name.startswith("module:"):
        raise ModelFolderError(
            f"the model folder {folder} holds a network that was given in Python",
            expected="a network that can be opened by its name", fix="start from another folder",
        )  # fmt: skip
    values = {
        name: value for name, value in opened.pretrained.model_dump(include=set(NETWORK)).items() if value
    }
    values["weights"] = str(folder / WEIGHTS)
    if (folder / OWN_FILES).is_dir():
        values["folder"] = str(folder / OWN_FILES)
    return values, opened.encoder.spec.modality


def _require_modality(wish: Wish, dataset: TableDataset, modality: str) -> None:
    """Refuse data of another kind than the start's network reads."""
    if modality and dataset.modality != modality:
        raise _other_modality(wish.name, dataset.modality, modality)


def _other_modality(name: str, own: str, before: str) -> PlanError:
    """Return the error for links of different modalities."""
    return PlanError(
        f"the link '{name}' has {own} data, but what it starts from is a network for {before}",
        expected="data of one modality through the whole chain",
        fix="begin a chain of its own for them, or say which column is meant (data.path_column, data.text_column)",
    )


def _require_own(wish: Wish, own: Mapping[str, Any], network: Mapping[str, Any]) -> None:
    """Refuse a link behind another that names another network or input."""
    asked = {**own, **({"name": wish.encoder} if wish.encoder else {})}
    defaults = Pretrained()
    for name, value in asked.items():
        before = network.get(name, getattr(defaults, name, None))
        if value != before:
            what = "the network" if name == "name" else f"encoder.{name} ="
            raise PlanError(
                f"the link '{wish.name}' names {what} {value}, but what it starts from has {before}",
                expected="one network, which reads its inputs in one way, through the whole chain",
                fix="set the encoder in the first link only",
            )


def _require_fitting(wish: Wish, plan: Plan, start: Plan | Saved) -> None:
    """Refuse a plan behind another whose network or input differs."""
    network, _ = _network(start)
    _require_own(wish, plan.encoder.model_dump(include=set(NETWORK), exclude_defaults=True), network)
