"""The command line parses arguments, shows what happens, and ends with the documented exit codes."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from headstart.cli import _progress
from headstart.cli._app import app
from headstart.cli._end import explain_on_one_line
from headstart.cli._options import settings_of
from headstart.cli._show import audit_lines, print_table
from headstart.cli.cache import size_of, size_text
from headstart.core.errors import DataError, Interrupted, PlanError
from headstart.core.hashing import digest
from headstart.core.plan import Plan
from headstart.core.settings import FineTune, Source
from headstart.core.types import (
    Audit,
    Finding,
    LabelPrediction,
    LabelsPrediction,
    Receipt,
    Score,
    Span,
    SpansPrediction,
    TensorOrigin,
    ValuePrediction,
)
from headstart.evaluation import evaluate
from headstart.store import Store
from headstart.train.runtime import Event

AUDIT = Audit(
    8,
    7,
    (
        Finding("unreadable", "error", "1 file cannot be read", "left out", ("cat/9.jpg",)),
        Finding("small-class", "warning", "5 small classes", "", ("a", "b", "c", "d", "e")),
    ),
)
PREDICTIONS = [
    LabelPrediction("new/1.jpg", "cat", 0.9, {"cat": 0.9, "dög": 0.1}),
    LabelPrediction("new/2, 3.jpg", None, 0.55, {"cat": 0.45, "dög": 0.55}),
]


def evaluation(share: float = 1.0) -> Any:
    """Return scores of twenty items, of which a share is right."""
    targets = np.arange(20) % 2
    right = np.arange(20) < share * 20
    probabilities = np.where((targets == 1) == right, 0.2, 0.8)
    return evaluate(np.stack([probabilities, 1 - probabilities], 1), targets, labels=("cat", "dog"))


class FakeApi(SimpleNamespace):
    """What the verbs call, with what they were called with."""

    def __init__(self, folder: Path) -> None:
        super().__init__(calls={})
        self.folder = folder
        self.fails: BaseException | None = None

    def _called(self, name: str, **values: Any) -> None:
        self.calls[name] = values
        if values.get("progress"):
            for done in (1, 4):
                values["progress"](Event("encode", done, 4, "", {"loss": 0.5}))
        if self.fails:
            raise self.fails

    def open_plan(self, data: str, **values: Any) -> Any:
        self._called("plan", data=data, **values)
        return SimpleNamespace(plan=Plan(data=Source(uri=data), labels=("cat", "dog")))

    def explain(self, plan: Plan, **values: Any) -> str:
        return f"encode {plan.data.uri} with {plan.encoder.name}"

    def run(self, plan: Any, **values: Any) -> Any:
        self._called("run", plan=plan if isinstance(plan, Plan) else plan.plan, **values)
        return SimpleNamespace(
            folder=self.folder,
            notes=("trained on 7 items",),
            selection=None,
            audit=AUDIT,
            receipt=Receipt("w.safetensors", (TensorOrigin("w", (2,), "loaded"),)),
            race=(
                SimpleNamespace(name="knn", chosen=False, score=0.8, standard_error=0.02),
                SimpleNamespace(name="ridge, depths", chosen=True, score=0.9, standard_error=0.015),
            ),
            evaluation=evaluation(),
            baseline=SimpleNamespace(
                name="from scratch",
                evaluation=evaluation(0.5),
                difference=Score("accuracy_difference", 0.5, 0.3, 0.7, 20),
            ),
            cost=SimpleNamespace(
                seconds=12.3, cpu_seconds=20.1, peak_memory_mb=800.0, items_encoded=7, items_from_store=1
            ),
        )

    def audit(self, data: str, **values: Any) -> Audit:
        self._called("audit", data=data, **values)
        return AUDIT

    def evaluate(self, model: Path, data: str, **values: Any) -> Any:
        self._called("evaluate", model=model, data=data, **values)
        return evaluation()

    def predict(self, model: Path, inputs: list[str | Path], **values: Any) -> Iterator[LabelPrediction]:
        self._called("predict", model=model, inputs=inputs, **values)
        return iter(PREDICTIONS)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeApi:
    """Put a fake in the place of `headstart.api`."""
    import headstart

    fake = FakeApi(tmp_path / "model")
    monkeypatch.setitem(sys.modules, "headstart.api", fake)  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(headstart, "api", fake, raising=False)
    return fake


def call(*arguments: str | Path, code: int = 0) -> Result:
    """Run a verb and check how it ended."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="headstart")
    assert result.exit_code == code, result.output
    return result


