"""How a job's thread and session meet the JVM: what is looked up once, and what a kill or a broken connection undoes."""

from types import SimpleNamespace

import pytest

from jobserver.driver import jobthreads, spark
from jobserver.driver.jobthreads import RunningAttempt
from jobserver.driver.session_pool import PooledSession
from jobserver.driver.sessions import JobSession, NamesInSql, plan_of
from jobserver.model import AttemptRef


class Jvm:
    """The part of Spark that prepares threads: `connection` is the calling thread's, `looked_up` counts looks for its thread."""

    def __init__(self):
        self.connection = SimpleNamespace(socket="open")
        self.looked_up = 0
        client = SimpleNamespace(get_thread_connection=lambda: self.connection)
        self.context = SimpleNamespace(_gateway=SimpleNamespace(_gateway_client=client))
        self.java = SimpleNamespace(thread=self)
        self.root = SimpleNamespace()

    def currentThread(self):
        self.looked_up += 1
        return f"thread {self.looked_up}"


class Reusable:
    """The JVM's PooledSession; `entered` says by whom."""

    def __init__(self):
        self.entered = []

    def enter(self, *given):
        self.entered.append(given)


class Pool:
    """Sessions that are all one; `returned` are those that were given back, with their views."""

    def __init__(self):
        self.returned = []

    def take(self):
        return PooledSession("java session", Reusable())

    def give_back(self, session, views):
        self.returned.append((session.java, list(views)))


@pytest.fixture
def jvm(monkeypatch):
    monkeypatch.setattr(spark, "_here", SimpleNamespace())
    return Jvm()


def attempt(job="j1"):
    return RunningAttempt(AttemptRef(job, 1), f"group of {job}", "interactive")


def prepared(jvm, job):
    one, reusable = attempt(job), Reusable()
    spark.prepare_thread(jvm, one, 7, "java session", reusable)
    assert reusable.entered == [(f"group of {job}", f"job {job}", "interactive")]
    return one.jvm_threads[7]


def test_a_thread_looks_for_its_jvm_thread_once_as_long_as_its_connection_is_open(jvm):
    first = prepared(jvm, "j1")
    assert first == ("thread 1", jvm.connection)
    assert prepared(jvm, "j2") == first
    jvm.connection.socket = None  # closed; the next call opens another
    assert prepared(jvm, "j3")[0] == "thread 2"
    jvm.connection = SimpleNamespace(socket="open")
    assert prepared(jvm, "j4") == ("thread 3", jvm.connection)
    jvm.connection = None
    assert prepared(jvm, "j5")[0] == "thread 4"


class Frame:
    """A shared frame; each look at its plan gives another."""

    def __init__(self):
        plans = iter(["right", "later"])
        execution = SimpleNamespace(analyzed=lambda: next(plans))
        self._jdf = SimpleNamespace(queryExecution=lambda: execution)


def test_theplan_of_a_shared_frame_is_asked_for_once():
    frame = Frame()
    assert [plan_of(frame), plan_of(frame)] == ["right", "right"]


def test_what_a_thread_that_is_being_killed_is_told_of_a_shared_frame_is_not_kept(monkeypatch):
    killed, frame = attempt(), Frame()
    assert killed.claim("killer")
    monkeypatch.setattr(jobthreads, "_here", SimpleNamespace(attempt=killed))
    assert plan_of(frame) == "right"
    assert plan_of(frame) == "later"


def test_a_session_is_the_jobs_no_more_at_once_and_given_back_when_that_is_called_for(jvm):
    pool = Pool()
    session = JobSession(jvm, attempt(), pool, NamesInSql())
    assert session._jsparkSession == "java session"
    give_back = session.leave(again=True)
    assert not session.used
    assert pool.returned == []
    give_back()
    assert pool.returned == [("java session", [])]
    session.leave(again=True)()
    assert len(pool.returned) == 1


def test_a_session_that_something_may_still_use_is_not_given_back(jvm):
    pool = Pool()
    session = JobSession(jvm, attempt(), pool, NamesInSql())
    assert session._jsparkSession == "java session"
    session.leave(again=False)()
    assert pool.returned == []
