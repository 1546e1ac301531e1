"""An event loop whose clock jumps to the next timer, and the processes that live on it.

Nothing here touches a socket, a thread or the real clock, so a run depends on its seed alone. A process is a tag that its
callbacks and tasks carry (a context variable, inherited by all they start): a killed process never runs again, not even
its `finally` blocks, as after SIGKILL; a frozen one runs what has piled up when it is thawed, as after SIGSTOP.
"""

from __future__ import annotations

import asyncio
import contextlib
import types
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context, ContextVar, copy_context
from enum import Enum, auto
from heapq import heappop, heappush
from itertools import repeat
from typing import Any

START = 1000.0
"""The clock's first reading, seconds; not 0, which code may use for "never"."""


class State(Enum):
    """Of a process."""

    RUNNING = auto()
    FROZEN = auto()
    DEAD = auto()


_RUNNING, _DEAD = State.RUNNING, State.DEAD


class Process:
    """A process of the simulated cluster. `place` is what partitions cut, `host` what kills and proofs of death need."""

    def __init__(self, name: str, place: str, host: str) -> None:
        self.name = name
        self.place = place
        self.host = host
        self.state = State.RUNNING
        self.backlog: list[Handle] = []
        self.context = copy_context()
        self.context.run(PROCESS.set, self)

    @property
    def alive(self) -> bool:
        """Not dead; it may be frozen."""
        return self.state is not _DEAD


PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)
NOBODY = Context()
"""For what is no process's work: messages under way, services, time itself."""


class Handle(list[Any]):
    """What the loop runs, as callback, arguments and context; a callback of None is cancelled.

    A list, since one is made for each step, and making it so runs no code of ours.
    """

    __slots__ = ()

    @property
    def context(self) -> Context:
        context: Context = self[2]
        return context

    def cancel(self) -> None:
        self[0] = None

    def cancelled(self) -> bool:
        return self[0] is None


class SimTask(asyncio.Task[Any]):
    """Hashes by number, not by address: sets of tasks have the same order in every run."""

    _log_destroy_pending = False

    def __init__(self, number: int, coro: Any, loop: SimLoop, name: str, context: Context | None) -> None:
        self.number = number  # first of all: asyncio puts the task into a set of its own
        super().__init__(coro, loop=loop, name=name, context=context)

    def __hash__(self) -> int:
        return self.number


class Crashed(BaseException):
    """Raised inside a process that has just been killed by its own doing, to leave the callback it is in."""


class Livelock(Exception):
    """More steps than any run should need."""


class Pause:
    """A future that time alone completes, to be awaited at once by one task: its timer wakes the task itself.

    A third of all steps would only pass on that a pause of a simulated service is over.
    """

    __slots__ = ("_asyncio_future_blocking", "_cancelled", "_handle", "_loop", "_wake", "_when")

    def __init__(self, loop: SimLoop, when: float) -> None:
        self._loop = loop
        self._when = when
        self._cancelled = False

    def __await__(self) -> Iterator[Any]:
        self._asyncio_future_blocking = True
        yield self

    def add_done_callback(self, wake: Callable[..., Any], *, context: Context) -> None:
        self._wake = wake
        self._handle: Handle = self._loop.call_at(self._when, wake, self, context=context)

    def cancel(self, msg: object = None) -> bool:
        if self._cancelled:
            return False
        self._cancelled = True
        self._handle.cancel()
        self._loop.call_soon(self._wake, self, context=self._handle.context)
        return True

    def result(self) -> None:
        """Asked for once, by the task that it wakes: after it, no cycle of references is left for the collector."""
        del self._wake, self._handle
        if self._cancelled:
            raise asyncio.CancelledError


class Sleep(Pause):
    """What `asyncio.sleep` waits for: who slept goes on in the step of its timer only if nothing else is ready then.

    So the order is that of asyncio, where the timer makes a future ready, and that one wakes the task behind all that is ready.
    """

    __slots__ = ("_over",)

    def add_done_callback(self, wake: Callable[..., Any], *, context: Context) -> None:
        self._over = False
        self._wake = wake
        self._handle = self._loop.call_at(self._when, self._end, context=context)

    def _end(self) -> None:
        self._over = True
        if self._loop._ready:
            self._loop.call_soon(self._wake, self, context=self._handle.context)
        else:
            self._wake(self)

    def cancel(self, msg: object = None) -> bool:
        return not self._over and super().cancel(msg)


@types.coroutine
def _yield() -> Iterator[None]:
    """To the end of what is ready."""
    yield


