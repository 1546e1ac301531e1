"""A local cluster for a benchmark: started in a temporary folder, with the measured functions uploaded."""

from __future__ import annotations

import contextlib
import fcntl
import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from benchmarks.connection import Connection, http_request
from benchmarks.plain import MASTER, SETTINGS
from jobserver.cli.db import upgrade_url
from jobserver.local.layout import read_driver
from jobserver.local.ports import busy_ports
from jobserver.local.processes import ProcessId, alive, wait_until
from jobserver.local.up import LocalCluster, Plan

BINARY = "bench_jobs"
"""The name under which `benchmarks/jobs.py` is uploaded."""
ANSWER_LIMIT = 100.0
"""Seconds that a job may take, unless its caller names others."""
GRACE = 20.0
"""Seconds by which a client waits longer than the server, so that the server tells what is late."""
QUIET_LIMIT = 120.0
"""Seconds to wait for what must be there before something is measured."""


class Refused(Exception):
    """Another answer than the wanted one; the text is what came."""


class BenchCluster:
    """What benchmarks ask of a cluster."""

    def __init__(self, cluster: LocalCluster, warm_drivers: int) -> None:
        self.local = cluster
        self.folder = cluster.layout.root
        self._warm = warm_drivers

    @property
    def server_ids(self) -> list[str]:
        """All servers of the cluster, living or not."""
        return [server.id for server in self.local.picture.servers]

    def pid(self, server_id: str) -> int:
        """The process of a server."""
        return next(server.pid for server in self.local.picture.servers if server.id == server_id)

    def connect(self, server_id: str) -> Connection:
        """A connection to a server, to be kept."""
        return Connection(self.local.url(server_id))

    def ask(self, method: str, target: str, body: bytes = b"", *, server: str = "s1", **headers: str) -> Any:
        """The JSON of a good answer on a connection of its own. Raises Refused, OSError, EOFError."""
        connection = self.connect(server)
        try:
            status, answer = connection.ask(http_request(method, target, body, **headers))
        finally:
            connection.close()
        if status not in (200, 201):
            raise Refused(f"{method} {target}: {status}: {answer[:500].decode(errors='replace')}")
        return json.loads(answer)

    def upload(self) -> None:
        """The measured functions."""
        self.ask(
            "POST",
            f"/binaries/{BINARY}",
            Path(__file__).with_name("jobs.py").read_bytes(),
            Content_Type="text/x-python",
        )

    def create_context(self, name: str, settings: Mapping[str, str] | None = None) -> None:
        """Returns when it runs."""
        self.ask("POST", f"/contexts/{name}?{urlencode(settings or {})}")

    def delete_context(self, name: str) -> None:
        """Returns when it has ended, and its driver."""
        self.ask("DELETE", f"/contexts/{name}")

    def run(
        self, context: str, function: str, config: object, *, server: str = "s1", limit: float = ANSWER_LIMIT
    ) -> Any:
        """The result of a sync job that ends within `limit` seconds, on a connection of its own. Raises Refused."""
        connection = Connection(self.local.url(server), limit + GRACE)
        try:
            return job_result(connection.ask(job_request(context, function, config, limit=limit)))
        finally:
            connection.close()

    def context(self, name: str, *, server: str = "s1") -> dict[str, Any]:
        """A context as GET /cluster shows it; empty when it does not."""
        contexts = self.ask("GET", "/cluster", server=server)["contexts"]
        return next((each for each in contexts if each["name"] == name), {})

    def other_than(self, owner: str) -> str:
        """Another server."""
        return next(name for name in self.server_ids if name != owner)

    def drivers(self) -> list[ProcessId]:
        """Drivers that have started and live, warm ones included."""
        found = (read_driver(file) for file in self.local.layout.driver_files())
        return [driver for driver in found if driver is not None and alive(driver)]

    @property
    def checkpoint_root(self) -> str:
        """Where checkpoints lie, as an address that Spark understands."""
        settings = yaml.safe_load((self.folder / "s1" / "server.yaml").read_text())
        root = str(settings["checkpoint"]["root"])
        return root if "://" in root else Path(root).as_uri()

    def wait_warm(self, contexts: int) -> None:
        """Returns when every pool is full, beside the drivers of `contexts`: then nothing is being started any more."""
        wanted = len(self.server_ids) * self._warm + contexts

        def full() -> bool:
            return len(self.drivers()) >= wanted and all(
                (server.get("warm_drivers") or 0) >= self._warm for server in self._servers()
            )

        if not wait_until(full, QUIET_LIMIT):
            raise Refused(
                f"{len(self.drivers())} of {wanted} drivers after {QUIET_LIMIT:g} s, or not all warm"
            )

    def _servers(self) -> list[dict[str, Any]]:
        """As GET /cluster of the first that answers shows them."""
        for server in self.server_ids:
            with contextlib.suppress(OSError, EOFError, Refused):  # it has just been killed, or started
                servers: list[dict[str, Any]] = self.ask("GET", "/cluster", server=server)["servers"]
                return servers
        raise Refused("no server answers")

    def wait_rehearsed(self) -> None:
        """Returns when no driver of this machine has rehearsed for a second: they take turns, and look for theirs more often."""
        settings = yaml.safe_load((self.folder / "s1" / "server.yaml").read_text())
        lock = Path(settings["driver"]["archive_dir"]) / "rehearsal.lock"
        since = [time.monotonic()]

        def rested() -> bool:
            if lock.exists() and _locked(lock):
                since[0] = time.monotonic()
            return time.monotonic() - since[0] > 1.0

        if not wait_until(rested, QUIET_LIMIT):
            raise Refused(f"drivers still rehearse after {QUIET_LIMIT:g} s")