# fit


def test_fit_prints_the_audit_the_receipt_the_gain_and_where_the_report_is(api: FakeApi):
    lines = call("fit", "photos", "--baseline").stdout.splitlines()
    assert lines == [
        "audit     7 of 8 items kept",
        "          error: 1 file cannot be read; left out (cat/9.jpg)",
        "          warning: 5 small classes (a, b, c and 2 more)",
        "transfer  1/1 tensors (100.0% of the numbers) from w.safetensors",
        "chosen    ridge, depths, the best of 2 on items not seen: 0.900 ± 0.015",
        f"accuracy  {evaluation().score('accuracy')}",
        f"baseline  {evaluation(0.5).score('accuracy')}, from scratch",
        "gain      +0.500 [+0.300, +0.700]",
        "note      trained on 7 items",
        "cost      12.3 s (20.1 s of processor time), 800 MB; 7 items encoded, 1 from the store",
        f"model     {api.folder}",
        f"report    {api.folder / 'report.html'}",
    ]


def test_fit_hands_its_arguments_on(api: FakeApi, tmp_path: Path):
    call(
        *("fit", "photos", "--encoder", "timm:resnet18", "--method", "finetune", "--output", tmp_path),
        *("--set", "finetune.epochs=3", "--set", "data.label_column=kind", "--strict"),
        *("--store", tmp_path / "elsewhere", "--threads", "2", "--device", "cpu"),
    )
    planned, run = api.calls["plan"], api.calls["run"]
    assert (planned["data"], planned["encoder"], planned["method"]) == ("photos", "timm:resnet18", "finetune")
    assert planned["settings"] == {"finetune.epochs": 3, "data.label_column": "kind"}
    assert (run["output"], run["strict"], run["baseline"]) == (tmp_path, True, False)
    assert run["machine"] is planned["machine"]
    assert (run["machine"].store, run["machine"].threads) == (tmp_path / "elsewhere", 2)


def test_what_is_not_given_is_left_to_the_api(api: FakeApi):
    call("fit", "photos")
    assert set(api.calls["plan"]) == {"data", "settings", "machine"}


def test_fit_shows_each_stage_once_where_there_is_no_terminal(api: FakeApi):
    (line,) = call("fit", "photos").stderr.splitlines()
    assert line.startswith("encode  4/4  0.0 s")
    assert line.endswith("loss 0.5")


def test_quiet_prints_nothing(api: FakeApi):
    result = call("fit", "photos", "--quiet")
    assert (result.stdout, result.stderr) == ("", "")


def test_a_dry_run_explains_and_runs_nothing(api: FakeApi):
    assert call("fit", "photos", "--dry-run").stdout == "encode photos with efficientnet-lite0\n"
    assert "run" not in api.calls


def test_a_plan_file_runs_as_it_stands(api: FakeApi, tmp_path: Path):
    plan = Plan(data=Source(uri="old"), method=FineTune(epochs=3))
    path = tmp_path / "plan.json"
    path.write_text(plan.to_json())
    call("fit", "--plan", path)
    assert api.calls["run"]["plan"] == plan
    call("fit", "moved", "--plan", path)
    assert api.calls["run"]["plan"].data.uri == "moved"
    assert api.calls["run"]["plan"].key == plan.key
    assert "plan" not in api.calls


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fit"], "neither DATA nor --plan"),
        (["fit", "--plan", "missing.json"], "missing.json cannot be read"),
        (
            ["fit", "--plan", "x.json", "--set", "seed=1", "--method", "extract"],
            "together with --method, --set",
        ),
        (["fit", "photos", "--set", "epochs"], "expected: KEY=VALUE"),
        (["cache", "gc", "--max-size", "lots"], "--max-size lots"),
        (["fit", "photos", "--no-such-flag"], "No such option"),
        (["predict", "model"], "Missing argument"),
        (["predict", "model", "x.jpg", "--abstain", "2"], "--abstain"),
    ],
)
def test_wrong_arguments_end_with_2_and_say_why(api: FakeApi, arguments: list[str], said: str):
    assert said in call(*arguments, code=2).stderr


