"""Orders about one named object that come from outside of jobs: shown, destroyed, refreshed, set back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from checkpoint.errors import CheckpointError
from checkpoint.manifest import NamedObject
from jobserver.driver.named_objects import Registry
from jobserver.driver.origins import origin_of
from jobserver.model import ObjectDeed, ObjectOrder
from jobserver.protocol import Refused
from sparkjobserver.api import ObjectDamaged

OlderVersions = Callable[[str], list[NamedObject]]
"""The kept older versions of an object, newest first. Raises CheckpointError."""


class ObjectOrderRefused(Exception):
    """The order cannot be carried out; the text is one sentence for the caller."""

    def __init__(self, code: Refused, text: str) -> None:
        super().__init__(text)
        self.code = code


def absent(name: str) -> ObjectOrderRefused:
    """There is no such object."""
    return ObjectOrderRefused(Refused.NO_OBJECT, f"there is no named object {name!r} in this context")


def carry_out(registry: Registry, order: ObjectOrder, older: OlderVersions) -> dict[str, Any] | None:
    """The object afterwards, as clients see it; None once it is destroyed. Raises ObjectOrderRefused."""
    shown = registry.show(order.name)
    if shown is None:
        raise absent(order.name)
    match order.deed:
        case ObjectDeed.SHOW:
            return shown if shown["state"] != "damaged" else {**shown, **_offers(registry, order.name, older)}
        case ObjectDeed.DESTROY:
            _destroy(registry, order.name)
            return None
        case ObjectDeed.REFRESH:
            return _refresh(registry, order, shown)
        case ObjectDeed.REVERT:
            return _revert(registry, order, older)


def _offers(registry: Registry, name: str, older: OlderVersions) -> dict[str, Any]:
    """What can be done about a damaged object."""
    record = registry.record(name)
    versions = [
        {"version": each.version, "rows": each.rows, "bytes": each.size} for each in _older(older, name)
    ]
    return {
        "older_versions": versions,
        "recipe": record is not None and origin_of(record.origin).recipe is not None,
    }


def _refresh(registry: Registry, order: ObjectOrder, shown: dict[str, Any]) -> dict[str, Any]:
    if not registry.is_sealed(order.name, order.seconds):
        text = (
            f"the newest version of named object {order.name!r} is not in the checkpoint yet: ask again later"
        )
        raise ObjectOrderRefused(Refused.CANNOT, text)
    _check_refreshable(registry, order.name, shown)
    try:
        turn = registry.refresh(order.name)
    except TimeoutError as error:
        text = f"named object {order.name!r} is being built at this moment: ask again later"
        raise ObjectOrderRefused(Refused.CANNOT, text) from error
    if turn is None:
        raise absent(order.name)
    ended = registry.await_turn(order.name, turn, order.seconds)
    if turn.error is not None:
        text = f"the refresh of named object {order.name!r} failed: {turn.error!r}"
        raise ObjectOrderRefused(Refused.CANNOT, text)
    return {**(registry.show(order.name) or shown), "refreshing": not ended}


def _check_refreshable(registry: Registry, name: str, shown: dict[str, Any]) -> None:
    """Raises ObjectOrderRefused for what stays as it was written, or has not left a trace of how it was made."""
    record = registry.record(name)
    if record is None:
        raise ObjectOrderRefused(
            Refused.CANNOT, f"named object {name!r} is in memory only: nothing tells how it was made"
        )
    if record.strategy in ("recipe", "source"):
        return
    if shown["state"] != "damaged":
        text = (
            f"named object {name!r} has strategy {record.strategy!r}: what was written stays until a job updates it;"
            " strategies 'recipe' and 'source' can be refreshed"
        )
        raise ObjectOrderRefused(Refused.CANNOT, text)
    if origin_of(record.origin).recipe is None:
        text = f"the data of named object {name!r} is damaged, and it is not known how it was made"
        raise ObjectOrderRefused(Refused.CANNOT, text)


def _revert(registry: Registry, order: ObjectOrder, older: OlderVersions) -> dict[str, Any] | None:
    found = {each.version: each for each in _older(older, order.name)}
    record = found.get(order.version)
    if record is None:
        kept = ", ".join(found) or "none"
        text = f"version {order.version!r} of named object {order.name!r} is not kept; older ones that are: {kept}"
        raise ObjectOrderRefused(Refused.CANNOT, text)
    try:
        registry.put_back(record)
    except (ObjectDamaged, CheckpointError, TimeoutError) as error:
        text = f"named object {order.name!r} was not set back to version {order.version}: {error}"
        raise ObjectOrderRefused(Refused.CANNOT, text) from error
    return registry.show(order.name)


def _older(older: OlderVersions, name: str) -> list[NamedObject]:
    try:
        return older(name)
    except CheckpointError as error:
        text = f"the older versions of named object {name!r} cannot be read now: {error}"
        raise ObjectOrderRefused(Refused.CANNOT, text) from error


def _destroy(registry: Registry, name: str) -> None:
    try:
        registry.remove(name, free=True)
    except (TimeoutError, CheckpointError) as error:
        text = f"named object {name!r} was not destroyed, or it is not known whether it was: {error}"
        raise ObjectOrderRefused(Refused.CANNOT, text) from error
