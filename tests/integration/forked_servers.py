"""Real servers in processes of their own, quickly: forked from one that has imported everything, with drivers without Spark."""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from jobserver.cli.db import upgrade_url
from jobserver.local.ports import free_ports
from jobserver.settings import Settings
from jobserver.settings.model import (
    CheckpointSettings,
    ClusterSettings,
    DatabaseSettings,
    DriverSettings,
    HaSettings,
    ServerSettings,
    ZooKeeperSettings,
)

ROOT = Path(__file__).parents[2]
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["jobserver.serving"])


def serve(settings: Settings, environment: Mapping[str, str]) -> None:
    """The server's process."""
    from jobserver.serving import run

    os.environ.update(environment)
    run(settings)


Served = Callable[[Settings, Mapping[str, str]], None]
"""What the process of a server runs."""


class ForkedServers:
    """Servers s1, s2, s3 of one cluster below a folder, with a ZooKeeper that runs already.

    Their metadata are in SQLite below the folder, unless `database` is the address of another; `ways` are addresses of it
    that differ from server to server.
    """

    def __init__(
        self,
        folder: Path,
        zookeeper: str,
        database: str | None = None,
        *,
        ways: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = folder
        self._zookeeper = zookeeper
        self.processes: dict[str, ForkServerProcess] = {}
        self.urls = dict(zip(("s1", "s2", "s3"), map(_url, free_ports(3)), strict=True))
        self._python = folder / "python"
        self._python.write_text(
            f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m tests.fakes.driver_process "$@"\n'
        )
        self._python.chmod(0o755)
        one = database or f"sqlite:///{folder}/jobserver.db"
        self._databases = {name: (ways or {}).get(name, one) for name in self.urls}
        upgrade_url(self._databases["s1"])

    def start(self, name: str, environment: Mapping[str, str] | None = None, served: Served = serve) -> None:
        """Begins; does not wait."""
        process = _context.Process(target=served, args=(self._settings(name), dict(environment or {})))
        process.start()
        self.processes[name] = process

    def running(self) -> list[str]:
        return [name for name, process in list(self.processes.items()) if process.is_alive()]

    def kill(self, name: str) -> None:
        """SIGKILL."""
        process = self.processes.pop(name)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()

    def exit_code(self, name: str, seconds: float) -> int | None:
        """Of a server that ends by itself within the time."""
        process = self.processes.pop(name)
        process.join(seconds)
        return process.exitcode

    def drivers(self) -> list[int]:
        """Pids of driver processes of this cluster."""
        mine = str(self._folder).encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    line = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if b"tests.fakes.driver_process" in line and mine in line:
                    found.append(int(entry.name))
        return found

    def close(self) -> None:
        for name in list(self.processes):
            if self.processes[name].is_alive():
                self.kill(name)
        for pid in self.drivers():
            os.kill(pid, signal.SIGKILL)

    def _settings(self, name: str) -> Settings:
        port = int(self.urls[name].rpartition(":")[2])
        return Settings(
            server=ServerSettings(id=name, port=port, dir=self._folder / name, log_level="warning"),
            cluster=ClusterSettings(name="forked", secret="secret"),  # type: ignore[arg-type]
            zookeeper=ZooKeeperSettings(hosts=self._zookeeper),
            database=DatabaseSettings(url=self._databases[name], timeout="2s"),
            checkpoint=CheckpointSettings(root=str(self._folder / "checkpoints")),
            driver=DriverSettings(python=self._python, warm_drivers=0, **_TIMES),
            ha=HaSettings(standby="cold"),
        )


_TIMES: dict[str, Any] = {"adopt_timeout": "1s", "orphan_timeout": "11s"}


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def until(condition: Any, what: str, seconds: float = 30.0) -> Any:
    """Waits for a condition; fails with what was waited for."""
    ends = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < ends, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)
    return found


def ask(
    url: str, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> tuple[int, Any] | None:
    """Status and parsed answer; None when there is none."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    try:
        connection.request(method, path, body, {"Content-Type": "text/plain", **(headers or {})})
        response = connection.getresponse()
        data = response.read()
        return response.status, json.loads(data) if data else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def picture(servers: ForkedServers, server: str) -> Any:
    """`GET /cluster` of a server, or None."""
    found = ask(servers.urls[server], "GET", "/cluster")
    return found[1] if found and found[0] == 200 else None


def context_at(servers: ForkedServers, server: str, name: str) -> Any:
    """A context as a server shows it, or None."""
    shown = picture(servers, server)
    return next((one for one in (shown or {}).get("contexts", ()) if one["name"] == name), None)


def all_here(servers: ForkedServers) -> bool:
    """Whether every running server sees every other, in its present life."""
    lives = {(name, servers.processes[name].pid) for name in servers.running()}
    pictures = [picture(servers, name) for name, _ in lives]
    return all(shown and {(one["id"], one["pid"]) for one in shown["servers"]} == lives for shown in pictures)
