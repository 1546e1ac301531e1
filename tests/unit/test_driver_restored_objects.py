"""Named objects after a failover: restored when they are asked for, cached again, damaged ones. Without Spark."""

import threading
import time
from unittest.mock import Mock

import pytest

from checkpoint.manifest import Kind
from jobserver.driver import jobthreads, warming
from jobserver.driver.held import Held
from jobserver.driver.jobthreads import RunningAttempt
from jobserver.driver.object_orders import ObjectOrderRefused
from jobserver.model import AttemptRef, ObjectDeed, ObjectOrder
from sparkjobserver.api import ObjectDamaged
from tests.fakes.named_objects import LIMIT, SYNC, Context, PlainShelf, in_thread


@pytest.fixture
def context(tmp_path):
    return Context(tmp_path)


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


@pytest.mark.parametrize("replaced", [True, False])
def test_a_version_that_is_replaced_while_it_is_cached_leaves_no_cache(
    context, tmp_path, monkeypatch, replaced
):
    """It was freed before there was a cache to free."""
    monkeypatch.setattr(warming, "WARM_AFTER", 0.01)
    context.shelf.kind = Kind.DATAFRAME
    context.registry.update("a", lambda: "older", SYNC, LIMIT)
    begun, go_on = threading.Event(), threading.Event()
    plain = PlainShelf.warm

    def slowly(shelf, held):
        begun.set()
        assert go_on.wait(LIMIT)
        plain(shelf, held)

    monkeypatch.setattr(PlainShelf, "warm", slowly)
    following = Context(tmp_path, epoch=2)
    assert begun.wait(LIMIT)
    if replaced:
        following.registry.update("a", lambda: "newer", SYNC, LIMIT)
        assert eventually(lambda: following.shelf.discarded == ["older"]), "freed, before there is a cache"
    go_on.set()
    assert eventually(lambda: following.shelf.warmed == ["older"])
    assert eventually(lambda: following.registry.summary()["warming"]["done"] == 1)
    expected = ["older"] * 2 if replaced else []
    assert eventually(lambda: following.shelf.discarded == expected), following.shelf.discarded


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


def test_what_a_standby_had_cached_of_another_version_is_freed(context, tmp_path):
    for name in ("a", "b"):
        context.registry.update(name, lambda name=name: f"value of {name}", SYNC, LIMIT)
    records = context.journal.objects()
    prepared = {
        "a": Held("a", "value", records["a"].version, "good", SYNC, records["a"], warm=True),
        "b": Held("b", "value", "an older version", "stale", SYNC, records["b"], warm=True),
        "c": Held("c", "value", "an older version", "without a cache", SYNC, records["b"]),
    }
    following = Context(tmp_path, epoch=2, prepared=prepared)
    following.settle()
    assert following.shelf.discarded == ["stale"]


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
