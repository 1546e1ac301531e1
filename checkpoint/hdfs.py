"""A checkpoint store in HDFS: small files through WebHDFS, data by Spark through its own client, below one folder.

A new file is written under a hidden name, fsynced by the DataNodes, and renamed onto a name that must not exist. The
NameNode carries out renames one at a time and answers when its edit log is on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from checkpoint.errors import AlreadyExists, CheckpointError, Missing, StoreUnavailable, Trouble
from checkpoint.files import below_root
from checkpoint.stores import HdfsAccess
from checkpoint.webhdfs import WebHdfs


class HdfsFiles:
    """`FileStore` below a folder of HDFS, `root` as hdfs://host:port/folder; made by the first write."""

    def __init__(
        self, root: str, access: HdfsAccess, connect: Callable[[HdfsAccess], WebHdfs] = WebHdfs
    ) -> None:
        parts = urlsplit(root)
        self._folder = "/" + unquote(parts.path).strip("/")
        self._url = f"{parts.scheme}://{parts.netloc}"
        self._hdfs = connect(access)
        self._writing: set[str] = set()  # hidden files of this client, which its own sweep leaves alone

    def read(self, path: str) -> bytes:
        """See FileStore."""
        return self._hdfs.read(self._at(path))

    def write_new(self, path: str, data: bytes) -> None:
        """See FileStore."""
        self._seal(path, lambda unfinished: self._hdfs.create(unfinished, data))

    def _seal(self, path: str, create: Callable[[str], None]) -> None:
        """Make the file under a hidden name, then give it its own.

        After a rename without an answer nothing is cleared away: the file may have its name, or get it later.
        """
        target = self._at(path)
        unfinished = f"{target.rpartition('/')[0]}/.{uuid4().hex}.unfinished"
        self._writing.add(unfinished)
        try:
            self._create(unfinished, create)
            self._rename(path, unfinished, target)
        finally:
            self._writing.discard(unfinished)

    def _rename(self, path: str, unfinished: str, target: str) -> None:
        try:
            self._hdfs.rename(unfinished, target)
        except AlreadyExists as taken:
            # The one that has the name may not be on the NameNode's disk yet. Edits are written in their order: when
            # the answer to this removal is there, so is that rename.
            self._hdfs.remove(unfinished)
            raise AlreadyExists(f"{path} exists") from taken
        except Missing as error:
            # an earlier try of the same rename got through, or somebody cleared the folder: read back
            raise StoreUnavailable(f"{path}: its unfinished file is gone; the outcome is unknown") from error

    def names(self, folder: str) -> list[str]:
        """See FileStore."""
        try:
            return [
                entry.name for entry in self._hdfs.entries(self._at(folder)) if not entry.name.startswith(".")
            ]
        except Missing:
            return []

    def top(self) -> list[str]:
        """See FileStore."""
        try:
            entries = self._hdfs.entries(self._folder)
        except Missing:
            return []
        return [entry.name for entry in entries if not entry.name.startswith(".")]

    def copy(self, source: str, target: str) -> None:
        """See FileStore. The bytes pass through this process, a piece at a time."""
        origin = self._at(source)
        self._seal(target, lambda unfinished: self._hdfs.copy(origin, unfinished))

    def size(self, path: str) -> int:
        """See FileStore."""
        entry = self._hdfs.entry(self._at(path))
        if entry.is_folder:
            raise Missing(f"{path} is a folder")
        return entry.size

    def remove(self, path: str) -> None:
        """See FileStore."""
        self._hdfs.remove(self._at(path))

    def remove_empty(self, folder: str) -> None:
        """See FileStore."""
        self._hdfs.remove_empty(self._at(folder))

    def seal_tree(self, folder: str) -> dict[str, int]:
        """See FileStore. What Spark closed has its replicas; fsync is the DataNodes' part (`dfs.datanode.synconclose`)."""
        found: dict[str, int] = {}
        todo = [""]
        while todo:
            inner = todo.pop()
            for entry in self._hdfs.entries(self._at(f"{folder}/{inner}".rstrip("/"))):
                if entry.is_folder:
                    todo.append(f"{inner}{entry.name}/")
                elif not entry.name.startswith("."):
                    found[inner + entry.name] = entry.size
        return found

    def share(self, folder: str, user: str) -> None:
        """See FileStore. Both users are named, also for all that will be made in the folder, whoever makes it."""
        path = self._at(folder)
        self._hdfs.make_folder(path)
        self._hdfs.permit(path, {self._hdfs.owner(path), user})

    def discard_unfinished(self, folder: str) -> None:
        """See FileStore."""
        try:
            entries = self._hdfs.entries(self._at(folder))
        except Missing:
            return
        for entry in entries:
            path = self._at(f"{folder}/{entry.name}")
            if (
                entry.name.startswith(".")
                and entry.name.endswith(".unfinished")
                and path not in self._writing
            ):
                self._hdfs.remove(path)

    def url(self, path: str) -> str:
        """See FileStore."""
        return f"{self._url}{self._at(path)}"

    def _at(self, path: str) -> str:
        return f"{self._folder.rstrip('/')}/{below_root(path)}"

    def _create(self, unfinished: str, create: Callable[[str], None]) -> None:
        """Write the hidden file; what a full or refusing HDFS has begun is cleared away if it can be."""
        try:
            create(unfinished)
        except StoreUnavailable as error:
            if error.trouble is not Trouble.AWAY:
                with suppress(CheckpointError):
                    self._hdfs.remove(unfinished)
            raise