# How a verb ends


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (
            DataError("no pictures", expected="pictures", fix="add some"),
            3,
            "error: no pictures\n  expected: pictures",
        ),
        (Interrupted("SIGINT", expected="", fix="run it again"), 130, "stopped: SIGINT\n  fix: run it again"),
        (KeyboardInterrupt(), 130, "stopped; what was finished is kept"),
        (ZeroDivisionError("of mine"), 1, "ZeroDivisionError: of mine\nerror: this is a fault of headstart"),
    ],
)
def test_each_failure_has_its_exit_code(api: FakeApi, fault: BaseException, code: int, said: str):
    api.fails = fault
    result = call("fit", "photos", "--quiet", code=code)
    assert said in result.stderr
    assert result.stdout == ""
    assert ("Traceback" in result.stderr) == (code == 1)


def test_every_verb_and_every_exit_code_is_in_the_help():
    text = call("--help").stdout
    assert all(
        verb in text
        for verb in ["fit", "predict", "evaluate", "report", "models", "explain", "audit", "cache"]
    )
    assert "130 Ctrl-C" in text


@pytest.mark.parametrize("verb", ["fit", "predict", "evaluate", "report", "models", "explain", "audit"])
def test_the_help_of_every_verb_has_examples(verb: str):
    assert f"headstart {verb}" in call(verb, "--help").stdout.partition("Examples:")[2]


def started(code: str) -> subprocess.Popen[str]:
    """Start a verb in a process of its own, with some code run in place of the api."""
    program = f"""
import signal, sys, types, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # A background job is started with it ignored.
import headstart
from headstart.cli import main
def audit(data, **values):
    {code}
fake = types.SimpleNamespace(audit=audit)
sys.modules["headstart.api"] = headstart.api = fake
main(["audit", "photos"])
"""
    return subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_ctrl_c_ends_cleanly():
    run = started("print('ready', flush=True); time.sleep(60)")
    assert run.stdout
    assert run.stdout.readline() == "ready\n"
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=20)
    assert run.returncode == 130
    assert said == "stopped; what was finished is kept, so the same command goes on from there\n"


def test_a_reader_that_goes_away_is_no_fault():
    run = started("print('x' * 100, flush=True); time.sleep(1); print('y' * 1_000_000); raise SystemExit")
    assert run.stdout
    assert run.stderr
    run.stdout.read(10)
    run.stdout.close()
    assert run.stderr.read() == ""
    run.stderr.close()
    assert run.wait(timeout=20) == 141


def test_a_warning_is_one_line(capsys: pytest.CaptureFixture[str]):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = explain_on_one_line
        warnings.warn("an entry is corrupt: it is made anew", stacklevel=1)
    assert capsys.readouterr().err == "warning: an entry is corrupt: it is made anew\n"


ON_SCREEN = """
import sys, types
import headstart
from headstart.cli import main
from headstart.core.types import LabelPrediction
from headstart.train.runtime import Event

def predict(model, inputs, *, progress, **values):
    for number in range(3):
        progress(Event("predict", number + 1, 3))
        yield LabelPrediction(f"{number}.jpg", "cat", 1.0, {"cat": 1.0})

sys.modules["headstart.api"] = headstart.api = types.SimpleNamespace(predict=predict)
main(["predict", "model", "new"])
"""


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal")
def test_rows_in_a_pipe_stay_apart_from_the_bars_on_the_terminal():
    terminal, screen = os.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    run = subprocess.run(
        [sys.executable, "-c", ON_SCREEN],
        stdout=subprocess.PIPE,
        stderr=screen,
        env=environment,
        check=True,
        timeout=60,
    )
    os.close(screen)
    with open(terminal, "rb", buffering=0) as bars:
        assert b"3/3" in bars.read(100_000)
    assert [json.loads(line)["id"] for line in run.stdout.splitlines()] == ["0.jpg", "1.jpg", "2.jpg"]


