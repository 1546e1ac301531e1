"""Named objects: who builds, who waits, what readers see, what is sealed. Spark is replaced by plain values."""

import itertools
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from checkpoint.errors import StoreUnavailable
from checkpoint.manifest import Progress
from jobserver.driver import jobthreads
from jobserver.driver.jobthreads import RunningAttempt
from jobserver.driver.object_options import ObjectOptions
from jobserver.driver.object_orders import ObjectOrderRefused
from jobserver.model import AttemptRef, ObjectDeed, ObjectOrder
from tests.fakes.named_objects import LIMIT, SYNC, Context, in_thread, over_and_over

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
