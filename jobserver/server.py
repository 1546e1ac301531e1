"""The product behind the API: implements the port of `jobserver/service.py` with the parts of one server."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ha.coordination import Coordination, ServerInfo
from jobserver.binaries import Binaries
from jobserver.contexts.clock import now
from jobserver.contexts.desk import ContextDesk
from jobserver.contexts.looks import Look
from jobserver.contexts.objects import ObjectDesk
from jobserver.contexts.peers import Peers
from jobserver.contexts.readiness import Picture
from jobserver.contexts.switchover import Switchover
from jobserver.contexts.waiters import Until
from jobserver.data_files import DataFiles
from jobserver.errors import NotFound
from jobserver.history import JobMove
from jobserver.job_events import EventId, JobEvent
from jobserver.listing import JobQuery
from jobserver.model import (
    BinaryRecord,
    BinaryType,
    ContextRecord,
    JobRecord,
    ListedJob,
    NamedObjectInfo,
    ObjectOrder,
)
from jobserver.records import Records
from jobserver.service import ContextView, Gauge, Health, Submission, Submitted
from jobserver.store.metadata import Metadata
from jobserver.submission import JobDesk
from jobserver.vitals import Vitals
from jobserver.watching import JobWatch, Output


@dataclass(frozen=True, slots=True)
class Moving:
    """What planned moves need. `grace`: seconds, when a request names none."""

    switchover: Switchover
    peers: Peers
    grace: float

    def url_of(self, server: str, living: Mapping[str, ServerInfo]) -> str:
        """Where a living server is reached. Raises NotFound."""
        if server not in living:
            raise NotFound(f"there is no server {server}; the servers are {', '.join(sorted(living))}")
        return living[server].url


class JobServer:
    """The service behind the API; every method may be called on every server."""

    def __init__(
        self,
        store: Metadata,
        coordination: Coordination,
        binaries: Binaries,
        contexts: ContextDesk,
        jobs: JobDesk,
        data: DataFiles,
        objects: ObjectDesk,
        vitals: Vitals,
        moving: Moving,
        watch: JobWatch,
    ) -> None:
        self._watch = watch
        self._moving = moving
        self.records = Records(store)
        self._store = store
        self._coordination = coordination
        self._binaries = binaries
        self._contexts = contexts
        self._jobs = jobs
        self._data = data
        self._objects = objects
        self._vitals = vitals

    async def health(self) -> Health:
        return await self._vitals.health()

    def gauges(self) -> list[Gauge]:
        return self._vitals.gauges()

    async def list_binaries(self) -> list[BinaryRecord]:
        return await self._binaries.all()

    async def binary(self, name: str) -> BinaryRecord:
        return await self._binaries.find(name)

    async def upload_binary(self, name: str, kind: BinaryType, data: bytes) -> BinaryRecord:
        return await self._binaries.upload(name, kind, data)

    async def delete_binary(self, name: str) -> None:
        await self._binaries.delete(name)

    async def list_contexts(self) -> list[str]:
        return await self._contexts.names()

    async def context(self, name: str) -> ContextView:
        view = await self._contexts.view(name)
        return replace(view, data=await self._objects.summary(view.record))

    async def create_context(self, name: str, settings: Mapping[str, Any]) -> ContextRecord:
        await self._binaries.check_context(settings)
        return await self._contexts.create(name, settings)

    async def delete_context(self, name: str, *, force: bool, keep: bool) -> bool:
        return await self._contexts.delete(name, force=force, keep=keep)

    async def reset_contexts(self, *, wait: bool) -> None:
        await self._contexts.reset(wait=wait)

    async def named_objects(self, name: str) -> list[NamedObjectInfo]:
        return await self._objects.list(name)

    async def named_object(self, name: str, order: ObjectOrder) -> NamedObjectInfo | None:
        return await self._objects.carry_out(name, order)

    async def submit(self, submission: Submission) -> Submitted:
        return await self._jobs.submit(submission)

    async def find_jobs(self, query: JobQuery) -> list[ListedJob]:
        return await self._store.find_jobs(query)

    async def job_history(self, job_id: str) -> list[JobMove]:
        moves = await self._store.job_history(job_id)
        if not moves:
            await self.job(job_id)  # of an earlier schema, or unknown
        return moves

    async def kill_jobs(self, context: str) -> list[str]:
        return await self._jobs.kill_all(context)

    async def job(self, job_id: str) -> JobRecord:
        job = await self._store.job(job_id)
        if job is None:
            raise NotFound(f"No such job ID {job_id}")
        return job

    async def await_job(self, job_id: str, seconds: float) -> JobRecord:
        return await self._jobs.follow(await self.job(job_id), Until.ENDED, now() + seconds)

    async def job_progress(self, job_id: str) -> Look:
        return await self._watch.progress(job_id)

    def job_events(self, job_id: str, last: EventId | None) -> AsyncGenerator[JobEvent | None, None]:
        return self._watch.events(job_id, last)

    async def job_output(self, job_id: str) -> Output:
        return await self._watch.output(job_id)

    async def job_result(self, job: JobRecord) -> Output:
        return await self._watch.result(job)

    async def kill_job(self, job_id: str) -> JobRecord:
        return await self._jobs.kill(job_id)

    async def list_data(self) -> list[str]:
        return await self._data.all()

    async def upload_data(self, prefix: str, data: bytes) -> str:
        return await self._data.upload(prefix, data)

    async def delete_data(self, path: str) -> None:
        await self._data.delete(path)

    async def reset_data(self) -> None:
        await self._data.reset()

    async def switchover(
        self, name: str, to: str | None, grace: float | None, *, keep_driver: bool
    ) -> dict[str, Any]:
        moving = self._moving
        seconds = moving.grace if grace is None else grace
        moved = await moving.switchover.by_name(name, to, seconds, keep_driver=keep_driver)
        return {
            "context": moved.context,
            "from": moved.source,
            "to": moved.target,
            "epoch": moved.epoch,
            "seconds": moved.seconds,
        }

    async def drain(self, server: str, grace: float | None, *, keep_drivers: bool) -> None:
        url = self._moving.url_of(server, self._coordination.servers)
        seconds = self._moving.grace if grace is None else grace
        await self._moving.peers.drain(url, grace=seconds, keep_drivers=keep_drivers)

    async def undrain(self, server: str) -> None:
        await self._moving.peers.undrain(self._moving.url_of(server, self._coordination.servers))

    async def cluster(self) -> dict[str, Any]:
        held = Counter(node.server for node in self._coordination.owners.values())
        servers = [
            {
                "id": info.id,
                "url": info.url,
                "pid": info.pid,
                "state": _server_state(info, held),
                "warm_drivers": info.warm,
                "hot_standbys": len(info.hot),
                "hot_limit": info.hot_limit,
                "contexts": held[info.id],
            }
            for _, info in sorted(self._coordination.servers.items())
        ]
        contexts = await self._store.active_contexts()
        fences = await self._store.fences([context.id for context in contexts])
        standbys = await self._contexts.standbys(contexts)
        return {
            "servers": servers,
            "leader": self._coordination.leader,
            "contexts": [
                self._context_picture(context, fence.epoch if fence else 0, standbys[context.id])
                for context in contexts
                for fence in (fences.get(context.id),)
            ],
        }

    def _context_picture(
        self, context: ContextRecord, epoch: int, standbys: tuple[Picture, ...]
    ) -> dict[str, Any]:
        driver, failover = context.driver, context.last_failover
        return {
            "name": context.name,
            "id": context.id,
            "state": context.state.value,
            "epoch": epoch,
            "owner": self._contexts.owner(context.id),
            "driver": {"host": driver.host, "pid": driver.pid, "jvm_pid": driver.jvm_pid} if driver else None,
            "standbys": list(standbys),
            "last_failover": {
                "at": failover.at.isoformat(),
                "kind": failover.kind,
                "seconds": failover.seconds,
                "steps": dict(failover.steps),
            }
            if failover
            else None,
        }


def _server_state(info: ServerInfo, held: Mapping[str, int]) -> str:
    """`drained`: it can be stopped, and no context notices."""
    if not info.draining:
        return "alive"
    return "draining" if held.get(info.id) else "drained"
