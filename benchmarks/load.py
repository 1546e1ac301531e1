"""Many clients of one or more servers in one thread, each with a kept connection and one request at a time; costs little.

The clients share the processors with what they measure, so every microsecond of theirs is missing there.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from benchmarks.connection import PATIENCE

Ask = Callable[[int], bytes]
"""The request with that number."""
Check = Callable[[int, bytes], None]
"""Raises for an answer (status, body) that is not the wanted one."""


@dataclass(slots=True)
class Loaded:
    """What a load saw. `seconds`: of each answer; `took`: from the first request to the last answer."""

    seconds: list[float] = field(default_factory=list)
    took: float = 0.0

    @property
    def per_second(self) -> float:
        """Answers in a second."""
        return len(self.seconds) / self.took


class _Client:
    """One connection and the answer it waits for."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._began = 0.0
        self._data = b""

    def send(self, request: bytes) -> None:
        self._began = time.perf_counter()
        self.socket.sendall(request)

    def answer(self) -> tuple[int, bytes, float] | None:
        """Status, body and seconds once the answer is whole. Raises EOFError."""
        data = self.socket.recv(262144)
        if not data:
            raise EOFError("the server closed the connection")
        self._data += data
        head, mark, body = self._data.partition(b"\r\n\r\n")
        if not mark or len(body) < _length(head):
            return None
        self._data = b""
        return int(head[9:12]), body, time.perf_counter() - self._began


def _length(head: bytes) -> int:
    return int(head.lower().partition(b"content-length: ")[2].split(b"\r", 1)[0] or 0)


def load(
    url: str, ask: Ask, check: Check, *, clients: int, seconds: float, others: Sequence[str] = ()
) -> Loaded:
    """Every client asks again as soon as it is answered; those that are asked at the end are waited for.

    The clients are shared out among the server at `url` and `others`.
    """
    targets = [urlsplit(each) for each in (url, *others)]
    addresses = [(target.hostname or "", target.port or 80) for target in targets]
    seen, number = Loaded(), 0
    with selectors.DefaultSelector() as selector:
        everybody = [_Client(addresses[client % len(addresses)]) for client in range(clients)]
        began = time.perf_counter()
        for client in everybody:
            selector.register(client.socket, selectors.EVENT_READ, client)
            client.send(ask(number))
            number += 1
        waiting = clients
        while waiting:
            events = selector.select(PATIENCE)
            if not events:
                raise TimeoutError(f"{waiting} clients got no answer within {PATIENCE:g} s")
            for key, _ in events:
                answered = key.data.answer()
                if answered is None:
                    continue
                check(answered[0], answered[1])
                seen.seconds.append(answered[2])
                if time.perf_counter() - began < seconds:
                    key.data.send(ask(number))
                    number += 1
                else:
                    waiting -= 1
        seen.took = time.perf_counter() - began
        for client in everybody:
            client.socket.close()
    return seen
