"""Code at an address (`cp=http://host/x.jar`) instead of an upload: what is one, and how it is read. Rest_contract 5.5.

The server that takes the job reads it once, then it is a binary like any upload, by its digest: drivers, failovers and
executors need the address no more. `file:` and `local:` are files of that server.
"""

from __future__ import annotations

import asyncio
import re
import time
import urllib.request
from collections.abc import Awaitable, Callable
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from jobserver.errors import JobLoadingFailed
from jobserver.model import BinaryType

SCHEMES = frozenset({"http", "https", "ftp", "file", "local"})
"""Those that existing servers load from."""
PIECE = 65_536
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")

Fetch = Callable[[str], Awaitable[tuple[BinaryType, bytes]]]
"""The kind and the bytes of the code at an address. Raises JobLoadingFailed, BadBinary."""
Check = Callable[[BinaryType, bytes], Awaitable[None]]
"""Raises BadBinary when the bytes cannot be of that kind."""


def scheme_of(name: str) -> str | None:
    """The scheme of an address, in lower case; None for the name of an upload. Pure."""
    found = _SCHEME.match(name) if ":" in name else None
    return None if found is None else found[1].lower()


def is_address(name: str) -> bool:
    """Whether it is an address that can be read. Pure."""
    return scheme_of(name) in SCHEMES


def kind_of(address: str) -> BinaryType:
    """The kind of code by the ending of the path. Pure. Raises JobLoadingFailed."""
    ending = PurePosixPath(unquote(_path(address))).suffix.lower()
    for kind in BinaryType:
        if kind.extension == ending:
            return kind
    known = ", ".join(kind.extension for kind in BinaryType)
    raise _failed(address, f"its path ends in none of {known}")


def fetcher(*, most: int, seconds: float, check: Check) -> Fetch:
    """Reads at most so many bytes in so many seconds."""

    async def fetch(address: str) -> tuple[BinaryType, bytes]:
        kind = kind_of(address)
        data = await asyncio.to_thread(_read, address, most, time.monotonic() + seconds)
        await check(kind, data)
        return kind, data

    return fetch


async def refuse(address: str) -> tuple[BinaryType, bytes]:
    """A `Fetch` of servers that read no addresses. Raises JobLoadingFailed."""
    raise _failed(
        address, "this server reads no addresses (binaries.addresses): upload the file to /binaries instead"
    )


def _path(address: str) -> str:
    try:
        return urlsplit(address).path
    except ValueError as error:
        raise _failed(address, str(error)) from error


def _read(address: str, most: int, deadline: float) -> bytes:
    try:
        if scheme_of(address) in ("file", "local"):
            return _file(address, most)
        with urllib.request.urlopen(address, timeout=max(deadline - time.monotonic(), 0.1)) as answer:
            data = bytearray()
            while piece := answer.read1(PIECE):
                data += piece
                if len(data) > most:
                    raise _failed(address, f"it has more than {most} bytes")
                if time.monotonic() > deadline:
                    raise _failed(address, "it did not arrive in time")
            return bytes(data)
    except (OSError, HTTPException, ValueError) as error:
        raise _failed(address, str(error) or type(error).__name__) from error


def _file(address: str, most: int) -> bytes:
    parts = urlsplit(address)
    path = Path(unquote(parts.path))
    if parts.netloc not in ("", "localhost") or not path.is_absolute():
        raise _failed(address, "it is not the address of a file of this server, like file:///opt/jobs/x.jar")
    if not path.is_file():  # neither a folder, nor a pipe that nobody writes to
        raise _failed(address, "there is no such file on this server")
    if path.stat().st_size > most:
        raise _failed(address, f"it has more than {most} bytes")
    return path.read_bytes()


def _failed(address: str, why: str) -> JobLoadingFailed:
    return JobLoadingFailed(f"the code at {address[:300]} cannot be loaded: {why}", "java.io.IOException")
