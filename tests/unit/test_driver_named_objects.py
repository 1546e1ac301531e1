"""Named objects: who builds, who waits, what readers see, what is sealed. Spark is replaced by plain values."""

import threading
import time
from collections import Counter

import pytest

from checkpoint.epoch import begin_epoch
from checkpoint.errors import StoreUnavailable
from checkpoint.local import LocalFiles
from checkpoint.manifest import Kind, NamedObject
from checkpoint.writer import CheckpointWriter
from jobserver.driver import jobthreads, named_objects
from jobserver.driver.held import Held
from jobserver.driver.jobthreads import RunningAttempt
from jobserver.driver.journal import Journal
from jobserver.driver.keeper import Keeper
from jobserver.driver.named_objects import Registry
from jobserver.driver.object_options import ObjectOptions
from jobserver.driver.object_orders import ObjectOrderRefused, carry_out
from jobserver.model import AttemptRef, ObjectDeed, ObjectOrder
from sparkjobserver.api import ObjectDamaged

SYNC, ASYNC = ObjectOptions(), ObjectOptions(durability="async")
UNKEPT = ObjectOptions(strategy="none")
LIMIT = 10.0


class PlainShelf:
    """Keeps values as texts inside the manifest."""

    def __init__(self):
        self.discarded = []
        self.warmed = []
        self.restored = Counter()
        self.may_write = threading.Event()
        self.may_write.set()

    def make(self, name, value, options, version, write):
        held = Held(name, "value", version, value, options)
        held.record = self.write(held) if write else None
        return held

    def write(self, held):
        assert self.may_write.wait(LIMIT)
        return NamedObject(
            held.name,
            Kind.VALUE,
            held.version,
            "materialize",
            held.options.durability,
            inline=held.value.encode(),
        )

    def restore(self, record):
        self.restored[record.name] += 1
        if record.inline == b"damaged":
            raise ObjectDamaged(record.name)
        return Held(record.name, "value", record.version, record.inline.decode(), SYNC, record)

    def hand_out(self, held):
        return held.value

    def warm(self, held):
        self.warmed.append(held.value)

    def discard(self, held):
        self.discarded.append(held.value)


class SlowStore(LocalFiles):
    """Fails on demand."""

    broken = False

    def write_new(self, path, data):
        if self.broken:
            raise StoreUnavailable("asked to fail")
        super().write_new(path, data)


class Context:
    """One epoch of a context on a local store."""

    def __init__(self, folder, epoch=1, prepared=None):
        self.files = SlowStore(folder)
        self.told = []
        base = begin_epoch(self.files, "ctx", epoch, f"t{epoch}", b"s")
        writer = CheckpointWriter(self.files, "ctx", epoch, f"t{epoch}", base, b"s")
        self.journal = Journal(self.files, "ctx", writer, self.told.append)
        self.shelf = PlainShelf()
        self.background = Keeper("background", 1)
        self.registry = Registry(self.shelf, self.journal, Keeper("sealer", 4), self.background, prepared)

    def settle(self):
        """Wait for what the background was given."""
        self.background.submit(lambda: None).result(LIMIT)


@pytest.fixture
def context(tmp_path):
    return Context(tmp_path)


def in_thread(work):
    """Run it in a thread; answers a function that waits for its value or raises its error."""
    result = {}

    def run():
        try:
            result["value"] = work()
        except Exception as error:  # noqa: BLE001 - whatever it raised is raised again for the test
            result["error"] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def wait():
        thread.join(LIMIT)
        if "error" in result:
            raise result["error"]
        return result["value"]

    wait.thread = thread
    return wait


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
    plain_wait = context.registry._changed.wait
    context.registry._changed.wait = lambda timeout: waiting.set() or plain_wait(timeout)
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


def test_what_was_restored_or_prepared_is_cached_in_the_background_afterwards(context, tmp_path, monkeypatch):
    monkeypatch.setattr(named_objects, "WARM_AFTER", 0.01)
    for name in ("a", "b"):
        context.registry.update(name, lambda name=name: f"value of {name}", SYNC, LIMIT)
    record = context.journal.objects()["b"]
    prepared = {"b": Held("b", "value", record.version, "prepared", SYNC, record)}
    following = Context(tmp_path, epoch=2, prepared=prepared)
    assert following.registry.get("a", LIMIT) == "value of a"
    end = time.monotonic() + LIMIT
    while sorted(following.shelf.warmed) != ["prepared", "value of a"] and time.monotonic() < end:
        following.settle()
    assert sorted(following.shelf.warmed) == ["prepared", "value of a"]


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
    assert following.registry.update("a", lambda: "rebuilt", SYNC, LIMIT) == "rebuilt"


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


def test_orders_from_outside_show_and_destroy_one_object_and_name_what_is_absent(context):
    context.registry.update("a", lambda: "1", SYNC, LIMIT)
    shown = carry_out(context.registry, ObjectOrder("a"))
    assert (shown["kind"], shown["checkpointed"], shown["schema"]) == ("value", True, None)
    with pytest.raises(ObjectOrderRefused, match="until a job updates it"):
        carry_out(context.registry, ObjectOrder("a", ObjectDeed.REFRESH))
    context.files.broken = True
    with pytest.raises(ObjectOrderRefused, match="not known whether"):
        carry_out(context.registry, ObjectOrder("a", ObjectDeed.DESTROY))
    context.files.broken = False
    assert carry_out(context.registry, ObjectOrder("a", ObjectDeed.DESTROY)) is None
    assert "a" not in context.journal.objects()
    with pytest.raises(ObjectOrderRefused, match="no named object 'a'"):
        carry_out(context.registry, ObjectOrder("a"))


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
