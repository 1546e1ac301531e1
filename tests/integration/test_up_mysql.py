"""`jobserver up --mysql` as a user runs it: real servers on a MariaDB of the directory's own. Drivers are without Spark."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobserver.local.layout import Layout, read_picture
from jobserver.local.mariadb import greets
from jobserver.local.processes import naming, wait_until
from jobserver.store.address import MysqlAddress, parsed

ROOT = Path(__file__).parents[2]
STARTED = 90
ENDED = 60
JOB = "appName=t&classPath=t.Answer&context=kept&sync=true&timeout=60"


@dataclass
class Up:
    """A running `jobserver up --mysql` on a directory."""

    layout: Layout
    process: subprocess.Popen[str]
    log: Path

    @property
    def urls(self) -> list[str]:
        picture = read_picture(self.layout)
        assert picture is not None
        return [server.url for server in picture.servers]

    def database(self) -> MysqlAddress:
        picture = read_picture(self.layout)
        assert picture is not None
        address = parsed(picture.database_url)
        assert isinstance(address, MysqlAddress), picture.database_url
        return address

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(ENDED)


@pytest.fixture
def up(tmp_path: Path, row_of_ports: Callable[[int], int]) -> Iterator[Callable[[], Up]]:
    """Starts it, in the same directory each time."""
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m tests.fakes.driver_process "$@"\n'
    )
    python.chmod(0o755)
    settings = tmp_path / "settings.yaml"
    settings.write_text(yaml.safe_dump({"driver": {"python": str(python), "warm_drivers": 0}}))
    running: list[Up] = []

    def begin() -> Up:
        log = tmp_path / f"up{len(running)}.log"
        command = [sys.executable, "-m", "jobserver.cli.main", "up", "--mysql", "--standby", "cold"]
        command += ["--dir", str(tmp_path / "c"), "--config", str(settings)]
        command += ["--servers", "2", "--port", str(row_of_ports(2))]
        with log.open("w") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, text=True)
        one = Up(Layout(tmp_path / "c"), process, log)
        running.append(one)
        told = lambda: "Ctrl-C ends all of it" in log.read_text()  # noqa: E731
        assert wait_until(lambda: told() or process.poll() is not None, STARTED), log.read_text()
        assert process.poll() is None, log.read_text()
        return one

    yield begin
    for one in running:
        if one.process.poll() is None:
            one.end()


def ask(url: str, method: str, path: str, body: bytes = b"", kind: str = "text/plain") -> Any:
    """The JSON of a good answer."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=120)
    try:
        connection.request(method, path, body, {"Content-Type": kind})
        response = connection.getresponse()
        data = response.read()
    finally:
        connection.close()
    assert response.status in (200, 201), f"{method} {path}: {response.status} {data!r}"
    return json.loads(data)


def test_a_job_runs_on_a_mariadb_of_the_directorys_own_and_is_there_after_a_restart(
    up: Callable[[], Up],
) -> None:
    first = up()
    one, other = first.urls
    port = first.database().port
    assert first.database().password == "", "the picture of the cluster tells no password"
    ask(one, "POST", "/binaries/t", b"def answer(spark, env, config): return 1", "text/x-python")
    ask(one, "POST", "/contexts/kept")
    answer = ask(other, "POST", f"/jobs?{JOB}")
    assert answer["result"] == 1
    assert first.end() == 0
    assert not greets(port)
    assert naming(first.layout.root) == []
    again = up()
    one, other = again.urls
    for url in (one, other):
        job = ask(url, "GET", f"/jobs/{answer['jobId']}")
        assert (job["status"], job["result"]) == ("FINISHED", 1)
    assert list(ask(one, "GET", "/binaries")) == ["t"]
    assert ask(other, "POST", f"/jobs?{JOB}")["result"] == 1, "the context is brought back by its name"
    assert len(ask(one, "GET", "/jobs")) == 2
    assert again.end() == 0
    assert naming(again.layout.root) == []
