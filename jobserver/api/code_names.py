"""Lists of code to load: uploaded names, and the URIs that stand among them (rest_contract 4.4 and 5.5). Pure."""

from __future__ import annotations

import re
from typing import Any

from jobserver.api.bodies import refuse
from jobserver.api.rejections import MalformedUrl
from jobserver.errors import BadRequest

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_LOADABLE = frozenset({"http", "https", "ftp", "file", "local"})


def name_list(key: str, value: Any) -> tuple[str, ...]:
    """The names in a list or a comma-separated text; None and empty entries give none. Raises BadConfig."""
    if not value:
        return ()
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, list):
        refuse(f"{key} must be a list of names or one comma-separated text")
    names = []
    for item in value:
        if not isinstance(item, str):
            refuse(f"{key} must hold names only")
        if stripped := item.strip():
            names.append(stripped)
    return tuple(names)


def check_uploaded(names: tuple[str, ...], most: int) -> tuple[str, ...]:
    """The names, when each is that of an upload. Raises MalformedUrl for a URL nobody could load, else BadRequest."""
    if len(names) > most:
        raise BadRequest(f"at most {most} binaries can be named, not {len(names)}")
    for name in names:
        scheme = _SCHEME.match(name) if ":" in name else None
        if scheme is None:
            continue
        if scheme[1].lower() not in _LOADABLE:
            raise MalformedUrl(f"unknown protocol: {scheme[1]}")
        raise BadRequest(f"'{name[:200]}' is a URI: upload the file to /binaries and name the upload instead")
    return names
