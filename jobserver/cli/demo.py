"""`jobserver demo`: a local cluster that loses servers and drivers, one step after another, and is asked the same each time.

Speaks plain HTTP, as any client would. A step is good when its answer is the expected one; the first that is not ends it.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

import jobserver
from jobserver.cli.demo_steps import STEPS, Cluster, StepFailed
from jobserver.cli.up import Stopped, announce, base_sections, ending_signals, running, watch
from jobserver.errors import JobServerError, LocalPartFailed
from jobserver.local.up import LocalCluster, Plan


@dataclass(frozen=True, slots=True)
class StepResult:
    """How a step went. `seconds` covers what a client would have waited, kills included."""

    title: str
    seconds: float
    good: bool
    note: str


def run(directory: Path | None, servers: int, port: int, standby: str | None, *, keep: bool) -> int:
    """Runs the demo; the exit code is 0 only if every answer was right."""
    if directory is not None and (directory / "jobserver.db").exists():
        raise LocalPartFailed(
            f"{directory} holds the data of another cluster; the demo needs an empty directory."
        )
    examples = examples_folder()
    with place(directory) as folder:
        try:
            with (
                ending_signals(),
                running(Plan(folder, servers, port, base_sections(standby, None))) as cluster,
            ):
                return play(cluster, Cluster(cluster.layout, examples, standby or "warm"), keep=keep)
        except Stopped:
            typer.echo("Ended.")
            return 0 if keep else 1


@contextmanager
def place(directory: Path | None) -> Iterator[Path]:
    """The directory, or a temporary one, removed afterwards unless something went wrong (the logs are in it)."""
    if directory is not None:
        yield directory
        return
    folder = Path(tempfile.mkdtemp(prefix="jobserver-demo-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def play(cluster: LocalCluster, target: Cluster, *, keep: bool) -> int:
    """Plays all steps against a running cluster and shows the table."""
    console = Console()
    results = []
    for title, step in STEPS:
        result = timed(title, step, target)
        console.print(f"{'ok ' if result.good else 'BAD'} {result.seconds:6.2f} s  {title}")
        results.append(result)
        if not result.good:
            break
    console.print(table(results))
    good = all(result.good for result in results)
    if not good:
        console.print(
            f"Logs are below {cluster.layout.root} (servers: server.log, drivers: drivers/*/stderr)."
        )
    if keep:
        announce(cluster)
        watch(cluster)
    if not good:
        raise LocalPartFailed("An answer was wrong, or there was none.")
    return 0


def timed(title: str, step: Callable[[Cluster], str], target: Cluster) -> StepResult:
    """Carries out a step; what goes wrong in it is its result."""
    begin = time.monotonic()
    try:
        note, good = step(target), True
    except (JobServerError, StepFailed) as error:
        note, good = str(error), False
    return StepResult(title, time.monotonic() - begin, good, note)


def table(results: list[StepResult]) -> Table:
    """All steps with their times."""
    shown = Table("step", "time", "right", "what was seen", title="A cluster that loses servers and drivers")
    for result in results:
        shown.add_row(result.title, f"{result.seconds:.2f} s", "yes" if result.good else "NO", result.note)
    return shown


def examples_folder() -> Path:
    """The folder of example jobs of this source tree. Raises LocalPartFailed where only the package is installed."""
    folder = Path(jobserver.__file__).parent.parent / "examples"
    if not (folder / "cached_query.py").exists():
        raise LocalPartFailed("The demo needs the source tree: its jobs are in the folder examples/.")
    return folder
