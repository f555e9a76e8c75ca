"""Every item encoded once, audited and given its split; what a plan begins with, and in which form of features."""

from __future__ import annotations

from typing import cast

from headstart.core.errors import PlanError
from headstart.core.plan import Plan
from headstart.core.protocols import Encoder, Task
from headstart.core.registry import resolve
from headstart.core.settings import Extract, FewShot, FineTune
from headstart.core.types import Form
from headstart.data import TableDataset
from headstart.features.encode import encode
from headstart.pipeline.course import Ledger
from headstart.pipeline.material import Material, audited, material_of, refuse_findings, with_lost_case


def gather(
    plan: Plan,
    dataset: TableDataset,
    encoder: Encoder,
    extraction: Extract,
    ledger: Ledger,
    *,
    strict: bool,
) -> tuple[Task, Form, Material]:
    """Encode every item once, audit them and give each its split; return what is to be learnt and in which form."""
    if not plan.split.respect:
        dataset = dataset.with_splits([None] * len(dataset))
    task: Task = resolve("task", plan.task)(plan.labels)
    form = _form(task, encoder, extraction)
    with ledger.stage("encode"):
        whole = ledger.count(encode(dataset, encoder, form=form, context=ledger.context))
    with ledger.stage("audit"):
        found = with_lost_case(audited(dataset, whole, plan.data), encoder, task)
        refuse_findings(found.audit, strict=strict)
        return task, form, material_of(plan, dataset, whole, found, task)


def parts_of(plan: Plan) -> tuple[Extract, FewShot | FineTune | None]:
    """Return the extraction and what follows it in a plan (a lone fine-tuning encodes too, for the audit)."""
    if isinstance(plan.method, Extract):
        return plan.method, None
    alone = Extract() if isinstance(plan.method, FewShot) else Extract(depths=False)
    start = plan.extraction.method if plan.extraction else alone
    return cast("Extract", start), plan.method


def _form(task: Task, encoder: Encoder, extraction: Extract) -> Form:
    """Return the form in which every item is encoded once: the task's own, or several depths beside it."""
    if task.form not in encoder.spec.width:
        raise PlanError(
            f"{encoder.spec.name} has no features of form '{task.form}', which {task.name} needs",
            expected=f"an encoder with that form; this one has {', '.join(encoder.spec.width)}",
            fix="choose another encoder (`headstart models` lists them)",
        )
    if task.form == "pooled" and extraction.depths and len(encoder.spec.depths) > 1:
        return "depths"
    return task.form
