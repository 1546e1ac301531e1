"""Seals of named objects: what holds them, who is killed while he waits for one, and what is written late. Without Spark."""

import itertools
import threading

import pytest

from checkpoint.errors import StoreUnavailable
from checkpoint.records import Records
from jobserver.driver import jobthreads
from jobserver.driver.jobthreads import RunningAttempt
from jobserver.driver.object_options import ObjectOptions
from jobserver.driver.warming import NOTED_FROM, rank_of
from jobserver.model import AttemptRef
from tests.fakes.files import Fault, FaultyFiles
from tests.fakes.named_objects import LIMIT, SYNC, Context, in_thread, over_and_over

ASYNC = ObjectOptions(durability="async")


@pytest.fixture
def context(tmp_path):
    return Context(tmp_path)


def test_the_note_of_use_never_buries_an_update(context):
    context.registry.update("a", lambda: "0", SYNC, LIMIT)
    counts = itertools.count(1)

    def read():
        user = RunningAttempt(AttemptRef("r", next(counts)), "g", "batch")
        jobthreads.work_for(user)
        context.registry.get("a", LIMIT)
        jobthreads.work_done()
        context.registry.released_by(user.ref)

    with over_and_over(read):
        for value in range(1, 31):
            context.registry.update("a", lambda value=value: str(value), SYNC, LIMIT)
            assert context.journal.objects()["a"].inline == str(value).encode()
    context.settle()
    assert context.journal.objects()["a"].inline == b"30"


def test_a_superseded_commit_holds_and_goes_on_when_the_driver_is_adopted(context, tmp_path):
    context.files.write_new("ctx/marker/000000000002-t2", b"")
    held = threading.Event()
    context.journal._superseded = lambda epoch: context.told.append(epoch) or held.set()
    update = in_thread(lambda: context.registry.update("a", lambda: "1", SYNC, LIMIT))
    assert held.wait(LIMIT)
    assert context.told == [2]
    assert context.registry.names() == []
    context.journal.readopt(3, "t3")
    assert update() == "1"
    assert context.journal.objects()["a"].inline == b"1"


def test_objects_and_progress_are_sealed_in_one_manifest(context):
    before = len(context.files.names("ctx/manifest"))
    context.registry.update_together({"a": lambda: "1", "b": lambda: "2"}, {})
    assert len(context.files.names("ctx/manifest")) == before + 1
    assert context.registry.names() == ["a", "b"]


def test_many_objects_are_published_by_one_copy_of_what_is_stored(context, monkeypatch):
    context.registry.update("first", lambda: "0", SYNC, LIMIT)
    copies, joined = [], Records._joined
    monkeypatch.setattr(
        Records, "_joined", lambda self, *changes: copies.append(len(self)) or joined(self, *changes)
    )
    context.registry.update_together({f"value {n}": lambda n=n: str(n) for n in range(300)}, {})
    assert len(context.registry.names()) == 301
    assert 0 < len(copies) < 10


def test_the_uses_of_one_job_are_noted_in_one_manifest(context):
    names = [f"value {n}" for n in range(20)]
    context.registry.update_together({name: lambda name=name: name for name in names}, {})
    before = len(context.files.names("ctx/manifest"))
    for number in range(NOTED_FROM):
        user = RunningAttempt(AttemptRef("r", number), "g", "batch")
        jobthreads.work_for(user)
        for name in names:
            context.registry.get(name, LIMIT)
        jobthreads.work_done()
        context.registry.released_by(user.ref)
        context.settle()
    assert {context.journal.objects()[name].used for name in names} == {rank_of(NOTED_FROM)}
    assert len(context.files.names("ctx/manifest")) == before + 1


def test_a_builder_that_was_killed_is_replaced_by_the_next_caller(context):
    attempt = RunningAttempt(AttemptRef("j", 1), "g", "batch")

    def build():
        raise jobthreads.Killed

    def killed():
        with pytest.raises(jobthreads.Killed):
            context.registry.get_or_create("a", build, SYNC, LIMIT)

    in_thread(killed)
    assert context.registry.get_or_create("a", lambda: "mine", SYNC, LIMIT) == "mine"
    assert attempt.alive() == []


class KilledAtSeal:
    """The keeper of seals as a job sees it that is killed while it waits there. `task`: what it had submitted."""

    def __init__(self, context, *, begins):
        self._plain, self._registry = context.sealers, context.registry
        self._begins = begins
        self._registry._seals._sealers = self
        self.task = None

    def submit(self, task):
        self._registry._seals._sealers = self._plain
        self.task = task
        if self._begins is not None:
            self._plain.submit(task)
            assert self._begins.wait(LIMIT)
        raise jobthreads.Killed


