"""Planning, explaining and running: `fit` is `plan` and then `run`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from headstart.api._given import (
    AUTO,
    Data,
    Progress,
    context_of,
    labelled,
    wish_of,
)
from headstart.core.errors import PlanError, nearest
from headstart.core.machine import Machine, read_machine
from headstart.core.plan import Plan
from headstart.core.settings import (
    Extract,
    FewShot,
    FineTune,
)
from headstart.data import TableDataset, open_dataset
from headstart.planning import Opened, proposed, sections
from headstart.result import Result
from headstart.train.runtime import ignore

if TYPE_CHECKING:
    pass

MethodName = Literal["auto", "extract", "fewshot", "finetune"]
METHODS = ("auto", "extract", "fewshot", "finetune")
Chosen = Extract | FewShot | FineTune


def fit(
    data: Data,
    *,
    encoder: str | None = None,
    method: MethodName | Chosen = "auto",
    output: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    baseline: bool = False,
    machine: Machine | None = None,
) -> Result:
    """Fit a model to labelled data and return the result: audit, scores with intervals, model folder, report.

    `settings` are dotted keys such as {"finetune.layer_decay": 0.65, "data.group_column": "patient"}; `baseline`
    also trains the network from scratch, to show what transfer gained. A second run comes from the store.
    With `encoder="auto"` the network is chosen: candidates whose weights are on this machine are ranked, the best race
    by short fine-tunes, and the winner is trained, all within the setting `auto.minutes`.
    Raises HeadstartError (DataError, PlanError, EncoderError, ...) that says what to do.
    """
    opened = open_plan(data, encoder=encoder, method=method, settings=settings, machine=machine)
    return run(opened, output=output, baseline=baseline, machine=machine)


def plan(
    data: Data,
    *,
    encoder: str | None = None,
    method: MethodName | Chosen = "auto",
    settings: Mapping[str, Any] | None = None,
    machine: Machine | None = None,
) -> Plan:
    """Look at the data and return a fully resolved plan, without running it.

    With `encoder="auto"` candidates are ranked and raced, and the plan is the winner's.
    """
    return open_plan(data, encoder=encoder, method=method, settings=settings, machine=machine).plan


def open_plan(
    data: Data,
    *,
    encoder: str | None = None,
    method: MethodName | Chosen = "auto",
    settings: Mapping[str, Any] | None = None,
    machine: Machine | None = None,
    progress: Progress = ignore,
) -> Opened:
    """Return a plan together with the data and the network that were opened to make it; `run` takes either.

    With `encoder="auto"` the network is chosen here, which takes most of the minutes allowed.
    """
    given = _given(settings, method)
    wish = wish_of(given.pop("auto", {}), encoder)
    source, dataset = labelled(data, given.pop("data", {}))
    context = context_of(machine or read_machine(), 0, progress)
    if encoder == AUTO:
        from headstart.select.auto import choose

        return choose(dataset, source, wish, method=method, given=given, context=context)
    return proposed(dataset, source, encoder=encoder, method=method, given=given, context=context)


def foresee(
    data: Data,
    *,
    method: MethodName | Chosen = "auto",
    settings: Mapping[str, Any] | None = None,
    machine: Machine | None = None,
) -> str:
    """Say in plain words which networks `encoder="auto"` would rank and race on some data; open none of them."""
    from headstart.select.auto import foreseen

    given = _given(settings, method)
    wish = wish_of(given.pop("auto", {}), AUTO)
    source, dataset = labelled(data, given.pop("data", {}))
    context = context_of(machine or read_machine(), 0, ignore)
    return foreseen(dataset, source, wish, method=method, given=given, context=context)


def _given(settings: Mapping[str, Any] | None, method: MethodName | Chosen) -> dict[str, Any]:
    """Return the settings by section; PlanError where one, or the method, has no place in a fit."""
    given = sections(settings or {})
    if "retention" in given:
        raise PlanError(
            "retention.* set, but this fit continues from no earlier task",
            expected="a link of a chain behind another", fix="leave it out, or run a chain (`headstart chain`)",
        )  # fmt: skip
    if isinstance(method, str) and method not in METHODS:
        raise PlanError(
            f"unknown method '{method}'{nearest(method, METHODS)}",
            expected=", ".join(METHODS),
            fix="correct the name",
        )
    return given


def run(
    plan: Plan | Opened,
    *,
    dataset: TableDataset | None = None,
    output: Path | None = None,
    baseline: bool = False,
    strict: bool = False,
    machine: Machine | None = None,
    progress: Progress = ignore,
) -> Result:
    """Run a plan, or fetch its result from the store, and put the model folder at `output`.

    `dataset` is needed where the data are in memory. With `strict`, findings of the audit are errors.
    """
    from headstart.runs import finished

    opened = plan if isinstance(plan, Opened) else Opened(plan, dataset or open_dataset(plan.data))
    plan, dataset = opened.plan, opened.dataset
    if plan.fingerprint and plan.fingerprint != dataset.fingerprint:
        raise PlanError(
            f"the data at {plan.data.uri or 'hand'} are not those of the plan (fingerprint "
            f"{dataset.fingerprint[:12]} instead of {plan.fingerprint[:12]})",
            expected="the same items, labels, groups and splits",
            fix="make the plan anew with `headstart explain DATA --json`, or put the data back",
        )
    context = context_of(machine or read_machine(), plan.seed, progress)
    return finished(opened, context, output=output, baseline=baseline, strict=strict)


def explain(plan: Plan, *, machine: Machine | None = None) -> str:
    """Say in plain words what a plan will do and how long it should take here."""
    from headstart.describe import describe

    return describe(plan, context_of(machine or read_machine(), plan.seed, ignore))
