"""A checkpoint store in memory that fails on request: named faults, and points at which a call can be held.

Without faults it keeps every promise of the contract. A fault hits the next call of an operation whose path contains a
text; a held call waits for the test, which never has to sleep.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from checkpoint.errors import AlreadyExists, Missing, StoreUnavailable


class Fault(Enum):
    """What goes wrong; each but STALE ends in StoreUnavailable for the caller."""

    DOWN = auto()  # nothing was done
    FULL = auto()  # no room: nothing was done (told apart for the reader of a test)
    LOST_REPLY = auto()  # done: the rename happened, and its reply was an error
    TORN = auto()  # half of the bytes lie under the final name
    LATE = auto()  # nothing yet; it is done when the test says `land`, however late
    STALE = (
        auto()
    )  # a listing without the folder's newest file; breaks a promise of the port, and is not told


_EVERYWHERE = (Fault.DOWN, Fault.STALE)
"""Faults that can hit other calls than writes."""


@dataclass(slots=True)
class Hold:
    """A call that stops before it is carried out. Wait for `reached`, then `release` it."""

    reached: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def release(self) -> None:
        self.released.set()


@dataclass(slots=True)
class _Planned:
    operation: str
    match: str
    what: Fault | Hold
    times: int


class MemoryFiles:
    """`FileStore` on a dictionary, which keeps every promise of the contract. For one thread."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}

    def read(self, path: str) -> bytes:
        _check(path)
        if path not in self.content:
            raise Missing(path)
        return self.content[path]

    def write_new(self, path: str, data: bytes) -> None:
        _check(path)
        if path in self.content:
            raise AlreadyExists(path)
        self.content[path] = data

    def names(self, folder: str) -> list[str]:
        _check(folder)
        return self._names(folder, None)

    def _names(self, folder: str, unseen: str | None) -> list[str]:
        prefix, first = f"{folder}/", len(folder) + 1
        below = [path[first:] for path in self.content if path.startswith(prefix) and path != unseen]
        return sorted({path.partition("/")[0] for path in below if not path.startswith(".")})

    def top(self) -> list[str]:
        return sorted({path.split("/")[0] for path in self.content if not path.startswith(".")})

    def copy(self, source: str, target: str) -> None:
        self.write_new(target, self.read(source))

    def size(self, path: str) -> int:
        return len(self.read(path))

    def remove(self, path: str) -> None:
        _check(path)
        self.content.pop(path, None)
        prefix = f"{path}/"
        for known in [known for known in self.content if known.startswith(prefix)]:
            del self.content[known]

    def remove_empty(self, folder: str) -> None:
        """A folder in which nothing is there is none."""

    def seal_tree(self, folder: str) -> Mapping[str, int]:
        _check(folder)
        prefix, first = f"{folder}/", len(folder) + 1
        found = {path[first:]: len(data) for path, data in self.content.items() if path.startswith(prefix)}
        if not found:
            raise Missing(folder)
        return {name: size for name, size in found.items() if not name.split("/")[-1].startswith(".")}

    def share(self, folder: str, user: str) -> None:
        """Everybody may read it."""

    def discard_unfinished(self, folder: str) -> None:
        """Nothing is unfinished."""

    def url(self, path: str) -> str:
        return f"file:///memory/{path}"


