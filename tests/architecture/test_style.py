"""Rules of style that a program can check, over every file of the package."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "headstart"
FILES = sorted(PACKAGE.rglob("*.py"))
IDS = [path.relative_to(PACKAGE).as_posix() for path in FILES]

MAX_FILE_LINES, MAX_FUNCTION_LINES = 400, 60
VAGUE = {
    "base",
    "common",
    "engine",
    "handler",
    "helper",
    "helpers",
    "manager",
    "misc",
    "processor",
    "util",
    "utils",
}
UNSAFE = {"cloudpickle", "dill", "joblib", "marshal", "shelve", "yaml"}
ONLY_IN = {
    "timm": ("encoders/timm.py",),
    "transformers": ("encoders/transformers.py", "modalities/text.py"),
    "onnxruntime": ("features/", "export/"),
    "ray": ("cluster.py",),
}
"""Libraries that are imported in these places alone."""

every_file = pytest.mark.parametrize("path", FILES, ids=IDS)


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the top-level name of every module that a file imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def parsed(path: Path) -> ast.Module:
    """Return a file's syntax tree."""
    return ast.parse(path.read_text())


@every_file
def test_a_file_can_be_read_in_one_go(path: Path):
    assert len(path.read_text().splitlines()) <= MAX_FILE_LINES


@every_file
def test_a_function_fits_on_a_screen(path: Path):
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(parsed(path))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.end_lineno
        and node.end_lineno - node.lineno >= MAX_FUNCTION_LINES
    ]
    assert long == []


@every_file
def test_a_file_is_named_for_what_is_in_it(path: Path):
    words = {word for part in path.relative_to(PACKAGE).with_suffix("").parts for word in part.split("_")}
    assert not words & VAGUE


@every_file
def test_nothing_reads_formats_that_can_run_code(path: Path):
    found = set(imported(parsed(path))) & UNSAFE
    if "yaml" in found:
        # Its safe reader makes plain values only.
        used = {node.attr for node in ast.walk(parsed(path)) if isinstance(node, ast.Attribute)
                and ast.unparse(node.value) == "yaml"}  # fmt: skip
        assert used <= {"safe_load", "YAMLError"}
        found -= {"yaml"}
    assert not found
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom):
            assert node.module != "pickle", f"line {node.lineno}"
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle":
            # The error that torch's own tensors-only reader raises has to be caught by its name.
            assert node.attr == "UnpicklingError", f"line {node.lineno}"
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant), f"line {node.value.lineno}"
            assert node.value.value is False, f"line {node.value.lineno}"


@every_file
def test_torch_load_reads_tensors_only(path: Path):
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert given.get("weights_only") == "True", f"line {node.lineno}"


@every_file
def test_libraries_stay_in_their_places(path: Path):
    name = path.relative_to(PACKAGE).as_posix()
    outside = [
        library
        for library in set(imported(parsed(path))) & set(ONLY_IN)
        if not name.startswith(ONLY_IN[library])
    ]
    assert outside == []


def test_inheritance_is_one_level_deep():
    classes = {
        node.name: [ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases]
        for path in FILES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ClassDef)
    }

    def depth(name: str) -> int:
        return max((1 + depth(base) for base in classes[name] if base in classes), default=0)

    assert {name: depth(name) for name in classes if depth(name) > 1} == {}
