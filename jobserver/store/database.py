"""A metadata database as seen by asyncio: reads on a few threads, writes through the one writer."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Self

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from jobserver.errors import OutcomeUnknown, StoreUnavailable
from jobserver.store import mysql, packets, sqlite
from jobserver.store.address import READERS, MysqlAddress, SqliteAddress, parsed
from jobserver.store.bulk import Rest
from jobserver.store.transaction import RunTogether, T, Work, unavailable
from jobserver.store.writer import GroupWriter

EVICT_AFTER = 0.2
"""Seconds that a grant waits before it ends the connection of the server whose lock it may be waiting for."""

REPEAT_AFTER = 0.02
"""Seconds before a write whose outcome is unknown is done again."""


@dataclass(frozen=True, slots=True)
class Backend:
    """One kind of database, opened. `name` is that of the writing connection, empty where others cannot end it."""

    reading: Engine
    writing: Engine
    run_together: RunTogether
    readers: int
    name: str = ""


class Database:
    """One server's access to the store. `timeout` bounds the wait for the write lock, twice that every call."""

    def __init__(self, backend: Backend, *, timeout: float) -> None:
        self.patience = 2 * timeout
        self.writing = backend.writing
        self.name = backend.name
        self.reading = backend.reading
        self._closed = False
        self._writer = GroupWriter(backend.writing, backend.run_together, patience=self.patience)
        self._readers = ThreadPoolExecutor(max_workers=backend.readers, thread_name_prefix="store-read")

    @classmethod
    def open(cls, url: str, *, timeout: float, synchronous: str = "FULL") -> Self:
        """Opens nothing yet: the first read or write does. Raises BadConfig for an address it cannot use.

        `synchronous` is for SQLite only: what other databases survive is their own setting.
        """
        match parsed(url):
            case SqliteAddress() as address:
                return cls(_sqlite(address, timeout, synchronous), timeout=timeout)
            case MysqlAddress() as address:
                return cls(_mysql(address, timeout), timeout=timeout)

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

    @property
    def trouble(self) -> str | None:
        """Why the last write was not done, as far as the database is to blame; None once one was done again."""
        return self._writer.trouble

    async def write(self, work: Work[T]) -> T:
        """What `work` returned, committed. Raises StoreUnavailable (not done) or OutcomeUnknown."""
        return await self._writer.write(work)

    async def write_repeated(self, work: Work[T]) -> T:
        """`write` of a work that may be repeated: an unknown outcome becomes known by doing it again.

        Raises StoreUnavailable (not done), OutcomeUnknown (still, after the patience; the last try has its own).
        """
        deadline = asyncio.get_running_loop().time() + self.patience
        unknown: OutcomeUnknown | None = None
        while True:
            try:
                return await self._writer.write(work)
            except OutcomeUnknown as error:
                unknown = error
            except StoreUnavailable:
                if unknown is None:
                    raise
            if asyncio.get_running_loop().time() >= deadline:
                raise unknown
            await asyncio.sleep(REPEAT_AFTER)

    async def write_evicting(self, work: Work[T], context_id: str) -> T:
        """`write` of a grant: whoever holds the fence's row for long, frozen maybe, loses the connection that holds it.

        What that connection had not committed is rolled back, as the fence would have refused it anyway.
        """
        writing = asyncio.ensure_future(self._writer.write(work))
        wait = EVICT_AFTER
        try:
            while self.name and not (await asyncio.wait([writing], timeout=wait))[0]:
                with contextlib.suppress(StoreUnavailable):  # the write will say so itself
                    await self.read(mysql.evict(context_id, but=self.name))
                wait *= 2
            return await writing
        finally:
            writing.cancel()

    async def close(self) -> None:
        """Lets what runs end within the patience, and closes every connection."""
        self._closed = True
        try:
            await self._writer.close()
        finally:
            try:
                await asyncio.to_thread(self._readers.shutdown, cancel_futures=True)
            finally:
                self.reading.dispose()

    def _run_read(self, work: Work[T]) -> T:
        try:
            return self._read_once(work)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise unavailable(error) from error
        except SQLAlchemyError as error:
            raise unavailable(error) from error
        # the connection had ended while it was idle, or ended now: once more with a new one
        try:
            return self._read_once(work)
        except SQLAlchemyError as error:
            raise unavailable(error) from error

    def _read_once(self, work: Work[T]) -> T:
        with self.reading.connect() as connection:
            return work(connection)


def _sqlite(address: SqliteAddress, timeout: float, synchronous: str) -> Backend:
    writing = sqlite.writing_engine(address.path, timeout=timeout, synchronous=synchronous)
    return Backend(
        reading=sqlite.reading_engine(address.path, timeout=timeout, connections=READERS),
        writing=writing,
        run_together=sqlite.grouping(writing),
        readers=READERS,
    )


def _mysql(address: MysqlAddress, timeout: float) -> Backend:
    name = mysql.new_name()
    return Backend(
        reading=mysql.reading_engine(address, timeout=timeout),
        writing=mysql.writing_engine(address, timeout=timeout, name=name),
        run_together=partial(packets.run_together, patience=2 * timeout, rest=Rest()),
        readers=address.readers,
        name=name,
    )
