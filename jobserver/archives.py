"""What an uploaded archive may hold: no bombs, no paths that leave it. Pure: bytes in, a sentence or nothing out.

Only the archive's directory is read, nothing is unpacked. Python's reader never gives more of an entry than the directory
says, so its sums bound what a reader can be made to hold.
"""

from __future__ import annotations

import io
import re
import stat
import struct
import zipfile

MAX_ENTRIES = 200_000
"""More than any fat jar has."""
MAX_UNPACKED = 2**30
"""Bytes of all entries of any archive."""
MAX_PYTHON = 2**28
"""Bytes of all entries of an archive of Python code: the driver keeps them in memory while it wraps them."""

_DRIVE = re.compile(r"[A-Za-z]:")


def fault_of(data: bytes, most_bytes: int = MAX_UNPACKED) -> str | None:
    """What must not be kept about the archive, one sentence; None for a good one, and for bytes that are no archive at all.

    Bytes that only begin like an archive are taken, as existing servers take them: loading them fails with its own words.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        ValueError,
        EOFError,
        OSError,
        RuntimeError,
        struct.error,
    ):
        return None
    if len(entries) > MAX_ENTRIES:
        return f"The archive has {len(entries)} entries; at most {MAX_ENTRIES} are taken"
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > most_bytes:
        return f"The archive unpacks to {unpacked} bytes; at most {most_bytes} are taken"
    return next((found for entry in entries if (found := _fault_of_entry(entry)) is not None), None)


def _fault_of_entry(entry: zipfile.ZipInfo) -> str | None:
    name = entry.orig_filename
    if leaves(name):
        return f"The archive has an entry that leaves it: {name[:200]!r}"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return f"The archive has a symbolic link: {name[:200]!r}"
    if entry.flag_bits & 1:
        return f"The archive has an encrypted entry: {name[:200]!r}"
    return None


def leaves(name: str) -> bool:
    """Whether a path in an archive is absolute, climbs, or is no path on some system."""
    parts = name.replace("\\", "/").split("/")
    return name.startswith(("/", "\\")) or ".." in parts or "\0" in name or bool(_DRIVE.match(name))