def _locked(path: Path) -> bool:
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def cluster(
    servers: int,
    standby: str = "warm",
    *,
    hdfs: bool = False,
    mysql: bool = False,
    contexts: Mapping[str, Any] | None = None,
) -> Iterator[BenchCluster]:
    """A running cluster with Spark set as the plain process has it; ended, with all its drivers, afterwards.

    Only where the standbys are warm has each server a pool of one driver: a hot standby is started beside any pool.
    `contexts`: settings of that section. `mysql`: the metadata in a MariaDB of the cluster's own.
    """
    port = next(first for first in range(19000, 28000, 20) if not busy_ports(range(first, first + servers)))
    conf = {key: value for key, value in SETTINGS.items() if not key.startswith("spark.driver.")}
    warm = 1 if standby == "warm" else 0
    driver = {"master": MASTER, "spark_conf": conf, "warm_drivers": warm}
    with tempfile.TemporaryDirectory(prefix="jobserver-bench-") as folder:
        sections = {"ha": {"standby": standby}, "driver": driver, "contexts": dict(contexts or {})}
        plan = Plan(Path(folder), servers, port, sections, mysql=mysql, hdfs=hdfs)
        with LocalCluster(plan, prepare_database=upgrade_url) as started:
            bench = BenchCluster(started, warm)
            bench.upload()
            yield bench


def job_request(
    context: str,
    function: str,
    config: object,
    *,
    sync: bool = True,
    limit: float = ANSWER_LIMIT,
    **headers: str,
) -> bytes:
    """A job that runs one of the functions of `benchmarks/jobs.py`; its answer is the result, or that it was accepted.

    `limit`: seconds after which a sync answer says that the job goes on.
    """
    query = {"cp": BINARY, "mainClass": f"{BINARY}:{function}", "context": context}
    waiting = {"sync": "true", "timeout": f"{limit:.0f}"} if sync else {}
    return http_request("POST", f"/jobs?{urlencode(query | waiting)}", json.dumps(config).encode(), **headers)


def job_result(answer: tuple[int, bytes]) -> Any:
    """The result in a sync answer. Raises Refused."""
    status, body = answer
    value = json.loads(body) if status == 200 else {}
    if "result" not in value or "status" in value:
        raise Refused(f"{status}: {body[:500].decode(errors='replace')}")
    return value["result"]
