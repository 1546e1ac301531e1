"""Where results go: small JSON travels with its outcome, all else to the checkpoint store, piece by piece."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from checkpoint import layout
from checkpoint.errors import CheckpointError
from checkpoint.files import FileStore
from checkpoint.sealing import persist
from checkpoint.segments import put_segment
from jobserver.driver.frames import Columns, Produced
from jobserver.driver.results import ResultTooLarge, UnusableResult
from jobserver.model import AttemptRef
from jobserver.stored_results import INLINE_LIMIT, StoredResult

SEGMENT = 4 * 2**20
"""Bytes of one segment; a server holds one at a time."""


def keep_result(files: FileStore | None, ref: AttemptRef, produced: Produced, limit: int) -> str:
    """The result itself, or a reference once all of it is durable; `limit` in bytes. Raises UnusableResult."""
    if isinstance(produced, Columns):
        stored = _stored(files, ref, produced.pieces, limit, produced.format.value)
        return replace(stored, format=produced.format, shown=produced.shown()).reference
    pieces = iter([produced]) if isinstance(produced, str) else produced
    head, size = [], 0
    for piece in pieces:
        data = encoded(piece)
        head.append(data)
        size += len(data)
        if size > INLINE_LIMIT:
            return _stored(files, ref, _joined(head, pieces), limit, "JSON").reference
    return b"".join(head).decode()


def encoded(text: str) -> bytes:
    """UTF-8; half a surrogate pair, which can only stand inside a text, becomes its escape."""
    return text.encode("utf-8", "backslashreplace")


def _joined(head: list[bytes], rest: Iterator[str]) -> Iterator[bytes]:
    yield from head
    for piece in rest:
        yield encoded(piece)


def _stored(
    files: FileStore | None, ref: AttemptRef, pieces: Iterator[bytes], limit: int, what: str
) -> StoredResult:
    if files is None:
        raise ResultTooLarge(
            f"the result has more than {INLINE_LIMIT} bytes of JSON or is {what}, "
            "and this context has no checkpoint to keep it"
        )
    folder = layout.result_folder(ref.job_id, ref.attempt)
    digest, size, pending = hashlib.sha256(), 0, bytearray()
    for piece in pieces:
        digest.update(piece)
        pending += piece
        if size + len(pending) > limit:
            raise ResultTooLarge(
                f"the result has more than {limit} bytes of {what}: write it to a file and return its name"
            )
        while len(pending) >= SEGMENT:
            _put(files, folder, size, bytes(pending[:SEGMENT]))
            del pending[:SEGMENT]
            size += SEGMENT
    if pending:
        _put(files, folder, size, bytes(pending))
    return StoredResult(size + len(pending), digest.hexdigest())


def _put(files: FileStore, folder: str, start: int, data: bytes) -> None:
    try:
        persist(partial(put_segment, files, folder, start, data))
    except CheckpointError as error:
        raise UnusableResult(f"the result could not be stored: {error}") from error
