"""What clients save under a name, or for later: configs, queries, callbacks. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


@dataclass(frozen=True, slots=True)
class SavedConfig:
    """A configuration that `POST /jobs?config=<name>` lays under its body. `created_at` is kept when it is replaced."""

    name: str
    body: Mapping[str, Any]
    principal: str
    created_at: datetime
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class SavedQuery:
    """An SQL text with a name. `parameters` declares each one (name to its declaration), `defaults` gives values."""

    name: str
    text: str
    principal: str
    created_at: datetime
    changed_at: datetime
    parameters: Mapping[str, Any] = field(default_factory=dict)
    context: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)


class CallbackState(StrEnum):
    """PENDING until it was delivered or given up."""

    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Callback:
    """Where the end of a job is to be told. `tries` were begun, the next is due at `next_at` once the job has ended."""

    job_id: str
    url: str
    state: CallbackState
    tries: int
    next_at: datetime
    last_error: str | None = None
