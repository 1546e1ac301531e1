"""What a client says to a cluster, without any I/O: generators that yield what to send or how long to pause. Pure.

A conversation knows all servers. When one does not answer or is busy it asks the next, until its time is over. What may have
happened is repeated only where that does no harm: reads, deletes, uploads, and submissions, which always have a key.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlencode, urlsplit, urlunsplit

from jobserver.errors import BadRequest, CallerError, TimedOut, Unavailable

PAUSE = 0.2
"""Seconds before a server is asked again when every one was asked once."""
LONGEST_PAUSE = 2.0
POLL = 20.0
"""Seconds that one request waits for the end of a job; waiting longer is asking again."""
POLL_WITH_PROGRESS = 1.0
JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
FINAL = ("FINISHED", "ERROR", "KILLED")
TYPES = {
    ".whl": "application/python-wheel",
    ".egg": "application/python-egg",
    ".zip": "application/zip",
    ".py": "text/x-python",
    ".jar": "application/java-archive",
}
"""File endings of uploads, and what they are declared as."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Send:
    """One request to one server; the answer to it is a Response, or None when there was none."""

    url: str
    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 30.0


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Response:
    """One answer, read to its end. Header names are in lower case."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    def json(self) -> Any:
        """The body's value. Raises Unavailable when it is none: what answers is no server of this kind."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise Unavailable(f"the answer is no JSON: {self.body[:200]!r}") from error


UNSENT = Response(0, b"")
"""In the place of an answer: the server could not be connected to, so nothing was sent. None: it may have been."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Name and password of a user."""

    name: str
    password: str = field(repr=False)

    def headers(self) -> dict[str, str]:
        """As HTTP Basic carries them (RFC 7617)."""
        text = f"{self.name}:{self.password}".encode()
        return {"Authorization": f"Basic {base64.b64encode(text).decode()}"}


@dataclass(frozen=True, slots=True)
class Server:
    """Address without credentials, and the headers that carry these."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


Conversation = Generator[Send | Pause, Response | None, T]


class Refused(CallerError):
    """The cluster refuses the request: `status` is HTTP's, `title` the contract's; repeating it does not help."""

    def __init__(self, status: int, title: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.title = title


@dataclass(frozen=True, slots=True)
class EndedJob:
    """A job in its final state. `value` is the result of a finished one, `error` message, class and stack of another."""

    id: str
    status: str
    value: Any = None
    error: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """What to run: uploads (or SQL), main class, context, configuration, and any other parameter of POST /jobs."""

    main: str | None = None
    binaries: Sequence[str] = ()
    sql: str | None = None
    context: str | None = None
    config: Mapping[str, Any] | str = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    accept: str = JSON
    """Media type in which the rows of a DataFrame are kept: `ARROW` and `PARQUET` are the others."""


class Conversations:
    """With the servers at these addresses. `now` is a clock of seconds that never goes back; `patience` bounds each request."""

    def __init__(
        self,
        servers: Sequence[str],
        now: Callable[[], float],
        patience: float = 60.0,
        credentials: Credentials | None = None,
    ) -> None:
        self._servers = [server_of(server, credentials) for server in servers]
        if not self._servers:
            raise BadRequest("a client needs the address of at least one server, like http://127.0.0.1:8090")
        self._now = now
        self._patience = patience
        self._at = 0

    def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        repeatable: bool = True,
        wait: float = 0.0,
    ) -> Conversation[Response]:
        """The first answer that is not "later". `wait`: seconds that the server was asked to hold the request.

        Raises Refused, TimedOut, and Unavailable when no server answered in time.
        """
        deadline = self._now() + self._patience
        trouble, asked = "no server was asked", 0
        while True:
            server = self._servers[self._at]
            left = max(deadline - self._now(), 1.0)
            sent = {**server.headers, **(headers or {})}
            response = yield Send(server.url, method, path, body, sent, wait + min(left, 30.0))
            if response is not None and response.status not in (UNSENT.status, 429, 503):
                return _checked(response)
            if response is None and not repeatable:
                raise Unavailable(
                    f"{server.url} did not answer: whether {method} {path} was done is not known"
                )
            heard = None if response is UNSENT else response
            trouble = f"{server.url} does not answer" if heard is None else _sentence(heard)
            self._at = (self._at + 1) % len(self._servers)
            asked += 1
            pause = _retry_after(response) if asked % len(self._servers) == 0 else 0.0
            if self._now() + pause >= deadline:
                raise Unavailable(f"no server could answer within {self._patience:g} s; the last: {trouble}")
            if pause > 0:
                yield Pause(pause)

    def upload(self, name: str, data: bytes, kind: str) -> Conversation[None]:
        """Uploads code; `kind` is a file ending of `TYPES`. Raises BadRequest for another."""
        if kind not in TYPES:
            raise BadRequest(f"'{kind}' is no kind of code; the kinds are {', '.join(TYPES)}")
        yield from self.request("POST", f"/binaries/{_quoted(name)}", data, {"Content-Type": TYPES[kind]})

    def read(self, path: str, **query: Any) -> Conversation[Any]:
        """The JSON of a GET."""
        return (yield from self.request("GET", _with_query(path, query))).json()

    def submit(self, work: Work, key: str) -> Conversation[str]:
        """The id of the accepted job; under one key there is one job, however often it is asked for."""
        query = {"sync": "false", "context": work.context, "mainClass": work.main, "sql": work.sql}
        query |= {"cp": ",".join(work.binaries) or None, **work.parameters}
        body = work.config if isinstance(work.config, str) else json.dumps(dict(work.config))
        headers = {"Content-Type": "application/json", "Idempotency-Key": key, "Accept": work.accept}
        response = yield from self.request("POST", _with_query("/jobs", query), body.encode(), headers)
        return str(response.json()["jobId"])

    def end(
        self, job_id: str, seconds: float | None, progress: Callable[[Mapping[str, Any]], None] | None
    ) -> Conversation[EndedJob]:
        """The job once it has ended, through failovers. `progress` is told what the job shows of itself, now and then.

        Raises TimedOut after `seconds`; the job goes on.
        """
        deadline = None if seconds is None else self._now() + seconds
        hold = POLL if progress is None else POLL_WITH_PROGRESS
        while True:
            left = hold if deadline is None else min(hold, max(deadline - self._now(), 0.0))
            path = f"/jobs/{_quoted(job_id)}?wait={max(int(left * 1000), 1)}ms"
            job = (yield from self.request("GET", path, wait=left)).json()
            if job["status"] in FINAL:
                return ended(job)
            if progress is not None:
                progress((yield from self.read(f"/jobs/{_quoted(job_id)}/progress")))
            if deadline is not None and self._now() >= deadline:
                raise TimedOut(f"Job {job_id} did not end within {seconds:g} s; it goes on", job_id)

    def run(
        self,
        work: Work,
        key: str,
        seconds: float | None,
        progress: Callable[[Mapping[str, Any]], None] | None,
    ) -> Conversation[EndedJob]:
        """Submits and waits. A job that ended before it was accepted (its `validate` raised) is as good as ended."""
        job_id = yield from self.submit(work, key)
        return (yield from self.end(job_id, seconds, progress))

    def result(self, job_id: str, accept: str) -> Conversation[bytes]:
        """A finished job's value alone, in a format that it is kept in. Raises Refused when it is not."""
        path = f"/jobs/{_quoted(job_id)}/result"
        return (yield from self.request("GET", path, headers={"Accept": accept})).body

    def kill(self, job_id: str) -> Conversation[None]:
        """Kills a job. Raises Refused when there is none, or when it had ended."""
        yield from self.request("DELETE", f"/jobs/{_quoted(job_id)}")

    def create_context(self, name: str, settings: Mapping[str, Any]) -> Conversation[None]:
        """Starts a context; one that runs already is refused."""
        path = _with_query(f"/contexts/{_quoted(name)}", settings)
        yield from self.request("POST", path, repeatable=False, wait=self._patience)

    def delete_context(self, name: str) -> Conversation[bool]:
        """Stops a context; False when it is still stopping."""
        response = yield from self.request("DELETE", f"/contexts/{_quoted(name)}", wait=self._patience)
        return response.status != 202

    def log(self, job_id: str, offset: int) -> Conversation[bytes]:
        """What the job wrote from that byte on."""
        response = yield from self.request("GET", f"/jobs/{_quoted(job_id)}/log?offset={offset}")
        return response.body


