"""Uploaded code: bytes in the checkpoint store by their digest, versions by name in SQL."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import checkpoint.errors as checkpoint_errors
from checkpoint import binaries as stored
from checkpoint.files import FileStore
from jobserver.addresses import Fetch, is_address, refuse
from jobserver.errors import BinaryInUse, CallerError, ContextInitFailed, NotFound, StoreUnavailable
from jobserver.model import BinaryRecord, BinaryRef, BinaryType, JobSpec
from jobserver.store.metadata import Metadata


def names_of_context(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """The code on the class path of a whole context: lists, or texts with commas. Pure."""
    names: list[str] = []
    for key in ("cp", "dependent-jar-uris"):
        value = settings.get(key) or ()
        parts = value.split(",") if isinstance(value, str) else value
        if isinstance(parts, (list, tuple)):
            names += [part.strip() for part in parts if isinstance(part, str) and part.strip()]
    return tuple(dict.fromkeys(names))


class Binaries:
    """Upload, lookup and deletion; the same on every server."""

    def __init__(self, store: Metadata, files: FileStore, fetch: Fetch = refuse) -> None:
        self._store = store
        self._files = files
        self._fetch = fetch

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
        """The latest version of each name that was uploaded."""
        return [record for record in await self._store.list_binaries() if not is_address(record.name)]

    async def find(self, name: str) -> BinaryRecord:
        """The latest version. Raises NotFound."""
        record = await self._store.find_binary(name)
        if record is None:
            raise NotFound(f"Can't find binary with name {name}")
        return record

    async def refs(self, names: Sequence[str]) -> tuple[BinaryRef, ...]:
        """The versions that a job submitted now uses. Raises as `refs_of`."""
        return await self.refs_of(names, (await self._store.references(names, None)).binaries)

    async def refs_of(self, names: Sequence[str], known: Sequence[BinaryRef | None]) -> tuple[BinaryRef, ...]:
        """The same, with the latest uploads of these names at hand; what lies at an address is read now.

        Raises NotFound with the contract's text, JobLoadingFailed and BadBinary.
        """
        refs = []
        for name, latest in zip(names, known, strict=True):
            ref = await self._fetched(name, latest) if is_address(name) else latest
            if ref is None:
                raise NotFound(f"appName {name} not found")
            refs.append(ref)
        return tuple(refs)

    async def beside(self, spec: JobSpec, settings: Mapping[str, Any]) -> JobSpec:
        """The spec of a JVM job with the jars of its context (`cp`, `dependent-jar-uris`) behind its own.

        What lies at an address is as it was when the context was created. A Python job is made of one package.
        """
        names = names_of_context(settings)
        if not names or not any(ref.type is BinaryType.JAR for ref in spec.binaries):
            return spec
        found = (await self._store.references(names, None)).binaries
        refs = (*spec.binaries, *(ref for ref in found if ref is not None and ref.type is BinaryType.JAR))
        return replace(spec, binaries=tuple({ref.digest: ref for ref in reversed(refs)}.values())[::-1])

    async def check_context(self, settings: Mapping[str, Any]) -> None:
        """Reads what a new context's settings name at addresses, and looks for the rest. Raises ContextInitFailed."""
        try:
            await self.refs(names_of_context(settings))
        except CallerError as error:
            raise ContextInitFailed(error.message) from error

    async def _fetched(self, address: str, known: BinaryRef | None) -> BinaryRef:
        """The code at an address, as a version of its own unless it is what it was."""
        kind, data = await self._fetch(address)
        if known is not None and known.digest == hashlib.sha256(data).hexdigest():
            return known
        record = await self.upload(address, kind, data)
        return BinaryRef(record.name, record.type, record.digest)

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
