"""Every error says what was given, what was expected and the fix."""

from __future__ import annotations

import pytest

from headstart.core import errors
from headstart.core.errors import HeadstartError, nearest

KINDS = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, HeadstartError)
]


def test_the_message_holds_all_three_parts():
    error = HeadstartError("no pictures in photos/", expected="class folders", fix="name the right folder")
    assert str(error) == "no pictures in photos/\n  expected: class folders\n  fix: name the right folder"
    assert (error.given, error.expected, error.fix) == (
        "no pictures in photos/",
        "class folders",
        "name the right folder",
    )


def test_each_kind_has_an_exit_code_of_its_own():
    codes = [kind.exit_code for kind in KINDS]
    assert len(set(codes)) == len(codes)
    assert 0 not in codes


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_documents_its_exit_code(kind: type[HeadstartError]):
    assert kind is HeadstartError or f"exit code {kind.exit_code}" in (kind.__doc__ or "")


def test_the_nearest_name_is_proposed_only_where_one_is_near():
    assert nearest("layer_decy", ["layer_decay", "epochs"]) == " (did you mean 'layer_decay'?)"
    assert nearest("zzz", ["layer_decay", "epochs"]) == ""
