"""Claims against goals: judged, printed as a table, written as JSON."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    "headstart", "torch", "torchvision", "timm", "onnxruntime", "numpy", "pillow", "fastai", "transformers",
    "accelerate", "lightning",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Claim:
    """One promise, what was measured, what was promised, and whether that is met."""

    claim: str
    value: str
    goal: str
    met: bool


def at_least(claim: str, value: float, goal: float, unit: str = "x") -> Claim:
    """Judge a number that should be large."""
    return Claim(claim, f"{value:.2f} {unit}".strip(), f">= {goal:g} {unit}".strip(), value >= goal)


def at_most(claim: str, value: float, goal: float, unit: str = "x") -> Claim:
    """Judge a number that should be small."""
    return Claim(claim, f"{value:.3g} {unit}".strip(), f"<= {goal:g} {unit}".strip(), value <= goal)


def not_worse(claim: str, ours: Sequence[bool], theirs: Sequence[bool]) -> Claim:
    """Judge accuracy on the same pictures: met unless the paired 95 % interval lies wholly below zero."""
    difference, low, high = paired_interval(ours, theirs)
    scores = f"{np.mean(ours):.3f} against {np.mean(theirs):.3f}"
    value = f"{scores}: {difference:+.3f} [{low:+.3f}, {high:+.3f}], n={len(ours)}"
    return Claim(claim, value, "difference not below 0 (paired 95 %)", high >= 0)


def paired_interval(
    ours: Sequence[bool], theirs: Sequence[bool], *, resamples: int = 10_000
) -> tuple[float, float, float]:
    """Return the mean difference and its 95 % bootstrap interval over pictures."""
    difference = np.asarray(ours, float) - np.asarray(theirs, float)
    draws = np.random.default_rng(0).integers(0, len(difference), (resamples, len(difference)))
    low, high = np.quantile(difference[draws].mean(axis=1), (0.025, 0.975))
    return float(difference.mean()), float(low), float(high)


def publish(name: str, claims: Sequence[Claim], *, rows: Sequence[Mapping[str, Any]], quick: bool) -> int:
    """Print the table, write the JSON file, and return 0 if every claim is met, else 1."""
    result = {
        "benchmark": name,
        "quick": quick,
        # A comparison of numpy's numbers is numpy's own bool, which JSON does not know.
        "claims": [{**asdict(claim), "met": bool(claim.met)} for claim in claims],
        "machine": machine_facts(),
        "versions": {package: package_version(package) for package in PACKAGES},
        "rows": list(rows),
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}{'-quick' if quick else ''}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(
        table(claims),
        f"\n{sum(claim.met for claim in claims)} of {len(claims)} claims met; written to {path}",
    )
    return 0 if all(claim.met for claim in claims) else 1


def table(claims: Sequence[Claim]) -> str:
    """Return the claims as a Markdown table."""
    lines = [
        f"| {claim.claim} | {claim.value} | {claim.goal} | {'yes' if claim.met else 'NO'} |"
        for claim in claims
    ]
    return "\n".join(["| claim | measured | goal | met |", "|---|---|---|---|", *lines])


def machine_facts() -> dict[str, Any]:
    """Describe the machine: processor, cores this process may use, memory, system."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": names[0].partition(":")[2].strip() if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load": os.getloadavg(),
    }


def package_version(package: str) -> str:
    """Return a package's installed version, or `absent`."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
