"""The checkpoint store in virtual time, as one process sees it: slow, away, torn, or with replies that get lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from checkpoint.errors import AlreadyExists, StoreUnavailable
from tests.fakes.files import MemoryFiles
from tests.sim import blocking
from tests.sim.loop import NOBODY, Process
from tests.sim.network import Network

PLACE = "files"
TIMEOUT = 1.0


@dataclass
class Shelf:
    """What is stored, and how bad the store is: the share of writes that go wrong, and the longest delay in seconds."""

    content: MemoryFiles = field(default_factory=MemoryFiles)
    faults: float = 0.0
    slow: float = 0.002


class SimFiles:
    """`FileStore`; call it inside `blocking.run`."""

    def __init__(self, shelf: Shelf, network: Network, process: Process, random: Random) -> None:
        self._shelf = shelf
        self._network = network
        self._process = process
        self._random = random

    def read(self, path: str) -> bytes:
        self._reach(path)
        return self._shelf.content.read(path)

    def write_new(self, path: str, data: bytes) -> None:
        self._reach(path)
        if self._random.random() < self._shelf.faults:
            self._go_wrong(path, data)
        self._shelf.content.write_new(path, data)
        if self._network.blocked(self._process.place, PLACE):
            raise StoreUnavailable(f"{path}: the reply was lost")

    def names(self, folder: str) -> list[str]:
        self._reach(folder)
        return self._shelf.content.names(folder)

    def top(self) -> list[str]:
        self._reach("top")
        return self._shelf.content.top()

    def copy(self, source: str, target: str) -> None:
        self._reach(source)
        self._shelf.content.copy(source, target)

    def size(self, path: str) -> int:
        self._reach(path)
        return self._shelf.content.size(path)

    def remove(self, path: str) -> None:
        self._reach(path)
        self._shelf.content.remove(path)

    def remove_empty(self, folder: str) -> None:
        self._reach(folder)

    def seal_tree(self, folder: str) -> Mapping[str, int]:
        self._reach(folder)
        return self._shelf.content.seal_tree(folder)

    def share(self, folder: str, user: str) -> None:
        self._reach(folder)

    def discard_unfinished(self, folder: str) -> None:
        self._reach(folder)

    def url(self, path: str) -> str:
        return self._shelf.content.url(path)

    def peek(self, path: str) -> bytes | None:
        """What a judge finds there, however the store is."""
        return self._shelf.content.content.get(path)

    def _reach(self, path: str) -> None:
        blocking.pause(self._random.uniform(0.0005, self._shelf.slow))
        if self._network.blocked(self._process.place, PLACE):
            blocking.pause(TIMEOUT)
            raise StoreUnavailable(f"{path}: no answer")

    def _go_wrong(self, path: str, data: bytes) -> None:
        kind = self._random.choice(("down", "lost", "torn", "late"))
        files = self._shelf.content.content
        if path in files:
            raise AlreadyExists(path)
        if kind == "lost":
            files[path] = data
        elif kind == "torn":
            files[path] = data[: len(data) // 2]
        elif kind == "late":
            delay = self._random.uniform(0.0, 3.0)
            self._network.loop.call_later(delay, files.setdefault, path, data, context=NOBODY)
        raise StoreUnavailable(f"{path}: {kind}")
