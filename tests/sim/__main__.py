"""`python -m tests.sim`: many seeds, or one with its story."""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.sim.aims import AIMS, ENOUGH, SEEDS
from tests.sim.scenario import from_json, scenario_of, to_json
from tests.sim.simulation import run

CHUNK = 25
"""Seeds that a process is handed at once: two seconds of work."""
TOLD_EVERY = 1000
"""Seeds between two lines that say how far it is: half a minute."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What one seed showed: the promises that it broke, and what the summary adds up. `worked`: seconds of processor time."""

    seed: int
    broken: tuple[str, ...]
    steps: int
    acknowledgements: int
    owned_after: float
    worked: float


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=500, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="processes; all processors if absent"
    )
    parser.add_argument("--story", type=int, metavar="SEED", help="run one seed and print its story")
    parser.add_argument("--file", type=Path, help="run a kept scenario and print its story")
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="write scenarios that broke something there"
    )
    parser.add_argument("--fences", action="store_true", help="switch each fence off: which seeds notice it")
    options = parser.parse_args()
    if options.fences:
        return _fences()
    if options.story is not None or options.file is not None:
        scenario = from_json(options.file.read_text()) if options.file else scenario_of(options.story)
        report = run(scenario, tell=True)
        sys.stdout.write(report.text + "\n")
        return bool(report.broken)
    return _many(options.first, options.seeds, options.jobs, options.keep)


def _fences() -> int:
    missed = 0
    for name, aim in AIMS.items():
        noticed = aim.noticed()
        missed += len(noticed) < ENOUGH
        sys.stdout.write(f"{name}: noticed by {len(noticed)} of {SEEDS} seeds ({ENOUGH} must), {noticed}\n")
    return bool(missed)


def _many(first: int, seeds: int, jobs: int, keep: Path | None) -> int:
    began, shown = time.perf_counter(), []
    with ProcessPoolExecutor(jobs) as processes:
        for one in processes.map(_one, range(first, first + seeds), chunksize=CHUNK):
            shown.append(one)
            if one.broken:
                _tell(one, keep)
            if len(shown) % TOLD_EVERY == 0 and len(shown) < seeds:
                sys.stderr.write(f"{len(shown)} of {seeds} after {time.perf_counter() - began:.0f} s\n")
    took, worked = time.perf_counter() - began, sum(one.worked for one in shown)
    failed = sum(1 for one in shown if one.broken)
    steps, acknowledged = (
        sum(one.steps for one in shown) / seeds,
        sum(one.acknowledgements for one in shown) / seeds,
    )
    sys.stdout.write(
        f"{seeds} seeds from {first}: {failed} broke a promise; "
        f"{seeds / took * 60:.0f} seeds a minute by the clock in {jobs} processes, "
        f"{seeds / worked * 60:.0f} a minute of processor time; "
        f"{steps:.0f} steps and {acknowledged:.1f} acknowledged updates each; "
        f"owned at most {max(one.owned_after for one in shown):.1f} s after healing\n"
    )
    return bool(failed)


def _one(seed: int) -> Shown:
    began = time.process_time()
    report = run(scenario_of(seed))
    if seed % CHUNK == 0:
        # some runs leave some of their world behind, which the collection after them does not find
        gc.collect(1)
    return Shown(
        seed,
        report.broken,
        report.steps,
        report.acknowledgements,
        report.owned_after,
        time.process_time() - began,
    )


def _tell(shown: Shown, keep: Path | None) -> None:
    sys.stdout.write("\n".join([f"seed {shown.seed}:", *(f"  * {one}" for one in shown.broken)]) + "\n")
    sys.stdout.flush()
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        (keep / f"seed_{shown.seed}.json").write_text(to_json(scenario_of(shown.seed)))


if __name__ == "__main__":
    sys.exit(main())
