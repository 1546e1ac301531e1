"""Uploaded code by its content: the same bytes are stored once, under their SHA-256."""

from __future__ import annotations

import hashlib

from checkpoint import layout
from checkpoint.errors import AlreadyExists, Damaged
from checkpoint.files import FileStore
from checkpoint.sealing import persist, seal


def put(files: FileStore, data: bytes) -> str:
    """Store the bytes durably and answer their digest (hex). Storing them again heals what a broken disk left."""
    digest = hashlib.sha256(data).hexdigest()
    try:
        seal(files, path(digest), data)
    except AlreadyExists:
        # nothing else can have this name by right: what lies there is damaged
        files.remove(path(digest))
        seal(files, path(digest), data)
    return digest


def path(digest: str) -> str:
    """Where the bytes with that digest lie."""
    return layout.binary_path(digest)


def read(files: FileStore, digest: str) -> bytes:
    """The bytes with that digest. Raises Missing, and Damaged when they are others."""
    data = persist(lambda: files.read(path(digest)))
    if hashlib.sha256(data).hexdigest() != digest:
        raise Damaged("binary", digest, "its bytes do not have that digest")
    return data
