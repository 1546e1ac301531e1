"""What a caller calls a context, and under which name it is stored (rest_contract section 8).

They differ only where every caller's Spark works for himself. Then whoever knows a stored name of his own, or may do
everything, reaches a context by that as well, unless one of his is called so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from jobserver.api.calls import Call
from jobserver.errors import JobServerError, NotFound
from jobserver.proxy_users import shown_name, stored_name

T = TypeVar("T")


async def of_context(call: Call, name: str, ask: Callable[[str], Awaitable[T]]) -> T:
    """What is asked of the context that the caller calls so; `ask` is given its stored name."""
    stored = await found_name(call, name)
    with told_of(name, stored):
        return await ask(stored)


async def found_name(call: Call, name: str) -> str:
    """The stored name of the context that the caller means; of none if there is none such."""
    rule, caller = call.limits.proxy_users, call.caller
    stored = stored_name(rule, caller, name)
    if stored == name or not (caller.unrestricted or shown_name(rule, caller, name)):
        return stored
    try:
        await call.service.context(stored)
    except NotFound:
        return name
    return stored


@contextmanager
def told_of(name: str, stored: str) -> Iterator[None]:
    """Errors call the context as the caller does."""
    try:
        yield
    except JobServerError as error:
        error.message = error.message.replace(stored, name)
        raise
