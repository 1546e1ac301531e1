"""A checkpoint store in a local (or network-mounted) directory.

A new file is written under a hidden name, synced, and linked to its own: a link is refused when the name exists, and
readers see the whole file or none. Then the folder is synced. Trouble of any other kind is `StoreUnavailable`.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from checkpoint.errors import AlreadyExists, Missing, StoreUnavailable, Trouble
from checkpoint.files import below_root

REMEMBERED = 1000
"""Folders that are remembered as durable; each job with output has one of its own, so beyond it all are synced anew."""


class LocalFiles:
    """`FileStore` below a directory, which is made if it is absent when the store is opened."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._synced: set[Path] = set()
        self._writing: set[Path] = set()  # hidden files of this client, which its own sweep leaves alone
        self._lock = threading.Lock()
        with _trouble(str(root)):
            self._root.mkdir(parents=True, exist_ok=True)

    def read(self, path: str) -> bytes:
        """See FileStore."""
        target = self._at(path)
        with _trouble(path), self._missing(path):
            return target.read_bytes()

    def write_new(self, path: str, data: bytes) -> None:
        """See FileStore."""
        target = self._at(path)
        unfinished = target.parent / f".{uuid4().hex}.unfinished"
        with _trouble(path):
            self._make_folder(target.parent)
            self._writing.add(unfinished)
            try:
                _write_synced(unfinished, data)
                self._link(unfinished, target)
            finally:
                self._writing.discard(unfinished)
                with suppress(
                    OSError
                ):  # debris is removed by discard_unfinished; the outcome is decided already
                    unfinished.unlink()

    def names(self, folder: str) -> list[str]:
        """See FileStore."""
        target = self._at(folder)
        with _trouble(folder):
            try:
                return sorted(entry.name for entry in target.iterdir() if not entry.name.startswith("."))
            except FileNotFoundError:
                self._check_root()
                return []

    def top(self) -> list[str]:
        """See FileStore."""
        with _trouble(str(self._root)):
            self._check_root()
            return sorted(entry.name for entry in self._root.iterdir() if not entry.name.startswith("."))

    def copy(self, source: str, target: str) -> None:
        """See FileStore. Both names lead to one file, which nobody changes; it goes with the last of them."""
        origin, place = self._at(source), self._at(target)
        with _trouble(target), self._missing(source):
            origin.stat()
            self._make_folder(place.parent)
            self._link(origin, place)

    def size(self, path: str) -> int:
        """See FileStore."""
        target = self._at(path)
        with _trouble(path), self._missing(path):
            return target.stat().st_size

    def remove(self, path: str) -> None:
        """See FileStore."""
        target = self._at(path)
        with _trouble(path):
            self._forget(target)
            try:
                target.unlink()
            except FileNotFoundError:
                self._check_root()
            except (IsADirectoryError, PermissionError):
                _remove_tree(target)

    def remove_empty(self, folder: str) -> None:
        """See FileStore."""
        target = self._at(folder)
        with _trouble(folder):
            try:
                target.rmdir()
            except FileNotFoundError:
                self._check_root()
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            else:
                self._forget(target)

    def seal_tree(self, folder: str) -> dict[str, int]:
        """See FileStore."""
        top = self._at(folder)
        found: dict[str, int] = {}
        with _trouble(folder), self._missing(folder):
            top.stat()
            for place, _, names in os.walk(top, onerror=_raise):
                for name in names:
                    _sync(Path(place) / name)
                    if not name.startswith("."):
                        entry = Path(place) / name
                        found[entry.relative_to(top).as_posix()] = entry.stat().st_size
                _sync(Path(place))
            self._sync_upwards(top)
        return found

    def share(self, folder: str, user: str) -> None:
        """See FileStore."""
        self._at(folder)

    def discard_unfinished(self, folder: str) -> None:
        """See FileStore."""
        target = self._at(folder)
        with _trouble(folder), suppress(FileNotFoundError):
            for entry in list(target.iterdir()):
                ours = entry in self._writing
                if entry.name.startswith(".") and entry.name.endswith(".unfinished") and not ours:
                    entry.unlink(missing_ok=True)

    def url(self, path: str) -> str:
        """See FileStore."""
        return f"file://{self._at(path)}"

    def _at(self, path: str) -> Path:
        return self._root / below_root(path)

    def _check_root(self) -> None:
        """An absent root is a store that is away (not mounted), never an empty one."""
        if not self._root.is_dir():
            raise StoreUnavailable(f"the checkpoint root {self._root} is not there", Trouble.AWAY)

    @contextmanager
    def _missing(self, path: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError) as error:
            self._check_root()
            raise Missing(f"{path} does not exist") from error

    def _link(self, unfinished: Path, target: Path) -> None:
        try:
            os.link(unfinished, target)
        except FileExistsError:
            # its writer may have died between link and sync: who is told that it exists relies on it
            _sync(target)
            _sync(target.parent)
            raise
        _sync(target.parent)

    def _make_folder(self, folder: Path) -> None:
        """Folder and parents, durable. Once per folder and process: another process may have made but not synced it."""
        self._check_root()
        if folder in self._synced and folder.is_dir():
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._sync_upwards(folder)
        with self._lock:
            if len(self._synced) >= REMEMBERED:
                self._synced.clear()
            self._synced.add(folder)

    def _sync_upwards(self, folder: Path) -> None:
        """Make the folder's own name durable, and its parents' up to the root."""
        while folder != self._root:
            folder = folder.parent
            _sync(folder)

    def _forget(self, target: Path) -> None:
        with self._lock:
            self._synced = {
                known for known in self._synced if known != target and target not in known.parents
            }


@contextmanager
def _trouble(path: str) -> Iterator[None]:
    """Whatever the operating system refuses is trouble of the store, but for a name that is taken."""
    try:
        yield
    except FileExistsError as error:
        raise AlreadyExists(f"{path} exists") from error
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "unknown error")
        trouble = _TROUBLE.get(name, Trouble.OTHER)
        raise StoreUnavailable(f"{path}: {error.strerror or error} ({name})", trouble) from error


_TROUBLE = {
    "ENOSPC": Trouble.FULL,
    "EDQUOT": Trouble.FULL,
    "EACCES": Trouble.REFUSED,
    "EPERM": Trouble.REFUSED,
    "EROFS": Trouble.REFUSED,
    "ETIMEDOUT": Trouble.AWAY,
    "ESTALE": Trouble.AWAY,
}


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_tree(target: Path) -> None:
    with suppress(FileNotFoundError):  # somebody else removes it too
        shutil.rmtree(target)


def _raise(error: OSError) -> None:
    raise error
