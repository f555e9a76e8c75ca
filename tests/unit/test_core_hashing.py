"""Keys are made of content, and of nothing else."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from headstart.core.hashing import canonical, digest, file_sha256, plain
from headstart.core.settings import Split


@dataclass(frozen=True)
class Point:
    x: int
    y: float


def test_the_order_of_names_does_not_matter():
    assert (
        canonical({"b": 1, "a": [2, None]}) == canonical({"a": [2, None], "b": 1}) == '{"a":[2,null],"b":1}'
    )


def test_the_order_of_items_does_matter():
    assert digest([1, 2]) != digest([2, 1])


def test_settings_dataclasses_tuples_and_paths_become_plain_values():
    value = plain({"split": Split(), "point": Point(1, 2.5), "sizes": (1, 2), "where": Path("a/b")})
    assert value["split"]["validation"] == 0.15
    assert value["point"] == {"x": 1, "y": 2.5}
    assert value["sizes"] == [1, 2]
    assert value["where"] == "a/b"


def test_zero_has_one_key_whatever_its_sign():
    assert digest(0.0) == digest(-0.0)


def test_an_object_without_a_meaning_in_json_is_refused():
    with pytest.raises(TypeError, match="set has no place in a key"):
        digest({1, 2})


def test_a_number_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="JSON compliant"):
        digest(float("nan"))


def test_parts_do_not_run_together():
    assert digest("ab", "c") != digest("a", "bc")


def test_a_key_is_the_same_on_every_machine():
    assert digest("features", 1) == hashlib.sha256(b'[1,"features",1]').hexdigest()


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path):
    path = tmp_path / "bytes"
    path.write_bytes(b"abc" * 100_000)
    assert file_sha256(path) == hashlib.sha256(b"abc" * 100_000).hexdigest()
