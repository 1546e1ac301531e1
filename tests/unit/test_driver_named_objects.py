"""Named objects: who builds, who waits, what readers see, what is sealed. Spark is replaced by plain values."""

import itertools
import tempfile
import threading
import time
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from checkpoint.errors import StoreUnavailable
from checkpoint.manifest import Kind, Progress
from jobserver.driver import jobthreads, warming
from jobserver.driver.held import Held
from jobserver.driver.jobthreads import RunningAttempt
from jobserver.driver.object_options import ObjectOptions
from jobserver.driver.object_orders import ObjectOrderRefused
from jobserver.model import AttemptRef, ObjectDeed, ObjectOrder
from sparkjobserver.api import ObjectDamaged
from tests.fakes.files import Fault, FaultyFiles
from tests.fakes.named_objects import LIMIT, SYNC, Context, PlainShelf, in_thread, over_and_over

ASYNC = ObjectOptions(durability="async")
UNKEPT = ObjectOptions(strategy="none")


@pytest.fixture
def context(tmp_path):
    return Context(tmp_path)


def test_a_sync_object_is_sealed_before_its_caller_goes_on(context):
    assert context.registry.update("a", lambda: "1", SYNC, LIMIT) == "1"
    assert context.journal.objects()["a"].inline == b"1"


def test_concurrent_callers_share_one_build(context):
    building, go = threading.Event(), threading.Event()

    def build():
        building.set()
        assert go.wait(LIMIT)
        return "built"

    first = in_thread(lambda: context.registry.get_or_create("a", build, SYNC, LIMIT))
    assert building.wait(LIMIT)
    others = [
        in_thread(lambda: context.registry.get_or_create("a", lambda: "other", SYNC, LIMIT)) for _ in range(3)
    ]
    reader = in_thread(lambda: context.registry.get("a", LIMIT))
    go.set()
    assert [first(), reader(), *(other() for other in others)] == ["built"] * 5


def test_a_failed_build_fails_all_who_wait_and_leaves_nothing(context):
    building, go = threading.Event(), threading.Event()

    def build():
        building.set()
        assert go.wait(LIMIT)
        raise ValueError("no such data")

    first = in_thread(lambda: context.registry.get_or_create("a", build, SYNC, LIMIT))
    assert building.wait(LIMIT)
    waiting = threading.Event()
    plain_wait = context.registry._versions.changed.wait
    context.registry._versions.changed.wait = lambda timeout: waiting.set() or plain_wait(timeout)
    other = in_thread(lambda: context.registry.get_or_create("a", lambda: "other", SYNC, LIMIT))
    assert waiting.wait(LIMIT)
    go.set()
    with pytest.raises(ValueError, match="no such data"):
        first()
    with pytest.raises(RuntimeError, match="no such data"):
        other()
    assert context.registry.get("a", 0) is None
    assert context.registry.names() == []
    assert context.registry.get_or_create("a", lambda: "again", SYNC, LIMIT) == "again"


def test_who_waits_too_long_gets_a_timeout_and_the_build_goes_on(context):
    building, go = threading.Event(), threading.Event()
    first = in_thread(
        lambda: context.registry.get_or_create(
            "a", lambda: building.set() or (go.wait(LIMIT) and "late"), SYNC, LIMIT
        )
    )
    assert building.wait(LIMIT)
    with pytest.raises(TimeoutError, match="its build goes on"):
        context.registry.get("a", 0.01)
    go.set()
    assert first() == "late"


def test_readers_see_the_old_version_until_the_new_one_is_sealed(context):
    context.registry.update("a", lambda: "old", SYNC, LIMIT)
    assert (
        context.registry.update("a", lambda: context.registry.get("a", 0) + " and new", SYNC, LIMIT)
        == "old and new"
    )


def test_a_failed_update_leaves_the_old_version(context):
    context.registry.update("a", lambda: "old", SYNC, LIMIT)
    with pytest.raises(ZeroDivisionError):
        context.registry.update("a", lambda: str(1 / 0), SYNC, LIMIT)
    context.files.broken = True
    with pytest.raises(StoreUnavailable):
        context.registry.update("a", lambda: "unsealed", SYNC, LIMIT)
    assert context.registry.get("a", 0) == "old"


def test_a_build_that_asks_for_its_own_name_is_told_so_and_does_not_hang(context):
    with pytest.raises(RuntimeError, match="itself"):
        context.registry.get_or_create("a", lambda: context.registry.get("a", LIMIT), SYNC, LIMIT)


def test_a_build_that_returns_none_is_refused(context):
    with pytest.raises(ValueError, match="None"):
        context.registry.get_or_create("a", lambda: None, SYNC, LIMIT)


