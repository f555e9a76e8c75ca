"""What must hold of every plan that can be written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from headstart.core.errors import PlanError
from headstart.core.plan import Plan
from headstart.core.settings import Extract, FineTune, Pretrained, Source, Split

text = st.text(max_size=12)
share = st.floats(0.01, 0.99)
positive = st.floats(1e-8, 1e8)
column = st.none() | text

sources = st.builds(
    Source,
    uri=text,
    path_column=column,
    label_column=column,
    split_column=column,
    group_column=column,
    domain_column=column,
    max_bad=st.floats(0, 1),
    max_megapixels=positive,
)
splits = st.builds(Split, validation=share, test=share, respect=st.booleans())
networks = st.builds(
    Pretrained,
    name=text,
    weights=st.sampled_from(["pretrained", "random"]),
    weights_sha256=st.none() | text,
    image_size=st.none() | st.integers(8, 4096),
    channels=st.integers(1, 512),
    mean=st.none() | st.tuples(share, share, share),
    order=st.sampled_from([None, "rgb", "bgr"]),
)
extracts = st.builds(
    Extract,
    heads=st.lists(st.sampled_from(["logistic", "ridge", "prototype", "knn"]), max_size=4).map(tuple),
    depths=st.booleans(),
    views=st.integers(1, 64),
    folds=st.integers(2, 20),
)
fine_tunes = st.builds(
    FineTune,
    train_last=st.none() | st.integers(0, 99),
    epochs=st.integers(1, 10_000),
    unfreeze=st.sampled_from(["at_once", "gradual"]),
    learning_rate=positive,
    layer_decay=st.floats(0.01, 1),
    mixup=st.floats(0, 8),
    class_weights=st.booleans(),
    batch_size=st.none() | st.integers(1, 4096),
)


def plans(start: st.SearchStrategy[Plan | None]) -> st.SearchStrategy[Plan]:
    """Return plans that continue from `start`."""
    return st.builds(
        Plan,
        encoder=networks,
        data=sources,
        split=splits,
        fingerprint=text,
        labels=st.lists(text, max_size=3).map(tuple),
        method=extracts | fine_tunes,
        start=start,
        seed=st.integers(0, 2**40),
    )


any_plan = plans(st.none() | plans(st.none()))


@given(any_plan)
def test_a_plan_read_back_is_the_same_plan(plan: Plan):
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert again.key == plan.key


@given(any_plan, any_plan)
@example(Plan(method=FineTune(mixup=0.0)), Plan(method=FineTune(mixup=-0.0)))
@example(Plan(seed=1), Plan(seed=2))
@example(Plan(labels=("a", "b")), Plan(labels=("b", "a")))
def test_keys_are_equal_exactly_where_plans_are_equal(one: Plan, other: Plan):
    assert (one.key == other.key) == (moved(one, "") == moved(other, ""))


@given(any_plan, text, text)
def test_moving_the_data_does_not_change_the_key(plan: Plan, here: str, there: str):
    assert moved(plan, here).key == moved(plan, there).key


@given(any_plan, st.sampled_from(["encoder", "data", "split", "method", ""]), st.data())
def test_a_misspelt_key_is_refused_with_the_right_one(plan: Plan, part: str, data: st.DataObject):
    values = json.loads(plan.to_json())
    place: dict[str, Any] = values[part] if part else values
    name = data.draw(st.sampled_from(sorted(set(place) - {"kind"})))
    assume(len(name) > 4)
    place[name + "x"] = place.pop(name)
    with pytest.raises(PlanError) as caught:
        Plan.from_json(json.dumps(values))
    assert f"{name}x: unknown key (did you mean '{name}'?)" in str(caught.value)


@given(any_plan)
def test_a_plan_is_json_and_nothing_more(plan: Plan):
    text = plan.to_json()
    assert json.dumps(json.loads(text), indent=2, ensure_ascii=False) == text


def moved(plan: Plan, uri: str) -> Plan:
    """Return the plan and those it continues with their data at another place."""
    start = moved(plan.start, uri) if plan.start else None
    return plan.model_copy(update={"data": plan.data.model_copy(update={"uri": uri}), "start": start})
