"""Uploaded code: bytes in the checkpoint store by their digest, versions by name in SQL."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime

import checkpoint.errors as checkpoint_errors
from checkpoint import binaries as stored
from checkpoint.files import FileStore
from jobserver.errors import BinaryInUse, NotFound, StoreUnavailable
from jobserver.model import BinaryRecord, BinaryRef, BinaryType
from jobserver.store.metadata import Metadata


class Binaries:
    """Upload, lookup and deletion; the same on every server."""

    def __init__(self, store: Metadata, files: FileStore) -> None:
        self._store = store
        self._files = files

    async def upload(self, name: str, kind: BinaryType, data: bytes) -> BinaryRecord:
        """Bytes first, then the record: a record never names bytes that are not durable. Raises StoreUnavailable.

        Before both, the digest is put on record as wanted, so that retention does not remove the bytes meanwhile.
        """
        digest = hashlib.sha256(data).hexdigest()
        await self._store.keep_binary(digest, len(data), datetime.now(UTC))
        try:
            await asyncio.to_thread(stored.put, self._files, data)
        except checkpoint_errors.StoreUnavailable as error:
            raise StoreUnavailable(f"the binary could not be stored: {error}") from error
        record = BinaryRecord(name, kind, digest, len(data), datetime.now(UTC))
        await self._store.put_binary(record)
        return record

    async def all(self) -> list[BinaryRecord]:
        """The latest version of each name."""
        return await self._store.list_binaries()

    async def find(self, name: str) -> BinaryRecord:
        """The latest version. Raises NotFound."""
        record = await self._store.find_binary(name)
        if record is None:
            raise NotFound(f"Can't find binary with name {name}")
        return record

    async def refs(self, names: tuple[str, ...]) -> tuple[BinaryRef, ...]:
        """The versions that a job submitted now uses. Raises NotFound with the contract's text."""
        refs = []
        for name in names:
            record = await self._store.find_binary(name)
            if record is None:
                raise NotFound(f"appName {name} not found")
            refs.append(BinaryRef(record.name, record.type, record.digest))
        return tuple(refs)

    async def delete(self, name: str) -> None:
        """Every version of the name. Raises NotFound, BinaryInUse.

        The bytes stay: named objects may hold values whose classes are in them, and name them by digest.
        """
        record = await self._store.find_binary(name)
        if record is None:
            raise NotFound(f"can't find binary with name {name}")
        jobs = await self._store.jobs_using_binary(name)
        if jobs:
            raise BinaryInUse(f"Binary is in use by job(s): {', '.join(jobs)}")
        if not await self._store.delete_binary(name):
            raise NotFound(f"can't find binary with name {name}")