class SimLoop(asyncio.AbstractEventLoop):
    """Runs one simulation. `failures` are exceptions that escaped from callbacks and tasks."""

    def __init__(self, most_steps: int) -> None:
        self._now = START
        self._ready: deque[Handle] = deque()
        self._timers: list[tuple[float, int, Handle]] = []
        self._numbers = 0
        self._tasks: list[SimTask] = []
        self._most_steps = most_steps
        self._closed = False
        self.failures: list[str] = []

    @property
    def steps(self) -> int:
        """Callbacks and timers that were made."""
        return self._numbers

    # What asyncio needs

    def time(self) -> float:
        return self._now

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> Any:
        self._numbers += 1
        handle = Handle((callback, args, copy_context() if context is None else context))
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Any, *args: Any, context: Context | None = None) -> Any:
        self._numbers = number = self._numbers + 1
        handle = Handle((callback, args, copy_context() if context is None else context))
        heappush(self._timers, (self._now + delay, number, handle))
        return handle

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> Any:
        self._numbers = number = self._numbers + 1
        handle = Handle((callback, args, copy_context() if context is None else context))
        heappush(self._timers, (when, number, handle))
        return handle

    def pass_on(self, process: Process, callback: Any, *args: Any) -> None:
        """`call_soon` in a process, for what does nothing after it: where nothing else is ready, it is done at once."""
        if self._ready or process.state is not _RUNNING:
            self.call_soon(callback, *args, context=process.context)
        else:
            self._numbers += 1  # it is a step all the same
            process.context.run(callback, *args)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def pause(self, seconds: float) -> Pause:
        """To be awaited: what asyncio.sleep does, for a simulated service, which does little else."""
        return Pause(self, self._now + seconds)

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> Any:
        self._numbers += 1
        task = SimTask(len(self._tasks), coro, self, name or "task", context)
        self._tasks.append(task)
        return task

    get_debug = staticmethod(bool)
    """False. Every future asks: this answers without a frame of Python."""

    def is_running(self) -> bool:
        return not self._closed

    def is_closed(self) -> bool:
        return self._closed

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self._closed and not isinstance(context.get("exception"), Crashed):
            self.failures.append(f"{context.get('message')}: {context.get('exception')!r}")

    # Running

    def run(self, main: Coroutine[Any, Any, Any]) -> Any:
        """Runs until `main` has ended, then throws everything else away. Raises Livelock, and what `main` raises."""
        asyncio._set_running_loop(self)
        sleep, asyncio.sleep = asyncio.sleep, self._sleep
        try:
            task = self.create_task(main)
            self._run_until(task)
            return task.result()
        finally:
            self._closed = True
            self._dispose()
            asyncio.sleep = sleep
            asyncio._set_running_loop(None)

    async def _sleep(self, delay: float, result: Any = None) -> Any:
        """In place of `asyncio.sleep`, in half of its steps."""
        if delay > 0:
            await Sleep(self, self._now + delay)
        else:
            await _yield()
        return result

    def _run_until(self, task: SimTask) -> None:
        """All that is ready, in its order; then time jumps to the next timer. One loop: half of a run's time is spent here."""
        ready, timers, done, process_of = self._ready, self._timers, task.done, PROCESS
        for _ in repeat(None, self._most_steps):
            if done():
                return
            if ready:
                handle = ready.popleft()
            elif timers:
                when, _, handle = heappop(timers)
                if when > self._now:
                    self._now = when
                while timers and timers[0][0] <= self._now:
                    ready.append(heappop(timers)[2])
            else:
                raise Livelock("nothing will ever happen again, and the simulation has not ended")
            callback, args, context = handle
            if callback is None:
                continue
            process = context.get(process_of)
            if process is not None and process.state is not _RUNNING:
                if process.state is State.FROZEN:
                    process.backlog.append(handle)
                continue
            try:
                context.run(callback, *args)
            except Exception as error:  # noqa: BLE001
                # whatever a callback lets out would be logged by asyncio and forgotten; here it is a finding
                self.call_exception_handler({"message": f"callback {callback}", "exception": error})
        raise Livelock("the cluster does not come to rest")

    def _dispose(self) -> None:
        """Ends coroutines that nobody will resume, here and not whenever the garbage collector comes by."""
        for task in self._tasks:
            if not task.done():
                with contextlib.suppress(BaseException):
                    # their `finally` blocks run without a cluster around them: whatever they say means nothing
                    task.get_coro().close()  # type: ignore[union-attr]
        self._tasks.clear()
        self._timers.clear()
        self._ready.clear()

    # Processes

    def freeze(self, process: Process) -> None:
        """SIGSTOP."""
        if process.state is State.RUNNING:
            process.state = State.FROZEN

    def thaw(self, process: Process) -> None:
        """SIGCONT: what came meanwhile is done now, in its order."""
        if process.state is State.FROZEN:
            process.state = State.RUNNING
            self._ready.extendleft(
                reversed(process.backlog)
            )  # they came before whatever else is ready for it
            process.backlog.clear()

    def kill(self, process: Process) -> None:
        """SIGKILL."""
        process.state = State.DEAD
        process.backlog.clear()
