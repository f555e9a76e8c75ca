"""What is written about the tree is true of the tree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "headstart"
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))


def parts() -> list[str]:
    """Return the names of the package's top-level folders and files."""
    folders = [f"{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")]
    return sorted([*folders, *(path.name for path in PACKAGE.glob("*.py"))])


def tree() -> list[str]:
    """Return the names that the architecture's tree of src/headstart shows, one level deep."""
    block = ARCHITECTURE.partition("    src/headstart/\n")[2].partition("\n\n")[0]
    return sorted(line.split()[0] for line in block.splitlines() if re.match(r" {6}\S", line))


def test_the_architecture_shows_every_part_and_none_that_is_not_there():
    assert tree() == parts()


@pytest.mark.parametrize(
    ("name", "limit"), [("ARCHITECTURE.md", 200), ("README.md", 80), ("CONTRIBUTING.md", 60)]
)
def test_documents_stay_short(name: str, limit: int):
    assert len((ROOT / name).read_text().splitlines()) <= limit


def test_decisions_are_numbered_without_a_gap():
    assert [int(path.name[:4]) for path in DECISIONS] == list(range(1, len(DECISIONS) + 1))


@pytest.mark.parametrize("path", DECISIONS, ids=[path.stem for path in DECISIONS])
def test_a_decision_has_its_three_parts(path: Path):
    text = path.read_text()
    assert [heading for heading in ("## Context", "## Choice", "## Rejected") if heading not in text] == []


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "ARCHITECTURE.md", *DECISIONS]
)
def test_links_lead_to_files(path: Path):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []
