"""Failovers as texts: small verbs, and below each what the cluster did, in virtual time. `tests/transcripts/*.txt`.

    cluster [one host] [warm | hot]        three servers s1, s2, s3
    context NAME                           creates it; the first is c1
    submit JOB CONTEXT [words] MAIN        a client's request through s1; MAIN as in `tests/sim/driver.py`;
                                           words: async, attempts=1, on_failover=fail, through s2
    break FAULT [TARGET]                   a fault by its name in `tests/sim/scenario.py`: it lasts until `mend`
    mend FAULT [TARGET]
    move CONTEXT [keeping the driver]      a planned switchover
    run SECONDS                            lets time pass
    show                                   contexts, standbys, jobs and values, as a client sees them
    end                                    stops all contexts; says which promises were broken

Nothing is left to chance: every wait of chance takes the middle of its range, so a text changes only when what it tells does;
times are shown in tenths of a second, which one more round trip does not change.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from jobserver.errors import JobServerError
from jobserver.model import ContextRecord, JobRecord
from jobserver.service import Submission
from tests.sim.clients import Clients
from tests.sim.loop import START, SimLoop
from tests.sim.nemesis import Nemesis, Undo, nothing
from tests.sim.scenario import SERVERS, Fault, Scenario, What
from tests.sim.server import SimServer
from tests.sim.simulation import listening
from tests.sim.world import CLIENT, Fences, World

RULE = "----"
MOST_STEPS = 400_000
FOR_EVER = 1e9
MAINS = ("add", "work", "once", "late", "read", "sleep", "fail", "die")


class Middle(Random):
    """Chance without chance."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2

    def random(self) -> float:
        return 0.5

    def choice(self, seq: Any) -> Any:
        return seq[0]


@dataclass(frozen=True)
class Step:
    """A command with the comment lines above it."""

    comment: str
    command: str


def steps(text: str) -> Iterator[Step]:
    """The commands of a transcript; what it says of their outcome is passed over."""
    for block in re.split(r"\n(?=\S)", text):
        lines = [line for line in block.splitlines() if line and not line.startswith((" ", RULE))]
        comment = "\n".join(line for line in lines if line.startswith("#"))
        command = next((line for line in lines if not line.startswith("#")), "")
        if command or comment:
            yield Step(comment, command)


def play(text: str) -> str:
    """The transcript with what happens now. The same commands tell the same."""
    loop = SimLoop(MOST_STEPS)
    return str(loop.run(_Play(loop).run(list(steps(text)))))