def test_an_async_object_is_visible_at_once_and_sealed_later(context):
    context.shelf.may_write.clear()
    assert context.registry.update("a", lambda: "1", ASYNC, LIMIT) == "1"
    assert context.registry.get("a", 0) == "1"
    assert "a" not in context.journal.objects()
    assert not context.registry.flush(0)
    context.shelf.may_write.set()
    assert context.registry.flush(LIMIT)
    assert context.journal.objects()["a"].inline == b"1"
    assert context.registry.describe()[0]["checkpointed"]


def test_an_async_update_keeps_the_older_version_sealed_and_never_buries_a_newer_one(context):
    context.registry.update("a", lambda: "1", SYNC, LIMIT)
    context.shelf.may_write.clear()
    context.registry.update("a", lambda: "2", ASYNC, LIMIT)
    assert context.journal.objects()["a"].inline == b"1"
    newer = in_thread(lambda: context.registry.update("a", lambda: "3", SYNC, LIMIT))
    context.shelf.may_write.set()
    assert newer() == "3"
    assert context.registry.flush(LIMIT)
    assert context.journal.objects()["a"].inline == b"3"


def test_an_object_with_strategy_none_is_never_sealed_and_ends_the_sealed_one(context):
    context.registry.update("a", lambda: "1", SYNC, LIMIT)
    context.registry.update("a", lambda: "2", UNKEPT, LIMIT)
    assert "a" not in context.journal.objects()
    assert context.registry.get("a", 0) == "2"


def test_a_forgotten_name_is_gone_from_memory_and_manifest(context):
    context.registry.update("a", lambda: "1", SYNC, LIMIT)
    context.registry.remove("a", free=False)
    context.registry.remove("never there", free=True)
    assert context.registry.get("a", 0) is None
    assert "a" not in context.journal.objects()


def test_a_replaced_version_is_freed_once_its_last_user_has_ended(context):
    user = RunningAttempt(AttemptRef("j", 1), "g", "batch")
    context.registry.update("a", lambda: "old", SYNC, LIMIT)
    jobthreads.work_for(user)
    context.registry.get("a", 0)
    jobthreads.work_done()
    context.registry.update("a", lambda: "new", SYNC, LIMIT)
    context.settle()
    assert context.shelf.discarded == []
    context.registry.released_by(user.ref)
    context.settle()
    assert context.shelf.discarded == ["old"]


def test_the_next_epoch_restores_each_object_when_it_is_first_asked_for(context, tmp_path):
    for name in ("a", "b"):
        context.registry.update(name, lambda name=name: f"value of {name}", SYNC, LIMIT)
    following = Context(tmp_path, epoch=2)
    assert following.registry.names() == ["a", "b"]
    assert following.shelf.restored == {}
    readers = [in_thread(lambda: following.registry.get("a", LIMIT)) for _ in range(4)]
    assert {reader() for reader in readers} == {"value of a"}
    assert following.shelf.restored == {"a": 1}


def eventually(condition):
    end = time.monotonic() + LIMIT
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


def test_what_was_cached_is_cached_again_most_used_first_and_shown_while_it_goes_on(
    context, tmp_path, monkeypatch
):
    monkeypatch.setattr(warming, "WARM_AFTER", 0.01)
    context.shelf.kind = Kind.DATAFRAME
    for name in ("seldom", "often", "always", "new"):
        context.registry.update(name, lambda name=name: name, SYNC, LIMIT)
    for name, uses in (("often", 9), ("always", 40), ("seldom", 3)):
        for number in range(uses):
            user = RunningAttempt(AttemptRef(f"{name}-{number}", 1), "g", "batch")
            jobthreads.work_for(user)
            context.registry.get(name, 0)
            jobthreads.work_done()
            context.registry.released_by(user.ref)
    assert eventually(
        lambda: [context.journal.objects()[n].used for n in ("always", "often", "seldom")] == [6, 4, 0]
    )
    going = threading.Event()
    plain = PlainShelf.warm
    monkeypatch.setattr(PlainShelf, "warm", lambda shelf, held: going.wait(LIMIT) and plain(shelf, held))
    following = Context(tmp_path, epoch=2)
    assert eventually(lambda: following.registry.summary()["warming"] == {"done": 0, "of": 4})
    assert following.registry.get("new", LIMIT) == "new"  # a reader that comes first does not wait for it
    going.set()
    assert eventually(lambda: following.registry.summary()["warming"]["done"] == 4)
    assert eventually(lambda: len(following.shelf.warmed) == 4)
    assert [value for value in following.shelf.warmed if value != "new"] == ["always", "often", "seldom"]
    assert following.registry.held("often").uses >= 8, "use is counted on"


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


