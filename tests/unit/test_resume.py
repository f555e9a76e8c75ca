"""Resume to the bit: cuts at every step, in every phase of a save, across workers; signals; changed runs refused."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import training_parts
from torch import nn
from training_parts import SmallNet, bits, items, run, small_net

from headstart.core.errors import Interrupted, ResumeError, StoreError
from headstart.train import loop
from headstart.train.checkpoint import PHASES
from headstart.train.position import Trained
from headstart.train.runtime import Event
from headstart.train.signals import stopping

STEPS = 3 * items().steps
HERE = Path(__file__).parent


class CutError(Exception):
    """Stands for a crash: the loop saves nothing on its way out."""


def cut_run(folder: Path, at: int, **values: Any) -> None:
    """Run until just after step `at`, then crash."""

    def progress(event: Event) -> None:
        if event.stage == "finetune" and not event.message and event.done == at:
            raise CutError

    with pytest.raises(CutError):
        run(folder, progress, **values)


def plain(done: Trained) -> list[dict[str, float]]:
    """Return the history without what a clock says."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in done.history]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[SmallNet, Trained]:
    """Return the run that nobody cut."""
    return run(None, root=tmp_path_factory.mktemp("whole") / "run")


@pytest.mark.parametrize("at", range(1, STEPS + 1))
def test_a_cut_after_any_step_changes_no_bit(
    tmp_path: Path, whole: tuple[SmallNet, Trained], at: int
) -> None:
    """Mid-epoch, at epoch ends, on the last step, in the warm-up, with augmentation, dropout, BatchNorm and EMA."""
    cut_run(tmp_path / "run", at, workers=(0, 2)[at % 2])
    net, done = run(tmp_path / "run", workers=(2, 0)[at % 2])
    assert bits(net) == bits(whole[0])
    assert plain(done) == plain(whole[1])


def test_three_cuts_in_a_row_change_no_bit(tmp_path: Path, whole: tuple[SmallNet, Trained]) -> None:
    for at, workers in ((3, 0), (9, 3), (16, 1)):
        cut_run(tmp_path / "run", at, workers=workers)
    net, done = run(tmp_path / "run")
    assert bits(net) == bits(whole[0])
    assert plain(done) == plain(whole[1])


@pytest.mark.parametrize("values", [
    {"gradual": True, "freeze_statistics": True, "epochs": 4},
    {"micro": 3, "ema": 0.0},
    {"micro": 1},
    {"patience": 1, "learning_rate": 0.2, "epochs": 8},
])  # fmt: skip
def test_every_kind_of_run_resumes_to_the_bit(tmp_path: Path, values: dict[str, Any]) -> None:
    """Each freeze stage, inside an accumulation, with early-stop counter and best weights."""
    net, done = run(None, root=tmp_path / "a", **values)
    for at in (5, 8, 13):
        cut_run(tmp_path / "run", at, **values)
    other, again = run(tmp_path / "run", **values)
    assert bits(net) == bits(other)
    assert (done.best_epoch, done.best, done.notes, plain(done)) == (
        again.best_epoch, again.best, again.notes, plain(again),
    )  # fmt: skip


def test_a_cut_while_validating_changes_no_bit(tmp_path: Path, whole: tuple[SmallNet, Trained]) -> None:
    def progress(event: Event) -> None:
        if event.message.startswith("epoch 2"):
            raise CutError

    with pytest.raises(CutError):
        run(tmp_path / "run", progress)
    assert bits(run(tmp_path / "run")[0]) == bits(whole[0])


def test_a_finished_run_only_gives_its_result_again(tmp_path: Path, whole: tuple[SmallNet, Trained]) -> None:
    run(tmp_path / "run")
    steps: list[Event] = []
    net, done = run(tmp_path / "run", lambda event: steps.append(event) if event.values.get("loss") else None)
    assert steps == []
    assert bits(net) == bits(whole[0])
    assert plain(done) == plain(whole[1])


def test_a_damaged_newest_checkpoint_costs_time_only(tmp_path: Path, whole: tuple[SmallNet, Trained]) -> None:
    cut_run(tmp_path / "run", 10)
    newest = max((tmp_path / "run").glob("checkpoint-*"))
    (newest / "optimizer.safetensors").write_bytes(b"")
    with pytest.warns(UserWarning, match=newest.name):
        net, _ = run(tmp_path / "run")
    assert bits(net) == bits(whole[0])


def test_damage_of_all_checkpoints_is_refused(tmp_path: Path) -> None:
    cut_run(tmp_path / "run", 10)
    for folder in (tmp_path / "run").glob("checkpoint-*"):
        (folder / "weights.safetensors").unlink()
    with pytest.warns(UserWarning, match="skipped"), pytest.raises(ResumeError, match="are damaged"):
        run(tmp_path / "run")


