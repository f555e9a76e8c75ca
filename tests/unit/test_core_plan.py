"""A plan is refused where it is wrong, and named by what it means."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headstart.core.errors import PlanError
from headstart.core.plan import VERSION, Plan, read_plan
from headstart.core.settings import Extract, FineTune, Pretrained, Source


def with_value(plan: Plan, **values: object) -> str:
    return json.dumps({**json.loads(plan.to_json()), **values})


def test_a_plan_survives_a_file_with_a_byte_order_mark(tmp_path: Path):
    plan = Plan(method=FineTune(epochs=3), labels=("Bär", "cat"))
    path = tmp_path / "plan.json"
    path.write_text(plan.to_json(), encoding="utf-8-sig")
    assert read_plan(path) == plan


def test_text_that_is_not_json_is_refused():
    with pytest.raises(PlanError, match="the plan is not JSON"):
        Plan.from_json("{")


@pytest.mark.parametrize("text", ["[]", "3", "null", '"plan"'])
def test_json_that_is_no_object_is_refused(text: str):
    with pytest.raises(PlanError, match="the plan is not valid"):
        Plan.from_json(text)


def test_a_plan_from_a_newer_version_is_refused_with_the_upgrade():
    with pytest.raises(PlanError, match="pip install --upgrade headstart"):
        Plan.from_json(with_value(Plan(), version=VERSION + 1))


def test_a_version_that_is_no_number_is_refused():
    with pytest.raises(PlanError, match="version"):
        Plan.from_json(with_value(Plan(), version="newest"))


def test_an_unknown_key_is_refused_with_the_nearest_known_one():
    with pytest.raises(PlanError, match=r"encodr: unknown key \(did you mean 'encoder'\?\)"):
        Plan.from_json(with_value(Plan(), encodr={}))


def test_an_unknown_key_inside_the_method_is_refused_by_its_place():
    method = {"kind": "finetune", "layer_decy": 0.5}
    with pytest.raises(PlanError, match=r"layer_decy: unknown key \(did you mean 'layer_decay'\?\)"):
        Plan.from_json(with_value(Plan(), method=method))


@pytest.mark.parametrize(
    ("method", "place"),
    [
        ({"kind": "finetune", "layer_decay": 1.5}, "layer_decay"),
        ({"kind": "finetune", "learning_rate": "fast"}, "learning_rate"),
        ({"kind": "extract", "heads": ["forest"]}, "heads"),
        ({"kind": "magic"}, "method"),
    ],
)
def test_a_bad_value_is_refused_by_its_place(method: dict[str, object], place: str):
    with pytest.raises(PlanError, match=place):
        Plan.from_json(with_value(Plan(), method=method))


def test_a_settings_class_of_another_method_is_no_match():
    with pytest.raises(PlanError, match="epochs: unknown key"):
        Plan.from_json(with_value(Plan(), method={"kind": "extract", "epochs": 3}))


def test_where_the_data_and_the_weights_lie_does_not_change_the_key():
    def plan(place: str) -> Plan:
        pretrained = Pretrained(name="timm:resnet18", weights=f"{place}/w.pth", weights_sha256="ab")
        return Plan(data=Source(uri=place), encoder=pretrained, start=Plan(data=Source(uri=place)))

    assert plan("/here").key == plan("/there").key


def test_the_weights_hash_changes_the_key():
    one, other = (Plan(encoder=Pretrained(weights="w.pth", weights_sha256=sha)) for sha in ("ab", "cd"))
    assert one.key != other.key


def test_a_whole_number_and_its_float_make_one_plan():
    one, other = (Plan(method=FineTune(weight_decay=value)) for value in (1, 1.0))
    assert one.to_json() == other.to_json()
    assert one.key == other.key


def test_a_chain_runs_from_the_first_link_to_the_last():
    first = Plan(method=Extract())
    second = Plan(method=FineTune(), start=first)
    assert second.chain() == (first, second)


def test_a_plan_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Plan().seed = 3  # pyright: ignore[reportAttributeAccessIssue]
