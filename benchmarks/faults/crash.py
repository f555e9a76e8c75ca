"""C: kills, signals, full and failing disks, damaged checkpoints, two runs at once."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks.faults._catalogue import Bench, Fault, Verdict, apart, plain, resumed
from benchmarks.faults._mounts import mount_memory, remount, with_own_mounts
from benchmarks.faults._process import End, Run, Subject, complete, launch, wait
from benchmarks.faults.subjects import fit
from headstart.train.checkpoint import PHASES

_PEER_KILLS = 16


def _random_kills(subject: Subject, bench: Bench) -> Verdict:
    """Kill at random times, again and again; each restart must go on, and nothing acknowledged may be lost."""
    is_ours = subject.NAME.startswith("headstart")
    wanted = bench.kills if is_ours else min(bench.kills, _PEER_KILLS)
    run = bench.run(random=is_ours)
    span = complete(subject, dataclasses.replace(run, folder=bench.folder())).seconds
    tally: Counter[str] = Counter()
    while tally["kills"] < wanted:
        number = launch(subject, run)
        time.sleep(bench.draw.uniform(0, 1.1 * span))
        os.kill(number, signal.SIGKILL)  # Not yet waited for, so the number is still its own.
        end = wait(run, number)
        tally["kills"] += end.code == -signal.SIGKILL
        tally["lost"] += _has_lost(run)
        if end.digest or end.error:
            tally[_ending(subject, bench, run, end)] += 1
            run = bench.run(random=is_ours)
    tally[_ending(subject, bench, run, complete(subject, run))] += 1
    seen = f"{tally['kills']} kills: {tally['failed']} failed restarts, {tally['lost']} acknowledged checkpoints lost"
    seen += f", {tally['other']} ended with other weights, {tally['right']} with the same"
    return Verdict(not (tally["failed"] or tally["lost"] or tally["other"]), seen)


def _fit_kills(_subject: Subject, bench: Bench) -> Verdict:
    """Kill `fit` anywhere between its first line and the saved model."""
    return _random_kills(fit, bench)


def _ending(subject: Subject, bench: Bench, run: Run, end: End) -> str:
    """Name how a run ended that had been killed before."""
    if not end.digest:
        return "failed"
    return "right" if end.digest == bench.reference(subject, run) else "other"


def _has_lost(run: Run) -> bool:
    """Tell whether a run that was started again began before its last acknowledged checkpoint."""
    sound = [int(path.name[-8:]) for path in run.checkpoints.glob("checkpoint-????????")]
    acknowledged = [int(line) for line in run.notes("acknowledged")]
    return bool(acknowledged) and max(sound, default=0) < max(acknowledged)


def _phases(subject: Subject, bench: Bench) -> Verdict:
    """Kill at the beginning of each phase of the third save."""
    verdicts = {phase: resumed(subject, bench, bench.run(phase=phase)) for phase in PHASES}
    bad = [f"{phase}: {verdict.seen}" for phase, verdict in verdicts.items() if not verdict.survived]
    return Verdict(
        not bad, "; ".join(bad) or f"{len(PHASES)} of {len(PHASES)} phases resumed bit-identically"
    )


def _terminate(subject: Subject, bench: Bench) -> Verdict:
    """Send SIGTERM: a checkpoint, exit code 143, and the way to resume."""
    run = bench.run(at=8, action="term", pause=0.02)
    first = complete(subject, run)
    if first.code != 143 or "resume" not in first.message:
        return Verdict(False, f"exit code {first.code}, no word on resuming")
    again = bench.compare(subject, run, complete(subject, plain(run)))
    return Verdict(again.survived and first.seconds < 5, f"exit 143 in {first.seconds:.1f} s; {again.seen}")


def _interrupt(subject: Subject, bench: Bench) -> Verdict:
    """Send SIGINT once (save and stop), and in another run twice (stop now)."""
    run = bench.run(pause=0.2)
    ends = []
    for times in (1, 2):
        number = launch(subject, run)
        _await_forward(run)
        for _ in range(times):
            os.kill(number, signal.SIGINT)
            time.sleep(0.05)
        ends.append(wait(run, number))
    again = bench.compare(subject, run, complete(subject, plain(run)))
    if (ends[0].code, ends[0].error) != (130, "Interrupted"):
        return Verdict(False, f"one SIGINT: exit {ends[0].code}, {ends[0]}")
    if ends[1].error != "KeyboardInterrupt":
        return Verdict(False, f"two SIGINT: {ends[1]}")
    return Verdict(again.survived, f"exit 130 with its state saved; at once the second time; {again.seen}")


def _await_forward(run: Run) -> None:
    """Wait until a training step is under way."""
    until = time.monotonic() + 30
    while not run.notes("forwards") and time.monotonic() < until:
        time.sleep(0.01)


def _full_disk(subject: Subject, bench: Bench) -> Verdict:
    """Fill the disk that holds the checkpoints during a run, then make room and start again."""
    run = bench.run(at=9, action="fill", random=subject.NAME == "headstart")
    bench.reference(subject, run)

    def work() -> Verdict:
        run.checkpoints.mkdir()
        with_own_mounts()
        mount_memory(run.checkpoints, "size=4m")
        first = complete(subject, run)
        if first.digest:
            return Verdict(False, "went on although nothing could be saved")
        (run.checkpoints / "ballast").unlink(missing_ok=True)
        again = bench.compare(subject, run, complete(subject, plain(run)))
        return Verdict(again.survived, f"{first}; then {again.seen}")

    return apart(work, run.folder)


def _full_log(subject: Subject, bench: Bench) -> Verdict:
    """Let whatever writes the progress down find the disk full."""
    return resumed(subject, bench, bench.run(at=9, action="log"))


def _read_only(subject: Subject, bench: Bench) -> Verdict:
    """Make the folder read-only: an error before the first training step."""
    run = bench.run()

    def work() -> Verdict:
        run.checkpoints.mkdir()
        with_own_mounts()
        mount_memory(run.checkpoints, "size=4m")
        remount(run.checkpoints, read_only=True)
        end = complete(subject, run)
        return Verdict(not end.digest and not end.forwards, f"{end} after {end.forwards} training steps")

    return apart(work, run.folder)


def _failing_write(subject: Subject, bench: Bench) -> Verdict:
    """Let the disk report an I/O error while a checkpoint is flushed."""
    run = bench.run(at=9, action="eio")
    first = complete(subject, run)
    again = bench.compare(subject, run, complete(subject, plain(run)))
    return Verdict(again.survived and first.error == "StoreError", f"{first}; then {again.seen}")


def _damaged(damage: Callable[[Path], None]) -> Callable[[Subject, Bench], Verdict]:
    """Return a check that damages the newest checkpoint; the one before must be taken, and the skip be told."""

    def check(subject: Subject, bench: Bench) -> Verdict:
        # Without random numbers, so that a subject that does not keep their state can still end right.
        run = bench.run(at=10, random=subject.NAME == "headstart")
        if complete(subject, run).digest:
            return Verdict(False, "the run was not cut")
        newest = _newest(run)
        damage(newest)
        end = complete(subject, plain(run))
        verdict = bench.compare(subject, run, end)
        if verdict.survived and newest.name not in end.output + end.message:
            return Verdict(False, "went on, but did not name the damaged checkpoint")
        return verdict

    return check


def _newest(run: Run) -> Path:
    """Return the newest checkpoint, a folder or a file."""
    found = [path for path in run.checkpoints.iterdir() if path.name.startswith(("checkpoint-", "last"))]
    return max(found, key=lambda path: (path.stat().st_mtime_ns, path.name))


def _files(checkpoint: Path) -> list[Path]:
    """Return a checkpoint's files, largest (its weights or its optimiser) first."""
    files = (
        [checkpoint] if checkpoint.is_file() else [path for path in checkpoint.iterdir() if path.is_file()]
    )
    return sorted(files, key=lambda path: path.stat().st_size, reverse=True)


