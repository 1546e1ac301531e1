"""Uploaded code by its content: the same bytes are stored once, under their SHA-256."""

from __future__ import annotations

import hashlib

from checkpoint import layout
from checkpoint.errors import AlreadyExists, Damaged
from checkpoint.files import FileStore
from checkpoint.sealing import persist


def put(files: FileStore, data: bytes) -> str:
    """Store the bytes durably and answer their digest (hex). Storing them again changes nothing."""
    digest = hashlib.sha256(data).hexdigest()

    def once() -> None:
        try:
            files.write_new(path(digest), data)
        except AlreadyExists:
            return

    persist(once)
    return digest


def path(digest: str) -> str:
    """Where the bytes with that digest lie."""
    return layout.binary_path(digest)


def read(files: FileStore, digest: str) -> bytes:
    """The bytes with that digest. Raises Missing, and Damaged when they are others."""
    data = files.read(path(digest))
    if hashlib.sha256(data).hexdigest() != digest:
        raise Damaged("binary", digest, "its bytes do not have that digest")
    return data