def test_what_a_standby_prepared_is_used_only_in_the_version_that_is_sealed(context, tmp_path):
    for name in ("a", "b"):
        context.registry.update(name, lambda name=name: f"value of {name}", SYNC, LIMIT)
    records = context.journal.objects()
    prepared = {
        "a": Held("a", "value", records["a"].version, "prepared", SYNC, records["a"]),
        "b": Held("b", "value", "an older version", "stale", SYNC, records["b"]),
        "c": Held("c", "value", "1", "removed since", SYNC, None),
    }
    following = Context(tmp_path, epoch=2, prepared=prepared)
    assert [following.registry.get(name, LIMIT) for name in ("a", "b", "c")] == [
        "prepared",
        "value of b",
        None,
    ]


def test_a_damaged_object_says_so_and_touches_no_other(context, tmp_path):
    context.registry.update("a", lambda: "damaged", SYNC, LIMIT)
    context.registry.update("b", lambda: "good", SYNC, LIMIT)
    following = Context(tmp_path, epoch=2)
    with pytest.raises(ObjectDamaged):
        following.registry.get("a", LIMIT)
    assert following.registry.get("b", LIMIT) == "good"
    shown = {item["name"]: item["state"] for item in following.registry.describe()}
    assert shown == {"a": "damaged", "b": "live"}
    assert list(following.registry.damaged()) == ["a"]
    assert following.registry.update("a", lambda: "rebuilt", SYNC, LIMIT) == "rebuilt"


@pytest.mark.parametrize("reader", ["a job", "the build of an update that fails"])
def test_an_object_is_called_damaged_no_longer_once_its_data_was_read_by(context, tmp_path, reader):
    """As when an operator has put a lost file back."""
    context.registry.update("a", lambda: "good", SYNC, LIMIT)
    following = Context(tmp_path, epoch=2)
    plain, following.shelf.restore = following.shelf.restore, Mock(side_effect=ObjectDamaged("a"))
    with pytest.raises(ObjectDamaged):
        following.registry.get("a", LIMIT)
    assert following.registry.describe()[0]["state"] == "damaged"
    following.shelf.restore = plain
    if reader == "a job":
        assert following.registry.get("a", LIMIT) == "good"
    else:
        with pytest.raises(ZeroDivisionError):
            following.registry.update("a", lambda: following.registry.get("a", 0) and 1 / 0, SYNC, LIMIT)
    assert following.registry.damaged() == {}
    assert following.registry.describe()[0]["state"] == "live"


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


def test_an_object_with_a_recipe_writes_no_data_and_is_built_again_once_when_it_is_asked_for(
    context, tmp_path
):
    context.make("a", "made")
    record = context.journal.objects()["a"]
    assert (record.strategy, record.inline) == ("recipe", None)
    following = Context(tmp_path, epoch=2)
    going = threading.Event()

    def job(objects):
        assert objects.get("a") is None
        assert "a" not in objects.names()
        assert going.wait(LIMIT)
        objects.get_or_create("a", lambda: "made again")
        raise AssertionError("a rebuild ends with the object")

    following.rebuilder.jobs["job-a"] = job
    readers = [in_thread(lambda: following.registry.get("a", LIMIT)) for _ in range(4)]
    going.set()
    assert {reader() for reader in readers} == {"made again"}
    assert following.rebuilder.runs == {"job-a": 1}
    shown = following.order(ObjectOrder("a"))
    assert (shown["rebuilt"], shown["checkpointed"], shown["state"]) == (True, True, "live")
    assert shown["version"] != record.version
    assert following.journal.objects()["a"] == record


def test_a_recipe_works_while_the_store_is_away(context, tmp_path):
    context.make("a", "made")
    following = Context(tmp_path, epoch=2)
    following.rebuilder.jobs["job-a"] = lambda objects: objects.update("a", lambda: "made again")
    following.files.broken = True
    assert following.registry.get("a", LIMIT) == "made again"


@pytest.mark.parametrize(
    ("job", "text"),
    [
        (lambda objects: None, "returned without building 'a'"),
        (lambda objects: 1 / 0, "ZeroDivisionError"),
        (lambda objects: (_ for _ in ()).throw(SystemExit(3)), "SystemExit"),
        (lambda objects: objects.update("a", lambda: 1 / 0), "ZeroDivisionError"),
    ],
)
def test_a_recipe_that_fails_fails_all_who_ask_and_may_be_tried_again(context, tmp_path, job, text):
    context.make("a", "made")
    following = Context(tmp_path, epoch=2)
    following.rebuilder.jobs["job-a"] = job
    with pytest.raises(RuntimeError, match=text):
        following.registry.get("a", LIMIT)
    following.rebuilder.jobs["job-a"] = lambda objects: objects.update("a", lambda: "at last")
    assert following.registry.get("a", LIMIT) == "at last"