def _weights(checkpoint: Path) -> Path:
    """Return the file that holds the weights."""
    named = [path for path in _files(checkpoint) if path.name in ("weights.safetensors", "model.safetensors")]
    return named[0] if named else _files(checkpoint)[0]


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-20] ^= 0x40
    path.write_bytes(content)


def _truncate_states(checkpoint: Path) -> None:
    for path in _files(checkpoint):
        if path.suffix == ".json" or checkpoint.is_file():
            _truncate(path)


def _all_bad(subject: Subject, bench: Bench) -> Verdict:
    """Damage every checkpoint: starting from nothing in silence is the one thing not allowed."""
    run = bench.run(at=10)
    complete(subject, run)
    for path in list(run.checkpoints.rglob("*")):
        if path.is_file() and path.name != "LOCK":
            _truncate(path)
    end = complete(subject, plain(run))
    if subject.NAME == "headstart" and end.error != "ResumeError":
        return Verdict(False, f"expected a ResumeError: {end}")
    return Verdict(not end.digest, f"refused: {end}" if not end.digest else "trained on from damaged state")


def _other_filesystem(subject: Subject, bench: Bench) -> Verdict:
    """Set TMPDIR to another filesystem and cut a run there."""
    run = bench.run(at=10, random=subject.NAME == "headstart")
    bench.reference(subject, run)

    def work() -> Verdict:
        elsewhere = run.folder / "elsewhere"
        elsewhere.mkdir()
        with_own_mounts()
        mount_memory(elsewhere, "size=4m")
        os.environ["TMPDIR"] = str(elsewhere)
        verdict = resumed(subject, bench, run)
        left = [path.name for path in run.checkpoints.iterdir() if path.name.startswith(".tmp")]
        return Verdict(verdict.survived and not left, verdict.seen)

    return apart(work, run.folder)


