"""The verbs together, on small real pictures: plan, run, evaluate, baseline, audit, output, store."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_parts import NAMES, digit_folder, digits, machine

from headstart import api
from headstart.core.errors import DataError, HeadstartError, PlanError, StoreError
from headstart.core.plan import Plan
from headstart.core.settings import Extract, FineTune
from headstart.data import from_arrays
from headstart.result import Result
from headstart.train.runtime import Event


def fit(root: Path, data: Any = None, **values: Any) -> Result:
    """Fit the tiny network, its store and output under `root`."""
    settings = {"extract.views": 1, **values.pop("settings", {})}
    given = {"encoder": "tiny-cnn", "output": root / "model", "machine": machine(root), **values}
    return api.fit(digits() if data is None else data, settings=settings, **given)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """Return a root and what a fit of a folder there gave; tests write nothing into its model folder."""
    root = tmp_path_factory.mktemp("done")
    digit_folder(root / "data")
    return root, fit(root, root / "data")


# -- plan and explain -----------------------------------------------------------------------------------------


def test_a_plan_is_fully_resolved_and_survives_json(done: tuple[Path, Result]) -> None:
    root, result = done
    plan = api.plan(root / "data", encoder="tiny-cnn", settings={"extract.views": 1}, machine=machine(root))
    assert plan == result.plan
    assert plan.labels == tuple(sorted(NAMES))
    assert len(plan.fingerprint) == len(plan.encoder.weights_sha256 or "") == 64
    assert Plan.from_json(plan.to_json()) == plan


def test_few_pictures_on_a_processor_are_extracted_with_views(tmp_path: Path) -> None:
    plan = api.plan(digits(), encoder="tiny-cnn", machine=machine(tmp_path))
    assert isinstance(plan.method, Extract) and plan.method.views > 1 and plan.start is None


def test_fine_tuning_starts_from_an_extraction_that_leaves_validation_alone(tmp_path: Path) -> None:
    plan = api.plan(digits(), encoder="tiny-cnn", method="finetune", machine=machine(tmp_path))
    assert isinstance(plan.method, FineTune) and plan.start is not None
    assert isinstance(plan.start.method, Extract) and not plan.start.method.use_validation


def test_explain_says_what_will_happen(done: tuple[Path, Result]) -> None:
    root, result = done
    text = api.explain(result.plan, machine=machine(root))
    assert "tiny-cnn" in text and "logistic" in text
    assert len(text.splitlines()) >= 2


def test_a_plan_of_other_data_is_refused(done: tuple[Path, Result], tmp_path: Path) -> None:
    root, result = done
    other = from_arrays(*digits(12, skip=12))
    with pytest.raises(PlanError, match="are not those of the plan"):
        api.run(result.plan, dataset=other, output=tmp_path / "model", machine=machine(root))


def test_a_plan_of_other_weights_is_refused(done: tuple[Path, Result], tmp_path: Path) -> None:
    root, result = done
    encoder = result.plan.encoder.model_copy(update={"weights_sha256": "0" * 64})
    changed = result.plan.model_copy(update={"encoder": encoder})
    with pytest.raises(PlanError, match="the weights of tiny-cnn have sha256"):
        api.run(changed, output=tmp_path / "model", machine=machine(root))


# -- fit ------------------------------------------------------------------------------------------------------


def test_a_fit_gives_scores_receipt_audit_and_report(done: tuple[Path, Result]) -> None:
    root, result = done
    assert result.folder == root / "model"
    assert (result.folder / "report.html").stat().st_size > 10_000
    assert result.receipt.transferred == 1.0
    assert result.audit.num_items == 36
    assert result.cost.items_encoded == 36 and result.cost.items_from_store == 0
    assert all(item.path is not None and item.path.is_file() for item in result.predictions)
    assert {item.target for item in result.predictions} <= set(NAMES)


def test_arrays_in_memory_give_the_model_of_the_same_files(done: tuple[Path, Result], tmp_path: Path) -> None:
    _, result = done
    found = fit(tmp_path)
    assert found.evaluation.n == result.evaluation.n
    assert all(item.path is None for item in found.predictions)


def test_moved_data_are_a_store_hit(tmp_path: Path) -> None:
    digit_folder(tmp_path / "here")
    first = fit(tmp_path, tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    second = fit(tmp_path, tmp_path / "there", output=tmp_path / "second")
    assert second.evaluation == first.evaluation
    assert second.cost == first.cost, "it was run again"
    assert all(item.path and item.path.is_relative_to(tmp_path / "there") for item in second.predictions)


def test_ten_added_pictures_encode_ten(tmp_path: Path) -> None:
    pictures, labels = digits(14)
    fit(tmp_path, (pictures[:32], labels[:32]))
    second = fit(tmp_path, (pictures, labels))
    assert (second.cost.items_encoded, second.cost.items_from_store) == (10, 32)


def test_a_corrupt_stored_result_is_a_warning_and_a_new_run(tmp_path: Path) -> None:
    first = fit(tmp_path)
    (stored,) = (tmp_path / "store" / "models-v1").rglob("model.safetensors")
    stored.write_bytes(stored.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="is corrupt"):
        second = fit(tmp_path, output=tmp_path / "second")
    assert second.evaluation == first.evaluation
    assert second.cost.items_from_store == 36


def test_random_weights_run_and_say_that_nothing_was_transferred(tmp_path: Path) -> None:
    settings = {"encoder.weights": "random", "encoder.image_size": 32}
    result = fit(tmp_path, encoder="timm:test_resnet", settings=settings)
    assert result.receipt.transferred == 0.0


def test_the_baseline_is_the_same_network_from_scratch_compared_item_by_item(tmp_path: Path) -> None:
    alone = fit(tmp_path)
    result = fit(tmp_path, baseline=True)
    assert alone.baseline is None and result.baseline is not None
    assert "from scratch" in result.baseline.name
    assert result.baseline.evaluation.n == result.evaluation.n
    ours, theirs = (
        next(score.value for score in part.scores if score.name == "accuracy")
        for part in (result.evaluation, result.baseline.evaluation)
    )
    assert result.baseline.difference.value == pytest.approx(ours - theirs)
    assert result.evaluation == alone.evaluation
    assert api.load(result.folder).task.labels == tuple(sorted(NAMES))


def test_a_group_is_never_split(tmp_path: Path) -> None:
    folder = digit_folder(tmp_path / "data")
    files = sorted(folder.rglob("*.png"))
    patient = {path: f"p{row % 9}" for row, path in enumerate(files)}
    lines = [f"{path.relative_to(folder)},{path.parent.name},{patient[path]}" for path in files]
    (folder / "table.csv").write_text("\ufeffpath,label,patient\n" + "\n".join(lines), encoding="utf-8")
    result = fit(tmp_path, folder / "table.csv", settings={"data.group_column": "patient"})
    tested = {item.path for item in result.predictions}
    groups = {patient[path] for path in tested if path}
    assert 0 < len(groups) < 9
    assert tested == {path for path in files if patient[path] in groups}


def test_given_splits_are_kept(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "val", "test")):
        digit_folder(tmp_path / "data" / split, 8 if split == "train" else 3, skip=20 * number)
    result = fit(tmp_path, tmp_path / "data")
    assert {item.id.split("/")[0] for item in result.predictions} == {"test"}
    assert result.evaluation.n == 9


def test_progress_tells_the_stages_in_order(tmp_path: Path) -> None:
    seen: list[Event] = []
    dataset = from_arrays(*digits())
    plan = api.plan(dataset, encoder="tiny-cnn", machine=machine(tmp_path))
    api.run(plan, dataset=dataset, output=tmp_path / "m", machine=machine(tmp_path), progress=seen.append)
    stages = list(dict.fromkeys(event.stage for event in seen))
    assert stages[0] == "encode" and stages.index("heads") < stages.index("report")


# -- audit and strict -----------------------------------------------------------------------------------------


def test_an_audit_trains_nothing_and_finds_what_is_unreadable(tmp_path: Path) -> None:
    folder = digit_folder(tmp_path / "data")
    (folder / "one" / "empty.png").write_bytes(b"")
    found = api.audit(folder, machine=machine(tmp_path))
    assert (found.num_items, found.num_kept) == (37, 36)
    assert len(found.by_code("empty-file")) == 1
    assert not (tmp_path / "store" / "features-v1").exists()
    with pytest.raises(DataError, match="the audit found"):
        api.audit(folder, strict=True, machine=machine(tmp_path))


def test_strict_refuses_findings_in_a_fresh_run_and_in_a_stored_one(tmp_path: Path) -> None:
    folder = digit_folder(tmp_path / "data")
    (folder / "one" / "empty.png").write_bytes(b"")
    plan = api.plan(folder, encoder="tiny-cnn", settings={"extract.views": 1}, machine=machine(tmp_path))
    values: dict[str, Any] = {"output": tmp_path / "model", "machine": machine(tmp_path)}
    with pytest.raises(DataError, match="the audit found"):
        api.run(plan, strict=True, **values)
    assert api.run(plan, **values).audit.num_kept == 36
    with pytest.raises(DataError, match="the audit found"):
        api.run(plan, strict=True, **values)


# -- evaluate and predict -------------------------------------------------------------------------------------


def test_evaluate_scores_every_labelled_item(done: tuple[Path, Result]) -> None:
    root, result = done
    found = api.evaluate(result.folder, digits(5, skip=40), machine=machine(root))
    assert found.n == 15
    accuracy = next(score for score in found.scores if score.name == "accuracy")
    assert 0.5 < accuracy.value <= 1 and accuracy.low <= accuracy.value <= accuracy.high


def test_evaluate_names_a_class_that_the_model_does_not_have(done: tuple[Path, Result]) -> None:
    root, result = done
    pictures, _ = digits(2)
    with pytest.raises(DataError, match=r"the class 'onee' is not one of the model's.*'one'"):
        api.evaluate(result.folder, (pictures, ["zero", "onee"] * 3), machine=machine(root))


def test_predict_takes_files_folders_and_arrays_in_order(done: tuple[Path, Result]) -> None:
    root, result = done
    files = sorted((root / "data" / "one").glob("*.png"))
    array = np.zeros((40, 30, 3), np.uint8)
    found = api.predict(result.folder, [files[3], root / "data" / "zero", array], machine=machine(root))
    assert len(found) == 1 + 12 + 1
    assert found[0].id == str(files[3]) and found[-1].id == "array 2"
    assert all(set(row.probabilities) == set(NAMES) for row in found)


def test_predict_leaves_out_what_it_cannot_read(done: tuple[Path, Result], tmp_path: Path) -> None:
    root, result = done
    (tmp_path / "bad.png").write_bytes(b"no picture")
    good = next((root / "data" / "one").glob("*.png"))
    with pytest.warns(UserWarning, match=r"bad\.png"):
        found = api.predict(result.folder, [tmp_path / "bad.png", good], machine=machine(root))
    assert [row.id for row in found] == [str(good)]


def test_predict_says_where_nothing_can_be_read_or_is_there(
    done: tuple[Path, Result], tmp_path: Path
) -> None:
    root, result = done
    (tmp_path / "bad.png").write_bytes(b"")
    with pytest.raises(DataError, match="no item can be read"):
        api.predict(result.folder, [tmp_path / "bad.png"], machine=machine(root))
    with pytest.raises(DataError, match="is not there"):
        api.predict(result.folder, [tmp_path / "gone.png"], machine=machine(root))
    with pytest.raises(DataError, match="nothing to predict"):
        api.predict(result.folder, [], machine=machine(root))


def test_a_smaller_allowed_error_abstains_more(done: tuple[Path, Result]) -> None:
    root, result = done
    pictures, _ = digits(5, skip=40)
    labels = [
        [row.label for row in api.predict(result.folder, pictures, abstain=rate, machine=machine(root))]
        for rate in (0.05, 0.5)
    ]
    assert labels[0].count(None) >= labels[1].count(None)


# -- output and store -----------------------------------------------------------------------------------------


def test_a_foreign_output_folder_is_refused_before_any_work_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(StoreError, match="exists and is not a model folder"):
        fit(tmp_path, output=tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"
    assert not (tmp_path / "store" / "features-v1").exists()


def test_an_output_that_cannot_be_made_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        fit(tmp_path, output=tmp_path / "file" / "model")
    with pytest.raises(StoreError, match="exists and is not a model folder"):
        fit(tmp_path, output=tmp_path / "file")
    assert not (tmp_path / "store" / "features-v1").exists()


def test_an_empty_folder_and_an_earlier_model_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    fit(tmp_path)
    (tmp_path / "model" / "model.safetensors").write_bytes(b"damaged")
    fit(tmp_path)
    assert api.load(tmp_path / "model").task.labels == tuple(sorted(NAMES))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


SCRIPT = """
import sys
from pathlib import Path
from picture_parts import digits, machine
from headstart import api
root = Path(sys.argv[1])
result = api.fit(digits(), encoder="tiny-cnn", output=root / sys.argv[2], machine=machine(root))
print(result.to_json())
"""


def test_two_fits_at_once_on_one_store_both_end_well(tmp_path: Path) -> None:
    where = str(Path(__file__).parent)
    runs = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", SCRIPT, str(tmp_path), name],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=where,
        )
        for name in ("a", "b")
    ]
    ends = [run.communicate(timeout=300) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], ends
    first, second = (json.loads(output)["evaluation"] for output, _ in ends)
    assert first == second
    assert api.load(tmp_path / "a").temperature == api.load(tmp_path / "b").temperature
    assert list((tmp_path / "store").rglob(".tmp-*")) == []


def test_every_failure_is_an_error_of_ours_with_a_fix(tmp_path: Path) -> None:
    with pytest.raises(HeadstartError) as caught:
        fit(tmp_path, tmp_path / "nowhere")
    assert caught.value.fix and caught.value.expected and str(tmp_path / "nowhere") in caught.value.given
