"""The plan that a command line asks for: a plan file as it stands, or one made from data and settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.cli._options import settings_of
from headstart.cli._show import print_json
from headstart.core.errors import PlanError

if TYPE_CHECKING:
    from headstart.cli._progress import Show
    from headstart.core.machine import Machine
    from headstart.core.plan import Plan
    from headstart.planning import Opened

AUTO = "auto"
"""The --encoder that is to be chosen."""


def chosen_plan(
    data: str | None,
    *,
    plan_file: Path | None,
    encoder: str | None,
    method: str | None,
    settings: Sequence[str] | None,
    machine: Machine,
    show: Show | None = None,
) -> Plan | Opened:
    """Return the plan of the arguments of `fit` and `explain`: a plan file's, or one with data and network open.

    `show` is told what happens where the network is chosen first.
    """
    from headstart import api

    if plan_file is not None:
        _refuse_beside_plan(encoder=encoder, method=method, settings=settings)
        return _moved(_read(plan_file), data)
    data = _required(data)
    given: dict[str, Any] = {"encoder": encoder, "method": method}
    given["progress"] = show if encoder == AUTO else None
    chosen = {name: value for name, value in given.items() if value is not None}
    return api.open_plan(data, **chosen, settings=settings_of(settings), machine=machine)


def explain_plan(
    data: str | None,
    *,
    plan_file: Path | None,
    encoder: str | None,
    method: str | None,
    settings: Sequence[str] | None,
    machine: Machine,
    json: bool,
) -> None:
    """Print what would run, in plain words or as the plan itself."""
    from headstart import api

    if encoder == AUTO and plan_file is None:
        _refuse_json_of_auto(json=json)
        chosen: Any = method or "auto"
        print(api.foresee(_required(data), method=chosen, settings=settings_of(settings), machine=machine))
        return
    chosen = chosen_plan(
        data, plan_file=plan_file, encoder=encoder, method=method, settings=settings, machine=machine
    )
    plan = _plan_of(chosen)
    print_json(plan.model_dump(mode="json")) if json else print(api.explain(plan, machine=machine))


def _refuse_json_of_auto(*, json: bool) -> None:
    """Refuse to print a plan whose network is not chosen yet."""
    if json:
        raise PlanError(
            "the plan was asked for as JSON, but --encoder auto names no network yet",
            expected="a network by name: which one it will be shows when the candidates have raced",
            fix="headstart fit DATA --encoder auto: the plan is in report.json of the model folder",
        )


def _required(data: str | None) -> str:
    """Return the data's place, or say that none was given."""
    if data is None:
        raise PlanError(
            "neither DATA nor --plan was given",
            expected="a folder of class folders, a table, CoNLL files, or a plan file",
            fix="headstart fit FOLDER",
        )
    return data


def _plan_of(chosen: Plan | Opened) -> Plan:
    """Return the plan alone."""
    from headstart.core.plan import Plan

    return chosen if isinstance(chosen, Plan) else chosen.plan


def _read(path: Path) -> Plan:
    """Read a plan file, or say why that cannot be."""
    from headstart.core.plan import read_plan

    try:
        return read_plan(path)
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(
            f"the plan file {path} cannot be read ({error})",
            expected="a JSON file that `headstart explain DATA --json` wrote",
            fix="correct the path",
        ) from None


def _moved(plan: Plan, data: str | None) -> Plan:
    """Return the plan with its data at the place given, if one is."""
    if data is None:
        return plan
    return plan.model_copy(update={"data": plan.data.model_copy(update={"uri": data})})


def _refuse_beside_plan(**given: object) -> None:
    """Refuse what a plan file already decides."""
    names = {"settings": "--set", "encoder": "--encoder", "method": "--method"}
    wrong = [names[name] for name, value in given.items() if value]
    if wrong:
        raise PlanError(
            f"--plan together with {', '.join(wrong)}",
            expected="a plan file alone, as it decides these",
            fix="change the value in the plan file, or leave --plan out",
        )
