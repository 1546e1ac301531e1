"""A driver without Spark: the protocol's other end in this process, with jobs that a test ends by hand or by name.

`FakeDriver` keeps the rules that fences rest on (one owner, epochs only rise, outcomes until acknowledged). What a job does
follows from its main class: "answer:<json>" ends at once, "hold" runs until the test calls `finish`, "die" ends the driver.
"""

from __future__ import annotations

import asyncio
import secrets

from jobserver.contexts.launch_spec import LaunchSpec
from jobserver.errors import ContextInitFailed
from jobserver.model import AttemptOutcome, AttemptRef, DriverRecord, ErrorInfo, OutcomeKind
from jobserver.protocol import (
    VERSION,
    Message,
    Refused,
    Request,
    frame,
    outcome_message,
    proof_fits,
    read_frame,
)


class FakeDriver:
    """One driver process. `kill` is its SIGKILL, `freeze` its SIGSTOP."""

    def __init__(self, pid: int) -> None:
        self.record = DriverRecord(secrets.token_hex(4), "127.0.0.1", 0, pid, 1, secrets.token_hex(8), 0)
        self.context_id: str | None = None
        self.standby_of: str | None = None
        self.rehearsing = False
        self.filled = False
        self.of_older_release = False
        self.warming_up = False
        self.epoch = 0
        self.base: str | None = None
        self.jobs: dict[AttemptRef, AttemptOutcome | None] = {}
        self.objects: dict[str, dict[str, str]] = {}
        self.started: list[AttemptRef] = []
        self.seals = True
        self.begun: set[AttemptRef] = set()
        """Attempts that it refuses as begun before, whatever it holds."""
        self.alive = False
        self.abandoned = 0
        self.unanswered = 0
        self.lose_replies_to: set[Request] = set()
        self.die_after: set[Request] = set()
        self._nonce = ""
        self._waiting_for_warm: list[tuple[Message, asyncio.StreamWriter]] = []
        self._server: asyncio.Server | None = None
        self._owner: asyncio.StreamWriter | None = None
        self.owner_lost = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._thawed = asyncio.Event()
        self._thawed.set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        old = self.record
        self.record = DriverRecord(
            old.driver_id, old.host, port, old.pid, 1, old.secret, 0, jvm_pid=old.pid + 1
        )
        self.alive = True

    def kill(self) -> None:
        """Every connection ends, nothing listens any more."""
        if not self.alive:
            return
        self.alive = False
        self._end_listening()
        for writer in list(self._writers):
            writer.transport.abort()

    def _end_listening(self) -> None:
        self.alive = False
        if self._server is not None:
            self._server.close()

    def freeze(self) -> None:
        self._thawed.clear()

    def thaw(self) -> None:
        self._thawed.set()

    def finish(self, job_id: str, result: str) -> None:
        """The running attempt of the job returns."""
        for attempt, outcome in list(self.jobs.items()):
            if attempt.job_id == job_id and outcome is None:
                self._end(attempt, OutcomeKind.FINISHED, result)

    def _end(self, attempt: AttemptRef, kind: OutcomeKind, result: str | None = None) -> None:
        error = ErrorInfo("killed") if kind is OutcomeKind.KILLED else None
        outcome = AttemptOutcome(attempt.job_id, attempt.attempt, kind, result, error)
        self.jobs[attempt] = outcome
        self._event("finished", outcome_message(outcome))

    def _event(self, name: str, fields: Message) -> None:
        if self._owner is not None:
            self._owner.write(frame({**fields, "t": "event", "e": name}))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            nonce = secrets.token_hex(8)
            writer.write(frame({"t": "challenge", "version": VERSION, "nonce": nonce}))
            proof = await read_frame(reader)
            if not proof_fits(self.record.secret, nonce, proof.get("proof")):
                return
            while True:
                message = await read_frame(reader)
                self.unanswered += 1
                await self._thawed.wait()
                self.unanswered -= 1
                self._answer(message, writer)
        except (asyncio.IncompleteReadError, OSError):
            return
        finally:
            self._writers.discard(writer)
            if self._owner is writer:
                self._owner, self.owner_lost = None, True
            writer.close()

    def _answer(self, message: Message, writer: asyncio.StreamWriter) -> None:
        kind = Request(message["t"])
        reply = getattr(self, f"_on_{kind.value}")(message, writer)
        if kind in self.lose_replies_to:
            self.lose_replies_to.discard(kind)
            writer.transport.abort()
        elif reply is not None:
            writer.write(frame({"t": "reply", "n": message["n"], "ok": "refused" not in reply, **reply}))
        if kind in self.die_after:
            writer.close()
            self._end_listening()

    def _on_hello(self, message: Message, writer: asyncio.StreamWriter) -> Message:
        self._nonce = secrets.token_hex(8)
        return {"context_id": self.context_id, "nonce": self._nonce, "has_owner": self._owner is not None}

    def _on_adopt(self, message: Message, writer: asyncio.StreamWriter) -> Message:
        if message["nonce"] != self._nonce:
            return {"refused": Refused.STALE_NONCE, "message": "another hello came"}
        if message["epoch"] <= self.epoch:
            return {"refused": Refused.STALE_EPOCH, "message": f"epoch {self.epoch} is here"}
        if self._owner is not None and self._owner is not writer:
            self._owner.transport.abort()
        self.epoch, self._owner, self.owner_lost = message["epoch"], writer, False
        jobs = [
            {
                "job_id": attempt.job_id,
                "attempt": attempt.attempt,
                "outcome": None if outcome is None else outcome_message(outcome),
            }
            for attempt, outcome in self.jobs.items()
        ]
        return {"jobs": jobs}

    def _on_bind(self, message: Message, writer: asyncio.StreamWriter) -> Message:
        if self.context_id is not None:
            return {"refused": Refused.BOUND, "message": "bound"}
        self.standby_of = message["context"]["id"]
        return {"rehearsing": True} if self.rehearsing else {}

    def _on_fill(self, message: Message, writer: asyncio.StreamWriter) -> Message:
        if self.of_older_release:
            return {"refused": Refused.UNKNOWN, "message": "this driver knows no request 'fill'"}
        self.filled = True
        return {}

    def _on_activate(self, message: Message, writer: asyncio.StreamWriter) -> Message:
        if self.context_id is not None:
            return {"refused": Refused.BOUND, "message": "bound"}
        self.context_id, self.epoch, self.base = message["context"]["id"], message["epoch"], message["base"]
        self._owner = writer
        self.end_warm_up(warm=False)
        return {"application_id": "local-1", "ui_url": None, "jvm_pid": self.record.pid + 1}

    def _on_run(self, message: Message, writer: asyncio.StreamWriter) -> Message | None:
        attempt = AttemptRef(message["job_id"], message["attempt"])
        if attempt in self.begun:
            return {"refused": Refused.DUPLICATE, "message": "it has begun before"}
        self.started.append(attempt)
        main = message["main_class"]
        if main == "die":
            self.kill()
            return None
        self.jobs[attempt] = None
        self._event("accepted", {"job_id": attempt.job_id, "attempt": attempt.attempt})
        if main.startswith("answer:"):
            self._end(attempt, OutcomeKind.FINISHED, main.removeprefix("answer:"))
        return {}

    def _on_kill(self, message: Message, writer: asyncio.StreamWriter) -> Message | None:
        attempt = AttemptRef(message["job_id"], message["attempt"])
        if self.jobs.get(attempt, 0) is None:
            self._end(attempt, OutcomeKind.KILLED)
        return {} if "n" in message else None

    def _on_ack(self, message: Message, writer: asyncio.StreamWriter) -> None:
        self.jobs.pop(AttemptRef(message["job_id"], message["attempt"]), None)

    def _on_objects(self, message: Message, writer: asyncio.StreamWriter) -> Message:
        return {"objects": list(self.objects.values())}

    def _on_object(self, message: Message, writer: asyncio.StreamWriter) -> Message:
        found = self.objects.get(message["name"])
        if found is None:
            return {"refused": Refused.NO_OBJECT, "message": "there is no such object"}
        match message["do"]:
            case "destroy":
                del self.objects[message["name"]]
                return {"object": None}
            case "show":
                return {"object": found}
        return {"refused": Refused.CANNOT, "message": "it was materialized"}

    def _on_flush(self, message: Message, writer: asyncio.StreamWriter) -> Message:
        return {"sealed": self.seals}

    def _on_look(self, message: Message, writer: asyncio.StreamWriter) -> Message:
        return {"progress": None}

    def _on_tails(self, message: Message, writer: asyncio.StreamWriter) -> Message:
        return {"tails": []}

    def _on_warm(self, message: Message, writer: asyncio.StreamWriter) -> Message | None:
        if not self.warming_up:
            return {"warm": True}
        self._waiting_for_warm.append((message, writer))
        return None

    def end_warm_up(self, **reply: object) -> None:
        """Answers those who wait for it."""
        self.warming_up = False
        for message, writer in self._waiting_for_warm:
            ok = "refused" not in reply
            writer.write(frame({"t": "reply", "n": message["n"], "ok": ok, **reply}))
        self._waiting_for_warm.clear()

    def _on_ping(self, message: Message, writer: asyncio.StreamWriter) -> Message:
        said: Message = {"epoch": self.epoch, "owner_lost": self.owner_lost, "abandoned": self.abandoned}
        if self.standby_of is not None and self.context_id is None:
            said["standby"] = {"manifest": "fake-manifest", "age": 0.5, "rehearsed": not self.rehearsing}
        return said

    def _on_shutdown(self, message: Message, writer: asyncio.StreamWriter) -> Message:
        asyncio.get_running_loop().call_soon(self.kill)
        return {}


class FakeLauncher:
    """Starts FakeDrivers; every server of a test may share it, as servers of one machine share its processes."""

    def __init__(self) -> None:
        self.drivers: list[FakeDriver] = []
        self.broken: str | None = None
        self.die_after: set[Request] = set()
        self.freeze_next = False
        self.warm_slowly = False
        self.hurried = 0

    async def start(self, spec: LaunchSpec, *, warm_up: bool) -> DriverRecord:
        if self.broken is not None:
            raise ContextInitFailed(self.broken)
        driver = FakeDriver(pid=1000 + 2 * len(self.drivers))
        driver.die_after, self.die_after = self.die_after, set()
        driver.warming_up = self.warm_slowly
        await driver.start()
        if self.freeze_next:
            self.freeze_next = False
            driver.freeze()
        self.drivers.append(driver)
        return driver.record

    def kill(self, driver: DriverRecord) -> bool:
        for known in self.drivers:
            if known.record.driver_id == driver.driver_id and known.alive:
                known.kill()
                return True
        return False

    def hurry(self) -> None:
        self.hurried += 1

    def living(self) -> list[FakeDriver]:
        return [driver for driver in self.drivers if driver.alive]
