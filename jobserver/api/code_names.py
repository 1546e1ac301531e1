"""Lists of code to load: uploaded names, and the URIs that stand among them (rest_contract 4.4 and 5.5). Pure."""

from __future__ import annotations

from typing import Any

from jobserver.addresses import SCHEMES, scheme_of
from jobserver.api.bodies import refuse
from jobserver.api.names import MAX_NAME, check_text
from jobserver.api.rejections import MalformedUrl
from jobserver.errors import BadRequest


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


def check_names(names: tuple[str, ...], most: int) -> tuple[str, ...]:
    """The names, when each can be an upload or an address. Raises MalformedUrl for one nobody could load, else BadRequest."""
    if len(names) > most:
        raise BadRequest(f"at most {most} binaries can be named, not {len(names)}")
    for name in names:
        scheme = scheme_of(name)
        if scheme is not None and scheme not in SCHEMES:
            raise MalformedUrl(f"unknown protocol: {scheme}")
        check_text("a name in the class path", name, MAX_NAME)
    return names