class _Play:
    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop
        self._world: World | None = None
        self._undo: dict[tuple[What, str], Undo] = {}
        self._told = 0
        self._labels: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._out: list[str] = []

    async def run(self, commands: list[Step]) -> str:
        head = next(step.command for step in commands if step.command).split()
        if head[:1] != ["cluster"]:
            raise ValueError("a transcript begins with the verb cluster")
        scenario = Scenario(
            seed=0,
            contexts=(),
            one_host="host" in head,
            warm=int("warm" in head),
            max_jobs=8,
            broken_starts=0.0,
            faults=(),
            requests=(),
            hot="hot" in head,
        )
        self._world = world = World(scenario, self._loop, Fences(), tell=True, chance=Middle())
        self._nemesis = Nemesis(world)
        with listening(world):
            for step in commands:
                if step.comment:
                    self._out.append(step.comment)
                if step.command:
                    await self._step(step.command)
        return "\n".join(self._out).rstrip() + "\n"

    async def _step(self, command: str) -> None:
        verb, _, rest = command.partition(" ")
        lines = await self._verbs()[verb](rest.strip())
        told = [*self._news(), *(f"  {self._named(line)}" for line in lines or ())]
        self._out += [command, RULE, *told, ""]

    def _verbs(self) -> dict[str, Callable[[str], Any]]:
        return {
            "cluster": self._cluster,
            "context": self._context,
            "submit": self._submit,
            "break": self._break,
            "mend": self._mend,
            "move": self._move,
            "run": self._run,
            "show": self._show,
            "end": self._end,
        }

    # Verbs

    async def _cluster(self, _words: str) -> None:
        for server in SERVERS:
            self._known.start_server(server)
        await asyncio.sleep(1.0)

    async def _context(self, name: str) -> None:
        await Clients(self._known).create_context(name)
        await asyncio.sleep(0.05)

    async def _submit(self, words: str) -> None:
        label, context, *rest = words.split()
        first = next(n for n, word in enumerate(rest) if word in MAINS)
        chosen, main = rest[:first], " ".join(rest[first:])
        server = chosen[chosen.index("through") + 1] if "through" in chosen else "s1"
        submission = Submission(
            main,
            ("bin",),
            {},
            context,
            "async" not in chosen,
            60.0,
            max_attempts=1 if "attempts=1" in chosen else 3,
            on_failover="fail" if "on_failover=fail" in chosen else "rerun",
            idempotency_key=label,
            request_digest=label,
        )
        before = set(self._known.store.jobs)
        self._spawn(self._client(label, f"http://{server}", submission))
        await asyncio.sleep(0.05)
        self._labels.update(dict.fromkeys(set(self._known.store.jobs) - before, label))

    async def _client(self, label: str, url: str, submission: Submission) -> None:
        """Repeats with its key, on the next server, until it is answered."""
        world, urls = self._known, [url, *(f"http://{server}" for server in SERVERS)]
        for tried in range(60):
            try:
                done = await world.call(None, urls[tried % 4], 65.0, lambda one: one.jobs.submit(submission))
            except JobServerError as error:
                world.say(CLIENT, f"{label} is answered: {error.message}")
                await asyncio.sleep(0.5)
            else:
                self._labels[done.job.id] = label
                world.oracle.acceptance(label, done.job.id)
                world.oracle.answer(done.job)
                world.say(CLIENT, f"{label} is answered: {_ended(done.job)}")
                return

    async def _break(self, words: str) -> None:
        what, target = _fault(words)
        self._undo[what, target] = self._nemesis.begin(Fault(0.0, what, target, FOR_EVER))
        await asyncio.sleep(0.001)

    async def _mend(self, words: str) -> None:
        what, target = _fault(words)
        undo = self._undo.pop((what, target), nothing)
        if undo is nothing:
            raise ValueError(f"{what} {target} was not broken, or needs no mending")
        self._nemesis.mend(undo)
        await asyncio.sleep(0.001)

    async def _move(self, words: str) -> None:
        name, *rest = words.split()
        world = self._known

        async def move(server: SimServer) -> str:
            moved = await server.core.switchover.by_name(name, None, 5.0, keep_driver="keeping" in rest)
            return f"{name} has moved from {moved.source} to {moved.target}, epoch {moved.epoch}"

        self._spawn(self._moving(name, world, move))
        await asyncio.sleep(0.05)

    async def _moving(self, name: str, world: World, move: Any) -> None:
        try:
            world.say(CLIENT, await world.call(None, "http://s1", 60.0, move))
        except JobServerError as error:
            world.say(CLIENT, f"{name} was not moved: {error.message}")

    async def _run(self, seconds: str) -> None:
        await asyncio.sleep(float(seconds.split()[0]))

    async def _show(self, _words: str) -> list[str]:
        world = self._known
        lines: list[str] = []
        server = next(one for name in SERVERS if (one := world.server(name)) is not None)
        contexts = sorted(world.store.contexts.values(), key=lambda one: one.name)
        pictures = await server.contexts.standbys(contexts)
        for context in contexts:
            lines.append(self._context_line(context, pictures[context.id]))
        for job in sorted(world.store.jobs.values(), key=lambda one: self._label(one.id)):
            lines.append(f"{self._label(job.id)}: {_ended(job)}")
        for context in contexts:
            driver = None if context.state.final else world.driver_of(context.name)
            for name, values in sorted(driver.values.items()) if driver else ():
                shown = ", ".join(self._named(value) for value in values)
                lines.append(f"{name} in {context.name}: {shown}")
        return lines

    def _context_line(self, context: ContextRecord, standbys: Any) -> str:
        world, fence = self._known, self._known.store.fences[context.id]
        if context.state.final:
            return f"{context.name}: {context.state}"
        node = world.ensemble.owner(context.id)
        driver = context.driver.driver_id if context.driver else "no driver"
        ready = ", ".join(f"{one['server']} {one['mode']}" for one in standbys) or "none"
        failover = context.last_failover
        took = (
            "less than 0.1"
            if failover and failover.seconds < 0.1
            else f"{failover.seconds if failover else 0:.1f}"
        )
        last = f"; last failover {failover.kind} in {took} s" if failover else ""
        owner = node.server if node else "nobody"
        return f"{context.name}: {context.state}, epoch {fence.epoch} of {owner}, {driver}; standbys {ready}{last}"

    async def _end(self, _words: str) -> list[str]:
        world = self._known
        for task in list(self._tasks):
            await asyncio.wait([task], timeout=90.0)
        self._news()
        world.oracle.check_jobs(world.store.jobs)
        for context in world.store.living():
            server = next(one for name in SERVERS if (one := world.server(name)) is not None)
            await server.contexts.delete(context.name, force=False)
        await asyncio.sleep(30.0)
        self._news()
        strays = [one.process.name for one in world.living_drivers() if one.binding.epoch]
        problems = [*world.oracle.broken, *self._loop.failures, *(f"{one} is left over" for one in strays)]
        return problems or ["every promise was kept"]

    # Telling

    @property
    def _known(self) -> World:
        assert self._world is not None
        return self._world

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _news(self) -> list[str]:
        """What the story tells since the last time."""
        story = self._known.story or []
        new, self._told = story[self._told :], len(story)
        return [
            f"  {time - START:6.1f}  {who:<10} {self._named(what)}"
            for time, who, what in new
            if _told(who, what)
        ]

    def _named(self, text: str) -> str:
        for context in self._known.store.contexts.values():
            text = re.sub(rf"\b{context.id}\b", context.name, text)
        for job_id in re.findall(r"id-\d+", text):
            text = re.sub(rf"\b{job_id}\b", self._label(job_id), text)
        return re.sub(r"token-\d+", "…", text)

    def _label(self, job_id: str) -> str:
        return self._labels.get(job_id, job_id)


def _told(who: str, what: str) -> bool:
    """What a reader does not miss: a keeper's thoughts when nothing changes, and the simulation's own notes."""
    return who != "-" and "is over" not in what


def _fault(words: str) -> tuple[What, str]:
    for what in sorted(What, key=lambda one: -len(one)):
        if words == what or words.startswith(what + " "):
            return what, words[len(what) :].strip()
    raise ValueError(f"there is no fault {words!r}")


def _ended(job: JobRecord) -> str:
    how = job.result if job.result is not None else job.error.message if job.error else ""
    attempts = f"attempt {job.attempt}" if job.attempt else "never ran"
    return f"{job.state}, {attempts}{': ' + how if how else ''}"


def transcripts(folder: Path) -> dict[str, Path]:
    """By name."""
    return {path.stem: path for path in sorted(folder.glob("*.txt"))}
