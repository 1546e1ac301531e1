"""`jobserver up`: a local cluster in the foreground, until Ctrl-C, SIGTERM or a closed terminal."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import typer

from jobserver.cli.db import upgrade_url
from jobserver.local.up import LocalCluster, Plan
from jobserver.settings.loading import read_sections, settings_of

WATCH_INTERVAL = 0.5


class Stopped(BaseException):
    """A signal asked for the end. Not an Exception: nothing on the way may take it for a fault."""


def run(
    directory: Path,
    servers: int,
    port: int,
    standby: str | None,
    config: Path | None,
    *,
    mysql: bool = False,
    hdfs: bool = False,
) -> int:
    """Runs the cluster; the exit code: 0 when asked to end, 1 when every server has ended by itself."""
    plan = Plan(directory, servers, port, base_sections(standby, config), mysql=mysql, hdfs=hdfs)
    try:
        with ending_signals(), running(plan) as cluster:
            announce(cluster)
            return watch(cluster)
    except Stopped:
        typer.echo("Everything has ended; the data stays in " + str(directory))
        return 0


def base_sections(standby: str | None, config: Path | None) -> dict[str, Any]:
    """The sections all servers share. Raises SettingsRefused."""
    sections = {} if config is None else read_sections(config)
    if standby is not None:
        sections["ha"] = {**sections.get("ha", {}), "standby": standby}
    settings_of(sections)
    return sections


@contextlib.contextmanager
def running(plan: Plan) -> Iterator[LocalCluster]:
    """A started cluster; ended on the way out, undisturbed by further signals."""
    cluster = LocalCluster(plan, prepare_database=upgrade_url, say=typer.echo)
    try:
        cluster.start()
        yield cluster
    finally:
        with ignoring_signals():
            cluster.stop()


def announce(cluster: LocalCluster) -> None:
    """Tells where everything is."""
    for server in cluster.picture.servers:
        typer.echo(f"{server.id}  {server.url}  (pid {server.pid})")
    if cluster.mariadb is not None:
        typer.echo(f"MariaDB {cluster.mariadb.url}")
    typer.echo(
        f"ZooKeeper {cluster.picture.zookeeper}; checkpoints {cluster.picture.checkpoint_root}; "
        f"more in {cluster.layout.picture}. Ctrl-C ends all of it."
    )


def watch(cluster: LocalCluster) -> int:
    """Says when a server ends, and restarts none. Returns when none is left."""
    told: set[str] = set()
    while len(told) < len(cluster.servers):
        for name, child in cluster.ended_servers().items():
            if name not in told:
                told.add(name)
                typer.echo(
                    f"Server {name} has ended ({_how(child.handle.returncode)}); nothing restarts it here."
                )
        time.sleep(WATCH_INTERVAL)
    typer.echo("No server is left.", err=True)
    return 1


def _how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"


ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def ending_signals() -> Iterator[None]:
    """Within, the signals that ask a process to end raise Stopped."""
    with _handling(_stop):
        yield


@contextlib.contextmanager
def ignoring_signals() -> Iterator[None]:
    """Within, they do nothing: an impatient second Ctrl-C must not leave processes behind."""
    with _handling(signal.SIG_IGN):
        yield


@contextlib.contextmanager
def _handling(handler: Any) -> Iterator[None]:
    old = {number: signal.signal(number, handler) for number in ENDING}
    try:
        yield
    finally:
        for number, previous in old.items():
            signal.signal(number, previous)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise Stopped
