"""Job threads, sliced waits and kills, without a JVM."""

import threading
import time
from concurrent.futures import Future

import pytest

from jobserver.driver import jobthreads, killing, waits
from jobserver.driver.jobthreads import JobThreads, Killed, RunningAttempt
from jobserver.driver.killing import Killer
from jobserver.model import AttemptRef

LIMIT = 10.0


class NoSpark:
    """Records what a kill asks of Spark."""

    def __init__(self):
        self.cancelled = 0

    def cancel(self, attempt):
        self.cancelled += 1
        return False

    def interrupt(self, attempt):
        pass

    def cut(self, attempt):
        pass


@pytest.fixture(autouse=True)
def patched(monkeypatch):
    """The patches of a driver process, for one test."""
    for owner, name in (
        (time, "sleep"), (threading.Condition, "wait"), (threading.Thread, "join"), (threading.Thread, "start"),
        (threading, "Lock"), (threading, "excepthook"),
    ):  # fmt: skip
        monkeypatch.setattr(owner, name, getattr(owner, name))  # so that it is put back at the end
    waits.install()
    jobthreads.install()


def attempt(number=1):
    return RunningAttempt(AttemptRef("j", number), f"g-{number}", "batch", [f"g-{number}"])


def wait_for_lock():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def swallow_everything():
    while True:
        try:
            time.sleep(60)
        except Exception:  # noqa: BLE001 - it plays a job that hides every error
            continue


def join_own_thread():
    child = threading.Thread(target=lambda: time.sleep(600))
    child.start()
    child.join()


@pytest.mark.parametrize(
    "wait",
    [
        lambda: time.sleep(600),
        lambda: threading.Event().wait(),
        lambda: threading.Event().wait(600),
        lambda: Future().result(),
        wait_for_lock,
        swallow_everything,
        join_own_thread,
        lambda: [None for _ in iter(int, 1)],
    ],
)
def test_a_kill_ends_every_wait_and_every_loop_in_python(wait):
    running, reported = threading.Event(), threading.Event()
    one, threads = attempt(), JobThreads()

    def work():
        running.set()
        wait()

    threads.start(one, work)
    assert running.wait(LIMIT)
    killer = Killer(NoSpark(), grace=LIMIT)
    assert killer.kill(one, reported.set)
    assert reported.wait(LIMIT)
    assert one.alive() == []
    assert killer.abandoned == 0


def test_what_ignores_a_kill_is_reported_after_the_grace_and_counted():
    running, reported, let_go = threading.Event(), threading.Event(), threading.Event()
    one = attempt()

    def deaf():
        while not let_go.is_set():
            try:
                running.set()
                let_go.wait()
            except Killed:
                continue

    JobThreads().start(one, deaf)
    assert running.wait(LIMIT)
    killer = Killer(NoSpark(), grace=0.2)
    killer.kill(one, reported.set)
    assert reported.wait(LIMIT)
    assert killer.abandoned == 1
    let_go.set()


def test_an_attempt_that_has_ended_cannot_be_killed():
    one = attempt()
    assert one.claim("job")
    assert not Killer(NoSpark(), 1).kill(one, lambda: pytest.fail("it had ended"))


def test_an_attempt_that_is_being_killed_cannot_end_by_itself():
    one = attempt()
    assert one.claim("killer")
    assert not one.claim("job")
    assert one.killing


def test_spark_is_left_alone_by_the_kill_of_a_job_that_never_used_it():
    running, reported = threading.Event(), threading.Event()
    one, spark = attempt(), NoSpark()
    JobThreads().start(one, lambda: running.set() or time.sleep(600))
    assert running.wait(LIMIT)
    Killer(spark, LIMIT).kill(one, reported.set)
    assert reported.wait(LIMIT)
    assert spark.cancelled == 0


def test_a_thread_is_used_again_and_knows_only_its_new_attempt():
    threads, seen, done = JobThreads(), [], threading.Semaphore(0)

    def work():
        seen.append((threading.current_thread().name, jobthreads.current().ref.attempt))
        done.release()

    for number in (1, 2, 3):
        one = attempt(number)
        threads.start(one, work)
        assert done.acquire(timeout=LIMIT)
        deadline = time.monotonic() + LIMIT
        while not threads._idle and time.monotonic() < deadline:
            threading.Event().wait(0.001)
    assert [number for _, number in seen] == [1, 2, 3]
    assert len({name for name, _ in seen}) == 1


def test_threads_that_a_job_starts_work_for_its_attempt():
    seen, done = [], threading.Event()

    def work():
        child = threading.Thread(target=lambda: seen.append(jobthreads.current()))
        child.start()
        child.join()
        done.set()

    one = attempt()
    JobThreads().start(one, work)
    assert done.wait(LIMIT)
    assert seen == [one]
    assert jobthreads.current() is None


class HeldAcrossASlice:
    """A condition's lock whose notifier keeps it until the waiter's slice is over and the waiter wants it back."""

    def __init__(self):
        self._inner = waits._lock()
        self._waiter = None
        self.wanted_back = threading.Event()

    def acquire(self, blocking=True, timeout=-1):
        if blocking and threading.current_thread() is self._waiter:
            self.wanted_back.set()
        return self._inner.acquire(blocking, timeout)

    def release(self):
        if self._waiter is None:  # its first owner is the waiter, who lets go of it to wait
            self._waiter = threading.current_thread()
        self._inner.release()

    __enter__ = acquire

    def __exit__(self, *_):
        self.release()


