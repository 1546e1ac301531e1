"""Runs benchmarks by name (all without one), shows their tables, and keeps the numbers where `--markdown` and `--json` say."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import signal
import subprocess
import sys
import time
import traceback
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from benchmarks.measure import Effort, Section
from benchmarks.report import markdown, plain_data, table
from jobserver.local.java import find_java

NAMES: dict[str, tuple[str, dict[str, str]]] = {
    "api_overhead": ("api_overhead", {}),
    "sync_jobs": ("sync_jobs", {}),
    "throughput": ("throughput", {}),
    "context_start": ("context_start", {}),
    "failover_adopted": ("failover", {"standby": "cold"}),
    "failover": ("failover", {"standby": "warm"}),
    "failover_hot": ("failover", {"standby": "hot"}),
    "failover_size": ("failover_size", {}),
    "failover_count": ("failover_size", {"run": "run_counts"}),
    "switchover": ("switchover", {}),
    "metadata": ("metadata", {}),
    "submissions": ("submissions", {}),
    "job_list": ("job_list", {}),
    "idle": ("idle", {}),
    "checkpoint_speed": ("checkpoint_speed", {}),
    "named_objects": ("named_objects", {}),
    "soak": ("soak", {}),
}
"""Each benchmark's module, and what its `run` is told beside the effort; `run` names another function of it."""
WIDTH = 160
"""Columns of the tables also where the terminal is narrower, or none."""


def main() -> None:
    """Entry point of `python -m benchmarks`. Ends with 1 when a benchmark could not be run to its end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started ends with us
    chosen = arguments(sys.argv[1:])
    console, machine = Console(), machine_text()
    console.width = max(console.width, WIDTH)
    console.print(machine)
    sections: list[Section] = []
    failed = False
    for name in chosen.names:
        begin = time.monotonic()
        try:
            module, details = NAMES[name]
            found = importlib.import_module(f"benchmarks.{module}")
            given = dict(details)
            run = getattr(found, given.pop("run", "run"))
            section: Section = run(Effort(chosen.rounds, chosen.quick), **given)
        except Exception:  # noqa: BLE001
            # whatever ends one benchmark, the others' numbers are worth having
            traceback.print_exc()
            failed = True
            continue
        sections.append(section)
        console.print(table(section), f"({name} took {time.monotonic() - begin:.0f} s)")
        keep(chosen, sections, machine)
    sys.exit(1 if failed else 0)


def arguments(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}; all without one"
    )
    parser.add_argument(
        "--rounds", type=int, help="how often each thing is measured, instead of its own count"
    )
    parser.add_argument(
        "--quick", action="store_true", help="hardly any rounds: shows that it runs, not how fast"
    )
    parser.add_argument(
        "--markdown",
        type=Path,
        metavar="FILE",
        help="file of tables, in which those that were measured replace the older ones of their titles",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="file for all values as JSON")
    chosen = parser.parse_args(words)
    if unknown := set(chosen.names) - set(NAMES):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    if chosen.rounds is not None and chosen.rounds < 1:
        parser.error("--rounds must be 1 or more")
    chosen.names = chosen.names or list(NAMES)
    return chosen


def keep(chosen: argparse.Namespace, sections: list[Section], machine: str) -> None:
    """Writes what there is so far, after each benchmark."""
    if chosen.markdown:
        older = chosen.markdown.read_text() if chosen.markdown.exists() else ""
        chosen.markdown.write_text(markdown(sections, machine, older))
    if chosen.json:
        chosen.json.write_text(
            json.dumps({"machine": machine, "sections": plain_data(sections)}, indent=2) + "\n"
        )


def machine_text() -> str:
    """Where and when, in one sentence: numbers of two runs can hardly be compared."""
    parts = [
        f"Measured {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"{os.cpu_count()} cores ({platform.machine()}), load {os.getloadavg()[0]:.1f} at the start",
        f"Python {platform.python_version()}, pyspark {version('pyspark')}, Java {find_java().version}",
    ]
    return "; ".join([*parts, *_commit()]) + "."


def _commit() -> list[str]:
    """The code's version, where there is git to ask."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return []
    return [f"commit {done.stdout.strip()}"]


if __name__ == "__main__":
    main()
