"""A store that counts its troubles by kind, for metrics. Changes nothing of what its store does."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TypeVar

from checkpoint.errors import StoreUnavailable, Trouble
from checkpoint.files import FileStore

T = TypeVar("T")


class TroubleCount:
    """How often a store refused or did not answer, since this process began. Thread-safe; shared by its stores."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, trouble: Trouble) -> None:
        """One more."""
        with self._lock:
            self._counts[trouble.value] += 1

    def plain(self) -> dict[str, int]:
        """By the value of `Trouble`; kinds that never happened are left out."""
        with self._lock:
            return dict(self._counts)


class WatchedFiles:
    """`FileStore` around another one."""

    def __init__(self, files: FileStore, count: TroubleCount) -> None:
        self._files = files
        self._count = count

    def read(self, path: str) -> bytes:
        """See FileStore."""
        return self._counted(lambda: self._files.read(path))

    def write_new(self, path: str, data: bytes) -> None:
        """See FileStore."""
        self._counted(lambda: self._files.write_new(path, data))

    def names(self, folder: str) -> list[str]:
        """See FileStore."""
        return self._counted(lambda: self._files.names(folder))

    def top(self) -> list[str]:
        """See FileStore."""
        return self._counted(self._files.top)

    def copy(self, source: str, target: str) -> None:
        """See FileStore."""
        self._counted(lambda: self._files.copy(source, target))

    def size(self, path: str) -> int:
        """See FileStore."""
        return self._counted(lambda: self._files.size(path))

    def remove(self, path: str) -> None:
        """See FileStore."""
        self._counted(lambda: self._files.remove(path))

    def remove_empty(self, folder: str) -> None:
        """See FileStore."""
        self._counted(lambda: self._files.remove_empty(folder))

    def seal_tree(self, folder: str) -> Mapping[str, int]:
        """See FileStore."""
        return self._counted(lambda: self._files.seal_tree(folder))

    def share(self, folder: str, user: str) -> None:
        """See FileStore."""
        self._counted(lambda: self._files.share(folder, user))

    def discard_unfinished(self, folder: str) -> None:
        """See FileStore."""
        self._counted(lambda: self._files.discard_unfinished(folder))

    def url(self, path: str) -> str:
        """See FileStore."""
        return self._files.url(path)

    def _counted(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except StoreUnavailable as error:
            self._count.add(error.trouble)
            raise
