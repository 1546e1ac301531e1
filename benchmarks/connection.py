"""A kept connection to one server that costs the client next to nothing: prepared bytes out, length-delimited bytes in."""

from __future__ import annotations

import select
import socket
from urllib.parse import urlsplit

PATIENCE = 120.0
"""Seconds an answer may take."""


class Connection:
    """HTTP/1.1, one request at a time. Raises OSError or EOFError when the server goes away.

    Servers end connections that are idle for long; then the next request opens another.
    """

    def __init__(self, url: str, patience: float = PATIENCE) -> None:
        target = urlsplit(url)
        self._address = target.hostname or "", target.port or 80
        self._patience = patience
        self._socket = self._opened()
        self._rest = b""

    def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body."""
        if select.select([self._socket], [], [], 0)[0]:  # between two requests, only the end can be read
            self._socket.close()
            self._socket, self._rest = self._opened(), b""
        self._socket.sendall(request)
        head = self._until(b"\r\n\r\n").lower()
        length = int(head.partition(b"content-length: ")[2].split(b"\r", 1)[0] or 0)
        return int(head[9:12]), self._exactly(length)

    def close(self) -> None:
        self._socket.close()

    def _opened(self) -> socket.socket:
        opened = socket.create_connection(self._address, self._patience)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return opened

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._rest:
            self._more()
        head, _, self._rest = self._rest.partition(mark)
        return head + b"\r\n"

    def _exactly(self, length: int) -> bytes:
        while len(self._rest) < length:
            self._more()
        body, self._rest = self._rest[:length], self._rest[length:]
        return body

    def _more(self) -> None:
        data = self._socket.recv(65536)
        if not data:
            raise EOFError("the server closed the connection")
        self._rest += data


def http_request(method: str, target: str, body: bytes = b"", **headers: str) -> bytes:
    """The bytes of a request; underscores of header names stand for hyphens."""
    lines = [f"{method} {target} HTTP/1.1", "Host: bench", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body
