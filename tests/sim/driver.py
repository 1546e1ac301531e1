"""A driver without Spark or threads: the real rules (binding, attempts, lifetime) and the real checkpoint writer.

Its main classes are small programs on one named value, a list that only grows, so that every acknowledged update can be
looked for later: "add <name>", "work <name>" (several in a row), "once <name> [<steps>]" (saves steps, then seals an
update with its progress), "late <name>" (`durability: async`: sealed a second later), "read <name>", "sleep <seconds>",
"fail", "die". The value "b" lies in a data file that is read when it is first used; the others are in the manifests.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from random import Random
from typing import Any

from checkpoint import layout
from checkpoint.base import Base
from checkpoint.contents import Changes
from checkpoint.data import seal_data
from checkpoint.epoch import load
from checkpoint.errors import CheckpointError, StoreUnavailable, Superseded
from checkpoint.fence import epoch_of
from checkpoint.follow import follow
from checkpoint.manifest import Kind, NamedObject, Progress
from checkpoint.writer import CheckpointWriter
from jobserver.driver import binding
from jobserver.driver.attempts import AttemptRefused, Attempts
from jobserver.driver.binding import Binding, BindingRefused, ContextRef, Role
from jobserver.driver.lifetime import Lifetime
from jobserver.driver.standby import FOLLOW_EVERY
from jobserver.model import AttemptOutcome, AttemptRef, DriverRecord, ErrorInfo, OutcomeKind
from jobserver.protocol import Event, Message, Refused, Request, outcome_message
from tests.sim import blocking
from tests.sim.files import SimFiles
from tests.sim.loop import Process, SimLoop
from tests.sim.network import DriverEnd
from tests.sim.oracle import Oracle

ORPHAN_TIMEOUT = 12.0
UNBOUND_TIMEOUT = 6.0
TICK = 2.0
WARM_UP = 0.5
FILL = 0.3
MARKERS_EVERY = 2.0
SECRET = b"secret"
WORK_STEPS = 5
ONCE_STEPS = 2
IN_FILES = "b"
CHECKPOINT_INTERVAL = 1.0
FULL_EVERY = 3
SWEEP_EVERY = 4
"""Manifests of which one is full, and commits between two sweeps: so few that runs have them amid their faults."""
Values = tuple[str, ...]


class SimDriver:
    """One driver process. `died` is told of its end, whatever ended it."""

    def __init__(
        self,
        number: int,
        process: Process,
        loop: SimLoop,
        files: SimFiles,
        random: Random,
        oracle: Oracle,
        died: Callable[[SimDriver, str], None],
    ) -> None:
        pid = 1000 + number
        self.process = process
        self.record = DriverRecord(f"driver-{number}", process.host, number, pid, 1, "secret", 0)
        self.binding = Binding()
        self.attempts = Attempts()
        self.values: dict[str, Values] = {}
        self._prepared: dict[str, tuple[str, Values]] = {}
        self._late: set[str] = set()
        self._some_late = asyncio.Event()
        self._commits = 0
        self._sweeping = asyncio.Lock()
        self.writer: CheckpointWriter | None = None
        self.lose_reply_to: set[str] = set()
        self.delay_adopt = 0.0
        self._loop = loop
        self._files = files
        self._random = random
        self._oracle = oracle
        self._died = died
        self._connections: list[DriverEnd] = []
        self._owner: DriverEnd | None = None
        self._nonce = ""
        self._nonces = 0
        self._adoptions = 0
        self._adopted = asyncio.Event()
        self._sealing = asyncio.Lock()
        self._sealing_late = asyncio.Lock()
        self._updating: dict[str, asyncio.Lock] = {}
        self._running: dict[AttemptRef, asyncio.Task[None]] = {}
        self._lifetime = Lifetime(ORPHAN_TIMEOUT, UNBOUND_TIMEOUT, loop.time(), loop.time())

    # Its end

    async def live(self) -> None:
        """Ends the process when nobody needs it, as the real one's main thread does."""
        looked = self._loop.time()
        while True:
            await asyncio.sleep(TICK)
            now, active = self._loop.time(), self.binding.role is Role.ACTIVE
            reason = self._lifetime.reason_to_end(now, active, bool(self._connections))
            if reason is None and active and not self.has_owner and now - looked > MARKERS_EVERY:
                looked, reason = now, await self._check_markers()
            if reason is not None:
                self.die(reason)

    def die(self, why: str) -> None:
        """The process ends at once."""
        if self.process.alive:
            self._died(self, why)

    async def _check_markers(self) -> str | None:
        if self.writer is None:
            return None
        try:
            await blocking.run(self.writer.check)
        except Superseded as higher:
            self._tell(Event.SUPERSEDED, {"epoch": higher.epoch})
        except CheckpointError:
            return None
        try:
            replaced = await blocking.run(self.writer.replaced_by)
        except CheckpointError:
            return None
        return None if replaced is None else f"another driver has sealed in epoch {replaced}"

    # Connections

    @property
    def has_owner(self) -> bool:
        owner = self._owner
        return owner is not None and owner.open and self._lifetime.owner_present(self._loop.time())

    @property
    def owner_lost(self) -> bool:
        """Whether it had an owner whose connection has ended."""
        return self._owner is not None and not self._owner.open

    def connected(self, end: DriverEnd) -> None:
        self._connections.append(end)

    def disconnected(self, end: DriverEnd) -> None:
        if end in self._connections:
            self._connections.remove(end)
        end.close()

    def received(self, end: DriverEnd, message: Message) -> None:
        if self.binding.role is not Role.ACTIVE or end is self._owner:
            self._lifetime.heard(self._loop.time())
        kind = message["t"]
        if kind == Request.ADOPT and self.delay_adopt:
            delay, self.delay_adopt = self.delay_adopt, 0.0
            self._loop.call_later(delay, self.received, end, message)
            return
        if kind in _OWNERS_ONLY and end is not self._owner:
            self._refuse(end, message, Refused.NOT_OWNER, "another connection is the owner's")
            return
        try:
            getattr(self, _HANDLERS[kind])(end, message)
        except (BindingRefused, AttemptRefused) as refused:
            self._refuse(end, message, refused.code, str(refused))

    def _reply(self, end: DriverEnd, message: Message, fields: Mapping[str, Any]) -> None:
        if message["t"] in self.lose_reply_to:
            self.lose_reply_to.discard(message["t"])
            end.close()
        elif "n" in message:
            end.send({"t": "reply", "n": message["n"], "ok": True, **fields})

    def _refuse(self, end: DriverEnd, message: Message, code: Refused, text: str) -> None:
        if "n" in message:
            end.send({"t": "reply", "n": message["n"], "ok": False, "refused": code.value, "message": text})

    def _tell(self, event: Event, fields: Message) -> None:
        if self._owner is not None:
            self._owner.send({**fields, "t": "event", "e": event.value})

    # Requests

    def _on_hello(self, end: DriverEnd, message: Message) -> None:
        self._nonces += 1
        self._nonce = f"nonce-{self._nonces}"
        context = self.binding.context
        self._reply(
            end,
            message,
            {
                "driver_id": self.record.driver_id,
                "nonce": self._nonce,
                "context_id": None if context is None else context.id,
                "has_owner": self.has_owner,
            },
        )

    def _on_adopt(self, end: DriverEnd, message: Message) -> None:
        epoch, token = message["epoch"], message["token"]
        new = self._rebind(epoch, token, message["nonce"])
        self._readopt(epoch, token)
        self.binding, self._nonce = new, ""
        self._adoptions += 1
        self._adopted.set()
        self._adopted = asyncio.Event()
        self._oracle.told(self.record.driver_id, new)
        self._change_owner(end, message, {"jobs": self.attempts.listing()})

    def _rebind(self, epoch: int, token: str, nonce: str) -> Binding:
        return binding.adopt(self.binding, epoch, token, nonce, self._nonce)

    def _readopt(self, epoch: int, token: str) -> None:
        if self.writer is not None:
            self.writer.readopt(epoch, token)

    def _on_activate(self, end: DriverEnd, message: Message) -> None:
        asyncio.create_task(self._activate(end, message))  # noqa: RUF006  the loop keeps it

    async def _activate(self, end: DriverEnd, message: Message) -> None:
        context = ContextRef(message["context"]["id"], message["context"]["name"], {})
        epoch, token, base = message["epoch"], message["token"], message["base"]
        try:
            loaded = await blocking.run(load, self._files, context.id, base, SECRET)
            new = binding.activate(self.binding, context, epoch, token)
        except CheckpointError as error:
            self._refuse(end, message, Refused.FAILED, f"manifest {base} cannot be loaded: {error}")
            return
        except BindingRefused as refused:
            self._refuse(end, message, refused.code, str(refused))
            return
        self.writer = self._make_writer(context.id, epoch, token, loaded)
        self.values = {name: self._restored(item) for name, item in loaded.objects.items()}
        asyncio.create_task(self._seal_late_ones_always())  # noqa: RUF006  the loop keeps it
        self.binding = new
        self._oracle.told(self.record.driver_id, new)
        self._oracle.restored(context.id, self.values, epoch)
        self._change_owner(end, message, {"application_id": "app", "ui_url": None, "jvm_pid": 1})

    def _make_writer(self, context_id: str, epoch: int, token: str, base: Any) -> CheckpointWriter:
        return CheckpointWriter(self._files, context_id, epoch, token, base, SECRET, FULL_EVERY)

    def _change_owner(self, end: DriverEnd, message: Message, fields: Mapping[str, Any]) -> None:
        older, self._owner = self._owner, end
        self._lifetime.heard(self._loop.time())
        self._reply(end, message, fields)
        if older is not None and older is not end:
            older.close()

    def _on_bind(self, end: DriverEnd, message: Message) -> None:
        context = ContextRef(message["context"]["id"], message["context"]["name"], {})
        self.binding = binding.bind(self.binding, context)
        asyncio.create_task(self._follow(context.id))  # noqa: RUF006  the loop keeps it
        self._reply(end, message, {})

    def _on_fill(self, end: DriverEnd, message: Message) -> None:
        self._loop.call_later(FILL, lambda: self._reply(end, message, {}))

    async def _follow(self, context_id: str) -> None:
        """As `jobserver/driver/standby.py`: what is prepared of a version is good for every manifest that names it."""
        known = Base(None)
        while self.binding.role is Role.STANDBY:
            try:
                known = await blocking.run(follow, self._files, context_id, known, SECRET)
            except CheckpointError:
                pass  # looked at again
            else:
                if self.binding.role is Role.STANDBY:
                    self._prepared = {
                        item.name: self._prepared_version(item) for item in known.objects.values()
                    }
            await asyncio.sleep(FOLLOW_EVERY)

    def _prepared_version(self, item: NamedObject) -> tuple[str, Values]:
        known = self._prepared.get(item.name)
        return known if known and known[0] == item.version else (item.version, self._values_of(item))

    def _restored(self, item: NamedObject) -> Values:
        version, values = self._prepared.get(item.name, ("", ()))
        return values if version == item.version else self._values_of(item)

    def _values_of(self, item: NamedObject) -> Values:
        """What lies in a data file counts when it is first used; that it is there is judged at once."""
        return values_of(item, self._files.peek)

    def _on_run(self, end: DriverEnd, message: Message) -> None:
        ref = AttemptRef(message["job_id"], message["attempt"])
        self._begin(ref, message["main_class"])
        self._reply(end, message, {})

    def _begin(self, ref: AttemptRef, main: str) -> None:
        self.attempts.begin(ref)
        self._oracle.begun(ref, self.record.driver_id)
        self._running[ref] = asyncio.create_task(self._attempt(ref, main))

    def _on_kill(self, end: DriverEnd, message: Message) -> None:
        task = self._running.get(AttemptRef(message["job_id"], message["attempt"]))
        self._reply(end, message, {"running": task is not None})
        if task is not None:
            task.cancel()

    def _on_ack(self, end: DriverEnd, message: Message) -> None:
        self.attempts.ack(AttemptRef(message["job_id"], message["attempt"]))
        ended = message.get("ended", True)
        if ended and self.writer is not None and message["job_id"] in self.writer.contents().progress:
            asyncio.create_task(self._forget(message["job_id"]))  # noqa: RUF006  the loop keeps it

    def _on_objects(self, end: DriverEnd, message: Message) -> None:
        objects = [{"name": name, "kind": "value", "version": "1"} for name in self.values]
        self._reply(end, message, {"objects": objects})

    def _on_warm(self, end: DriverEnd, message: Message) -> None:
        def reply() -> None:
            self._reply(end, message, {"warm": self.binding.role is not Role.ACTIVE})

        self._loop.call_later(WARM_UP, reply)

    def _on_ping(self, end: DriverEnd, message: Message) -> None:
        self._reply(end, message, {"epoch": self.binding.epoch, "owner_lost": self.owner_lost})

    def _on_shutdown(self, end: DriverEnd, message: Message) -> None:
        if self.binding.role is Role.ACTIVE and self.has_owner and end is not self._owner:
            self._refuse(end, message, Refused.NOT_OWNER, "another connection is the owner's")
            return
        self._reply(end, message, {})
        self._loop.call_later(0.05, self.die, "asked to shut down")

    def _on_flush(self, end: DriverEnd, message: Message) -> None:
        async def flush() -> None:
            self._reply(end, message, {"sealed": await self._seal_late_ones()})

        asyncio.create_task(flush())  # noqa: RUF006  the loop keeps it

    # Jobs

    async def _attempt(self, ref: AttemptRef, main: str) -> None:
        kind, result, error = OutcomeKind.FINISHED, None, None
        try:
            self._tell(Event.ACCEPTED, {"job_id": ref.job_id, "attempt": ref.attempt})
            await asyncio.sleep(self._random.uniform(0.0, 0.1))
            result = json.dumps(await self._program(ref, main))
        except asyncio.CancelledError:
            kind, error = OutcomeKind.KILLED, ErrorInfo("killed")
        except (CheckpointError, RuntimeError) as failed:
            kind, error = OutcomeKind.FAILED, ErrorInfo(str(failed), type(failed).__name__)
        self._running.pop(ref, None)
        outcome = AttemptOutcome(ref.job_id, ref.attempt, kind, result, error)
        if self.attempts.end(outcome):
            self._tell(Event.FINISHED, self._report(outcome))

    def _report(self, outcome: AttemptOutcome) -> Message:
        return outcome_message(outcome)

    def _program(self, ref: AttemptRef, main: str) -> Awaitable[Any]:
        verb, _, argument = main.partition(" ")
        match verb:
            case "add":
                return self._whole(self._update(argument, f"{ref.job_id}/{ref.attempt}"))
            case "work":
                return self._work(argument, ref)
            case "once":
                return self._once(ref, argument)
            case "late":
                return self._update_late(argument, f"{ref.job_id}/{ref.attempt}")
            case "read":
                return self._read(argument, self._oracle.count(self._context_id, argument))
            case "sleep":
                return asyncio.sleep(float(argument), "slept")
            case "die":
                self.die("its job ended it")
        return self._fail()

    async def _fail(self) -> None:
        raise RuntimeError("this job fails")

    async def _whole(self, work: Any) -> Any:
        """A kill reaches who waits, not the seal and what belongs to it."""
        task = asyncio.create_task(work)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    async def _read(self, name: str, least: int) -> Any:
        return {"name": name, "read": len(self.values.get(name, ())), "least": least}

    async def _work(self, name: str, ref: AttemptRef) -> Any:
        result = None
        for step in range(WORK_STEPS):
            await asyncio.sleep(self._random.uniform(0.1, 1.5))
            result = await self._whole(self._update(name, f"{ref.job_id}/{ref.attempt}/{step}"))
        return result

    async def _once(self, ref: AttemptRef, argument: str) -> Any:
        """Exactly once, however often it runs: the update and the sign that it happened are one seal. Before, it saves steps."""
        name, _, steps = argument.partition(" ")
        await self._whole(self._commit(Changes(begun={ref.job_id: ref.attempt})))
        known = self._writer.contents().progress.get(ref.job_id)
        saved = json.loads(known.inline) if known and known.inline else 0
        if isinstance(saved, dict):
            return saved
        self._oracle.resumed(ref, saved)
        for step in range(saved, int(steps or ONCE_STEPS)):
            await asyncio.sleep(self._random.uniform(0.0, 0.5))
            await self._whole(self._save(ref, step + 1))
        return await self._whole(self._update(name, f"{ref.job_id}/once", ref))

    async def _save(self, ref: AttemptRef, step: Any) -> None:
        progress = Progress(ref.attempt, inline=json.dumps(step).encode())
        await self._commit(Changes(progress={ref.job_id: progress}))
        self._oracle.saved(ref, step)

    async def _update(self, name: str, entry: str, progress_of: AttemptRef | None = None) -> Any:
        """Read, change, seal, publish; one update of a name at a time."""
        async with self._updating.setdefault(name, asyncio.Lock()):
            new = (*self.values.get(name, ()), entry)
            result = {"name": name, "count": len(new), "entry": entry}
            progress = {}
            if progress_of is not None:
                inline = json.dumps(result).encode()
                progress[progress_of.job_id] = Progress(progress_of.attempt, inline=inline)
            sealed = await self._put({name: new}, progress)
            self.values[name] = new
            self._oracle.acknowledged(self._context_id, name, new, epoch_of(sealed))
            return result

    async def _put(self, updates: Mapping[str, Values], progress: Mapping[str, Progress]) -> str:
        """Data first, then the manifest that names it. Raises StoreUnavailable; then nothing of it is kept from the sweep."""
        versions = {name: self._writer.next_version() for name in updates}
        try:
            put = [await self._written(name, versions[name], values) for name, values in updates.items()]
            sealed = await self._commit(Changes(put=put, progress=progress))
            self._check_data(put)
            return sealed
        finally:
            for version in versions.values():
                self._writer.release(version)

    def _check_data(self, acknowledged: Iterable[NamedObject]) -> None:
        """At an acknowledgement and after a sweep: what is named is there, not only what is there in the end."""
        for item in acknowledged:
            if item.path is not None and self._files.peek(f"{item.schema}/part") is None:
                self._oracle.breach(
                    f"{item.name} is acknowledged in version {item.version}, and its data is gone"
                )

    async def _written(self, name: str, version: str, values: Values) -> NamedObject:
        if name != IN_FILES:
            return _object(name, version, values)
        path = layout.object_path(name, version)
        folder = layout.in_context(self._context_id, path)
        await blocking.run(self._files.write_new, f"{folder}/part", json.dumps(values).encode())
        entries = await blocking.run(seal_data, self._files, self._context_id, path)
        return NamedObject(
            name, Kind.VALUE, version, "materialize", "sync", path=path, schema=folder, files=entries
        )

    # durability: async

    async def _update_late(self, name: str, entry: str) -> Any:
        """Seen by readers at once; not promised before it is sealed."""
        async with self._updating.setdefault(name, asyncio.Lock()):
            self.values[name] = (*self.values.get(name, ()), entry)
            self._late.add(name)
            self._some_late.set()
        return "seen"

    async def _seal_late_ones_always(self) -> None:
        while True:
            await self._some_late.wait()
            await asyncio.sleep(CHECKPOINT_INTERVAL)
            self._some_late.clear()
            if not await self._seal_late_ones():
                self._some_late.set()

    async def _seal_late_ones(self) -> bool:
        """Whether what readers see is sealed. One at a time, as in `jobserver/driver/late_writes.py`, where one thread writes."""
        async with self._sealing_late:
            updates = {name: self.values[name] for name in sorted(self._late)}
            if updates:
                try:
                    sealed = await self._put(updates, {})
                except StoreUnavailable:
                    return False
                for name, values in updates.items():
                    self._oracle.acknowledged(self._context_id, name, values, epoch_of(sealed))
                    if self.values[name] == values:
                        self._late.discard(name)
            return not self._late

    async def _sweep(self) -> None:
        """As `jobserver/driver/named_objects.py` does: what this driver still reads stays."""
        async with self._sweeping:
            try:
                await blocking.run(self._writer.sweep, set(self._in_use))
            except CheckpointError:
                return  # it is put off
            self._check_data(self._writer.objects().values())

    @property
    def _in_use(self) -> list[str]:
        return [item.version for item in self._writer.objects().values()]

    async def _forget(self, job_id: str) -> None:
        try:
            await self._commit(Changes(forget=(job_id,)))
        except StoreUnavailable:
            return  # it is kept a little longer

    async def _commit(self, changes: Changes) -> str:
        """Holds while superseded, until the driver is adopted or ends (as `jobserver/driver/journal.py` does)."""
        while True:
            adoptions, adopted = self._adoptions, self._adopted
            try:
                async with self._sealing:
                    sealed = await blocking.run(self._writer.commit, changes)
            except Superseded as higher:
                self._tell(Event.SUPERSEDED, {"epoch": higher.epoch})
                if adoptions == self._adoptions:
                    await adopted.wait()
            else:
                self._commits += 1
                if self._commits % SWEEP_EVERY == 0:
                    asyncio.create_task(self._sweep())  # noqa: RUF006  the loop keeps it
                return sealed

    @property
    def _writer(self) -> CheckpointWriter:
        assert self.writer is not None, "jobs run in an active driver only"
        return self.writer

    @property
    def _context_id(self) -> str:
        assert self.binding.context is not None, "jobs run in an active driver only"
        return self.binding.context.id


_OWNERS_ONLY = (Request.RUN, Request.KILL, Request.ACK, Request.OBJECTS)
_HANDLERS = {kind.value: f"_on_{kind.value}" for kind in Request}


def _object(name: str, version: str, values: Values) -> NamedObject:
    inline = json.dumps(values).encode()
    return NamedObject(name, Kind.VALUE, version, "materialize", "sync", inline=inline, size=len(inline))


def values_of(item: NamedObject, peek: Callable[[str], bytes | None]) -> Values:
    """What a manifest holds of one of our named values. `peek` looks into the store, whatever state it is in."""
    if item.path is None:
        return tuple(json.loads(item.inline or b"[]"))
    data = peek(f"{item.schema}/part")
    return ("its data is gone",) if data is None else tuple(json.loads(data))
