"""Jobs and drivers as JSON between servers. Not the public form: that is made in the routes."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from jobserver.contexts.waiters import Accepted, Offer
from jobserver.model import DriverRecord, JobRecord

_ADAPTER = TypeAdapter(JobRecord)
_DRIVERS = TypeAdapter(DriverRecord)
_OFFERS = TypeAdapter(Offer)
_ACCEPTED = TypeAdapter(Accepted)


def offer_bytes(offer: Offer) -> bytes:
    """A new job, as JSON."""
    return _OFFERS.dump_json(offer)


def offer_of(body: bytes) -> Offer:
    """The offer in bytes made by `offer_bytes`. Raises ValueError."""
    return _OFFERS.validate_json(body)


def accepted_bytes(accepted: Accepted) -> bytes:
    """An accepted job, with its result, as JSON."""
    return _ACCEPTED.dump_json(accepted)


def accepted_of(body: bytes) -> Accepted:
    """The job in bytes made by `accepted_bytes`. Raises ValueError."""
    return _ACCEPTED.validate_json(body)


def job_fields(job: JobRecord) -> dict[str, Any]:
    """Every field of the record in JSON's types."""
    fields: dict[str, Any] = _ADAPTER.dump_python(job, mode="json")
    return fields


def job_of(fields: dict[str, Any]) -> JobRecord:
    """The record in fields made by `job_fields`. Raises ValueError."""
    return _ADAPTER.validate_python(fields)


def driver_fields(driver: DriverRecord) -> dict[str, Any]:
    """Every field of the record in JSON's types, with its secret: only between servers."""
    fields: dict[str, Any] = _DRIVERS.dump_python(driver, mode="json")
    return fields


def driver_of(fields: dict[str, Any]) -> DriverRecord:
    """The record in fields made by `driver_fields`. Raises ValueError."""
    return _DRIVERS.validate_python(fields)
