"""A server's side of the driver protocol for tests, and a driver process to talk to."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

from checkpoint.epoch import begin_epoch
from checkpoint.local import LocalFiles
from jobserver.local import class_archive
from jobserver.local.java import find_java
from jobserver.local.layout import archive_cache
from jobserver.protocol import Message, frame, proof_of, recv_frame

LIMIT = 90.0
CONTEXT = {"id": "ctx-1", "name": "shared", "settings": {"team": {"name": "blue"}}}
numbers = itertools.count(1)
"""Of jobs, in all tests of a process."""


class DriverClient:
    """One connection; replies by number, events in a queue."""

    def __init__(self, facts: dict[str, Any], secret: str) -> None:
        self.socket = socket.create_connection((facts["host"], facts["port"]))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._writing = threading.Lock()
        challenge = recv_frame(self.socket)
        self.send({"t": "proof", "version": 1, "proof": proof_of(secret, challenge["nonce"])})
        self._number = 0
        self._replies: dict[int, queue.SimpleQueue[Message]] = {}
        self.events: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._kept: list[Message] = []
        self.adopted: list[Message] = []
        """Jobs that the driver told when it was adopted by this connection's owner."""
        self.closed = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(target=self._ping, daemon=True).start()

    def send(self, message: Message) -> None:
        with self._writing:
            self.socket.sendall(frame(message))

    def ask(self, request: str, **fields: Any) -> Message:
        self._number += 1
        number = self._number
        self._replies[number] = queue.SimpleQueue()
        self.send({"t": request, "n": number, **fields})
        try:
            return self._replies[number].get(timeout=LIMIT)
        finally:
            del self._replies[number]

    def event(self, name: str, job_id: str | None, limit: float = LIMIT) -> Message:
        """The next event of that name about that job, or about none."""
        end = time.monotonic() + limit
        while True:
            for at, kept in enumerate(self._kept):
                if kept["e"] == name and kept.get("job_id") == job_id:
                    return self._kept.pop(at)
            self._kept.append(self.events.get(timeout=max(end - time.monotonic(), 0.001)))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def _ping(self) -> None:
        """A server pings every second, or its driver takes it for gone."""
        while not self.closed.wait(1.0):
            with contextlib.suppress(OSError):
                self.send({"t": "ping", "n": 0})

    def _read(self) -> None:
        try:
            while True:
                message = recv_frame(self.socket)
                if message["t"] == "reply":
                    if message["n"] == 0:
                        continue
                    self._replies[message["n"]].put(message)
                else:
                    self.events.put(message)
        except (OSError, EOFError):
            self.closed.set()


def class_archives() -> Path:
    """The folder of the machine's class archives, in which there is one for the drivers of tests."""
    folder = archive_cache(os.environ)
    class_archive.prepare(find_java().command, folder, os.environ, print)
    return folder


class DriverProcess:
    """A driver started as a server starts it."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self.folder = folder / "driver"
        self.folder.mkdir(parents=True)
        self.secret = "driver secret"
        plain = {
            "driver_id": "d-test",
            "secret": self.secret,
            "bind_host": "127.0.0.1",
            "spark_conf": {"spark.master": "local[2]", "spark.sql.shuffle.partitions": "2"},
            "driver_memory": "1g",
            "archive_dir": str(class_archives()),
            "dir": str(self.folder),
            "checkpoint_root": str(folder / "checkpoints"),
            "cluster": "test",
            "cluster_secret": "cluster secret",
            "orphan_timeout": 60,
            "unbound_timeout": 30,
            **config,
        }
        path = folder / "config.json"
        path.write_text(json.dumps(plain))
        reading, writing = os.pipe()
        with (folder / "out.log").open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "jobserver.driver", "--config", str(path), "--ready-fd", str(writing)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                pass_fds=(writing,),
                start_new_session=True,
            )
        os.close(writing)
        with os.fdopen(reading) as ready:
            self.facts = json.loads(ready.readline() or '{"error": "no line"}')

    def connect(self) -> DriverClient:
        return DriverClient(self.facts, self.secret)

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def is_running(pid: int) -> bool:
    """Whether a process lives and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def eventually(condition: Any, limit: float = 20.0) -> bool:
    """Whether the condition becomes true in time."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


class Uploads:
    """Binaries as the server hands them to a driver."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()

    def python(self, source: str) -> dict[str, str]:
        return self._kept(source.encode(), "Python", ".py")

    def wheel(self, files: dict[str, str]) -> dict[str, str]:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name, source in files.items():
                archive.writestr(name, source)
        return self._kept(out.getvalue(), "Wheel", ".whl")

    def _kept(self, data: bytes, kind: str, extension: str) -> dict[str, str]:
        digest = hashlib.sha256(data).hexdigest()
        path = self._folder / f"{digest}{extension}"
        path.write_bytes(data)
        return {"name": "jobs", "type": kind, "digest": digest, "path": str(path)}


class Running:
    """An active driver, its owner's connection, and how to run jobs on it."""

    def __init__(self, process: DriverProcess, folder: Path) -> None:
        self.process = process
        self.uploads = Uploads(folder / "uploads")
        self.epoch = 1
        self.files = LocalFiles(folder / "checkpoints" / "test")
        self.client = process.connect()
        base = begin_epoch(self.files, "ctx-1", 1, "t1", b"cluster secret")
        answer = self.client.ask("activate", context=CONTEXT, epoch=1, token="t1", base=base.name)
        assert answer["ok"], answer

    def start(
        self,
        source: str | dict[str, str],
        main: str = "job:run",
        job: str = "",
        attempt: int = 1,
        **config: Any,
    ) -> str:
        job = job or f"job-{next(numbers)}"
        binary = self.uploads.python(source) if isinstance(source, str) else source
        answer = self.client.ask(
            "run", job_id=job, attempt=attempt, main_class=main, binaries=[binary], config=json.dumps(config),
            interactive=True,
        )  # fmt: skip
        assert answer["ok"], answer
        return job

    def outcome(self, job: str, limit: float = 90.0) -> dict[str, Any]:
        event = self.client.event("finished", job, limit)
        self.client.send({"t": "ack", "job_id": job, "attempt": event["attempt"]})
        return event

    def run(self, source: str | dict[str, str], main: str = "job:run", **config: Any) -> dict[str, Any]:
        return self.outcome(self.start(source, main, **config))

    def value(self, source: str | dict[str, str], main: str = "job:run", **config: Any) -> Any:
        event = self.run(source, main, **config)
        assert event["kind"] == "finished", event["error"]
        return json.loads(event["result"])

    def adopt(self) -> DriverClient:
        newer = self.process.connect()
        hello = newer.ask("hello")
        self.epoch += 1
        answer = newer.ask("adopt", epoch=self.epoch, token=f"t{self.epoch}", nonce=hello["nonce"])
        assert answer["ok"], answer
        older, self.client = self.client, newer
        assert older.closed.wait(10)
        newer.adopted = answer["jobs"]
        return newer
