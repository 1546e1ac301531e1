"""What nothing will seal any more is left to sweeps, and what has left uses nothing."""

import threading

import pytest

from checkpoint.errors import StoreUnavailable
from checkpoint.manifest import INLINE_LIMIT
from checkpoint.records import Records
from jobserver.driver import named_objects
from jobserver.driver.held import Held
from jobserver.driver.jobthreads import RunningAttempt
from jobserver.driver.object_options import ObjectOptions
from jobserver.driver.versions import Versions
from jobserver.model import AttemptRef
from tests.fakes.named_objects import Context, in_thread

BIG = "x" * (INLINE_LIMIT + 1)
ASYNC = ObjectOptions(durability="async")


@pytest.fixture
def context(tmp_path):
    return Context(tmp_path)


def handed_out(context):
    """Versions and paths that no sweep may remove, as somebody may be about to seal them."""
    return context.journal._writer._issued.open


def fail():
    raise ValueError("this build fails")


def test_what_a_commit_made_before_one_of_its_builds_failed(context):
    with pytest.raises(ValueError, match="this build fails"):
        context.environment().commit(BIG, {"a": lambda: "made", "b": fail})
    context.settle()
    assert context.shelf.discarded == ["made"]
    assert handed_out(context) == set()


def test_what_a_commit_made_that_was_not_sealed(context, monkeypatch):
    environment = context.environment()
    monkeypatch.setattr(context.journal, "commit", lambda changes: fail())
    with pytest.raises(ValueError, match="this build fails"):
        environment.commit(BIG, {"a": lambda: "made"})
    context.settle()
    assert context.shelf.discarded == ["made"]
    assert handed_out(context) == set()


def test_the_progress_of_a_commit_whose_object_somebody_else_builds_for_too_long(context, monkeypatch):
    monkeypatch.setattr(named_objects, "TURN_LIMIT", 0.05)
    building, go_on = threading.Event(), threading.Event()

    def slow():
        building.set()
        assert go_on.wait(10)
        return "other"

    other = in_thread(lambda: context.registry.update("a", slow, ObjectOptions(strategy="none"), 1))
    assert building.wait(10)
    before = set(handed_out(context))
    with pytest.raises(TimeoutError):
        context.environment().commit(BIG, {"a": lambda: "mine"})
    assert handed_out(context) == before
    go_on.set()
    other()


def test_saved_progress_that_was_not_written_or_not_sealed(context, monkeypatch):
    progress = context.environment().progress
    context.files.broken = True
    with pytest.raises(StoreUnavailable):
        progress.save(BIG)
    assert handed_out(context) == set()
    context.files.broken = False
    monkeypatch.setattr(context.journal, "commit", lambda changes: fail())
    with pytest.raises(ValueError, match="this build fails"):
        progress.save(BIG)
    assert handed_out(context) == set()


def test_an_object_that_is_not_kept_and_one_that_was_replaced_before_it_was_written(context):
    context.registry.update("dear", lambda: "1", ObjectOptions(strategy="none"), 1)
    assert handed_out(context) == set()
    for value in ("1", "2", "3"):
        context.registry.update("late", lambda value=value: value, ASYNC, 1)
    assert handed_out(context) == {context.registry.held("late").version}
    assert context.registry.flush(10)
    assert handed_out(context) == set()


def test_a_recipe_that_is_run_again_or_fails(context):
    context.make("a", "1")
    again = Context(None, epoch=2, files=context.files)
    again.rebuilder.jobs = context.rebuilder.jobs
    assert again.registry.get("a", 10) == "1"
    if (
        first := again.registry._versions.turns.of("a")
    ) is not None:  # what it made is there before its turn ends
        assert again.registry.await_turn("a", first, 10)
    again.rebuilder.jobs["job-a"] = lambda objects: objects.update("a", fail)
    turn = again.registry.refresh("a")
    assert again.registry.await_turn("a", turn, 10)
    assert isinstance(turn.error, ValueError)
    assert handed_out(again) == set()


def test_a_version_that_is_published_after_its_attempt_has_left_is_freed_with_the_next():
    freed = []
    versions = Versions(Records(), {}, lambda held: freed.append(held.value))
    attempt = RunningAttempt(AttemptRef("j", 1), "g", "batch")
    first, second, third = (Held("a", "value", f"1-{n}", n, ASYNC) for n in (1, 2, 3))
    with versions.lock:
        versions.publish([first], attempt)
        versions.publish([second])
    assert freed == [], "its attempt uses the first"
    attempt.left = True
    with versions.lock:
        assert [held.value for held in versions.released_by(attempt.ref)[0]] == [1]
        versions.use(second, attempt)
        versions.publish([third], attempt)
        versions.publish([first])
    assert freed == [2, 3]


def test_a_refresh_waits_for_a_newer_version_that_is_not_sealed_yet(context):
    context.make("a", "1")
    context.registry.update("a", lambda: "2", ASYNC, 1)
    assert context.registry.record("a").version != context.registry.held("a").version
    assert context.registry.is_sealed("a", 10)
    assert context.registry.record("a").version == context.registry.held("a").version
    context.files.broken = True
    context.registry.update("a", lambda: "3", ASYNC, 1)
    assert not context.registry.is_sealed("a", 0.1)
    context.files.broken = False
    assert context.registry.flush(10)