# The other verbs


def test_predict_writes_one_json_object_a_row(api: FakeApi):
    lines = call("predict", "model", "new/1.jpg", "new/2.jpg").stdout.splitlines()
    assert [json.loads(line) for line in lines] == [
        {"id": "new/1.jpg", "label": "cat", "probability": 0.9, "probabilities": {"cat": 0.9, "dög": 0.1}},
        {
            "id": "new/2, 3.jpg",
            "label": None,
            "probability": 0.55,
            "probabilities": {"cat": 0.45, "dög": 0.55},
        },
    ]
    assert api.calls["predict"]["inputs"] == ["new/1.jpg", "new/2.jpg"]
    assert api.calls["predict"]["abstain"] is None


def test_predict_writes_a_table(api: FakeApi):
    text = call("predict", "model", "new", "--format", "csv", "--abstain", "0.1").stdout
    assert list(csv.reader(io.StringIO(text))) == [
        ["id", "label", "probability", "p(cat)", "p(dög)"],
        ["new/1.jpg", "cat", "0.9", "0.9", "0.1"],
        ["new/2, 3.jpg", "", "0.55", "0.45", "0.55"],
    ]
    assert api.calls["predict"]["abstain"] == 0.1


def test_predict_writes_a_file_only_when_it_is_whole(api: FakeApi, tmp_path: Path):
    path = tmp_path / "deep" / "labels.jsonl"
    call("predict", "model", "new", "--output", path)
    assert len(path.read_text().splitlines()) == 2
    api.fails = DataError("no pictures", expected="pictures", fix="add some")
    call("predict", "model", "new", "--output", tmp_path / "none.jsonl", code=3)
    assert not (tmp_path / "none.jsonl").exists()


def test_predict_says_where_it_cannot_write(api: FakeApi, tmp_path: Path):
    (tmp_path / "file").write_text("")
    assert "error: " in call("predict", "model", "new", "--output", tmp_path / "file" / "x", code=8).stderr


def test_evaluate_prints_every_metric_with_its_interval(api: FakeApi):
    lines = call("evaluate", "model", "photos").stdout.splitlines()
    assert lines[0].split(maxsplit=1) == ["accuracy", str(evaluation().score("accuracy"))]
    assert any(line.startswith("log loss") for line in lines)


def test_evaluate_prints_one_json_document(api: FakeApi):
    values = json.loads(call("evaluate", "model", "photos", "--json").stdout)
    assert values["n"] == 20


def test_audit_prints_what_was_found(api: FakeApi):
    lines = call("audit", "photos", "--set", "data.max_bad=0.5").stdout.splitlines()
    assert lines[0] == "audit  7 of 8 items kept"
    assert api.calls["audit"]["settings"] == {"data.max_bad": 0.5}
    assert json.loads(call("audit", "photos", "--json").stdout)["findings"][0]["code"] == "unreadable"


def test_an_audit_without_findings_says_so():
    assert audit_lines(Audit(3, 3)) == [("audit", "3 of 3 items kept; nothing found")]


def test_explain_prints_a_plan_that_fit_takes(api: FakeApi):
    plan = Plan.from_json(call("explain", "photos", "--json").stdout)
    assert plan.data.uri == "photos"
    assert call("explain", "photos").stdout == "encode photos with efficientnet-lite0\n"


def test_explain_prints_the_schema_of_every_setting():
    schema = json.loads(call("explain", "--schema").stdout)
    assert "layer_decay" in schema["$defs"]["FineTune"]["properties"]


def test_report_prints_where_it_is(tmp_path: Path):
    call("report", tmp_path, code=5)
    (tmp_path / "report.html").write_text("<html>")
    (tmp_path / "report.json").write_text('{"n": 3}')
    assert call("report", tmp_path).stdout.strip() == str(tmp_path / "report.html")
    assert json.loads(call("report", tmp_path, "--json").stdout) == {"n": 3}


def test_report_opens_the_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    (tmp_path / "report.html").write_text("<html>")
    call("report", tmp_path, "--open")
    assert opened == [(tmp_path / "report.html").as_uri()]