def killed(work):
    """Run it in a thread in which a kill is raised."""

    def run():
        with pytest.raises(jobthreads.Killed):
            work()

    in_thread(run)()


def late_deeds(registry, record):
    """Ways to change `a` that need a seal."""
    return {
        "update": lambda: registry.update("a", lambda: "A", SYNC, LIMIT),
        "together": lambda: registry.update_together({"a": lambda: "A", "b": lambda: "A"}, {}),
        "remove": lambda: registry.remove("a", True),
        "put back": lambda: registry.put_back(record),
    }


def test_an_attempt_that_goes_on_after_its_kill_updates_and_saves_nothing(context):
    context.registry.update("a", lambda: "0", SYNC, LIMIT)
    environment = context.environment()
    attempt = RunningAttempt(AttemptRef("job", 1), "group", "pool")

    def swallows_its_kill():
        jobthreads.work_for(attempt)
        environment.progress.save("before")
        assert attempt.claim("killer")
        for late in (
            lambda: context.registry.update("a", lambda: "A", SYNC, LIMIT),
            lambda: context.registry.remove("a", True),
            lambda: environment.commit(1, {"a": lambda: "A"}),
            lambda: environment.commit(1, {}),
            lambda: environment.progress.save("after"),
        ):
            with pytest.raises(RuntimeError, match="the job was killed before"):
                late()

    in_thread(swallows_its_kill)()
    assert context.registry.get("a", 0) == "0"
    assert context.environment(attempt=2).progress.load() == "before"
    assert context.registry.update("a", lambda: "B", SYNC, 0.0) == "B", "its turns have ended"


@pytest.mark.parametrize("deed", ["update", "together", "remove", "put back"])
def test_a_seal_that_goes_on_after_a_kill_comes_before_the_next_update(context, deed):
    context.registry.update("a", lambda: "0", SYNC, LIMIT)
    work = late_deeds(context.registry, context.registry.record("a"))[deed]
    held, waiting = threading.Event(), threading.Event()
    context.journal._superseded = lambda epoch: held.set()
    context.files.write_new("ctx/marker/000000000002-t2", b"")
    KilledAtSeal(context, begins=held)
    killed(work)
    plain_wait = context.registry._versions.changed.wait
    context.registry._versions.changed.wait = lambda timeout: waiting.set() or plain_wait(timeout)
    update = in_thread(lambda: context.registry.update("a", lambda: "B", SYNC, LIMIT))
    assert waiting.wait(LIMIT), "the update did not wait for the seal that goes on"
    context.journal.readopt(3, "t3")
    assert update() == "B"
    assert context.registry.get("a", 0) == "B"
    assert context.journal.objects()["a"].inline == b"B"


@pytest.mark.parametrize("deed", ["update", "together", "remove", "put back"])
def test_a_seal_that_begins_only_after_a_kill_is_not_made(context, deed):
    context.registry.update("a", lambda: "0", SYNC, LIMIT)
    seal = KilledAtSeal(context, begins=None)
    killed(late_deeds(context.registry, context.registry.record("a"))[deed])
    assert context.registry.update("a", lambda: "B", SYNC, LIMIT) == "B"
    with pytest.raises(RuntimeError, match="killed before"):
        seal.task()
    assert context.registry.get("a", 0) == "B"
    assert context.journal.objects()["a"].inline == b"B"
    context.settle()
    assert ("A" in context.shelf.discarded) == (deed in ("update", "together"))


def test_a_busy_name_is_not_written_late(context):
    context.registry.update("a", lambda: "1", ASYNC, LIMIT)
    held, wrote = context.registry.held("a"), []
    plain, context.shelf.write = context.shelf.write, lambda held: wrote.append(held.value) or plain(held)
    building, go = threading.Event(), threading.Event()
    update = in_thread(
        lambda: context.registry.update("a", lambda: building.set() or (go.wait(LIMIT) and "2"), SYNC, LIMIT)
    )
    assert building.wait(LIMIT)
    assert context.registry._seals.write_late(held) is False
    assert wrote == []
    go.set()
    assert update() == "2"


def test_whether_the_store_is_well_is_asked_by_a_write_that_leaves_nothing(tmp_path):
    files = FaultyFiles()
    journal = Context(tmp_path, files=files).journal
    before = dict(files.content)
    journal.check_store()
    assert files.content == before
    files.inject(Fault.FULL, "write_new", "ctx/probe")
    with pytest.raises(StoreUnavailable):
        journal.check_store()
