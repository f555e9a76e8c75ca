"""Frozen training from files to a saved model: against its floor, fastai and a plain loop on the same pictures."""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks._claims import Claim, at_least, at_most, not_worse, publish
from benchmarks._data import read, repeated, stage, subset
from benchmarks._measure import Job, Outcome, Seconds, run_contender, run_process

PEERS = {
    "fastai_frozen": "fastai's frozen fit_one_cycle(5)",
    "plain_frozen": "a plain frozen loop of 5 epochs",
}
EPOCHS = 5
ROUNDS = 3
"""Interleaved repeats of what is short (ours and its floor); the peers' minutes are run once."""
FEW_PICTURES_GOAL = 5
"""How much faster than the peers ours must be on the 60 pictures of `--quick`, start-up of a run included."""
_PEER_LAPS = ("train", "test")
"""Ours scores the test pictures too."""

Rounds = Mapping[str, Sequence[Outcome]]


def run(*, quick: bool) -> int:
    """Measure, judge, publish."""
    rows: list[dict[str, object]] = []
    claims: list[Claim] = []
    with tempfile.TemporaryDirectory() as folder:
        small = subset(stage("pacs", Path(folder) / "small", per_class=15), 200)
        full = [] if quick else [stage("brain_mri", Path(folder)), stage("pacs", Path(folder), per_class=100)]
        tables = full or [subset(small, 60)]
        measured = [
            measure(table, Path(folder) / f"work{number}", again=() if quick else ("bare", "ours"))
            for number, table in enumerate(tables)
        ]
        for table, rounds in zip(tables, measured, strict=True):
            rows += [
                {"data": table.parent.name, **outcome.row()} for each in rounds.values() for outcome in each
            ]
        claims += _speed(measured, quick=quick) + _accuracy(tables, measured)
        claims += _processes(small, Path(folder) / "processes", rows, quick=quick)
    return publish("extract", claims, rows=rows, quick=quick)


def measure(
    table: Path, folder: Path, *, names: Sequence[str] = ("ours", "bare", *PEERS), again: Sequence[str]
) -> dict[str, list[Outcome]]:
    """Run the contenders in turn, and those that are short `again` in each further round."""
    rounds: dict[str, list[Outcome]] = {name: [] for name in names}
    for number in range(ROUNDS if again else 1):
        for name in again if number else names:
            work = folder / f"{name}-{number}"
            work.mkdir(parents=True)
            options = {"method": "extract", "again": True} if name == "ours" else {}
            rounds[name].append(run_contender(name, Job(str(table), str(work), EPOCHS, options=options)))
            print(f"  {table.parent.name}: {name} {number + 1}: {_words(rounds[name][-1])}", flush=True)
    return rounds


def _words(outcome: Outcome) -> str:
    """Say the laps of an outcome."""
    return ", ".join(f"{name} {lap.cpu:.1f} cpu-s ({lap.wall:.1f} s)" for name, lap in outcome.laps.items())


def _total(measured: Sequence[Rounds], name: str, *laps: str) -> Seconds:
    """Return the median over rounds of a contender's laps, added up over data sets."""
    total = Seconds(0, 0)
    for rounds in measured:
        spent = [outcome.seconds(*laps) for outcome in rounds[name]]
        total += Seconds(
            statistics.median(each.cpu for each in spent), statistics.median(each.wall for each in spent)
        )
    return total


def _speed(measured: Sequence[Rounds], *, quick: bool) -> list[Claim]:
    """Judge processor seconds (wall seconds are in the rows); on few pictures fixed costs hide most of the ratios."""
    ours = _total(measured, "ours", "train").cpu
    claims = [
        at_least(
            f"faster than {words} (cpu)",
            _total(measured, name, *_PEER_LAPS).cpu / ours,
            FEW_PICTURES_GOAL if quick else 15,
        )
        for name, words in PEERS.items()
    ]
    if quick:
        return claims
    floor, second = floor_claims(measured)
    return [floor, *claims, second]


def floor_claims(measured: Sequence[Rounds]) -> list[Claim]:
    """Judge ours against one bare pass on as many processors, and its second run against the first."""
    ours, again = _total(measured, "ours", "train").cpu, _total(measured, "ours", "again").cpu
    floor = _total(measured, "bare", "forward").cpu
    against = "frozen training, decode to saved model, against one bare forward pass (cpu)"
    second = "second run (store hit) against the first (cpu)"
    return [at_most(against, ours / floor, 1.15), at_most(second, 100 * again / ours, 5, "%")]


def _accuracy(tables: Sequence[Path], measured: Sequence[Rounds]) -> list[Claim]:
    """Judge test accuracy over all data sets, picture by picture."""
    return [
        not_worse(
            f"test accuracy against {words}", _right(tables, measured, "ours"), _right(tables, measured, name)
        )
        for name, words in PEERS.items()
    ]


def _right(tables: Sequence[Path], measured: Sequence[Rounds], name: str) -> list[bool]:
    """Tell for each test picture whether a contender's first round got it right."""
    return [
        rounds[name][0].predictions[item.path] == item.label
        for table, rounds in zip(tables, measured, strict=True)
        for item in read(table).of("test")
    ]


def _processes(small: Path, folder: Path, rows: list[dict[str, object]], *, quick: bool) -> list[Claim]:
    """Judge whole processes: processor time and memory of `headstart fit`, the import, the features' exactness."""
    folder.mkdir(parents=True)
    fit, peak = _fit(small, folder / "once")
    rows.append(
        {
            "name": "headstart fit",
            "pictures": len(read(small).items),
            "cpu": fit.cpu,
            "wall": fit.wall,
            "peak_mb": peak,
        }
    )
    claims = [at_most("whole `headstart fit` process on 200 images (cpu)", fit.cpu, 20, "s")]
    if not quick:
        more, more_peak = _fit(repeated(small, 10), folder / "ten")
        rows.append({"name": "headstart fit, 10x", "cpu": more.cpu, "wall": more.wall, "peak_mb": more_peak})
        claims.append(at_most("peak memory at 10 x the images against 1 x", more_peak / peak, 1.1))
    code = (
        "import sys, time; t = time.process_time(); import headstart; "
        "print(time.process_time() - t, 'torch' in sys.modules)"
    )
    found = [run_process([sys.executable, "-c", code])[2].split() for _ in range(3)]
    claims.append(
        at_most("`import headstart` (cpu, best of 3)", min(float(seconds) for seconds, _ in found), 0.3, "s")
    )
    claims.append(
        Claim("`import headstart` leaves torch alone", found[0][1], "False", found[0][1] == "False")
    )
    exact = run_contender("exactness", Job(str(subset(small, 40)), str(folder)))
    claims.append(
        at_most("features against torch, relative difference", exact.facts["relative_difference"], 1e-4, "")
    )
    return claims


def _fit(table: Path, folder: Path) -> tuple[Seconds, float]:
    """Run the command line on a table in a fresh store; return its seconds and peak memory in MB."""
    start = "from headstart.cli import main; main()"
    command = [sys.executable, "-c", start, "fit", str(table), "--method", "extract", "--quiet"]
    spent, peak, _ = run_process(
        [*command, "--output", str(folder / "model"), "--store", str(folder / "store")]
    )
    return spent, peak