@pytest.mark.parametrize("timeout", [None, 600.0])
def test_a_notification_at_the_end_of_a_slice_is_not_lost(timeout):
    lock, waiting, ended = HeldAcrossASlice(), threading.Event(), threading.Event()
    condition, results = threading.Condition(lock), []

    def work():
        with condition:
            waiting.set()
            results.append(condition.wait(timeout))
        ended.set()

    JobThreads().start(attempt(), work)
    assert waiting.wait(LIMIT)
    with condition:
        lock.wanted_back.wait(4 * waits.SLICE)
        condition.notify_all()
    assert ended.wait(LIMIT)
    assert results == [True]


def test_sliced_waits_keep_their_meaning():
    results, done = [], threading.Event()

    def work():
        lock = threading.Lock()
        results.append(lock.acquire() and not lock.acquire(timeout=0.12) and not lock.acquire(False))
        lock.release()
        results.append(not lock.locked())
        event = threading.Event()
        results.append(event.wait(0.12) is False)
        threading.Thread(target=event.set).start()
        results.append(event.wait(LIMIT))
        begun = time.monotonic()
        time.sleep(0.12)
        results.append(time.monotonic() - begun >= 0.12)
        with pytest.raises(ValueError, match="non-negative"):
            time.sleep(-1)
        done.set()

    JobThreads().start(attempt(), work)
    assert done.wait(LIMIT)
    assert results == [True] * 5


class LateSpark(NoSpark):
    """A stage of the cancelled query begins later, and goes at the second try to cancel it."""

    def cancel(self, attempt):
        self.cancelled += 1
        return self.cancelled in (6, 7)


def test_work_that_spark_begins_after_the_threads_have_gone_is_cancelled_too(monkeypatch):
    monkeypatch.setattr(killing, "LOOK", 0.01)
    monkeypatch.setattr(killing, "QUIET", 0.5)
    spark, job = LateSpark(), attempt()
    job.jvm_threads[1] = ("thread", "connection")
    reported = threading.Event()
    JobThreads().start(job, lambda: time.sleep(60))
    assert Killer(spark, 5.0).kill(job, reported.set)
    assert reported.wait(LIMIT)
    deadline = time.monotonic() + LIMIT
    while spark.cancelled < 9 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert spark.cancelled >= 9, "it looked on after the late stage was gone"


def test_a_lock_whose_holder_a_kill_has_ended_is_free_for_the_next_and_only_then():
    one, locks, held, go_on = attempt(), [], threading.Event(), threading.Event()

    def work():
        locks.append(threading.Lock())
        locks[0].acquire()  # and nothing releases it: the kill came right after it
        held.set()
        while not go_on.is_set():
            try:
                go_on.wait()
            except Killed:
                continue

    thread = JobThreads().start(one, work)
    assert held.wait(LIMIT)
    (lock,) = locks
    killed = threading.Event()
    Killer(NoSpark(), LIMIT).kill(one, killed.set)
    assert not lock.acquire(timeout=4 * waits.SLICE), "its thread still runs"
    go_on.set()
    assert killed.wait(LIMIT)
    assert not thread.is_alive()
    assert lock.acquire(timeout=LIMIT)
    assert not lock.acquire(False)
    lock.release()
    with pytest.raises(RuntimeError, match="release unlocked lock"):
        lock.release()


def test_a_lock_that_a_thread_left_held_when_it_ended_by_itself_stays_held():
    one, locks, done = attempt(), [], threading.Event()

    def work():
        locks.append(threading.Lock())
        holder = threading.Thread(target=locks[0].acquire)
        holder.start()
        holder.join()
        done.set()

    JobThreads().start(one, work)
    assert done.wait(LIMIT)
    assert not locks[0].acquire(timeout=2 * waits.SLICE)
    locks[0].release()
    assert locks[0].acquire(False)


class CutSpark(NoSpark):
    """Knows whose connections were cut."""

    def __init__(self):
        super().__init__()
        self.cuts = []

    def cut(self, attempt):
        self.cuts.append(attempt.alive())


def test_connections_are_cut_once_the_threads_are_gone_as_one_may_have_left_the_jvm_waiting():
    one, spark, running, reported = attempt(), CutSpark(), threading.Event(), threading.Event()
    one.jvm_threads[1] = (None, "connection")
    JobThreads().start(one, lambda: running.set() or time.sleep(600))
    assert running.wait(LIMIT)
    Killer(spark, LIMIT).kill(one, reported.set)
    assert reported.wait(LIMIT)
    assert spark.cuts[-1] == []


def test_a_thread_that_is_being_killed_releases_no_lock_that_another_has_got_meanwhile():
    lock, one = waits.SlicedLock(), attempt()
    assert lock.acquire()
    assert one.claim("killer")
    jobthreads.work_for(one)
    try:
        other = threading.Thread(target=lock.release)  # it works for the killed attempt, as its starter does
        other.start()
        other.join(LIMIT)
    finally:
        jobthreads.work_done()
    assert lock.locked()
    lock.release()
    assert not lock.locked()