@pytest.mark.parametrize(("values", "said"), [
    ({"identity": {"data": "b", "classes": ["x", "y"]}}, "data: checkpoint has a, this run has b"),
    ({"identity": {"data": "a", "classes": ["x", "z"]}}, "classes: gone y; new z"),
    ({"seed": 5}, "seed: checkpoint has 0, this run has 5"),
])  # fmt: skip
def test_a_run_on_other_data_classes_or_seed_is_refused(
    tmp_path: Path, values: dict[str, Any], said: str
) -> None:
    identity = {"data": "a", "classes": ["x", "y"]}
    cut_run(tmp_path / "run", 10, identity=identity)
    with pytest.raises(ResumeError) as error:
        run(tmp_path / "run", **{"identity": identity, **values})
    assert said in str(error.value)


def test_another_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_run(tmp_path / "run", 10)
    wider = small_net()
    wider.head = nn.Linear(8, 4)
    monkeypatch.setattr(training_parts, "small_net", lambda: wider)
    with pytest.raises(
        ResumeError, match=r"tensors\.head\.weight: checkpoint has \[3, 8\], this run has \[4, 8\]"
    ):
        run(tmp_path / "run")


def test_another_library_version_is_recorded_and_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_run(tmp_path / "run", 10)
    now = loop.versions
    monkeypatch.setattr(loop, "versions", lambda context: {**now(context), "torch": "9.9"})
    with pytest.warns(UserWarning, match=r"torch .* -> 9\.9"):
        _, done = run(tmp_path / "run")
    assert "9.9" in done.notes[0]


def test_a_full_disk_while_saving_keeps_what_was_saved(
    tmp_path: Path, whole: tuple[SmallNet, Trained]
) -> None:
    def fill(event: Event) -> None:
        if event.message == "sealing" and event.values["number"] == 4:
            raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match="is full"):
        run(tmp_path / "run", fill)
    assert bits(run(tmp_path / "run")[0]) == bits(whole[0])


# -- signals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_stops_and_the_run_goes_on_from_there(
    tmp_path: Path, whole: tuple[SmallNet, Trained], number: int, code: int
) -> None:
    before = signal.getsignal(number)

    def progress(event: Event) -> None:
        if event.stage == "finetune" and not event.message and event.done == 5:
            os.kill(os.getpid(), number)

    with pytest.raises(Interrupted, match="resume with: again") as error:
        run(tmp_path / "run", progress, checkpoint_steps=99, command="again")
    assert error.value.exit_code == code
    assert signal.getsignal(number) is before
    resumed: list[str] = []
    net, _ = run(tmp_path / "run", lambda event: resumed.append(event.message), checkpoint_steps=99)
    assert any(text.startswith("resumed after step 5") for text in resumed)
    assert bits(net) == bits(whole[0])


def test_a_second_interrupt_stops_at_once() -> None:
    with stopping("again"):
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_outside_the_main_thread_no_handler_is_touched() -> None:
    before = signal.getsignal(signal.SIGTERM)
    inside: list[object] = []

    def listen() -> None:
        with stopping("again") as stop:
            stop.check()
            inside.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert inside == [before]


# -- processes that are really killed -------------------------------------------------------------------------


def start(folder: Path, mode: str) -> subprocess.Popen[str]:
    """Start runs in a process of their own."""
    path = os.pathsep.join([str(HERE), str(HERE.parents[1] / "src")])
    command = [sys.executable, str(HERE / "resume_run.py"), str(folder), mode]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    )


def test_kill_9_anywhere_and_the_same_run_again_gives_the_same_bits(
    tmp_path: Path, whole: tuple[SmallNet, Trained]
) -> None:
    """Killed after a step, inside every phase of a save, and twelve times at random."""
    process = start(tmp_path, "kill")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    expected = hashlib.sha256(b"".join(bits(whole[0]).values())).hexdigest()
    assert dict(line.split() for line in output.splitlines()) == dict.fromkeys(
        ["step", *PHASES, "random"], expected
    )


def test_sigterm_from_outside_saves_within_five_seconds_and_locks_meanwhile(tmp_path: Path) -> None:
    process = start(tmp_path / "run", "slow")
    assert process.stdout is not None
    while process.stdout.readline().strip() != "step 3":
        assert process.poll() is None
    with pytest.raises(StoreError, match=f"in use by process {process.pid}"):
        run(tmp_path / "run")
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert time.monotonic() - asked < 5
    assert process.returncode == 143
    assert "resume with: headstart fit X" in output
    assert list((tmp_path / "run").glob("checkpoint-*"))
