"""A cluster on this machine: ZooKeeper, servers and, if asked for, HDFS as processes, started together, ended together.

Restarts nothing by itself. After `stop` no process is left: servers, ZooKeeper, HDFS, drivers, their JVMs and Python workers.
"""

from __future__ import annotations

import fcntl
import getpass
import http.client
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import jobserver
from jobserver.errors import LocalPartFailed
from jobserver.local import class_archive
from jobserver.local import layout as files
from jobserver.local.hdfs import LocalHdfs, fetch_jar
from jobserver.local.java import find_java
from jobserver.local.layout import ClusterPicture, HdfsPlace, Layout, ServerPicture
from jobserver.local.mariadb import MariaDbServer, unpacked
from jobserver.local.ports import LOOPBACK, busy_ports, free_ports
from jobserver.local.processes import Child, ProcessId, end_all, end_children, naming, session_of, start
from jobserver.local.zookeeper import ZooKeeperNode, single
from jobserver.settings import database_url

START_TIMEOUT = 60.0
SERVER_GRACE = 10.0
DRIVER_GRACE = 3.0

Say = Callable[[str], None]
Prepare = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to start. `base` holds the sections of a settings file; `port` is the first server's, the others follow.

    `mysql`: a MariaDB of the cluster's own holds the metadata, whatever `base` says of a database. `hdfs`: the
    checkpoints lie in a NameNode and DataNode of the cluster's own, unless `base` names another place.
    """

    directory: Path
    servers: int = 3
    port: int = 8090
    base: Mapping[str, Any] = field(default_factory=dict)
    mysql: bool = False
    hdfs: bool = False


class LocalCluster:
    """A running local cluster, or one that was. Use as a context manager: leaving it stops everything."""

    def __init__(self, plan: Plan, *, prepare_database: Prepare, say: Say = lambda _: None) -> None:
        """`prepare_database` brings the schema at a database URL up to date; it is called before any server starts."""
        self.mariadb: MariaDbServer | None = None
        self.plan = plan
        self.layout = Layout(plan.directory.absolute())
        self.servers: dict[str, Child] = {}
        self._say = say
        self._prepare_database = prepare_database
        self._zookeeper: ZooKeeperNode | None = None
        self._hdfs: LocalHdfs | None = None
        self._picture: ClusterPicture | None = None
        self._lock: IO[bytes] | None = None

    def __enter__(self) -> LocalCluster:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def picture(self) -> ClusterPicture:
        """Where everything is. Only after `start`."""
        assert self._picture is not None
        return self._picture

    @property
    def zookeeper(self) -> ZooKeeperNode:
        """The ZooKeeper node. Only after `start`."""
        assert self._zookeeper is not None
        return self._zookeeper

    @property
    def hdfs(self) -> LocalHdfs:
        """NameNode and DataNode. Only after `start`, of a plan with them."""
        assert self._hdfs is not None
        return self._hdfs

    def start(self) -> None:
        """Returns when every server answers. Raises LocalPartFailed or SettingsRefused, and leaves nothing running then."""
        self._take_directory()
        try:
            self._start_parts()
        except BaseException:
            self.stop()
            raise

    def start_server(self, server_id: str) -> None:
        """Starts a server that has ended, with the settings it had; returns when it answers."""
        self._launch(server_id)
        self._wait_healthy([server_id])
        self._publish()

    def stop(self) -> None:
        """Ends every process of the cluster. May be called again."""
        if self._lock is None:
            return
        end_children(list(self.servers.values()), SERVER_GRACE)
        self._end_drivers()
        if self._zookeeper is not None:
            self._zookeeper.stop()
        if self.mariadb is not None:
            self.mariadb.stop()
        if self._hdfs is not None:
            self._hdfs.stop()
        self.layout.picture.unlink(missing_ok=True)
        self.layout.leftovers.unlink(missing_ok=True)
        self._lock.close()
        self._lock = None

    def ended_servers(self) -> dict[str, Child]:
        """The servers that are not running any more."""
        return {name: child for name, child in self.servers.items() if not child.running}

    def drivers(self) -> list[ProcessId]:
        """Every living process of every driver: its Python, its JVM, its workers.

        A driver that has just been started has not written its file yet; a dead one may have left its JVM, and only its
        file leads to that.
        """
        noted = {files.read_driver(file) for file in self.layout.driver_files()} - {None}
        started = {each for name in self.servers for each in naming(self.layout.drivers(name))}
        members = {each for leader in noted | started if leader is not None for each in session_of(leader)}
        return sorted(members | started, key=lambda each: each.started)

    def _take_directory(self) -> None:
        """The lock ends with the process that holds it, whatever ends that."""
        self.layout.root.mkdir(parents=True, exist_ok=True)
        lock = self.layout.lock.open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise LocalPartFailed(
                f"{self.layout.root} is in use by another `jobserver up` that is running."
            ) from None
        self._lock = lock
        left = files.read_leftovers(self.layout)
        if left:
            end_all(left, grace=1.0)
            self._say("Ended what a killed `jobserver up` had left running in this directory.")

    def _start_parts(self) -> None:
        java = find_java(_java_of(self.plan.base)).command
        ports = {f"s{n + 1}": self.plan.port + n for n in range(self.plan.servers)}
        _refuse_busy(list(ports.values()))
        files.ensure_secret(self.layout)
        self._zookeeper = single(self.layout.zookeeper, free_ports(1)[0])
        base: Mapping[str, Any] = self._with_database(java) if self.plan.mysql else self.plan.base
        if self.plan.hdfs:
            base = self._with_hdfs(java, base)
        settings = [
            files.write_settings(
                self.layout,
                server_id,
                files.server_values(base, self.layout, server_id, port, self._zookeeper.address, java),
            )
            for server_id, port in ports.items()
        ]
        self._zookeeper.launch(java)
        self._note_leftovers()
        if self.mariadb is not None:
            self.mariadb.wait_serving()
        # while ZooKeeper is starting
        self._prepare_database(database_url(settings[0].database, os.environ))
        if settings[0].driver.archive_dir is not None:
            class_archive.prepare(
                java, settings[0].driver.archive_dir, child_environment(os.environ), self._say
            )
        self._zookeeper.wait_serving()
        for server_id in ports:
            self._launch(server_id)
        self._wait_healthy(list(ports))
        self._picture = ClusterPicture(
            servers=(),
            zookeeper=self._zookeeper.address,
            database_url=settings[0].database.url,
            checkpoint_root=settings[0].checkpoint.root,
        )
        self._publish()

    def _with_database(self, java: Path) -> dict[str, Any]:
        """Starts MariaDB; the settings' sections with its address."""
        base = unpacked(java, files.archive_cache(os.environ) / "mariadb")
        self.mariadb = MariaDbServer(self.layout.mariadb, free_ports(1)[0], base)
        self.mariadb.install()
        self.mariadb.launch()
        self._note_leftovers()
        database = {
            **(self.plan.base.get("database") or {}),
            "url": self.mariadb.url,
            "password_file": str(self.mariadb.password_file),
        }
        return {**self.plan.base, "database": database}

    def _with_hdfs(self, java: Path, base: Mapping[str, Any]) -> dict[str, Any]:
        """Starts HDFS; the settings' sections with its address."""
        self._say("Starting HDFS (its jar, 56 MB, is fetched once) …")
        self._hdfs = LocalHdfs(self.layout.hdfs, impersonator=_impersonator(base))
        self._hdfs.start(java, fetch_jar(java), self._note_leftovers)
        values = files.with_hdfs(base, HdfsPlace(self._hdfs.url, self._hdfs.web_url))
        root, user = values["checkpoint"]["root"], values.get("webhdfs", {}).get("user")
        if user is not None and root.startswith(self._hdfs.url):
            self._hdfs.give(root.removeprefix(self._hdfs.url), user)
        return values

    def _launch(self, server_id: str) -> None:
        folder = self.layout.server(server_id)
        self.servers[server_id] = start(
            f"server {server_id}",
            [
                sys.executable,
                "-m",
                "jobserver.cli.main",
                "serve",
                "--config",
                self.layout.settings_file(server_id),
            ],
            log=folder / "server.log",
            cwd=folder,
            env=child_environment(os.environ),
        )
        self._note_leftovers()

    def _note_leftovers(self) -> None:
        parts = list(self.servers.values())
        if self._zookeeper is not None and self._zookeeper.child is not None:
            parts.append(self._zookeeper.child)
        if self.mariadb is not None and self.mariadb.child is not None:
            parts.append(self.mariadb.child)
        if self._hdfs is not None:
            parts += self._hdfs.children
        files.write_leftovers(self.layout, [child.id for child in parts])

    def _wait_healthy(self, server_ids: list[str]) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        waiting = {server_id: self.url(server_id) for server_id in server_ids}
        while waiting:
            for server_id in list(waiting):
                child = self.servers[server_id]
                if not child.running:
                    raise LocalPartFailed(
                        f"Server {server_id} ended at its start: {child.last_words()}\n(all of it: {child.log})"
                    )
                if healthy(waiting[server_id]):
                    del waiting[server_id]
            if waiting and time.monotonic() > deadline:
                names = ", ".join(waiting)
                raise LocalPartFailed(
                    f"No answer from {names} within {START_TIMEOUT:g} s; see server.log below {self.layout.root}"
                )
            time.sleep(0.05)

    def url(self, server_id: str) -> str:
        """Where a server listens."""
        return f"http://{LOOPBACK}:{self.plan.port + int(server_id.removeprefix('s')) - 1}"

    def _publish(self) -> None:
        servers = tuple(
            ServerPicture(name, self.url(name), child.id.pid) for name, child in self.servers.items()
        )
        old = self.picture
        self._picture = ClusterPicture(servers, old.zookeeper, old.database_url, old.checkpoint_root)
        files.write_picture(self.layout, self._picture)

    def _end_drivers(self) -> None:
        """Drivers outlive their servers on purpose, so they are ended by themselves.

        Looks again afterwards: one of them may have been about to start its JVM or a worker.
        """
        while drivers := self.drivers():
            if end_all(drivers, DRIVER_GRACE):
                raise LocalPartFailed(f"Processes that do not end: {', '.join(str(d.pid) for d in drivers)}.")


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of servers: ours, with this very code in front, also where it is not installed."""
    source = str(Path(jobserver.__file__).parent.parent)
    path = environ.get("PYTHONPATH")
    return {
        **environ,
        "PYTHONPATH": source if not path else f"{source}{os.pathsep}{path}",
        "PYTHONUNBUFFERED": "1",
    }


def healthy(url: str, timeout: float = 1.0) -> bool:
    """Whether a server answers GET /healthz with 200."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=timeout)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _impersonator(base: Mapping[str, Any]) -> str | None:
    """Who acts for others in HDFS: the servers' user, where contexts may name proxy users."""
    if (base.get("access") or {}).get("proxy_users", "none") == "none":
        return None
    return (base.get("webhdfs") or {}).get("user") or getpass.getuser()


def _java_of(base: Mapping[str, Any]) -> Path | None:
    named = (base.get("driver") or {}).get("java")
    return None if named is None else Path(named)


def _refuse_busy(ports: list[int]) -> None:
    busy = busy_ports(ports)
    if busy:
        shown = ", ".join(map(str, busy))
        raise LocalPartFailed(f"Ports in use on {LOOPBACK}: {shown}. Choose others with --port.")
