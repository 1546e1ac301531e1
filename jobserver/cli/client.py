"""A small HTTP client for commands: one request at a time, JSON answers, no redirects, no proxies."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from jobserver.cli.credentials import chosen
from jobserver.client.core import server_of
from jobserver.errors import BadRequest, Unavailable


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body of an answer; `body` is parsed JSON, or the text where it is none."""

    status: int
    body: Any


@dataclass(frozen=True, slots=True)
class Client:
    """Speaks to one server. Connections are not kept: the server may be killed between two requests."""

    url: str

    def get(self, path: str, *, timeout: float = 10.0) -> Answer:
        return self.request("GET", path, timeout=timeout)

    def post(
        self,
        path: str,
        body: bytes | str = b"",
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 120.0,
    ) -> Answer:
        where = f"{path}?{urlencode(query)}" if query else path
        return self.request("POST", where, body, headers=headers or {}, timeout=timeout)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | str = b"",
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float,
    ) -> Answer:
        """One exchange. Raises Unavailable when the server cannot be reached or goes away in between."""
        server = server_of(first(self.url), chosen())
        target = urlsplit(server.url)
        if target.scheme != "http" or target.hostname is None:
            raise BadRequest(f"'{server.url}' is not the address of a server, like http://127.0.0.1:8090.")
        connection = http.client.HTTPConnection(target.hostname, target.port or 80, timeout=timeout)
        try:
            sent = {**server.headers, **(headers or {})}
            connection.request(method, target.path.rstrip("/") + path, body or None, sent)
            answer = connection.getresponse()
            return Answer(answer.status, _parsed(answer.read()))
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(
                f"{server.url} does not answer: {str(error) or type(error).__name__}."
            ) from error
        finally:
            connection.close()


def first(urls: str) -> str:
    """The first of some addresses with blanks between them, as JOBSERVER_URL holds them."""
    return next(iter(urls.split()), urls)


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")
