"""A running cluster as its clients see it: HTTP through any server, `GET /cluster`, signals to pids. Nothing else.

Jobs are uploaded as source texts; every helper waits on a condition with a deadline and tells what it saw instead.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import time
import urllib.parse
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobserver.local.processes import ProcessId, identify
from jobserver.local.up import LocalCluster

PYTHON = "text/x-python"
FINAL = ("FINISHED", "ERROR", "KILLED")
_names = itertools.count(1)


@dataclass(frozen=True)
class Reply:
    """One answer, read to its end."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def type(self) -> str:
        return self.headers.get("Content-Type", "")

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def __str__(self) -> str:
        return f"{self.status} {self.body[:2000]!r}"


class NoAnswer(Exception):
    """The connection ended before an answer came: the outcome of the request is unknown."""


class Live:
    """A cluster and who asks it. A request goes to the server that is named, else to the next in turn."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self._turn = itertools.count()

    @property
    def ids(self) -> list[str]:
        """Servers whose process runs."""
        return [name for name, child in self.cluster.servers.items() if child.running]

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | str = b"",
        *,
        server: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 90.0,
    ) -> Reply:
        """Raises NoAnswer."""
        ids = self.ids
        if server is None and not ids:
            raise NoAnswer("no server runs")
        url = self.cluster.url(server or ids[next(self._turn) % len(ids)])
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=timeout)
        data = body.encode() if isinstance(body, str) else body
        try:
            connection.request(method, path, data, {"Content-Type": "text/plain", **(headers or {})})
            response = connection.getresponse()
            return Reply(response.status, response.read(), response.headers)
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(f"{method} {path} at {url}: {error!r}") from error
        finally:
            connection.close()

    def get(self, path: str, server: str | None = None) -> Any:
        """The JSON of a 200."""
        reply = self.ask("GET", path, server=server)
        assert reply.status == 200, f"GET {path}: {reply}"
        return reply.json

    def upload(self, code: bytes | str, kind: str = PYTHON, name: str | None = None) -> str:
        """Uploads code under a name of its own; the name."""
        name = name or f"code{next(_names)}"
        reply = self.ask("POST", f"/binaries/{name}", code, headers={"Content-Type": kind})
        assert reply.status == 201, str(reply)
        return name

    def context(self, name: str | None = None, **settings: Any) -> str:
        """Starts a context; its name."""
        name = name or f"c{uuid.uuid4().hex[:6]}"
        reply = self.ask("POST", f"/contexts/{name}?{urllib.parse.urlencode(settings)}")
        assert reply.status == 200, str(reply)
        return name

    def submit(
        self,
        binary: str,
        main: str,
        context: str | None,
        config: Mapping[str, Any] | str | None = None,
        *,
        sync: bool = True,
        timeout: int = 60,
        key: str | None = None,
        server: str | None = None,
        patience: float = 300.0,
        **query: Any,
    ) -> Reply:
        """One POST /jobs, whatever it answers; `timeout` is the server's to keep, `patience` ours."""
        fields = {"cp": binary, "mainClass": main, "sync": str(sync).lower(), "timeout": timeout, **query}
        if context is not None:
            fields["context"] = context
        body = config if isinstance(config, str) else json.dumps(config or {})
        headers = {"Idempotency-Key": key} if key else {}
        return self.ask(
            "POST",
            f"/jobs?{urllib.parse.urlencode(fields)}",
            body,
            server=server,
            headers=headers,
            timeout=patience,
        )

    def value(self, binary: str, main: str, context: str, config: Any = None, **query: Any) -> Any:
        """The result of a sync job that finishes."""
        reply = self.submit(binary, main, context, config, **query)
        assert reply.status == 200, str(reply)
        assert "status" not in reply.json, str(reply)
        return reply.json["result"]

    def start(self, binary: str, main: str, context: str, config: Any = None, **query: Any) -> str:
        """The id of an async job that was accepted."""
        reply = self.submit(binary, main, context, config, sync=False, **query)
        assert reply.status == 202, str(reply)
        return str(reply.json["jobId"])

    def job(self, job_id: str, server: str | None = None) -> dict[str, Any]:
        """The job as GET /jobs/<id> tells it."""
        return dict(self.get(f"/jobs/{job_id}", server))

    def ended(self, job_id: str, limit: float = 90.0) -> dict[str, Any]:
        """The job once it is in a final state."""
        return self.eventually(lambda: self.job(job_id), lambda job: job["status"] in FINAL, limit)

    def seen(self, context: str, server: str | None = None) -> dict[str, Any]:
        """The living context of that name in GET /cluster; empty when there is none."""
        found = [each for each in self.get("/cluster", server)["contexts"] if each["name"] == context]
        return dict(found[0]) if found else {}

    def running(self, context: str, limit: float = 90.0) -> dict[str, Any]:
        """The context in GET /cluster once it runs, with an owner that runs."""
        return self.eventually(
            lambda: self.seen(context),
            lambda one: one.get("state") == "RUNNING" and one["owner"] in self.ids and one["driver"],
            limit,
        )

    def agreed(self, context: str, limit: float = 90.0) -> dict[str, Any]:
        """The context once every server names the same running owner and epoch."""

        def pictures() -> list[dict[str, Any]]:
            return [self.seen(context, server) for server in self.ids]

        def one(seen: list[dict[str, Any]]) -> bool:
            owners = {(each.get("owner"), each.get("epoch"), each.get("state")) for each in seen}
            return len(owners) == 1 and seen[0].get("owner") in self.ids and seen[0]["state"] == "RUNNING"

        return self.eventually(pictures, one, limit)[0]

    def driver(self, context: str) -> ProcessId:
        """The driver's Python process."""
        found = identify(self.running(context)["driver"]["pid"])
        assert found is not None, "the driver that GET /cluster names has ended"
        return found

    def eventually(self, look: Callable[[], Any], good: Callable[[Any], Any], limit: float = 60.0) -> Any:
        """What `look` gives, once it is good. While a server is on its way out a look may go without an answer."""
        deadline, last = time.monotonic() + limit, None
        while time.monotonic() < deadline:
            try:
                last = look()
            except NoAnswer as error:
                last = error
            else:
                if good(last):
                    return last
            time.sleep(0.05)
        raise AssertionError(f"not within {limit:g} s; last seen: {last}")


def unfinished_files(live: Live) -> list[Path]:
    """What writers of checkpoints that died have left of files that were never sealed: swept, or gone with the context.

    In a job's output such a file stays as long as the output does.
    """
    found = []
    tree = os.walk(live.cluster.layout.root / "checkpoints")  # passes over folders that go meanwhile
    for folder, inner, names in tree:
        if "logs" in inner:
            inner.remove("logs")
        found += [Path(folder) / name for name in names if name.endswith(".unfinished")]
    return found
