"""Injected faults, counted: what was promised, and whether headstart and its peers keep it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks._claims import Claim, publish
from benchmarks.faults._catalogue import Bench, Fault, Verdict
from benchmarks.faults._process import Subject

GROUPS = ("resume", "crash", "config", "data", "numerics")
PEERS = ("trainer", "lightning")
KILLS, QUICK_KILLS = 100, 15


def run(*, quick: bool, only: Sequence[str] = ()) -> int:
    """Inject every fault (or `only` some codes) into ours and, unless quick, into the peers; publish the table."""
    faults = [fault for group in GROUPS for fault in import_module(f"benchmarks.faults.{group}").FAULTS]
    faults = [fault for fault in faults if not only or fault.code in only]
    subjects: list[Subject] = [
        import_module(f"benchmarks.faults.subjects.{name}") for name in ("ours", *(() if quick else PEERS))
    ]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), QUICK_KILLS if quick else KILLS)
        for fault in faults:
            row = {"code": fault.code, "injected": fault.injected, "promised": fault.promised}
            for subject in subjects if fault.peers else subjects[:1]:
                verdict = _judge(fault, subject, bench)
                row[subject.NAME] = {"survived": verdict.survived, "seen": verdict.seen}
                print(
                    f"  {fault.code} {subject.NAME}: {'yes' if verdict.survived else 'NO'} ({verdict.seen})",
                    flush=True,
                )
            rows.append(row)
    claims = [_claim(row, subjects[0].NAME) for row in rows]
    claims.append(_total(rows, subjects))
    return publish("faults", claims, rows=rows, quick=quick)


def _judge(fault: Fault, subject: Subject, bench: Bench) -> Verdict:
    """Check a fault; a check that fails itself counts as not survived."""
    try:
        return fault.check(subject, bench)
    except Exception as error:
        return Verdict(False, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")


def _claim(row: dict[str, Any], name: str) -> Claim:
    """Turn a row into a claim."""
    found = row[name]
    return Claim(f"{row['code']} {row['injected']}", found["seen"], row["promised"], found["survived"])


def _total(rows: Sequence[dict[str, Any]], subjects: Sequence[Subject]) -> Claim:
    """Count the survivors, ours and the peers'."""
    counts = [
        f"{subject.NAME} {sum(row[subject.NAME]['survived'] for row in rows if subject.NAME in row)}"
        f" of {sum(subject.NAME in row for row in rows)}"
        for subject in subjects
    ]
    ours = [row[subjects[0].NAME]["survived"] for row in rows]
    return Claim("faults survived", ", ".join(counts), "all of ours", all(ours))
