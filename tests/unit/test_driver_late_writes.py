"""Async objects: written every interval, newest version only, through trouble of the store, and bounded in age."""

import threading
import time

import pytest

from checkpoint.errors import StoreUnavailable
from jobserver.driver import late_writes
from jobserver.driver.held import Held
from jobserver.driver.late_writes import AsyncLimits, LateWrites
from jobserver.driver.object_options import ObjectOptions

LIMIT = 10.0
NEVER = AsyncLimits(interval=3600, max_lag=5)


class Store:
    """Writes, or fails as it is told; `now` is the only clock."""

    def __init__(self, limits, monkeypatch):
        monkeypatch.setattr(late_writes, "RETRY", 0.01)
        self.now = 0.0
        self.written, self.tried = [], 0
        self.error = None
        self.well = True
        self.busy = False
        self.late = LateWrites(limits, self.write, self.check, lambda: self.now)

    def write(self, held):
        self.tried += 1
        if self.error:
            raise self.error
        if self.busy:
            return False
        self.written.append(held.value)
        return True

    def check(self):
        if not self.well:
            raise StoreUnavailable("away")


def version(name, value):
    return Held(name, "value", "1-1", value, ObjectOptions(durability="async"))


def eventually(condition):
    end = time.monotonic() + LIMIT
    while not condition() and time.monotonic() < end:
        threading.Event().wait(0.005)
    assert condition()


def test_nothing_is_written_before_the_interval_is_over_and_then_the_newest_version_only(monkeypatch):
    store = Store(AsyncLimits(interval=5, max_lag=60), monkeypatch)
    store.late.add(version("a", "old"))
    store.now = 4.0
    store.late.add(version("a", "new"))
    assert (store.late.lag().objects, store.late.lag().seconds) == (1, 4.0)
    assert store.written == []
    store.now = 5.0
    store.late.add(version("b", "other"))  # wakes it; the older one is due
    eventually(lambda: store.written == ["new", "other"])
    assert store.late.flush(LIMIT)
    assert store.late.lag() == late_writes.Lag(0, 0.0)


def test_a_flush_writes_at_once(monkeypatch):
    store = Store(NEVER, monkeypatch)
    store.late.add(version("a", "1"))
    assert not store.late.flush(0)
    assert store.late.flush(LIMIT)
    assert store.written == ["1"]


def test_trouble_of_the_store_is_waited_out_however_it_shows(monkeypatch):
    for error, well in ((StoreUnavailable("away"), True), (OSError("Spark lost HDFS"), False)):
        store = Store(NEVER, monkeypatch)
        store.error, store.well = error, well
        store.late.add(version("a", "1"))
        assert not store.late.flush(0.1)
        eventually(lambda store=store: store.tried > late_writes.TRIES)
        assert store.late.trouble(version("a", "1")) is None
        store.error, store.well = None, True
        assert store.late.flush(LIMIT)
        assert store.written == ["1"]


def test_data_that_cannot_be_written_is_given_up_says_so_and_holds_up_no_other(monkeypatch):
    store = Store(NEVER, monkeypatch)
    bad = version("a", "1")
    store.error = TypeError("cannot pickle")
    store.late.add(bad)
    assert store.late.flush(LIMIT)
    assert "cannot pickle" in store.late.trouble(bad)
    store.error = None
    store.late.add(version("b", "2"))
    assert store.late.flush(LIMIT)
    assert store.written == ["2"]
    store.late.add(version("a", "3"))
    assert store.late.trouble(bad) is None


def test_what_is_being_rebuilt_is_written_in_a_later_round(monkeypatch):
    store = Store(NEVER, monkeypatch)
    store.busy = True
    store.late.add(version("a", "1"))
    assert not store.late.flush(0.05)
    store.busy = False
    assert store.late.flush(LIMIT)


def test_beyond_the_bound_no_more_is_taken_until_the_store_is_back(monkeypatch):
    store = Store(AsyncLimits(interval=1, max_lag=5), monkeypatch)
    store.error = StoreUnavailable("away")
    store.late.add(version("a", "1"))
    store.now = 5.0
    store.late.admit()
    store.now = 5.1
    with pytest.raises(StoreUnavailable, match="1 async objects wait"):
        store.late.admit()
    store.error = None
    assert store.late.flush(LIMIT)
    store.late.admit()


def test_what_was_dropped_is_not_written(monkeypatch):
    store = Store(NEVER, monkeypatch)
    store.late.add(version("a", "1"))
    store.late.drop("a")
    assert store.late.flush(0)
    assert store.written == []
