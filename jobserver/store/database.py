"""A metadata database as seen by asyncio: reads on a few threads, writes through the one writer."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from sqlalchemy import Engine, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from jobserver.errors import BadConfig, StoreUnavailable
from jobserver.store import sqlite
from jobserver.store.transaction import T, Work, unavailable
from jobserver.store.writer import GroupWriter

READERS = 2
"""Reading threads; each has a connection of its own."""


class Database:
    """One server's access to the store. `timeout` bounds the wait for the write lock, twice that every call."""

    def __init__(self, reading: Engine, writing: Engine, *, timeout: float) -> None:
        self.patience = 2 * timeout
        self.writing = writing
        self._reading = reading
        self._closed = False
        self._writer = GroupWriter(writing, patience=self.patience)
        self._readers = ThreadPoolExecutor(max_workers=READERS, thread_name_prefix="store-read")

    @classmethod
    def open(cls, url: str, *, timeout: float, synchronous: str = "FULL") -> Self:
        """Opens nothing yet: the first read or write does. Raises BadConfig for an address it cannot use."""
        try:
            parsed = make_url(url)
        except ArgumentError:
            raise BadConfig(f"{url!r} is no address of a metadata store (sqlite:///<file>)") from None
        if parsed.get_backend_name() != "sqlite":
            raise BadConfig(f"metadata stores of kind {parsed.get_backend_name()!r} are not supported")
        path = sqlite.path_of(parsed)
        reading = sqlite.reading_engine(path, timeout=timeout, connections=READERS)
        writing = sqlite.writing_engine(path, timeout=timeout, synchronous=synchronous)
        return cls(reading, writing, timeout=timeout)

    async def read(self, work: Work[T]) -> T:
        """What `work` returned. Raises StoreUnavailable."""
        if self._closed:
            raise StoreUnavailable("the metadata store is closed")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.patience):
                return await loop.run_in_executor(self._readers, self._run_read, work)
        except TimeoutError:
            raise StoreUnavailable(
                f"the metadata store answered no read within {self.patience:g} s"
            ) from None

    async def write(self, work: Work[T]) -> T:
        """What `work` returned, committed. Raises StoreUnavailable (not done) or OutcomeUnknown."""
        return await self._writer.write(work)

    async def close(self) -> None:
        """Lets what runs end within the patience, and closes every connection."""
        self._closed = True
        await self._writer.close()
        await asyncio.to_thread(self._readers.shutdown, cancel_futures=True)
        self._reading.dispose()

    def _run_read(self, work: Work[T]) -> T:
        try:
            with self._reading.connect() as connection:
                return work(connection)
        except SQLAlchemyError as error:
            raise unavailable(error) from error
