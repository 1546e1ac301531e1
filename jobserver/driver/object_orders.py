"""Orders about one named object that come from outside of jobs: shown, destroyed, refreshed."""

from __future__ import annotations

from typing import Any

from checkpoint.errors import CheckpointError
from jobserver.driver.named_objects import Registry
from jobserver.model import ObjectDeed, ObjectOrder
from jobserver.protocol import Refused


class ObjectOrderRefused(Exception):
    """The order cannot be carried out; the text is one sentence for the caller."""

    def __init__(self, code: Refused, text: str) -> None:
        super().__init__(text)
        self.code = code


def absent(name: str) -> ObjectOrderRefused:
    """There is no such object."""
    return ObjectOrderRefused(Refused.NO_OBJECT, f"there is no named object {name!r} in this context")


def carry_out(registry: Registry, order: ObjectOrder) -> dict[str, Any] | None:
    """The object afterwards, as clients see it; None once it is destroyed. Raises ObjectOrderRefused."""
    shown = registry.show(order.name)
    if shown is None:
        raise absent(order.name)
    match order.deed:
        case ObjectDeed.SHOW:
            return shown
        case ObjectDeed.DESTROY:
            _destroy(registry, order.name)
            return None
        case ObjectDeed.REFRESH | ObjectDeed.REVERT:
            text = (
                f"named object {order.name!r} has strategy {shown['strategy']!r}:"
                " what was written stays until a job updates it"
            )
            raise ObjectOrderRefused(Refused.CANNOT, text)


def _destroy(registry: Registry, name: str) -> None:
    try:
        registry.remove(name, free=True)
    except (TimeoutError, CheckpointError) as error:
        text = f"named object {name!r} was not destroyed, or it is not known whether it was: {error}"
        raise ObjectOrderRefused(Refused.CANNOT, text) from error
