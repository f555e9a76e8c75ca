"""The tightest claim of `extract` once more, without the peers' hour: ours and its floor, interleaved.

`python -m benchmarks._floor` puts what it measures in the place of these rows and claims of
`benchmarks/results/extract.json`; those about the peers stay as they were.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks._claims import RESULTS, Claim, machine_facts, table
from benchmarks._data import stage
from benchmarks._measure import Outcome
from benchmarks.extract import floor_claims, measure


def main() -> int:
    """Measure, judge, and write the claims where they belong."""
    path = RESULTS / "extract.json"
    result = json.loads(path.read_text())
    with tempfile.TemporaryDirectory() as folder:
        tables = [stage("brain_mri", Path(folder)), stage("pacs", Path(folder), per_class=100)]
        rounds = [
            measure(one, Path(folder) / f"work{number}", names=("ours", "bare"), again=("bare", "ours"))
            for number, one in enumerate(tables)
        ]
    claims = floor_claims(rounds)
    rows = [
        {"data": one.parent.name, **outcome.row()}
        for one, each in zip(tables, rounds, strict=True)
        for outcomes in each.values()
        for outcome in outcomes
    ]
    kept = [row for row in result["rows"] if row.get("name") not in ("ours", "bare")]
    result["rows"] = [*rows, *kept]
    result["claims"] = [_newest(old, claims) for old in result["claims"]]
    result["machine_of_floor"] = machine_facts()
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(table(claims), _wall(rounds), sep="\n")
    return 0 if all(claim.met for claim in claims) else 1


def _newest(old: dict[str, object], claims: list[Claim]) -> dict[str, object]:
    """Return a claim as it was measured last."""
    return next((asdict(claim) for claim in claims if claim.claim == old["claim"]), old)


def _wall(rounds: list[dict[str, list[Outcome]]]) -> str:
    """Say the same ratio in wall-clock seconds."""
    ours, floor = (
        sum(statistics.median(outcome.seconds(lap).wall for outcome in each[name]) for each in rounds)
        for name, lap in (("ours", "train"), ("bare", "forward"))
    )
    return f"in wall-clock seconds: {ours:.1f} against {floor:.1f}, {ours / floor:.2f} x"


if __name__ == "__main__":
    raise SystemExit(main())
