"""Named objects that are made again by their recipes, when somebody asks for them or for that. Without Spark."""

import threading
import time

import pytest

from jobserver.driver.object_orders import ObjectOrderRefused
from jobserver.model import ObjectDeed, ObjectOrder
from tests.fakes.named_objects import LIMIT, SYNC, Context, in_thread


@pytest.fixture
def context(tmp_path):
    return Context(tmp_path)


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
