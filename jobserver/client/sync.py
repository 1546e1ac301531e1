"""The client for ordinary code: blocks, one connection for each request, no thread of its own."""

from __future__ import annotations

import http.client
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from jobserver.client.core import (
    JSON,
    UNSENT,
    Conversation,
    Conversations,
    Credentials,
    EndedJob,
    Pause,
    Response,
    Send,
    Work,
)

T = TypeVar("T")
Progress = Callable[[Mapping[str, Any]], None]


class JobClient:
    """Speaks to a cluster through any of its servers. Each method raises Refused, TimedOut or Unavailable.

    `patience`: seconds that a request may look for a server that answers, which covers a failover. `credentials` are sent
    to servers whose address has none.
    """

    def __init__(
        self, servers: Sequence[str], *, patience: float = 60.0, credentials: Credentials | None = None
    ) -> None:
        self._talk = Conversations(servers, time.monotonic, patience, credentials)

    def upload(self, file: str | Path, name: str | None = None) -> str:
        """Uploads a file of code under its own name, or another; the name."""
        path = Path(file)
        chosen = name or path.stem
        _carry_out(self._talk.upload(chosen, path.read_bytes(), path.suffix.lower()))
        return chosen

    def submit(self, work: Work, *, key: str | None = None) -> str:
        """The id of a job that was accepted and is never lost. `key`: the caller's own name for this submission."""
        return _carry_out(self._talk.submit(work, key or uuid.uuid4().hex))

    def end(self, job_id: str, *, seconds: float | None = None, progress: Progress | None = None) -> EndedJob:
        """Waits for a job, through failovers."""
        return _carry_out(self._talk.end(job_id, seconds, progress))

    def run(
        self,
        work: Work,
        *,
        key: str | None = None,
        seconds: float | None = None,
        progress: Progress | None = None,
    ) -> EndedJob:
        """Submits a job and waits for it."""
        return _carry_out(self._talk.run(work, key or uuid.uuid4().hex, seconds, progress))

    def result(self, job_id: str, accept: str = JSON) -> bytes:
        """A finished job's value alone: JSON, or the rows that were submitted for `ARROW` or `PARQUET`."""
        return _carry_out(self._talk.result(job_id, accept))

    def kill(self, job_id: str) -> None:
        """Kills a job."""
        _carry_out(self._talk.kill(job_id))

    def log(self, job_id: str, offset: int = 0) -> bytes:
        """What a job wrote, from a byte on."""
        return _carry_out(self._talk.log(job_id, offset))

    def create_context(self, name: str, settings: Mapping[str, Any] | None = None) -> None:
        """Starts a context; returns when it runs."""
        _carry_out(self._talk.create_context(name, settings or {}))

    def delete_context(self, name: str) -> bool:
        """Stops a context; False when it is still stopping."""
        return _carry_out(self._talk.delete_context(name))

    def read(self, path: str, **query: Any) -> Any:
        """The JSON of any GET, such as `/jobs`, `/contexts` or `/cluster`."""
        return _carry_out(self._talk.read(path, **query))


def _carry_out(conversation: Conversation[T]) -> T:
    """Does what the conversation yields until it returns."""
    answer: Response | None = None
    try:
        while True:
            step = conversation.send(answer)
            answer = None
            if isinstance(step, Pause):
                time.sleep(step.seconds)
            else:
                answer = exchange(step)
    except StopIteration as done:
        value: T = done.value
        return value


def exchange(step: Send) -> Response | None:
    """One exchange; None when no answer came, UNSENT when there was nobody to send it to."""
    target = urlsplit(step.url)
    kind = http.client.HTTPSConnection if target.scheme == "https" else http.client.HTTPConnection
    connection = kind(target.hostname or "", target.port, timeout=step.timeout)
    try:
        connection.connect()
    except (OSError, http.client.HTTPException):
        connection.close()
        return UNSENT
    try:
        connection.request(step.method, target.path + step.path, step.body or None, dict(step.headers))
        answer = connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return Response(answer.status, answer.read(), headers)
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
