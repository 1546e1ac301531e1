"""What a driver watches beside its jobs: its owner, its markers, and as a standby the manifests of its context."""

import threading
import time
from types import SimpleNamespace

import pytest

from checkpoint.manifest import Kind, NamedObject
from jobserver.driver import __main__ as process
from jobserver.driver import standby
from jobserver.driver.binding import Role
from jobserver.driver.held import Held
from jobserver.driver.lifetime import Lifetime
from jobserver.driver.object_options import ObjectOptions
from jobserver.driver.standby import Standby

LIMIT = 10.0


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(process, "TICK", 0.01)
    monkeypatch.setattr(process, "MARKERS_EVERY", 0.01)
    monkeypatch.setattr(standby, "FOLLOW_EVERY", 0.01)


def lived(check, orphan_timeout):
    """The life of a driver without an owner, in a thread; answers what it asked its end for."""
    now = time.monotonic()
    driver = SimpleNamespace(
        binding=SimpleNamespace(role=Role.ACTIVE),
        streaming=SimpleNamespace(any=False),
        has_owner=False,
        lifetime=Lifetime(orphan_timeout, 60, now, now),
        check_markers=check,
    )
    ending = process.Ending()
    work = (driver, SimpleNamespace(connected=False), ending)
    thread = threading.Thread(target=process.live, args=work, daemon=True)
    thread.start()
    thread.join(LIMIT)
    return ending.reason


def test_an_orphan_ends_although_the_store_hangs():
    hanging = threading.Event()
    assert "its owner was not heard" in lived(lambda: hanging.wait(2 * LIMIT) and None, 0.2)
    hanging.set()


def test_a_driver_that_was_replaced_ends_also_when_a_look_had_failed_before():
    looks = iter([OSError("odd"), None, "another driver has sealed"])

    def check():
        look = next(looks)
        if isinstance(look, Exception):
            raise look
        return look

    assert lived(check, 600) == "another driver has sealed"


def test_a_standby_prepares_the_frames_whose_data_never_changes():
    def record(name, kind, strategy):
        return NamedObject(name, kind, "1-1", strategy, "sync", "NONE")

    records = [
        record("written", Kind.DATAFRAME, "materialize"),
        record("files", Kind.DATAFRAME, "source"),
        record("built", Kind.DATAFRAME, "recipe"),
        record("value", Kind.VALUE, "materialize"),
    ]
    assert set(standby.wanted_of({each.name: each for each in records})) == {"written"}


def test_a_standby_follows_on_whatever_goes_wrong():
    record = NamedObject("a", Kind.DATAFRAME, "1-1", "materialize", "sync", "NONE")
    other = NamedObject("b", Kind.DATAFRAME, "1-2", "materialize", "sync", "NONE")
    troubles = [OSError("the JVM was busy")]
    restored = threading.Event()

    def newest(_known):
        if troubles:
            raise troubles.pop()
        return SimpleNamespace(objects={"a": record, "b": other}, name="m")

    def restore(wanted):
        if wanted.name == "b":
            raise TypeError("Spark failed")
        restored.set()
        return Held("a", "dataframe", "1-1", "value", ObjectOptions(), wanted)

    tried: list[str] = []
    shelf = SimpleNamespace(restore=restore, try_out=lambda held: tried.append(held.name))
    following = Standby(newest, shelf, lambda held: None)
    following.look()
    following.follow()
    assert restored.wait(LIMIT)
    following.look()
    assert set(following.end()) == {"a"}
    assert following.progress()["manifest"] == "m"
    assert tried == ["a"], "each is read once"


def cached_record(name, version="1-1", level="MEMORY_AND_DISK", used=0):
    return NamedObject(name, Kind.DATAFRAME, version, "materialize", "sync", level, used=used)


class Filled:
    """A standby of a context with these objects. `meanwhile` is done while the cache of the first one is filled."""

    def __init__(self, *records, meanwhile=lambda: None):
        self.records = {record.name: record for record in records}
        self.warmed, self.discarded, self.late = [], [], []
        self._meanwhile = meanwhile
        shelf = SimpleNamespace(
            restore=self._restore, try_out=lambda held: None, warm=self._warm, discard=self.discarded.append
        )
        self.standby = Standby(self._newest, shelf, self.late.append)
        self.standby.look()

    def _newest(self, _known):
        return SimpleNamespace(objects=dict(self.records), name="m")

    def _restore(self, record):
        return Held(record.name, "dataframe", record.version, "value", ObjectOptions(), record)

    def _warm(self, held):
        self.warmed.append(held)
        if len(self.warmed) == 1:
            self._meanwhile()

    def replace(self, name):
        self.records[name] = cached_record(name, "2-1")
        self.standby.look()


def test_a_standby_caches_once_what_was_cached_the_most_used_first():
    filled = Filled(
        cached_record("a"), cached_record("much used", used=5), cached_record("never", level="NONE")
    )
    filled.standby.fill()
    filled.standby.fill()
    assert [held.name for held in filled.warmed] == ["much used", "a"]
    assert all(held.warm for held in filled.warmed)
    assert (filled.discarded, filled.late) == ([], [])


def test_a_standby_frees_the_cache_of_a_version_that_is_replaced():
    filled = Filled(cached_record("a"))
    filled.standby.fill()
    filled.replace("a")
    assert filled.discarded == filled.warmed
    assert not filled.standby.end()["a"].warm


def test_a_standby_frees_the_cache_of_a_version_that_was_replaced_while_it_was_filled():
    filled = Filled(cached_record("a"), meanwhile=lambda: filled.replace("a"))
    filled.standby.fill()
    assert filled.discarded == filled.warmed * 2, "before there was anything to free, and after"
    assert filled.late == []


def test_a_standby_that_ends_while_it_fills_a_cache_tells_who_has_it_then_and_begins_no_other():
    filled = Filled(cached_record("a"), cached_record("b", used=5), meanwhile=lambda: filled.standby.end())
    filled.standby.fill()
    assert [held.name for held in filled.warmed] == ["b"]
    assert (filled.late, filled.discarded) == (filled.warmed, [])


def test_what_a_standby_cannot_cache_does_not_keep_it_from_the_rest():
    def fail():
        raise RuntimeError("out of memory")

    filled = Filled(cached_record("a"), cached_record("b"), meanwhile=fail)
    filled.standby.fill()
    assert len(filled.warmed) == 2
