"""Binaries that a server brings with it: files of its settings, uploaded at its start (`job-bin-paths` of existing servers).

A name whose latest version has these bytes already is left alone, so a restart makes no new version.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path

from jobserver.api.binary_formats import check_bytes
from jobserver.api.limits import ApiLimits
from jobserver.api.names import check_binary_name
from jobserver.binaries import Binaries
from jobserver.errors import CallerError, NotFound, SettingsRefused
from jobserver.model import BinaryType


async def preload(binaries: Binaries, files: Mapping[str, Path], limits: ApiLimits) -> list[str]:
    """Uploads what is new; the names of it. Raises SettingsRefused for a file that cannot be one, and StoreUnavailable."""
    uploaded = []
    for name, path in files.items():
        kind, data = await _read(name, path, limits)
        if await _latest_digest(binaries, name) != hashlib.sha256(data).hexdigest():
            await binaries.upload(name, kind, data)
            uploaded.append(name)
    return uploaded


async def _read(name: str, path: Path, limits: ApiLimits) -> tuple[BinaryType, bytes]:
    where = f"binaries.preload: {name}: {path}"
    kind = next((kind for kind in BinaryType if kind.extension == path.suffix.lower()), None)
    if kind is None:
        known = ", ".join(kind.extension for kind in BinaryType)
        raise SettingsRefused(f"{where} is no kind of code; the endings are {known}")
    try:
        check_binary_name(name)
        data = await asyncio.to_thread(path.read_bytes)
        await check_bytes(kind, data, limits)
    except OSError as error:
        raise SettingsRefused(f"{where} cannot be read: {error.strerror}") from error
    except CallerError as error:
        raise SettingsRefused(f"{where}: {error.message}") from error
    return kind, data


async def _latest_digest(binaries: Binaries, name: str) -> str | None:
    try:
        return (await binaries.find(name)).digest
    except NotFound:
        return None
