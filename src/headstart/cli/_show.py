"""Results as a person reads them in a terminal, and as one JSON document."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from headstart.core.types import Audit, Finding
    from headstart.evaluation import Evaluation
    from headstart.result import Result

SHOWN_ITEMS = 3
"""Items of a finding that the terminal names; the report shows more."""


def print_json(value: Any) -> None:
    """Print one JSON document on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_lines(rows: list[tuple[str, str]]) -> None:
    """Print a word and what there is to say of it, line by line, without cutting or colouring."""
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        for number, line in enumerate(text.splitlines() or [""]):
            print(f"{name if number == 0 else '':<{width}}  {line}".rstrip())


def print_table(*columns: str, rows: list[tuple[str, ...]]) -> None:
    """Print a plain table that is as wide as it needs to be in a pipe, and fits the window on a terminal."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 10_000
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def audit_lines(audit: Audit) -> list[tuple[str, str]]:
    """Say what the audit found and what was done about it."""
    kept = f"{audit.num_kept} of {audit.num_items} items kept"
    if not audit.findings:
        return [("audit", f"{kept}; nothing found")]
    return [("audit", "\n".join([kept, *(_finding(finding) for finding in audit.findings)]))]


def _finding(finding: Finding) -> str:
    """Say a finding in one line, with the first of its items."""
    named = ", ".join(finding.items[:SHOWN_ITEMS])
    more = len(finding.items) - SHOWN_ITEMS
    items = f" ({named}{f' and {more} more' if more > 0 else ''})" if named else ""
    action = f"; {finding.action}" if finding.action else ""
    return f"{finding.severity}: {finding.message}{action}{items}"


def score_lines(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Say every metric with its interval."""
    return [(_name(score.name), str(score)) for score in evaluation.scores]


def result_lines(result: Result, report: Path) -> list[tuple[str, str]]:
    """Say what a run came to: audit, transfer receipt, scores beside the baseline, cost, where it lies."""
    return [
        *audit_lines(result.audit),
        ("transfer", result.receipt.summary()),
        *_selection_lines(result),
        *_race_lines(result),
        (_name(result.evaluation.primary.name), str(result.evaluation.primary)),
        *_baseline_lines(result),
        *(("note", note) for note in result.notes),
        ("cost", _cost(result)),
        ("model", str(result.folder)),
        ("report", str(report)),
    ]


def _name(score: str) -> str:
    """Return what a score is called in a terminal."""
    return {"r2": "R2", "span_f1": "span F1", "macro_f1": "macro F1", "micro_f1": "micro F1"}.get(
        score, score.replace("_", " ")
    )


def _selection_lines(result: Result) -> list[tuple[str, str]]:
    """Say which network was chosen, and why."""
    chosen = result.selection
    return [("network", "\n".join([chosen.network, *chosen.reasons]))] if chosen else []


def _race_lines(result: Result) -> list[tuple[str, str]]:
    """Say which of the heads won the race, and by what score."""
    return [
        (
            "chosen",
            f"{winner.name}, the best of {len(result.race)} on items not seen: "
            f"{winner.score:.3f} ± {winner.standard_error:.3f}",
        )
        for winner in result.race
        if winner.chosen
    ]


def _baseline_lines(result: Result) -> list[tuple[str, str]]:
    """Say the baseline's score, and what the transfer gained over it with the paired interval."""
    if result.baseline is None:
        return []
    theirs, gain = result.baseline.evaluation.primary, result.baseline.difference
    gained = f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
    return [("baseline", f"{theirs}, {result.baseline.name}"), ("gain", gained)]


def _cost(result: Result) -> str:
    """Say what the run cost."""
    cost = result.cost
    return (
        f"{cost.seconds:.1f} s ({cost.cpu_seconds:.1f} s of processor time), {cost.peak_memory_mb:.0f} MB; "
        f"{cost.items_encoded} items encoded, {cost.items_from_store} from the store"
    )
