"""How an owner passes orders about named objects on to its driver."""

from __future__ import annotations

from typing import Any

from jobserver.contexts.link import DriverLink, LinkBroken, RefusedByDriver
from jobserver.errors import NotFound, ObjectRefused, OwnerUnavailable
from jobserver.model import ObjectOrder
from jobserver.protocol import Refused, Request

Found = dict[str, Any] | None
"""An object as its driver tells of it; None once it is destroyed."""


async def ask_driver(link: DriverLink, order: ObjectOrder, silence: float) -> Found:
    """Pass an order on to the driver. Raises NotFound, ObjectRefused, OwnerUnavailable (outcome unknown).

    `silence`: seconds after which a driver that does not answer counts as away, beside the time that the order allows.
    """
    try:
        reply = await link.request(
            Request.OBJECT,
            timeout=order.seconds + silence,
            name=order.name,
            do=order.deed.value,
            seconds=order.seconds,
            version=order.version,
        )
    except RefusedByDriver as refused:
        if refused.code == Refused.NO_OBJECT:
            raise NotFound(refused.sentence) from refused
        if refused.code == Refused.CANNOT:
            raise ObjectRefused(refused.sentence) from refused
        raise
    except LinkBroken as broken:
        raise OwnerUnavailable(f"the context's driver is away: {broken.message}") from broken
    found: Found = reply.get("object")
    return found