class FaultyFiles(MemoryFiles):
    """The same for many threads, with faults."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, str]] = []
        self._planned: list[_Planned] = []
        self._late: list[tuple[str, bytes]] = []
        self._at: dict[int, Fault] = {}
        self._newest: dict[str, str] = {}
        self._lock = threading.RLock()

    # -- what tests do ------------------------------------------------------------------------------------------------

    def inject(self, fault: Fault, operation: str = "write_new", match: str = "", times: int = 1) -> None:
        """Let the next `times` calls of the operation on a path that contains `match` fail so."""
        self._planned.append(_Planned(operation, match, fault, times))

    def inject_at(self, call: int, fault: Fault) -> None:
        """Let the call with that number, counted from 0 over all operations, fail so if it can."""
        self._at[call] = fault

    def hold(self, operation: str, match: str = "") -> Hold:
        """Let the next such call wait until it is released."""
        held = Hold()
        self._planned.append(_Planned(operation, match, held, 1))
        return held

    def heal(self) -> None:
        """No more faults."""
        self._planned.clear()

    def land(self) -> None:
        """Carry out the late writes, as a store does whose client has given up; a taken name stays as it is."""
        for path, data in self._late:
            self.content.setdefault(path, data)
        self._late.clear()

    def damage(self, path: str, data: bytes | None) -> None:
        """Replace the bytes of a file, or take the file away (None)."""
        if data is None:
            del self.content[path]
        else:
            self.content[path] = data

    # -- FileStore ----------------------------------------------------------------------------------------------------

    def read(self, path: str) -> bytes:
        self._enter("read", path)
        with self._lock:
            return super().read(path)

    def write_new(self, path: str, data: bytes) -> None:
        _check(path)
        fault = self._plan("write_new", path)
        with self._lock:
            if fault is Fault.LATE:
                self._late.append((path, data))
            fault = None if fault is Fault.STALE else fault
            if fault in (Fault.DOWN, Fault.FULL, Fault.LATE):
                raise StoreUnavailable(f"{path}: {fault.name}")
            super().write_new(path, data[: len(data) // 2] if fault is Fault.TORN else data)
            self._newest[path.rpartition("/")[0]] = path
        if fault is not None:
            raise StoreUnavailable(f"{path}: {fault.name}")

    def names(self, folder: str) -> list[str]:
        stale = self._enter("names", folder) is Fault.STALE
        with self._lock:
            return self._names(folder, self._newest.get(folder) if stale else None)

    def top(self) -> list[str]:
        self._enter("top", "top")
        with self._lock:
            return super().top()

    def copy(self, source: str, target: str) -> None:
        self._enter("copy", source)
        with self._lock:
            data = super().read(source)
        self.write_new(target, data)

    def size(self, path: str) -> int:
        self._enter("size", path)
        with self._lock:
            return len(super().read(path))

    def remove(self, path: str) -> None:
        self._enter("remove", path)
        with self._lock:
            super().remove(path)

    def remove_empty(self, folder: str) -> None:
        self._enter("remove_empty", folder)

    def seal_tree(self, folder: str) -> Mapping[str, int]:
        self._enter("seal_tree", folder)
        with self._lock:
            return super().seal_tree(folder)

    def share(self, folder: str, user: str) -> None:
        self._enter("share", folder)

    def discard_unfinished(self, folder: str) -> None:
        self._enter("discard_unfinished", folder)

    # -- faults -------------------------------------------------------------------------------------------------------

    def _enter(self, operation: str, path: str) -> Fault | None:
        """The fault that the caller carries out itself; the others are raised."""
        _check(path)
        fault = self._plan(operation, path)
        if fault is not None and fault is not Fault.STALE:
            raise StoreUnavailable(f"{path}: {fault.name}")
        return fault

    def _plan(self, operation: str, path: str) -> Fault | None:
        """The fault that hits this call; waits here if the call is held."""
        with self._lock:
            self.calls.append((operation, path))
            numbered = self._at.pop(len(self.calls) - 1, None)
            if numbered is not None:
                return numbered if operation == "write_new" or numbered in _EVERYWHERE else None
            hits = [one for one in self._planned if one.operation == operation and one.match in path]
            if not hits:
                return None
            hit = hits[0]
            hit.times -= 1
            if hit.times == 0:
                self._planned.remove(hit)
        if isinstance(hit.what, Fault):
            return hit.what
        hit.what.reached.set()
        if not hit.what.released.wait(timeout=20):
            raise AssertionError(f"{operation} {path} was held and never released")
        return None


def _check(path: str) -> None:
    if not path or path[0] == "/" or "\0" in path or (".." in path and ".." in path.split("/")):
        raise ValueError(f"{path!r} is no path below the store's root")
