"""Giving a running attempt to the driver. The attempt is on record before; what becomes of it the driver tells later."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict

from jobserver.contexts.link import DriverLink, LinkBroken, RefusedByDriver
from jobserver.contexts.outcomes import Outcomes
from jobserver.contexts.waiters import JobWaiters
from jobserver.model import AttemptOutcome, BinaryRef, ErrorInfo, JobRecord, OutcomeKind
from jobserver.protocol import Message, Refused, Request

log = logging.getLogger(__name__)

RUN_TIMEOUT = 10.0
"""Seconds for the driver to confirm that it heard of a job."""

BinaryPath = Callable[[BinaryRef], str | None]


class Delivery:
    """`binary_path`: where a driver on this machine finds uploaded code, if it is there."""

    def __init__(
        self, link: DriverLink, outcomes: Outcomes, waiters: JobWaiters, binary_path: BinaryPath
    ) -> None:
        self._link = link
        self._outcomes = outcomes
        self._waiters = waiters
        self._binary_path = binary_path

    async def deliver(self, job: JobRecord) -> bool:
        """Gives the running attempt to the driver. False: the driver says that it has begun it before. Raises Superseded."""
        try:
            await self._link.request(Request.RUN, timeout=RUN_TIMEOUT, **self._run_message(job))
        except RefusedByDriver as refusal:
            if refusal.code == Refused.DUPLICATE:
                return False
            await self._outcomes.finish(
                AttemptOutcome(job.id, job.attempt, OutcomeKind.FAILED, error=ErrorInfo(refusal.message))
            )
        except LinkBroken as broken:
            log.warning("job %s attempt %d: %s; the recovery plan decides", job.id, job.attempt, broken)
        return True

    def _run_message(self, job: JobRecord) -> Message:
        binaries = [
            {"name": ref.name, "type": ref.type.value, "digest": ref.digest, "path": self._binary_path(ref)}
            for ref in job.spec.binaries
        ]
        return {
            "job_id": job.id,
            "attempt": job.attempt,
            "main_class": job.spec.main_class,
            "binaries": binaries,
            "config": job.spec.config,
            "pool": job.spec.pool.value,
            "sql": None if job.spec.sql is None else asdict(job.spec.sql),
            "result_format": job.spec.result_format.value,
            "awaited": self._waiters.any_for_acceptance(job.id),
        }
