"""`python -m benchmarks NAME [--quick]`."""

from __future__ import annotations

import argparse
from importlib import import_module

NAMES = (
    "extract",
    "finetune",
    "faults",
    "text_encode",
    "fewshot",
    "ner",
    "text_transfer",
    "adapt",
    "rank",
    "labels",
    "prove",
    "chain",
    "pretrain",
)


def main() -> int:
    """Run a benchmark; 0 only if every claim is met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--quick", action="store_true", help="a subset that ends within 3 minutes on 2 cores")
    parser.add_argument("--only", metavar="PARTS", help="some parts of `pretrain`, divided by commas")
    arguments = parser.parse_args()
    parts = {"only": arguments.only} if arguments.only else {}
    return import_module(f"benchmarks.{arguments.name}").run(quick=arguments.quick, **parts)


raise SystemExit(main())
