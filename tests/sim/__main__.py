"""`python -m tests.sim`: many seeds, or one with its story."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.sim.aims import AIMS, ENOUGH, SEEDS
from tests.sim.scenario import from_json, scenario_of, to_json
from tests.sim.simulation import Report, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=500, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
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
    return _many(options.first, options.seeds, options.keep)


def _fences() -> int:
    missed = 0
    for name, aim in AIMS.items():
        noticed = aim.noticed()
        missed += len(noticed) < ENOUGH
        sys.stdout.write(f"{name}: noticed by {len(noticed)} of {SEEDS} seeds ({ENOUGH} must), {noticed}\n")
    return bool(missed)


def _many(first: int, seeds: int, keep: Path | None) -> int:
    began, busy, failed, steps, acknowledged, slowest = time.perf_counter(), time.process_time(), 0, 0, 0, 0.0
    for seed in range(first, first + seeds):
        report = run(scenario_of(seed))
        steps += report.steps
        acknowledged += report.acknowledgements
        slowest = max(slowest, report.owned_after)
        if report.broken:
            failed += 1
            _tell(report, keep)
    took, worked = time.perf_counter() - began, time.process_time() - busy
    sys.stdout.write(
        f"{seeds} seeds from {first}: {failed} broke a promise; "
        f"{seeds / took * 60:.0f} seeds a minute by the clock, {seeds / worked * 60:.0f} by the processor's time; "
        f"{steps / seeds:.0f} steps and {acknowledged / seeds:.1f} acknowledged updates each; "
        f"owned at most {slowest:.1f} s after healing\n"
    )
    return bool(failed)


def _tell(report: Report, keep: Path | None) -> None:
    sys.stdout.write(
        "\n".join([f"seed {report.scenario.seed}:", *(f"  * {one}" for one in report.broken)]) + "\n"
    )
    sys.stdout.flush()
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        (keep / f"seed_{report.scenario.seed}.json").write_text(to_json(report.scenario))


if __name__ == "__main__":
    sys.exit(main())
