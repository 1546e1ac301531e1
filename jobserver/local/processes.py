"""Processes of a local cluster: started in sessions of their own, known by pid and start time, and ended for certain.

A pid alone is never trusted: after a restart of the machine or many forks it may be somebody else's. A driver leads a
session; its JVM and Python workers are found through it, also when the driver itself has died before them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobserver.errors import LocalPartFailed
from jobserver.processes import start_ticks

POLL = 0.02
"""Seconds between two looks while waiting for a process."""


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process of this machine. `started` is its start time in kernel ticks since boot."""

    pid: int
    started: int


@dataclass(frozen=True, slots=True)
class Child:
    """A process that we started and must reap."""

    name: str
    id: ProcessId
    handle: subprocess.Popen[bytes]
    log: Path

    @property
    def running(self) -> bool:
        """False once it has ended; reaps it then."""
        return self.handle.poll() is None

    def last_words(self, lines: int = 5) -> str:
        """The end of its log, for an error's sentence."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:]) or "(it wrote nothing)"


def identify(pid: int) -> ProcessId | None:
    """The process that has this pid now; None when there is none (or only a zombie)."""
    started = start_ticks(pid)
    return None if started is None else ProcessId(pid, started)


def alive(process: ProcessId) -> bool:
    """Whether this very process still runs."""
    return start_ticks(process.pid) == process.started


def start(name: str, command: Sequence[str | Path], *, log: Path, cwd: Path, env: Mapping[str, str]) -> Child:
    """Starts a process in a session of its own, so that a terminal's Ctrl-C reaches only us. Raises LocalPartFailed."""
    with log.open("ab") as output:
        try:
            handle = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=dict(env),
                start_new_session=True,
            )
        except OSError as error:
            raise LocalPartFailed(f"{name} cannot be started: {error}.") from error
    # Not reaped yet, so the pid is still its own even when it has ended at once; start time 0 then.
    return Child(name, identify(handle.pid) or ProcessId(handle.pid, 0), handle, log)


def send(process: ProcessId, number: signal.Signals) -> bool:
    """Signals this very process; False when it is gone."""
    if not alive(process):
        return False
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        return False
    return True


def wait_gone(processes: Iterable[ProcessId], timeout: float) -> list[ProcessId]:
    """Waits until the processes have ended; those that have not after `timeout` seconds."""
    left = [each for each in processes if alive(each)]
    deadline = time.monotonic() + timeout
    while left and time.monotonic() < deadline:
        time.sleep(POLL)
        left = [each for each in left if alive(each)]
    return left


def end_all(processes: Iterable[ProcessId], grace: float) -> list[ProcessId]:
    """SIGTERM to all, SIGKILL to those still there after `grace` seconds. What even that did not end (never, normally)."""
    left = [each for each in processes if send(each, signal.SIGTERM)]
    left = wait_gone(left, grace)
    for each in left:
        send(each, signal.SIGKILL)
    return wait_gone(left, 5.0)


def end_children(children: Sequence[Child], grace: float) -> None:
    """`end_all` for processes of our own; they are reaped too."""
    end_all([child.id for child in children], grace)
    for child in children:
        child.handle.wait()


def session_of(leader: ProcessId) -> list[ProcessId]:
    """The living processes of the session that `leader` opened, itself included.

    While a session has members the kernel gives its leader's pid to nobody else, so a leader of another start time
    means that the session is long gone.
    """
    current = identify(leader.pid)
    if current is not None and current != leader:
        return []
    members = (identify(pid) for pid in _pids() if _session_id(pid) == leader.pid)
    return [each for each in members if each is not None and each.started >= leader.started]


def naming(folder: Path) -> list[ProcessId]:
    """The living processes that have a path below `folder` among their arguments."""
    wanted = f"{folder}/".encode()
    pids = (pid for pid in _pids() if any(word.startswith(wanted) for word in _arguments(pid)))
    return [each for each in map(identify, pids) if each is not None]


def _arguments(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _session_id(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return None


def wait_until(condition: Callable[[], bool], timeout: float, poll: float = 0.05) -> bool:
    """Waits for a condition; whether it came true within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(poll)
    return True
