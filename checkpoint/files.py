"""The port to a checkpoint store: small files written once, and folders that Spark fills.

Paths are relative to the store's root, with "/" between components; none is empty, "." or "..". Every implementation
keeps the promises of `tests/contract/test_file_store.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Protocol


def below_root(path: str) -> PurePosixPath:
    """The path, checked. Raises ValueError when it would lead elsewhere than below the store's root."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\0" in path:
        raise ValueError(f"{path!r} is no path below the store's root")
    return PurePosixPath(*parts)


class FileStore(Protocol):
    """Durable files with names that are taken once. Every method may raise `StoreUnavailable`."""

    def read(self, path: str) -> bytes:
        """The whole content. Raises Missing, and Corrupt when the store knows that it has lost it."""

    def write_new(self, path: str, data: bytes) -> None:
        """Make the file, with its folders, durable before this returns; readers see all of it or nothing.

        Raises AlreadyExists when the name is taken, after making sure that what has it is durable: so whoever repeats
        a write whose outcome is unknown and reads its own bytes back may rely on them.
        """

    def names(self, folder: str) -> list[str]:
        """Names of the finished files and folders in it, sorted; empty when the folder is absent.

        At least as new as the call: what any client had written before is in it. The fence rests on this.
        What starts with "." (an unfinished write, a checksum of Spark's local files) is not listed.
        """

    def top(self) -> list[str]:
        """Names of the folders and files directly below the root, as `names` tells them."""

    def copy(self, source: str, target: str) -> None:
        """Make a file of the same bytes under a name that is taken once, as `write_new` does, whatever its length.

        Raises Missing, AlreadyExists, and Corrupt.
        """

    def size(self, path: str) -> int:
        """Length in bytes. Raises Missing."""

    def remove(self, path: str) -> None:
        """Remove a file or a whole folder; no error when it is absent."""

    def remove_empty(self, folder: str) -> None:
        """Remove a folder in which nothing is; no error when there is something, or when it is absent."""

    def seal_tree(self, folder: str) -> Mapping[str, int]:
        """Make durable what others wrote below the folder. Answers each file's relative path and length.

        Raises Missing when there is no such folder.
        """

    def share(self, folder: str, user: str) -> None:
        """Make the folder if it is absent, and let another user of the store write in it, by Spark.

        What he writes there this client can read, seal and remove as if it were its own, and nobody else can. A directory
        of this machine knows only the user of the process, for whom Spark writes, too: nothing is to be done.
        """

    def discard_unfinished(self, folder: str) -> None:
        """Remove what writers that died left half written in the folder. Only for the folder's single writer.

        What this client itself is writing at the moment stays. A write of another client may meet StoreUnavailable.
        """

    def url(self, path: str) -> str:
        """What Spark is given to read or write it: "file:///…" or "hdfs://…"; not percent-encoded, as Hadoop wants it."""
