"""Data files: what clients upload for jobs to read (rest_contract section 6), in the checkpoint store of the cluster.

The store is the only truth: every server lists the same files, and every driver finds them under the path that the upload
answered. A name is `<prefix>-<time>.dat`; only names of that form in the one folder can be listed, read or deleted.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo
from typing import TypeVar

import checkpoint.errors as checkpoint_errors
from checkpoint import layout
from checkpoint.files import FileStore
from checkpoint.sealing import seal
from jobserver.errors import BadRequest, StoreUnavailable

MAX_PREFIX = 100
"""Longest prefix in characters; in UTF-8 the whole name stays below what file systems take."""
TRIES = 1000
"""Uploads of one prefix in one millisecond: each takes the next free millisecond, so many at most."""

_PREFIX = re.compile(r"[^\W_][\w.+=@-]*")
_NAME = re.compile(r"[^\W_][\w.+=@-]*\.dat")
T = TypeVar("T")
_MILLISECOND = timedelta(milliseconds=1)


class DataFiles:
    """Upload, list and delete; the same on every server. `now` and `zone` make the time in a name."""

    def __init__(self, files: FileStore, now: Callable[[], datetime], zone: tzinfo | None = None) -> None:
        self._files = files
        self._now = now
        self._zone = zone

    async def all(self) -> list[str]:
        """The path of each file, as jobs open it."""
        return await self._call(self._listed)

    async def upload(self, prefix: str, data: bytes) -> str:
        """Makes the bytes durable under a new name; its path. Raises BadRequest, StoreUnavailable."""
        check_prefix(prefix)
        return await self._call(lambda: self._store(prefix, data))

    async def delete(self, shown: str) -> None:
        """Removes the file of that path. Raises BadRequest when it is none of the listed, StoreUnavailable."""
        name = shown.rpartition("/")[2]
        known = name if _NAME.fullmatch(name) else None
        if known is None or shown not in await self.all():
            raise BadRequest(f"Unable to delete data file '{shown}'.")
        await self._call(lambda: self._files.remove(layout.data_path(known)))

    async def reset(self) -> None:
        """Removes every file. Raises StoreUnavailable."""
        await self._call(self._remove_all)

    def _remove_all(self) -> None:
        for shown in self._listed():
            self._files.remove(layout.data_path(shown.rpartition("/")[2]))

    def _listed(self) -> list[str]:
        names = self._files.names(layout.DATA)
        return [self._shown(name) for name in names if _NAME.fullmatch(name)]

    def _store(self, prefix: str, data: bytes) -> str:
        moment = self._now()
        for _ in range(TRIES):
            name = file_name(prefix, moment, self._zone)
            try:
                seal(self._files, layout.data_path(name), data)
                return self._shown(name)
            except checkpoint_errors.AlreadyExists:
                moment += _MILLISECOND
        raise StoreUnavailable(f"{TRIES} data files '{prefix}' were uploaded in one second; try again later")

    def _shown(self, name: str) -> str:
        """A plain path where the store is a directory, else the URL that Spark reads."""
        return self._files.url(layout.data_path(name)).removeprefix("file://")

    async def _call(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except checkpoint_errors.StoreUnavailable as error:
            raise StoreUnavailable(f"the store of data files does not answer: {error}") from error


def file_name(prefix: str, moment: datetime, zone: tzinfo | None = None) -> str:
    """`<prefix>-2016-07-04T09_09_57.928+05_30.dat`: the time in that zone (None: the system's), with `Z` for UTC."""
    text = moment.astimezone(zone).isoformat(timespec="milliseconds")
    text = text[:-6] + "Z" if text.endswith("+00:00") else text
    return f"{prefix}-{text.replace(':', '_')}.dat"


def check_prefix(prefix: str) -> str:
    """The prefix, when the store, Spark and a shell can carry it in a file's name. Raises BadRequest."""
    if len(prefix) > MAX_PREFIX or len(prefix.encode("utf-8", "replace")) > 2 * MAX_PREFIX:
        raise BadRequest(f"the prefix of a data file must not be longer than {MAX_PREFIX} characters")
    if not _PREFIX.fullmatch(prefix):
        raise BadRequest(
            "the prefix of a data file must start with a letter or digit and hold only letters, digits and ._-+=@"
        )
    return prefix
