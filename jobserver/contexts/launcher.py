"""Starting driver processes, and ending those that are ours to end.

A driver is started in a session of its own, with its output in files, so that the server's death does not touch it. It says
where it listens by one line on an inherited pipe. It is identified by pid and start time, never by the pid alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from checkpoint.stores import HdfsAccess
from jobserver.contexts.launch_spec import LaunchSpec
from jobserver.errors import ContextInitFailed
from jobserver.model import DriverRecord
from jobserver.processes import start_ticks
from jobserver.protocol import HURRY


@dataclass(frozen=True, slots=True)
class LauncherSettings:
    """What every driver of a server is given. Times in seconds, `folder` holds one folder per driver.

    Drivers listen on `listen_host` and are reached at `host`.
    """

    folder: Path
    listen_host: str
    host: str
    java: str
    archive_dir: Path | None
    checkpoint_root: str
    hdfs: HdfsAccess | None
    cluster: str
    cluster_secret: str
    orphan_timeout: float
    result_limit: int
    job_log_limit: int
    kill_grace: float
    async_interval: float
    async_max_lag: float
    start_timeout: float


class Launcher(Protocol):
    """Starts and ends drivers."""

    async def start(self, spec: LaunchSpec, *, warm_up: bool) -> DriverRecord:
        """A driver that answers, bound to nothing. Raises ContextInitFailed."""

    def kill(self, driver: DriverRecord) -> bool:
        """Ends the process at once if it is on this machine and still the same one; whether it was."""

    def hurry(self) -> None:
        """Tells those that are being started ahead of need that a context waits for one: they leave no processor to others."""


class ProcessLauncher:
    """Drivers as processes of this machine."""

    def __init__(self, settings: LauncherSettings) -> None:
        self._settings = settings
        self._starting: set[subprocess.Popen[bytes]] = set()

    async def start(self, spec: LaunchSpec, *, warm_up: bool) -> DriverRecord:
        driver_id = secrets.token_hex(8)
        secret = secrets.token_hex(32)
        folder = self._settings.folder / driver_id
        config = folder / "config.json"
        await asyncio.to_thread(_write_config, config, self._config(spec, driver_id, secret, folder, warm_up))
        ready_in, ready_out = os.pipe()
        try:
            process = _spawn(spec.python, folder, config, ready_out)
        except OSError as error:
            os.close(ready_in)
            raise ContextInitFailed(
                f"the driver's Python {spec.python} cannot be started: {error}"
            ) from error
        finally:
            os.close(ready_out)
        self._reap(process)
        self._starting.add(process)
        try:
            ready = await self._ready(ready_in, folder)
        except BaseException:
            _kill_group(process.pid)
            raise
        finally:
            self._starting.discard(process)
        return DriverRecord(
            driver_id=driver_id,
            host=ready["host"],
            port=ready["port"],
            pid=ready["pid"],
            pid_started=ready["pid_started"],
            secret=secret,
            epoch=0,
            jvm_pid=ready.get("jvm_pid"),
            application_id=ready.get("application_id"),
            ui_url=ready.get("ui_url"),
        )

    def kill(self, driver: DriverRecord) -> bool:
        if driver.host not in (self._settings.host, socket.gethostname()):
            return False
        if start_ticks(driver.pid) != driver.pid_started:
            return False
        _kill_group(driver.pid)
        return True

    def hurry(self) -> None:
        for process in self._starting:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(HURRY)

    def _config(
        self, spec: LaunchSpec, driver_id: str, secret: str, folder: Path, warm_up: bool
    ) -> Mapping[str, Any]:
        settings = self._settings
        return {
            "driver_id": driver_id,
            "secret": secret,
            "bind_host": settings.listen_host,
            "host": settings.host,
            "spark_conf": dict(spec.spark_conf),
            "java": {"executable": settings.java},
            "driver_memory": spec.driver_memory,
            "proxy_user": spec.proxy_user,
            "archive_dir": str(settings.archive_dir) if settings.archive_dir else None,
            "dir": str(folder),
            "checkpoint_root": settings.checkpoint_root,
            "hdfs": settings.hdfs.plain() if settings.hdfs else None,
            "cluster": settings.cluster,
            "cluster_secret": settings.cluster_secret,
            "orphan_timeout": settings.orphan_timeout,
            "result_limit": settings.result_limit,
            "job_log_limit": settings.job_log_limit,
            "kill_grace": settings.kill_grace,
            "async_interval": settings.async_interval,
            "async_max_lag": settings.async_max_lag,
            "warm_up": warm_up,
        }

    def _reap(self, process: subprocess.Popen[bytes]) -> None:
        """Waits for the child beside all else, so that it leaves no zombie while this server lives."""
        threading.Thread(target=process.wait, name=f"driver-{process.pid}", daemon=True).start()

    async def _ready(self, ready_in: int, folder: Path) -> dict[str, Any]:
        """The driver's first line. EOF without a line means that it died."""
        reader = asyncio.StreamReader()
        pipe = os.fdopen(ready_in, "rb", buffering=0)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), pipe
        )
        try:
            line = await asyncio.wait_for(reader.readline(), self._settings.start_timeout)
        except TimeoutError as error:
            raise ContextInitFailed(
                f"the driver was not ready within {self._settings.start_timeout:g} s; its output is in {folder}"
            ) from error
        finally:
            transport.close()
        if not line:
            tail = await asyncio.to_thread(_tail, folder / "stderr")
            raise ContextInitFailed(f"the driver ended before it was ready; its last output: {tail}")
        ready: dict[str, Any] = json.loads(line)
        if "error" in ready:
            raise ContextInitFailed(f"the driver could not start: {ready['error']}")
        return ready


def _spawn(python: str, folder: Path, config: Path, ready_out: int) -> subprocess.Popen[bytes]:
    """Not through the event loop, which may end what it has started.

    `HURRY` is blocked in what is started, so that one which comes before the driver listens for it waits.
    """
    command = [python or sys.executable, "-m", "jobserver.driver", "--config", str(config)]
    with (folder / "stdout").open("ab") as out, (folder / "stderr").open("ab") as err:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {HURRY})
        try:
            return subprocess.Popen(
                [*command, "--ready-fd", str(ready_out)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=folder,
                pass_fds=(ready_out,),
                start_new_session=True,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _write_config(path: Path, config: Mapping[str, Any]) -> None:
    """The file holds the driver's secret: readable by the owner only from its first byte."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(config, file)


def _tail(path: Path, limit: int = 2000) -> str:
    text = path.read_bytes()[-limit:].decode(errors="replace") if path.exists() else ""
    return text.strip() or "(none)"


def _kill_group(pid: int) -> None:
    """The driver leads its own process group; the JVM and Python workers in it go with it."""
    for end in (os.killpg, os.kill):
        try:
            end(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
