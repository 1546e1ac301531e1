"""How well a server is, and how much it holds: what `/healthz`, `/metricz` and `/metrics` tell.

Looking must not make things worse: a store that hangs is asked once at a time, whoever asks for the server's health.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping

from checkpoint import layout
from checkpoint.errors import CheckpointError, Trouble
from checkpoint.files import FileStore
from ha.coordination import Coordination, Link
from jobserver.contexts.pool import DriverPool
from jobserver.contexts.registry import ContextRegistry
from jobserver.errors import JobServerError
from jobserver.listing import JobQuery
from jobserver.service import Gauge, Health
from jobserver.store.metadata import Metadata
from jobserver.write_watch import WriteWatch

PATIENCE = 2.0
"""Seconds that the checkpoint store has to answer."""


class Vitals:
    """One per server."""

    def __init__(
        self,
        me: str,
        store: Metadata,
        coordination: Coordination,
        files: FileStore,
        registry: ContextRegistry,
        pool: DriverPool,
        writes: WriteWatch,
        trouble: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        """`trouble` counts this server's own troubles with the checkpoint store."""
        self._me = me
        self._store = store
        self._coordination = coordination
        self._files = files
        self._registry = registry
        self._pool = pool
        self._writes = writes
        self._trouble = trouble
        self._asking: asyncio.Task[str | None] | None = None
        self._asked_at = 0.0

    async def health(self) -> Health:
        """Down without SQL; degraded without ZooKeeper or the checkpoint store, or when one of the stores can only be read.

        Nothing is written for it: SQL's writes tell themselves, and the checkpoint store's are looked at beside requests.
        """
        down, files = await asyncio.gather(self._without_sql(), self._without_files())
        unwritten = None if down is not None else await self._store.write_trouble()
        if unwritten is not None:
            unwritten = (
                f"SQL can be read and not written: jobs are refused, outcomes wait in drivers ({unwritten})"
            )
        files = files or self._writes.trouble()
        zookeeper = None
        if self._coordination.link is not Link.CONNECTED:
            zookeeper = "ZooKeeper does not answer: running contexts go on, but none can change its owner"
        return Health(down, tuple(reason for reason in (zookeeper, unwritten, files) if reason is not None))

    def gauges(self) -> list[Gauge]:
        """What this server holds at this moment."""
        counts = [keeper.jobs.counts for keeper in self._registry.owned() if keeper.jobs is not None]
        link = self._coordination.link is Link.CONNECTED
        leads = self._coordination.leader == self._me
        return [
            Gauge("contexts_owned", "Contexts that this server owns and serves.", len(counts)),
            Gauge("jobs_running", "Jobs that run in contexts of this server.", sum(run for run, _ in counts)),
            Gauge("jobs_waiting", "Jobs that wait for a slot in them.", sum(wait for _, wait in counts)),
            Gauge(
                "jobs_stuck",
                "Killed jobs that their driver could not end, in contexts of this server.",
                sum(keeper.watch.stuck_jobs for keeper in self._registry.owned()),
            ),
            Gauge("drivers_warm", "Started drivers that wait without a context.", self._pool.ready),
            Gauge(
                "servers", "Servers of the cluster, as this one sees them.", len(self._coordination.servers)
            ),
            Gauge("leader", "1 while this server leads.", float(leads)),
            Gauge("zookeeper_connected", "1 while ZooKeeper answers this server.", float(link)),
            *self._store_gauges(),
        ]

    def _store_gauges(self) -> list[Gauge]:
        """What the checkpoint store did to this server and to the drivers of its contexts."""
        owned = list(self._registry.owned())
        counts = Counter(self._trouble())
        for keeper in owned:
            counts.update(keeper.watch.store_trouble)
        damaged = sum(len(keeper.damage) for keeper in owned)
        spoilt = sum(len((keeper.watch.data or {}).get("damaged", ())) for keeper in owned)
        return [
            Gauge(
                "checkpoint_damaged",
                "Damaged manifests that contexts of this server had to do without.",
                damaged,
            ),
            Gauge(
                "checkpoint_damaged_objects",
                "Named objects of this server's contexts whose data is proven to be damaged.",
                spoilt,
            ),
            *(
                Gauge(
                    f"checkpoint_trouble_{trouble.value.replace(' ', '_')}",
                    f"Calls that the checkpoint store left undone ({trouble.value}), of this server and its drivers.",
                    counts[trouble.value],
                )
                for trouble in Trouble
            ),
        ]

    async def _without_sql(self) -> str | None:
        try:
            await self._store.find_jobs(JobQuery(1))
        except JobServerError as error:
            return error.message
        return None

    async def _without_files(self) -> str | None:
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_files(), name="ask-checkpoint-store")
            self._asked_at = time.monotonic()
        try:
            return await asyncio.wait_for(asyncio.shield(self._asking), PATIENCE)
        except TimeoutError:
            waited = time.monotonic() - self._asked_at
            return f"the checkpoint store has not answered for {waited:.0f} s: updates of named data wait or fail"

    async def _ask_files(self) -> str | None:
        try:
            await asyncio.to_thread(self._files.names, layout.DATA)
        except CheckpointError as error:
            return f"the checkpoint store does not answer: updates of named data fail ({error})"
        return None
