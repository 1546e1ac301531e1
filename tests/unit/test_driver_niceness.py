"""What of a driver yields, and until when: the JVM's optimizing compiler, on threads of this process that have its name, or all
of a driver that waits, on a process of the test's own."""

import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from unittest.mock import Mock

import pytest

from jobserver.driver import courtesy
from jobserver.driver.courtesy import Courtesy
from jobserver.driver.niceness import YIELDING, may_be_lowered
from jobserver.driver.optimizer import YIELDS_FOR, Optimizer


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
    assert not may_be_lowered()
    optimizer = Optimizer(os.getpid(), yields=True)
    optimizer.look()
    optimizer.compete()
    assert asked == [1, YIELDING]


def test_it_competes_again_only_after_the_time_it_was_given(threads, monkeypatch):
    timers = []
    monkeypatch.setattr(threading, "Timer", lambda seconds, what: timers.append((seconds, what)) or Mock())
    optimizer = Optimizer(os.getpid(), yields=True)
    optimizer.look()
    optimizer.activated()
    assert niceness(threads) == [YIELDING, 0]
    ((seconds, carry_out),) = timers
    carry_out()
    assert seconds == YIELDS_FOR
    assert niceness(threads) == ([0, 0] if may_be_lowered() else [YIELDING, 0])


def test_where_the_system_allows_it_competes_again(threads):
    optimizer = Optimizer(os.getpid(), yields=True)
    optimizer.look()
    optimizer.compete()
    assert niceness(threads) == ([0, 0] if may_be_lowered() else [YIELDING, 0])


CHILD = """
import atexit, json, os, subprocess, sys, threading, time
from jobserver.driver import courtesy

def of(thread):
    try:
        return os.getpriority(os.PRIO_PROCESS, thread)
    except ProcessLookupError:  # it has just ended, as the one does that tries what is allowed
        return None

def of_session():
    if not os.path.exists("/proc/self/autogroup"):
        return 0
    words = open("/proc/self/autogroup").read().split()
    return int(words[-1]) if words else 0  # a session that is older than the grouping is in no group

def seen():
    threads = [int(name) for name in os.listdir("/proc/self/task")]
    own = sorted({of(thread) for thread in threads} - {None})
    return {"own": own, "worker": os.getpriority(os.PRIO_PROCESS, worker.pid), "session": of_session()}

{setting}
yielding = courtesy.Courtesy()
stay = threading.Event()
threading.Thread(target=stay.wait, daemon=True).start()
worker = subprocess.Popen(["sleep", "60"], process_group=0, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
atexit.register(worker.kill)
other = subprocess.Popen(
    ["nice", "-n", "19", "sleep", "60"], process_group=0, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
)
atexit.register(other.kill)

while os.getpriority(os.PRIO_PROCESS, other.pid) != 19:
    time.sleep(0.01)  # `nice` tells nobody when it has done its work

def settled():
    for thread in threading.enumerate():
        if thread.name == "courtesy":
            thread.join()
    return seen()

yielding.begin()
told = [settled()]
{act}
told.append(settled())
assert os.getpriority(os.PRIO_PROCESS, other.pid) == 19, "it has a niceness of its own"
print(json.dumps(told))
"""


def yielding_and_after(act, setting="", *, start_new_session=True):
    """What a process that leads a session saw of itself and its worker before and after `act`."""
    code = CHILD.replace("{setting}", setting).replace("{act}", act)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, start_new_session=start_new_session
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def all_of(niceness, session):
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    grouped = Path("/proc/self/autogroup").exists()
    own = usual + niceness if may_be_lowered() else usual
    return {"own": [own], "worker": own, "session": session if grouped else 0}


def test_all_of_a_waiting_driver_yields_until_it_is_told_not_to():
    """Its threads, its children in groups of their own, and its session."""
    assert yielding_and_after("yielding.end()") == [all_of(YIELDING, YIELDING), all_of(0, 0)]


def test_one_that_shares_its_session_with_others_lets_nobody_yield():
    told = yielding_and_after("yielding.end()", start_new_session=False)
    assert told[0]["own"] == told[1]["own"] == [os.getpriority(os.PRIO_PROCESS, 0)]


def test_a_warm_up_that_takes_long_yields_no_longer():
    _, after = yielding_and_after("yielding._patience.join()", "courtesy.PATIENCE = 0.2")
    assert after == all_of(0, 0)


def test_what_comes_after_the_warm_up_yields_again():
    _, after = yielding_and_after(
        "yielding._patience.join(); settled(); yielding.resume()", "courtesy.PATIENCE = 0.2"
    )
    assert after == all_of(YIELDING, YIELDING)


def test_one_that_is_warm_in_time_yields_on():
    act = "yielding.resume(); yielding._patience.join()"
    assert yielding_and_after(act, "courtesy.PATIENCE = 60") == [all_of(YIELDING, YIELDING)] * 2


def test_one_that_somebody_waits_for_yields_again_when_nobody_does():
    assert yielding_and_after("yielding.pause()")[1] == all_of(0, 0)
    assert yielding_and_after("yielding.pause(); settled(); yielding.resume()")[1] == all_of(
        YIELDING, YIELDING
    )


def test_one_that_has_ended_does_not_begin_again():
    assert yielding_and_after("yielding.end(); yielding.resume()")[1] == all_of(0, 0)


def test_a_warm_up_that_ends_in_the_middle_of_an_activation_changes_nothing(monkeypatch):
    """The one is told in the thread of the rehearsal, the other in that of the request."""
    yielding = Courtesy()
    yielding._over = yielding._may_go_back = False
    yielding._added = YIELDING
    asked = []

    def set_session(niceness):
        asked.append(niceness)
        if len(asked) == 1:
            threading.Thread(target=lambda: (yielding.resume(), told.set())).start()
            assert not told.wait(0.2), "it waits for its turn"
        return True

    told = threading.Event()
    monkeypatch.setattr(courtesy, "_set_session", set_session)
    yielding.end()
    assert told.wait(10)
    assert asked == [0]


def test_the_niceness_of_the_session_is_set_again_where_the_kernel_asks_for_that(monkeypatch):
    """It takes a change every 100 ms, from all who are not root together."""
    answers = [errno.EAGAIN, errno.EAGAIN, None]
    monkeypatch.setattr(courtesy, "_AGAIN", 0.01)
    monkeypatch.setattr(
        courtesy, "_SESSION", Mock(write_text=Mock(side_effect=lambda text: _answer(answers)))
    )
    yielding = Courtesy()
    yielding._over = yielding._may_go_back = False
    yielding.resume()
    for thread in threading.enumerate():
        if thread.name == "courtesy":
            thread.join(10)
    assert not answers


def _answer(answers):
    code = answers.pop(0)
    if code is not None:
        raise OSError(code, os.strerror(code))
