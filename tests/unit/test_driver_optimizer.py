"""Which of the JVM's threads yield, and until when. On threads of this process with the JVM's names for them."""

import errno
import os
import threading
from pathlib import Path
from unittest.mock import Mock

import pytest

from jobserver.driver.optimizer import YIELDING, Optimizer, may_compete_again


@pytest.fixture
def threads():
    """Native ids of two threads by their names."""
    go, idents = threading.Event(), {}

    def live(name, there):
        idents[name] = threading.get_native_id()
        Path(f"/proc/self/task/{idents[name]}/comm").write_text(name)
        there.set()
        go.wait()

    started = []
    for name in ("C2 CompilerThre", "C1 CompilerThre"):
        there = threading.Event()
        started.append(threading.Thread(target=live, args=(name, there)))
        started[-1].start()
        assert there.wait(10)
    yield idents
    go.set()
    for thread in started:
        thread.join()


def niceness(threads):
    """Of C2 and C1, over that of the process."""
    usual = os.getpriority(os.PRIO_PROCESS, os.getpid())
    return [os.getpriority(os.PRIO_PROCESS, ident) - usual for ident in threads.values()]


def test_only_the_optimizing_compiler_yields_and_once(threads):
    optimizer = Optimizer(os.getpid(), yields=True)
    optimizer.look()
    optimizer.look()
    assert niceness(threads) == [YIELDING, 0]


def test_one_that_is_not_to_yield_is_left_alone(threads):
    optimizer = Optimizer(os.getpid(), yields=False)
    optimizer.look()
    optimizer.compete()
    assert niceness(threads) == [0, 0]


@pytest.fixture
def asked(monkeypatch):
    """The changes of niceness that the system was asked for; it allows no lower one."""
    asked, now = [], {}

    def setpriority(_which, ident, value):
        if value < now.get(ident, 0):
            raise PermissionError(errno.EACCES, "not allowed")
        now[ident] = value
        asked.append(value)

    monkeypatch.setattr(os, "setpriority", setpriority)
    monkeypatch.setattr(os, "getpriority", lambda _which, ident: now.get(ident, 0))
    return asked


def test_where_the_system_allows_no_way_back_it_goes_on_yielding(threads, asked):
    assert not may_compete_again()
    optimizer = Optimizer(os.getpid(), yields=True)
    optimizer.look()
    optimizer.compete()
    assert asked == [1, YIELDING]


def test_it_competes_again_only_after_the_time_it_was_given(threads, monkeypatch):
    timers = []
    monkeypatch.setattr(threading, "Timer", lambda seconds, what: timers.append((seconds, what)) or Mock())
    optimizer = Optimizer(os.getpid(), yields=True)
    optimizer.look()
    optimizer.compete_after(3.0)
    assert niceness(threads) == [YIELDING, 0]
    ((seconds, carry_out),) = timers
    carry_out()
    assert seconds == 3.0
    assert niceness(threads) == ([0, 0] if may_compete_again() else [YIELDING, 0])


def test_where_the_system_allows_it_competes_again(threads):
    optimizer = Optimizer(os.getpid(), yields=True)
    optimizer.look()
    optimizer.compete_after(0)
    assert niceness(threads) == ([0, 0] if may_compete_again() else [YIELDING, 0])
