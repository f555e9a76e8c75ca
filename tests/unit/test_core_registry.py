"""Parts by name, imported only when asked for."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import get_args

import pytest

from headstart.core import registry
from headstart.core.errors import PlanError
from headstart.core.registry import TABLE, Kind, names, resolve


def test_the_table_has_a_row_for_every_kind():
    assert set(TABLE) == set(get_args(Kind))


@pytest.mark.parametrize("kind", get_args(Kind))
def test_names_are_sorted(kind: Kind):
    assert list(names(kind)) == sorted(names(kind))


def test_an_unknown_name_is_refused_with_the_nearest_one():
    with pytest.raises(PlanError, match="did you mean 'efficientnet-lite0'") as caught:
        resolve("encoder", "efficientnet_lite0")
    assert "tiny-cnn" in caught.value.expected


def test_a_third_party_adds_a_part_by_an_entry_point(monkeypatch: pytest.MonkeyPatch):
    entry = EntryPoint("their-net", "collections:OrderedDict", "headstart.encoder")

    def entry_points(*, group: str, name: str | None = None) -> list[EntryPoint]:
        return [entry] if group == entry.group and name in (None, entry.name) else []

    monkeypatch.setattr(registry, "entry_points", entry_points)
    assert "their-net" in names("encoder")
    assert resolve("encoder", "their-net").__name__ == "OrderedDict"


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in TABLE for name in TABLE[kind]])
def test_every_part_of_the_table_can_be_imported(kind: Kind, name: str):
    assert resolve(kind, name) is not None