def _two_at_once(subject: Subject, bench: Bench) -> Verdict:
    """Start a second run on the folder of one under way, then kill the first and start again."""
    run = bench.run(pause=0.3)
    first = launch(subject, run)
    _await_forward(run)
    second = dataclasses.replace(plain(run), folder=bench.folder())
    shutil.rmtree(second.checkpoints, ignore_errors=True)
    second.checkpoints.symlink_to(run.checkpoints)
    end = complete(subject, second)
    os.kill(first, signal.SIGKILL)
    wait(run, first)
    if end.error != "StoreError" or str(first) not in end.message:
        return Verdict(False, f"the second run: {end}")
    again = bench.compare(subject, run, complete(subject, plain(run)))
    return Verdict(again.survived, f"refused, naming process {first}; lock recovered; {again.seen}")


_BACK = "continues from the checkpoint before, names the bad one, bit-identical"
FAULTS = (
    Fault("C1", "SIGKILL at random times, a checkpoint each step", "0 failed restarts, 0 lost", _random_kills, True),
    Fault("C1", "SIGKILL at random times of a whole fit", "0 failed restarts, 0 lost", _fit_kills),
    Fault("C2", "SIGKILL in each phase of a save", "resumes bit-identically", _phases),
    Fault("C3", "SIGTERM", "checkpoint within 5 s, exit 143, `resume with`", _terminate, True),
    Fault("C4", "SIGINT once, twice", "saved and stopped; stopped now", _interrupt),
    Fault("C5", "disk full while saving", "stops; last checkpoint sound", _full_disk, True),
    Fault("C6", "disk full under the progress log", "stops; resumes bit-identically", _full_log),
    Fault("C7", "read-only folder", "an error before training", _read_only, True),
    Fault("C8", "I/O error while saving", "stops; resumes bit-identically", _failing_write),
    Fault("C9", "truncated weights", _BACK, _damaged(lambda path: _truncate(_weights(path))), True),
    Fault("C10", "weights of zero bytes", _BACK, _damaged(lambda path: _empty(_weights(path))), True),
    Fault("C11", "a flipped bit in the weights", _BACK, _damaged(lambda path: _flip(_weights(path))), True),
    Fault("C12", "truncated state and manifest", _BACK, _damaged(_truncate_states), True),
    Fault("C13", "a missing file", _BACK, _damaged(lambda path: _weights(path).unlink()), True),
    Fault("C14", "every checkpoint damaged", "refuses to start from nothing in silence", _all_bad, True),
    Fault("C15", "TMPDIR on another filesystem", "resumes bit-identically, nothing left", _other_filesystem, True),
    Fault("C16", "two runs on one folder", "lock error naming the process; stale lock recovered", _two_at_once),
)  # fmt: skip
