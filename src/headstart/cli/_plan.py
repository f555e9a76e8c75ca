"""The plan that a command line asks for: a plan file as it stands, or one made from data and settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.cli._options import settings_of
from headstart.core.errors import PlanError

if TYPE_CHECKING:
    from headstart.core.machine import Machine
    from headstart.core.plan import Plan
    from headstart.planning import Opened


def chosen_plan(
    data: str | None,
    *,
    plan_file: Path | None,
    encoder: str | None,
    method: str | None,
    settings: Sequence[str] | None,
    machine: Machine,
) -> Plan | Opened:
    """Return the plan of the arguments of `fit` and `explain`: a plan file's, or one with data and network open."""
    from headstart import api

    if plan_file is not None:
        _refuse_beside_plan(encoder=encoder, method=method, settings=settings)
        return _moved(_read(plan_file), data)
    if data is None:
        raise PlanError(
            "neither DATA nor --plan was given",
            expected="a folder of class folders, a table, CoNLL files, or a plan file",
            fix="headstart fit FOLDER",
        )
    given: dict[str, Any] = {"encoder": encoder, "method": method}
    chosen = {name: value for name, value in given.items() if value is not None}
    return api.open_plan(data, **chosen, settings=settings_of(settings), machine=machine)


def plan_of(chosen: Plan | Opened) -> Plan:
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