def test_models_lists_the_registry_and_what_can_be_had_here():
    rows = {row["name"]: row["weights"] for row in json.loads(call("models", "--json").stdout)["names"]}
    assert "installed" in rows["efficientnet-lite0"]
    assert "HF_HUB_OFFLINE is set" in rows["timm:NAME"]
    assert list(rows) == [row.split()[0] for row in call("models").stdout.splitlines()[1 : len(rows) + 1]]


def test_models_can_be_searched():
    assert [row["name"] for row in json.loads(call("models", "tiny-*", "--json").stdout)["names"]] == [
        "tiny-cnn",
        "tiny-gru",
        "tiny-text-transformer",
        "tiny-transformer",
    ]


# cache


@pytest.fixture
def filled(store: Store) -> Store:
    """Return a store with three entries."""
    for number in range(3):
        store.put("models-v1", digest(number), lambda folder: writes(folder, 1500))
    return store


def writes(folder: Path, size: int) -> None:
    """Fill an entry."""
    (folder / "value.bin").write_bytes(bytes(size))


def test_cache_ls_lists_the_entries(filled: Store):
    lines = call("cache", "ls", "--store", filled.root).stdout.splitlines()
    assert lines[0].split() == ["bucket", "key", "size", "last", "used"]
    assert len(lines) == 5
    assert lines[-1].endswith(f"in {filled.root}")
    assert len(json.loads(call("cache", "ls", "--store", filled.root, "--json").stdout)["entries"]) == 3


def test_cache_gc_makes_room(filled: Store):
    assert call("cache", "gc", "--max-size", "0", "--store", filled.root).stdout.startswith(
        "3 entries dropped"
    )
    assert list(filled.entries()) == []


def test_cache_verify_fails_where_an_entry_is_corrupt(filled: Store):
    assert call("cache", "verify", "--store", filled.root).stdout == "3 entries, all sound\n"
    (filled.folder("models-v1", digest(1)) / "value.bin").write_bytes(b"")
    result = call("cache", "verify", "--store", filled.root, "--json", code=8)
    assert "value.bin has 0 bytes instead of 1500" in result.stderr
    (corrupt,) = json.loads(result.stdout)["corrupt"]
    assert corrupt["key"] == digest(1)


def test_the_store_of_the_environment_is_used(own_machine: Path):
    assert str(own_machine / "store") in call("cache", "ls").stdout


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("500M", 500_000_000), ("1.5 gb", 1_500_000_000), ("7k", 7000)]
)
def test_sizes_are_read_as_people_write_them(text: str, size: int):
    assert size_of(text) == size


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2e9, "2.0 GB")])
def test_sizes_are_written_as_people_read_them(size: float, text: str):
    assert size_text(int(size)) == text


# Parts


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("0.5", 0.5),
        ("true", True),
        ("null", None),
        ('["ridge"]', ["ridge"]),
        ("fast", "fast"),
        ("a=b", "a=b"),
    ],
)
def test_a_setting_is_json_or_text(text: str, value: Any):
    assert settings_of([f"some.key={text}"]) == {"some.key": value}


def test_a_setting_without_a_name_is_refused():
    with pytest.raises(PlanError, match="KEY=VALUE"):
        settings_of(["=3"])


def shown(events: list[Event]) -> list[str]:
    """Return the lines that events become where there is no terminal, without the seconds."""
    printed: list[str] = []
    lines = _progress.Lines(print_line=printed.append)
    for event in events:
        lines.show(event)
    lines.close()
    return [line.replace("  0.0 s", "") for line in printed]


def test_a_stage_is_one_line_when_it_is_done():
    events = [Event("encode", done, 3) for done in (1, 2, 3)]
    assert shown(events) == ["encode  3/3"]


def test_a_stage_that_stops_early_is_a_line_in_the_end():
    assert shown([Event("finetune", 4, 9, "", {"loss": 0.25})]) == ["finetune  4/9  loss 0.25"]


def test_text_is_shown_at_once():
    assert shown([Event("heads", message="ridge is best"), Event("heads", 1, 1)]) == [
        "heads  ridge is best",
        "heads  1/1",
    ]


