"""Runs benchmarks by name (all without one), shows their table, and keeps the numbers where `--json` says."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path

from rich.console import Console

from benchmarks.measure import summary, table

NAMES = ("failover",)


def main() -> None:
    """Entry point of `python -m benchmarks`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME", help=f"one of {', '.join(NAMES)}")
    parser.add_argument("--rounds", type=int, default=10, help="how often each thing is measured")
    parser.add_argument("--json", type=Path, help="file to keep the numbers in")
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - set(NAMES):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    series = []
    for name in chosen.names:
        series += importlib.import_module(f"benchmarks.{name}").run(chosen.rounds)
    Console().print(table(series))
    if chosen.json:
        chosen.json.write_text(json.dumps([summary(each) for each in series], indent=2) + "\n")


if __name__ == "__main__":
    main()
