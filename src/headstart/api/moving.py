"""Verbs that carry a network further: to unlabelled items, along a chain of tasks, to another domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.api._given import (
    Data,
    Progress,
    context_of,
    folder_of_model,
    labelled,
    opened_data,
    refuse_left,
    source_of,
    uri_of,
)
from headstart.api.fitting import open_plan
from headstart.api.using import load
from headstart.core.machine import Machine, read_machine
from headstart.core.plan import Plan
from headstart.core.settings import (
    Adapt,
    Pretrain,
    Source,
    parse,
)
from headstart.data import title_of
from headstart.planning import proposed, sections
from headstart.train.runtime import ignore

if TYPE_CHECKING:
    from headstart.adaptation.outcome import Adaptation, Shifted
    from headstart.chaining.plans import Planned
    from headstart.chaining.run import Chained
    from headstart.pretraining import Outcome


def pretrain(
    data: Data,
    *,
    encoder: str | None = None,
    output: Path | None = None,
    pilot: bool = False,
    settings: Mapping[str, Any] | None = None,
    machine: Machine | None = None,
    progress: Progress = ignore,
) -> Outcome:
    """Pretrain a network on data without looking at labels; the folder at `output` serves wherever an encoder is named.

    A part of each input is hidden and predicted, or views of it are told to agree, as `pretrain.objective` says; the
    settings `encoder.weights` (pretrained or random) and `pretrain.*` say from what and how long. Items that cannot be
    read are left out and listed. With `pilot` a twentieth of the epochs are run, and the outcome's verdict says, from
    the labels of the data, whether the long run is likely to beat plain fine-tuning. A second call comes from the
    store. DataError where nothing can be learnt from the data, PlanError where network and objective do not fit.
    """
    from headstart.pretraining.run import Request, pretrained

    given = sections(settings or {})
    source = parse(Source, {"uri": uri_of(data), **given.pop("data", {})}, what="--set data.*")
    asked = parse(Pretrain, given.pop("pretrain", {}), what="--set pretrain.*")
    known = ("encoder", "seed", *(("extract", "finetune", "split") if pilot else ()))
    refuse_left(
        {name: value for name, value in given.items() if name not in known},
        expected="data.*, encoder.*, pretrain.*, seed; with --pilot extract.*, finetune.* and split.* too",
    )
    dataset = opened_data(data, source, needs_label=False)
    context = context_of(machine or read_machine(), 0, progress)
    method = "finetune" if pilot else "extract"
    opened = proposed(dataset, source, encoder=encoder, method=method, given=given, context=context)
    title = f"{title_of(source.uri, 'arrays')}{'-pilot' if pilot else ''}"
    folder = output or Path("pretrained") / title
    return pretrained(Request(opened, asked, pilot), replace(context, seed=opened.plan.seed), output=folder)


def chain(
    links: str | Path | Sequence[Mapping[str, Any] | Plan],
    *,
    output: Path | None = None,
    compare: bool = False,
    strict: bool = False,
    machine: Machine | None = None,
    progress: Progress = ignore,
) -> Chained:
    """Run a chain of tasks: each link begins with the network, and the head's rows by class name, of the one before.

    `links` is a YAML file, or a list of plans and of mappings with `data` and perhaps `name`, `from` (a link, or a
    model folder), `encoder` (of the first), `method`, `settings` and `licence`. Each link is kept in the store and
    resumed on its own; earlier tasks are scored again after each. `compare` runs each link without the chain too. The
    model folders go below `output`, one a link.
    PlanError for starts that are missing or go in a circle, and links that differ in modality, network or input;
    ModelFolderError for a start that was altered or comes from a newer version.
    """
    from headstart.chaining.run import run as run_chain

    context = context_of(machine or read_machine(), 0, progress)
    name = Path(links).stem if isinstance(links, (str, Path)) else "chain"
    planned = open_chain(links, machine=machine, progress=progress)
    return run_chain(planned, context, output=output or Path("chains") / name, compare=compare, strict=strict)


def open_chain(
    links: str | Path | Sequence[Mapping[str, Any] | Plan],
    *,
    machine: Machine | None = None,
    progress: Progress = ignore,
) -> tuple[Planned, ...]:
    """Return the links of a chain with their plans and data, in the order in which they run."""
    from headstart.chaining.plans import planned
    from headstart.chaining.wishes import read_chain, read_links

    context = context_of(machine or read_machine(), 0, progress)
    if isinstance(links, (str, Path)):
        return planned(read_chain(Path(links)), labelled, context, folder=Path(links).parent)
    return planned(read_links(links), labelled, context)


def explain_chain(
    links: str | Path | Sequence[Mapping[str, Any] | Plan], *, machine: Machine | None = None
) -> str:
    """Say in plain words what a chain will do, and which of its links come from the store."""
    from headstart.chaining.run import said

    context = context_of(machine or read_machine(), 0, ignore)
    return "\n".join(said(open_chain(links, machine=machine), context))


def shift(
    source: Data,
    target: Any,
    *,
    encoder: str | None = None,
    output: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    machine: Machine | None = None,
    progress: Progress = ignore,
) -> Shifted:
    """Measure how a target differs from a source: not at all, in the shares of its classes, in its looks, or in both.

    `source` is a model folder, whose own data are opened again, or labelled data; `target` a folder, a table, or a list
    of files, arrays or texts, whose labels, where it has some, are never looked at. With `output` a page and the JSON
    go there. DataError for an empty target, PlanError for one of another modality.
    """
    from headstart.adaptation.look import look, look_from_data
    from headstart.adaptation.page import inputs_of, publish_shift
    from headstart.adaptation.sides import encode_target, open_source, open_target, require_classes

    given = sections(settings or {})
    where = folder_of_model(source)
    if where is not None:
        others = {name: value for name, value in given.items() if name not in ("data", "seed")}
        refuse_left(
            {**({"encoder": encoder} if encoder else {}), **others}, expected="data.* or seed with a model"
        )
    title = f"{title_of(where or source, 'source')} to {title_of(target, 'target')}"
    context = context_of(machine or read_machine(), given.get("seed", 0), progress)
    if where is not None:
        model = load(where)
        require_classes(model)
        items = open_target(target, model.encoder.spec.modality, source_of("", settings))
        origin = open_source(model, context)
        found = look(origin, encode_target(items, model, context), model, title=title, seed=context.seed)
        known = origin.side.dataset if origin.side is not None else None
    else:
        opened = open_plan(
            source, encoder=encoder, method="extract", settings=settings, machine=machine,
            progress=progress,
        )  # fmt: skip
        items = open_target(target, opened.dataset.modality, source_of("", settings))
        found, known = look_from_data(opened, items, replace(context, seed=opened.plan.seed), title=title)
    if output is not None:
        publish_shift(found, inputs_of(known, items), output)
    return found


def adapt(
    model: str | Path,
    target: Any,
    *,
    source: Data | None = None,
    output: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    machine: Machine | None = None,
    progress: Progress = ignore,
) -> Adaptation:
    """Adapt a model folder to a target without labels: the shift is measured, many ways race, doing nothing is one.

    `target` is a folder, a table, or a list of files, arrays or texts; labels that it has are never looked at. `source`
    is what the model was trained on, where that was moved or lay in memory; where it is gone, what needs the model
    alone goes on. Settings `adapt.*` (such as {"adapt.terms": {"mcc": 1.0}}) add a trained way; `data.answers` are
    tables of id and label of some target items, which overrule the votes, and `asked` of what is returned are the items
    whose labels would tell most. The chosen model goes to `output`; a second call comes from the store, an interrupted
    one goes on.
    DataError for an empty target, PlanError for one of another modality or a model of another task than classification.
    """
    from headstart.adaptation.run import Wish, adapted, default_output
    from headstart.adaptation.sides import open_target, plan_of, require_classes

    given = sections(settings or {})
    seed, reading = given.pop("seed", 0), given.pop("data", {})
    chosen = parse(Adapt, given.pop("adapt"), what="--set adapt.*") if "adapt" in given else None
    refuse_left(given, expected="adapt.*, data.* or seed")
    folder = Path(model)
    loaded = load(folder)
    require_classes(loaded)
    how = parse(Source, reading, what="--set data.*")
    labels, how = how.answer_files, how.model_copy(update={"answers": ()})
    items = open_target(target, loaded.encoder.spec.modality, how)
    given_source = None
    if source is not None:
        plan = plan_of(loaded)
        learnt = plan.data if plan else how
        given_source = opened_data(
            source,
            learnt.model_copy(
                update={"uri": uri_of(source), **how.model_dump(include=set(reading) - {"answers"})}
            ),
        )
    title = title_of(target, "target")
    wish = Wish(items, title, given_source, chosen, tuple(Path(one) for one in labels))
    context = context_of(machine or read_machine(), seed, progress)
    return adapted(folder, wish, context, output=output or default_output(folder, title))