def test_a_rebuild_changes_no_other_object_and_takes_none_away(context, tmp_path):
    context.registry.update("b", lambda: "kept", SYNC, LIMIT)
    context.make("a", "made")
    following = Context(tmp_path, epoch=2)

    def job(objects):
        objects.destroy("b")
        objects.forget("b")
        made = objects.update("b", lambda: "changed")
        absent = objects.get_or_create("c", lambda: "new")
        objects.commit({"part": 1}, {"a": lambda: f"{made} {absent}"})

    following.rebuilder.jobs["job-a"] = job
    assert following.registry.get("a", LIMIT) == "kept new"
    assert following.registry.get("b", LIMIT) == "kept"


def test_recipes_that_need_each_other_end_with_a_timeout_and_not_never(context, tmp_path):
    for name in ("a", "b"):
        context.make(name, name)
    following = Context(tmp_path, epoch=2)
    following.rebuilder.jobs["job-a"] = lambda objects: objects.get("b", timeout=0.2)
    following.rebuilder.jobs["job-b"] = lambda objects: objects.get("a", timeout=0.2)
    with pytest.raises(RuntimeError, match="TimeoutError"):
        following.registry.get("a", LIMIT)


def test_a_refresh_runs_the_recipe_and_tells_whether_it_goes_on_behind_the_answer(context):
    context.make("a", "first")
    go = threading.Event()
    context.rebuilder.jobs["job-a"] = lambda objects: go.wait(LIMIT) and objects.update("a", lambda: "second")
    assert context.order(ObjectOrder("a", ObjectDeed.REFRESH, 0.0))["refreshing"]
    assert context.registry.get("a", LIMIT) == "first"  # readers never wait for an update
    with pytest.raises(ObjectOrderRefused, match="being built"):
        context.order(ObjectOrder("a", ObjectDeed.REFRESH, 0.0))
    go.set()
    end = time.monotonic() + LIMIT
    while context.registry.get("a", LIMIT) != "second" and time.monotonic() < end:
        time.sleep(0.01)
    shown = context.order(ObjectOrder("a", ObjectDeed.REFRESH, LIMIT))
    assert (shown["refreshing"], shown["rebuilt"]) == (False, True)
    context.rebuilder.jobs["job-a"] = lambda objects: 1 / 0
    with pytest.raises(ObjectOrderRefused, match="ZeroDivisionError"):
        context.order(ObjectOrder("a", ObjectDeed.REFRESH, LIMIT))
    assert context.registry.get("a", LIMIT) == "second"


def test_a_damaged_object_offers_older_versions_and_the_job_that_made_it(context, tmp_path):
    context.make("a", "older", "materialize")
    older = context.journal.objects()["a"].version
    context.make("a", "damaged", "materialize")
    context.registry.update("b", lambda: "good", SYNC, LIMIT)
    following = Context(tmp_path, epoch=2)
    following.rebuilder.jobs["job-a"] = lambda objects: objects.update("a", lambda: "made again")
    with pytest.raises(ObjectDamaged):
        following.registry.get("a", LIMIT)
    shown = following.order(ObjectOrder("a"))
    assert [each["version"] for each in shown["older_versions"]] == [older]
    assert (shown["state"], shown["recipe"]) == ("damaged", True)
    assert following.registry.get("b", LIMIT) == "good"

    with pytest.raises(ObjectOrderRefused, match="not kept"):
        following.order(ObjectOrder("a", ObjectDeed.REVERT, version="never"))
    back = following.order(ObjectOrder("a", ObjectDeed.REVERT, version=older))
    assert (back["version"], back["state"]) == (older, "live")
    assert following.registry.get("a", LIMIT) == "older"
    assert following.journal.objects()["a"].version == older


def test_a_damaged_object_is_rebuilt_by_its_recipe_on_request_and_says_so_ever_after(context, tmp_path):
    context.make("a", "damaged", "materialize")
    following = Context(tmp_path, epoch=2)
    following.rebuilder.jobs["job-a"] = lambda objects: objects.update("a", lambda: "made again")
    with pytest.raises(ObjectDamaged):
        following.registry.get("a", LIMIT)
    assert following.order(ObjectOrder("a", ObjectDeed.REFRESH, LIMIT))["rebuilt"]
    later = Context(tmp_path, epoch=3)
    assert later.order(ObjectOrder("a"))["rebuilt"]
    assert later.registry.get("a", LIMIT) == "made again"


