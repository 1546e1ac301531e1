"""Async objects: written every interval, newest version only, through trouble of the store, and bounded in age."""

import threading
import time

import pytest

from checkpoint.errors import AlreadyExists, StoreUnavailable
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
        self.error, self.errors = None, {}
        self.well = True
        self.busy = set()
        self.settled = []
        self.late = LateWrites(limits, self.write, self.settle, self.check, lambda: self.now)

    def write(self, held):
        self.tried += 1
        if error := self.errors.get(held.value, self.error):
            raise error
        if held.value in self.busy:
            return False
        self.written.append(held.value)
        return True

    def settle(self, held):
        self.settled.append(held.value)

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
    store.late.add(
        version("b", "other")
    )  # wakes it; the older one is due, with which this one may be written or wait
    eventually(lambda: store.written[:1] == ["new"])
    assert store.late.flush(LIMIT)
    assert store.written == ["new", "other"]
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
    store.errors["1"] = TypeError("cannot pickle")
    store.late.add(bad)
    assert not store.late.flush(LIMIT), "not all is sealed"
    assert "cannot pickle" in store.late.trouble(bad)
    store.now = 100.0
    store.late.admit()
    store.late.add(version("b", "2"))
    eventually(lambda: not store.late.flush(LIMIT) and store.written == ["2"])
    assert (store.late.lag().objects, store.late.lag().seconds) == (1, 100.0)
    store.late.add(version("a", "3"))
    assert store.late.trouble(bad) is None
    assert store.late.flush(LIMIT)
    assert store.written == ["2", "3"]


def test_what_was_given_up_is_tried_again_slowly_and_at_once_by_a_flush(monkeypatch):
    store = Store(AsyncLimits(interval=1, max_lag=5), monkeypatch)
    bad = version("a", "1")
    store.errors["1"] = OSError("quota")
    store.late.add(bad)
    assert not store.late.flush(LIMIT)
    tried = store.tried
    assert not store.late.flush(LIMIT)
    assert store.tried == tried + 1
    store.now = late_writes.GIVEN_UP_RETRY - 1
    store.late.add(version("b", "2"))
    store.now += 0.9
    store.late.add(version("c", "3"))
    store.late.drop("c")
    assert store.late.trouble(bad) is not None
    assert store.tried == tried + 1
    del store.errors["1"]
    store.now += late_writes.GIVEN_UP_RETRY
    store.late.drop("none")  # wakes it
    eventually(lambda: store.late.lag().objects == 0)
    assert sorted(store.written) == ["1", "2"]


def test_an_error_of_the_checkpoint_that_is_no_trouble_of_the_store_is_the_datas_own(monkeypatch):
    store = Store(NEVER, monkeypatch)
    bad = version("a", "1")
    store.errors["1"] = AlreadyExists("taken by other bytes")
    store.late.add(bad)
    store.late.add(version("b", "2"))
    assert not store.late.flush(LIMIT)
    assert "taken by other bytes" in store.late.trouble(bad)
    assert store.written == ["2"]


def test_a_busy_name_holds_up_no_other(monkeypatch):
    store = Store(NEVER, monkeypatch)
    store.busy = {"1"}
    store.late.add(version("a", "1"))
    store.late.add(version("b", "2"))
    assert not store.late.flush(0.05)
    eventually(lambda: store.written == ["2"])


def test_what_is_being_rebuilt_is_written_in_a_later_round(monkeypatch):
    store = Store(NEVER, monkeypatch)
    store.busy = {"1"}
    store.late.add(version("a", "1"))
    assert not store.late.flush(0.05)
    store.busy.clear()
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


def test_each_version_is_settled_once_it_is_written_or_replaced_but_not_while_it_is_written(monkeypatch):
    store = Store(NEVER, monkeypatch)
    for value in ("one", "two"):
        store.late.add(version("a", value))
    assert store.settled == ["one"]
    writing, go_on = threading.Event(), threading.Event()
    plain = store.write

    def slow(held):
        writing.set()
        assert go_on.wait(LIMIT)
        return plain(held)

    monkeypatch.setattr(store.late, "_write", slow)
    flushing = threading.Thread(target=store.late.flush, args=(LIMIT,))
    flushing.start()
    assert writing.wait(LIMIT)
    store.late.add(version("a", "three"))
    assert store.settled == ["one"], "what is written of it cannot be removed yet"
    go_on.set()
    flushing.join(LIMIT)
    assert store.settled == ["one", "two", "three"]
    store.late.add(version("b", "dropped"))
    store.late.drop("b")
    assert store.settled[3:] == ["dropped"]