def test_a_stage_may_come_again():
    assert shown([Event("encode", 2, 2), Event("encode", 3, 3)]) == ["encode  2/2", "encode  3/3"]


def on_terminal(work: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> str:
    """Run with a terminal in the place of stderr and return what it got."""
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    work()
    return screen.getvalue()


def test_a_terminal_gets_a_bar_with_figures(monkeypatch: pytest.MonkeyPatch):
    def work() -> None:
        with _progress.progress(quiet=False) as show:
            show(Event("heads", message="[5 heads]"))
            show(Event("encode", 1, 4))
            show(Event("encode", 4, 4, "done", {"loss": 0.125}))

    screen = on_terminal(work, monkeypatch)
    assert "4/4" in screen
    assert "loss 0.125" in screen
    assert "[5 heads]" in screen


def test_a_table_in_a_pipe_is_never_cut(capsys: pytest.CaptureFixture[str]):
    print_table("name", "said", rows=[("a", "word " * 60)])
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["name", "said"]
    assert row.split() == ["a", *["word"] * 60]


# Rows of every kind of prediction


KINDS: dict[str, tuple[Any, dict[str, Any], list[list[str]]]] = {
    "labels": (
        LabelsPrediction("row 2", ("a", "b"), {"a": 0.9, "b": 0.5, "c": 0.25}),
        {"id": "row 2", "labels": ["a", "b"], "probabilities": {"a": 0.9, "b": 0.5, "c": 0.25}},
        [["id", "labels", "p(a)", "p(b)", "p(c)"], ["row 2", "a|b", "0.9", "0.5", "0.25"]],
    ),
    "value": (
        ValuePrediction("row 2", 1.5, 1.0, 2.0),
        {"id": "row 2", "value": 1.5, "low": 1.0, "high": 2.0},
        [["id", "value", "low", "high"], ["row 2", "1.5", "1.0", "2.0"]],
    ),
    "spans": (
        SpansPrediction("row 2", "Ann left", (Span(0, 3, "PER", "Ann", 0.75),)),
        {
            "id": "row 2",
            "text": "Ann left",
            "spans": [{"start": 0, "end": 3, "label": "PER", "text": "Ann", "probability": 0.75}],
        },
        [["id", "start", "end", "label", "text", "probability"], ["row 2", "0", "3", "PER", "Ann", "0.75"]],
    ),
    "no spans": (
        SpansPrediction("row 3", "nobody", ()),
        {"id": "row 3", "text": "nobody", "spans": []},
        [["id", "start", "end", "label", "text", "probability"], ["row 3", "", "", "", "", ""]],
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_prediction_is_written_as_json_and_as_a_table(api: FakeApi, kind: str):
    row, as_json, as_table = KINDS[kind]
    api.predict = lambda *_, **__: [row]  # type: ignore[method-assign]
    assert json.loads(call("predict", "model", "a text").stdout) == as_json
    assert list(csv.reader(io.StringIO(call("predict", "model", "a text", "-f", "csv").stdout))) == as_table


def test_predict_tells_texts_from_files_and_reads_lines_from_standard_input(api: FakeApi, tmp_path: Path):
    table = tmp_path / "my reviews.csv"
    table.write_text("text\nfine\n")
    result = CliRunner().invoke(
        app,
        [
            "predict",
            "model",
            "and/or",
            "a text.",
            str(table),
            "gone.csv",
            "-",
            "--set",
            "data.text_column=text",
        ],
        input="first line\n\nsecond.txt\n",
    )
    assert result.exit_code == 0
    given = ["and/or", "a text.", table, Path("gone.csv"), "first line", "second.txt"]
    assert api.calls["predict"]["inputs"] == given
    assert api.calls["predict"]["settings"] == {"data.text_column": "text"}


def test_models_of_texts_are_listed_with_what_they_are_for():
    rows = {row["name"]: row for row in json.loads(call("models", "--json").stdout)["names"]}
    for name in ("minilm", "recurrent:KIND", "transformers:NAME", "transformers:FOLDER", "tiny-gru"):
        assert rows[name]["for"] == "text"
    assert rows["timm:NAME"]["for"] == "image"
    assert "give a folder" in rows["transformers:NAME"]["weights"]
