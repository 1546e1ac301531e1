"""To which context a driver belongs, under which epoch, and who may command it (pure).

unbound ──bind──▶ standby ──activate──▶ active ──adopt (higher epoch)──▶ active
unbound ──activate──▶ active
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from jobserver.protocol import Refused


class Role(StrEnum):
    """What the driver is for its context."""

    UNBOUND = "unbound"
    STANDBY = "standby"
    ACTIVE = "active"


@dataclass(frozen=True, slots=True)
class ContextRef:
    """The context as `activate` and `bind` name it."""

    id: str
    name: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Binding:
    """The state. Epoch and token only mean something while active."""

    role: Role = Role.UNBOUND
    context: ContextRef | None = None
    epoch: int = 0
    token: str = ""


class BindingRefused(Exception):
    """The move is not allowed; the binding is unchanged."""

    def __init__(self, code: Refused, message: str) -> None:
        super().__init__(message)
        self.code = code


def bind(binding: Binding, context: ContextRef) -> Binding:
    """Become a hot standby. Raises BindingRefused; the same context again is fine."""
    if binding.role is Role.ACTIVE or (binding.context is not None and binding.context.id != context.id):
        raise BindingRefused(Refused.BOUND, f"this driver is {binding.role} for another purpose")
    return Binding(Role.STANDBY, context)


def activate(binding: Binding, context: ContextRef, epoch: int, token: str) -> Binding:
    """Become the context's driver. Raises BindingRefused."""
    if binding.role is Role.ACTIVE:
        raise BindingRefused(Refused.BOUND, f"this driver is active already, with epoch {binding.epoch}")
    if binding.context is not None and binding.context.id != context.id:
        raise BindingRefused(Refused.BOUND, f"this driver is bound to context {binding.context.id}")
    if epoch < 1:
        raise BindingRefused(Refused.STALE_EPOCH, f"epoch {epoch} was never granted")
    return Binding(Role.ACTIVE, context, epoch, token)


def adopt(binding: Binding, epoch: int, token: str, nonce: str, last_nonce: str) -> Binding:
    """Go on under a higher epoch. `last_nonce` is what the last hello was answered. Raises BindingRefused."""
    if binding.role is not Role.ACTIVE:
        raise BindingRefused(Refused.UNBOUND, f"this driver is {binding.role}: there is nothing to adopt")
    if not last_nonce or nonce != last_nonce:
        raise BindingRefused(Refused.STALE_NONCE, "another hello came after the one this answers")
    if epoch <= binding.epoch:
        raise BindingRefused(Refused.STALE_EPOCH, f"epoch {epoch} is not above {binding.epoch}")
    return replace(binding, epoch=epoch, token=token)