def ended(job: Mapping[str, Any]) -> EndedJob:
    """The end that a job's JSON tells."""
    if job["status"] == "FINISHED":
        return EndedJob(job["jobId"], "FINISHED", job.get("result"))
    return EndedJob(job["jobId"], job["status"], error=job.get("result"))


def server_of(address: str, credentials: Credentials | None = None) -> Server:
    """The server at an address; credentials in it (`http://name:password@host:8090`) win over others. Raises BadRequest."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadRequest(
            f"'{parts.hostname or address}' is not the address of a server, like http://127.0.0.1:8090"
        )
    if parts.username is not None:
        credentials = Credentials(unquote(parts.username), unquote(parts.password or ""))
    plain = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return Server(plain.rstrip("/"), {} if credentials is None else credentials.headers())


def _quoted(name: str) -> str:
    return quote(name, safe="")


def _with_query(path: str, query: Mapping[str, Any]) -> str:
    given = {key: _text(value) for key, value in query.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _checked(response: Response) -> Response:
    if response.status < 400:
        return response
    sentence = _sentence(response)
    if response.status >= 500:
        raise TimedOut(sentence)
    raise Refused(response.status, _title(response), sentence)


def _sentence(response: Response) -> str:
    """What the refusal says, in whichever of the contract's forms."""
    try:
        result = json.loads(response.body)["result"]
    except (ValueError, KeyError, TypeError):
        return response.body.decode(errors="replace")[:500] or f"the server answers {response.status}"
    return str(result.get("message") if isinstance(result, dict) else result)


def _title(response: Response) -> str:
    try:
        return str(json.loads(response.body)["status"])
    except (ValueError, KeyError, TypeError):
        return "ERROR"


def _retry_after(response: Response | None) -> float:
    text = "" if response is None else response.headers.get("retry-after", "")
    return min(float(text), LONGEST_PAUSE) if text.isdecimal() else PAUSE
