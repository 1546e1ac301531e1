"""Wheels, eggs and zips as people upload them, made without any build tool."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

WHEEL = "application/python-wheel"
EGG = "application/python-egg"
ZIP = "application/zip"


def zipped(files: Mapping[str, str]) -> bytes:
    """A zip of these files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def wheel(files: Mapping[str, str], name: str = "jobs") -> bytes:
    """A wheel of version 1.0: the files, and the three of its dist-info."""
    info = f"{name}-1.0.dist-info"
    own = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "".join(f"{file},,\n" for file in files),
    }
    return zipped({**files, **own})


def egg(files: Mapping[str, str], name: str = "jobs") -> bytes:
    """An egg of version 1.0."""
    own = {
        "EGG-INFO/PKG-INFO": f"Metadata-Version: 1.0\nName: {name}\nVersion: 1.0\n",
        "EGG-INFO/zip-safe": "\n",
        "EGG-INFO/top_level.txt": "".join(f"{file.partition('/')[0]}\n" for file in files),
    }
    return zipped({**files, **own})
