"""For whom Spark works in a context, and what such contexts are called (rest_contract sections 4.4, 5.1 and 8). Pure.

A context whose settings name a proxy user has a driver whose Spark reads and writes as that user. Where every caller works
for himself, names of contexts are his own, too: they are stored behind his name.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from jobserver.contexts.launch_spec import PROXY_USER, check_user_name, flatten, unquoted
from jobserver.errors import BadRequest
from jobserver.users import Caller

BETWEEN = "~"
"""What stands between a user and the name of a context of his; doubled where the user's own name has it."""


class ProxyUsers(StrEnum):
    """Whom requests may have Spark work for."""

    NONE = "none"
    NAMED = "named"
    CALLER = "caller"


def proxy_user(rule: ProxyUsers, caller: Caller, asked: str | None) -> str | None:
    """The user for whom a new context's Spark works; None: the service's own. Raises BadRequest."""
    if rule is ProxyUsers.CALLER:
        return check_user_name("the name of who asks, for whom Spark would work,", caller.name)
    if asked is None:
        return None
    if rule is ProxyUsers.NONE:
        raise BadRequest(
            f"{PROXY_USER} is not taken: Spark works as the user of the service; access.proxy_users of the settings may "
            f"allow it"
        )
    check_user_name(PROXY_USER, asked)
    if asked != caller.name and not caller.unrestricted:
        raise BadRequest(
            f"{PROXY_USER} is {asked!r}, and who asks is {caller.name!r}: only users with the permission * may name others"
        )
    return asked


def asked_in(settings: Mapping[str, Any]) -> str | None:
    """The user that context settings name, in whatever form; None for none."""
    return dict(flatten(settings)).get(PROXY_USER) or None


def with_proxy_user(settings: Mapping[str, Any], user: str | None) -> dict[str, Any]:
    """The settings for this user (None: nobody), whomever they named."""
    others = _without(settings, "")
    return others if user is None else {**others, PROXY_USER: user}


def _without(settings: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}{unquoted(str(key))}"
        if name != PROXY_USER:
            kept[key] = _without(value, f"{name}.") if isinstance(value, Mapping) else value
    return kept


def belonging_to(user: str, name: str) -> str:
    """The stored name of a user's context."""
    return f"{user.replace(BETWEEN, BETWEEN * 2)}{BETWEEN}{name}"


def stored_name(rule: ProxyUsers, caller: Caller, name: str) -> str:
    """The stored name of the context that the caller calls so."""
    return belonging_to(caller.name, name) if rule is ProxyUsers.CALLER else name


def shown_name(rule: ProxyUsers, caller: Caller, stored: str) -> str | None:
    """What the caller calls a stored context; None for one that is not his."""
    if rule is not ProxyUsers.CALLER:
        return stored
    before = belonging_to(caller.name, "")
    name = stored.removeprefix(before)
    # what goes on with another ~ belongs to a user whose name begins like this one's
    return name if stored.startswith(before) and not name.startswith(BETWEEN) else None
