"""What transfer gains on handwritten digits, proven within 15 minutes on 2 cores, training from scratch included.

3,000 of MNIST's pictures at 64 px. The proof runs twice in processes of their own, the second time from the store.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks._claims import Claim, at_most, publish
from benchmarks._data import data_folder
from benchmarks._measure import Seconds, run_process

ITEMS, MINUTES, SIDE = 3000, 15.0, 64
QUICK_ITEMS, QUICK_MINUTES = 250, 2.0
SECOND, QUICK_SECOND = 0.05, 0.15
"""Share of the first run that the second may take; of a quick one, imports alone are a twentieth."""


def run(*, quick: bool) -> int:
    """Prove twice, judge, publish."""
    count, minutes = (QUICK_ITEMS, QUICK_MINUTES) if quick else (ITEMS, MINUTES)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        folder = _pictures(root / "digits", count)
        first = _proven(folder, root, minutes)
        second = _proven(folder, root, minutes)
        proof = json.loads((root / "proof" / "proof.json").read_text())
    claims = _claims(proof, first, second, quick=quick)
    return publish("prove", claims, rows=_rows(proof, first, second), quick=quick)


def _pictures(folder: Path, count: int) -> Path:
    """Write the first digits of a seeded order as files, a folder a class."""
    held = np.load(data_folder() / "images" / "digits" / "mnist_test10k.npz")
    pictures, labels = held["x"], held["y"]
    for row in np.random.default_rng(0).permutation(len(pictures))[:count]:
        target = folder / str(int(labels[row]))
        target.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(pictures[row], np.uint8).reshape(28, 28)).save(target / f"{row:05d}.png")
    return folder


def _proven(folder: Path, root: Path, minutes: float) -> Seconds:
    """Run `headstart prove` in a process of its own and return its seconds."""
    code = "import sys; from headstart.cli import main; main(sys.argv[1:])"
    arguments = [
        "prove", str(folder), "--minutes", f"{minutes:g}", "--set", f"encoder.image_size={SIDE}",
        "--device", "cpu", "--threads", str(min(2, len(os.sched_getaffinity(0)))),
        "--store", str(root / "store"), "--output", str(root / "proof"),
    ]  # fmt: skip
    return run_process([sys.executable, "-c", code, *arguments])[0]


def _claims(proof: dict[str, Any], first: Seconds, second: Seconds, *, quick: bool) -> list[Claim]:
    """Judge the time, and that all arms were there and told apart."""
    count, minutes, share = (QUICK_ITEMS, QUICK_MINUTES, QUICK_SECOND) if quick else (ITEMS, MINUTES, SECOND)
    names = [arm["name"] for arm in proof["arms"]]
    deciding = proof["deciding"]
    told = "nothing was compared"
    if deciding:
        score = deciding["score"]
        told = f"{proof['verdict']}: {deciding['arm']} {100 * score['value']:+.1f} points "
        told += f"[{100 * score['low']:+.1f}, {100 * score['high']:+.1f}], {deciding['num_seeds']} seeds"
    has_all = {"frozen", "finetune", "scratch"} <= set(names)
    return [
        at_most(f"{count:,} pictures proven, scratch training included", first.wall / 60, minutes, "min"),
        Claim("arms that ran", ", ".join(names), "frozen, finetune and scratch", has_all),
        Claim("transfer over training from scratch", told, "a paired interval", deciding is not None),
        at_most("second run, part of the first", second.wall / first.wall, share, "x"),
    ]


def _rows(proof: dict[str, Any], first: Seconds, second: Seconds) -> list[dict[str, Any]]:
    """Return arms, differences and laws as raw rows."""
    run_row = {
        "row": "run", "first_seconds": first.wall, "second_seconds": second.wall, "verdict": proof["verdict"],
        "cuts": proof["cuts"], "notes": proof["notes"], "negative": proof["negative"],
    }  # fmt: skip
    kinds = (("arm", "arms"), ("difference", "differences"), ("law", "growth"), ("cause", "causes"))
    return [run_row, *({"row": kind, **values} for kind, name in kinds for values in proof[name])]