def test_what_a_reader_was_handed_is_never_freed_under_it(context):
    """One writer and many readers, as fast as they can: no reader meets a version that was freed, none is left."""
    context.registry.update("a", lambda: "0", SYNC, LIMIT)
    counts, met = itertools.count(1), []

    def read():
        attempt = RunningAttempt(AttemptRef("reader", next(counts)), "g", "batch")
        jobthreads.work_for(attempt)
        seen = [int(context.registry.get("a", LIMIT)) for _ in range(3)]
        freed = {int(value) for value in context.shelf.discarded}
        if freed & set(seen) or seen != sorted(seen):
            met.append((seen, freed & set(seen)))
        jobthreads.work_done()
        context.registry.released_by(attempt.ref)

    with over_and_over(*[read] * 4):
        for value in range(1, 61):
            context.registry.update("a", lambda value=value: str(value), SYNC, LIMIT)
    assert met == []
    context.settle()
    assert sorted(map(int, context.shelf.discarded)) == list(range(60))


class Orders(RuleBasedStateMachine):
    """Any order of updates, removals, failures and failovers: what is acknowledged is there, everything else is not."""

    names = st.sampled_from("abc")

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.epoch = 1
        self.context = Context(Path(self.folder.name))
        self.truth = {}
        self.count = 0

    def teardown(self):
        assert self.context.registry.flush(LIMIT)
        self.folder.cleanup()

    def next_value(self):
        self.count += 1
        return str(self.count)

    @rule(name=names, options=st.sampled_from([SYNC, ASYNC]))
    def update(self, name, options):
        value = self.next_value()
        assert self.context.registry.update(name, lambda: value, options, LIMIT) == value
        self.truth[name] = value

    @rule(names=st.sets(names, min_size=1))
    def commit(self, names):
        values = {name: self.next_value() for name in names}
        builds = {name: lambda value=value: value for name, value in values.items()}
        self.context.registry.update_together(builds, {"job": Progress(1, b"x")})
        self.truth |= values

    @rule(name=names)
    def get_or_create(self, name):
        value = self.next_value()
        found = self.context.registry.get_or_create(name, lambda: value, SYNC, LIMIT)
        assert found == self.truth.setdefault(name, value)

    @rule(name=names)
    def fail(self, name):
        with pytest.raises(ZeroDivisionError):
            self.context.registry.update(name, lambda: 1 / 0, SYNC, LIMIT)

    @rule(name=names, free=st.booleans())
    def remove(self, name, free):
        self.context.registry.remove(name, free)
        self.truth.pop(name, None)

    @rule()
    def fail_over(self):
        assert self.context.registry.flush(LIMIT)
        self.epoch += 1
        self.context = Context(Path(self.folder.name), self.epoch)

    @invariant()
    def every_object_is_what_was_acknowledged_last(self):
        registry = self.context.registry
        assert registry.names() == sorted(self.truth)
        assert {name: registry.get(name, 0) for name in "abc"} == {
            name: self.truth.get(name) for name in "abc"
        }


TestOrders = Orders.TestCase
TestOrders.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)


def test_orders_from_outside_show_and_destroy_one_object_and_name_what_is_absent(context):
    context.registry.update("a", lambda: "1", SYNC, LIMIT)
    shown = context.order(ObjectOrder("a"))
    assert (shown["kind"], shown["checkpointed"], shown["schema"]) == ("value", True, None)
    with pytest.raises(ObjectOrderRefused, match="until a job updates it"):
        context.order(ObjectOrder("a", ObjectDeed.REFRESH))
    context.files.broken = True
    with pytest.raises(ObjectOrderRefused, match="not known whether"):
        context.order(ObjectOrder("a", ObjectDeed.DESTROY))
    context.files.broken = False
    assert context.order(ObjectOrder("a", ObjectDeed.DESTROY)) is None
    assert "a" not in context.journal.objects()
    with pytest.raises(ObjectOrderRefused, match="no named object 'a'"):
        context.order(ObjectOrder("a"))


@pytest.mark.parametrize(
    "options",
    [
        {"storage_level": "SOMEWHERE"},
        {"durability": "maybe"},
        {"strategy": "hope"},
        {"storage_level": "NONE", "force_computation": True},
    ],
)
def test_options_that_cannot_be_are_refused(options):
    with pytest.raises(ValueError, match=r".+"):
        ObjectOptions(**options)
