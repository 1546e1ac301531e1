"""The data of named objects: what was destroyed stays gone, and what a job reads stays as long as it reads.

Values lie in files here, and what a job is handed reads them only when it is asked, as a DataFrame does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from checkpoint.errors import StoreUnavailable
from checkpoint.layout import object_path
from jobserver.driver import jobthreads
from jobserver.driver.jobthreads import RunningAttempt
from jobserver.driver.journal import SWEEP_EVERY, ContextFolder
from jobserver.driver.object_options import ObjectOptions
from jobserver.driver.shelf import SparkShelf
from jobserver.model import AttemptRef, ObjectDeed, ObjectOrder
from tests.fakes.files import Fault, FaultyFiles
from tests.fakes.named_objects import LIMIT, SYNC, Context

ASYNC = ObjectOptions(durability="async")
UNKEPT = ObjectOptions(strategy="none")


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(tmp_path, files=FaultyFiles(), filed=True)


def next_epoch(context: Context, tmp_path: Path) -> Context:
    """The driver after it, which begins with what was sealed."""
    return Context(tmp_path, context.journal.epoch + 1, files=context.files, filed=True)


def plan(text: str) -> Callable[[], Callable[[], str]]:
    """The build of an object that tells a text when it is asked."""
    return lambda: lambda: text


@contextmanager
def working_for(attempt: RunningAttempt) -> Iterator[None]:
    """The calling thread is the job's."""
    jobthreads.work_for(attempt)
    try:
        yield
    finally:
        jobthreads.work_done()


def data_of(context: Context, name: str) -> list[str]:
    """The versions of an object that lie in the store."""
    folder = context.journal.folder
    return folder.files.names(folder.path(object_path(name, "")).rstrip("/"))


@pytest.mark.parametrize(
    "destroy",
    [
        lambda context: context.environment().named_objects.destroy("a"),
        lambda context: context.order(ObjectOrder("a", ObjectDeed.DESTROY)),
    ],
    ids=["by a job", "by a request"],
)
@pytest.mark.parametrize("unsealed", [False, True], ids=["as sealed", "with a newer version that waits"])
def test_what_was_destroyed_stays_gone_when_the_driver_dies_right_after_it(
    context: Context, tmp_path: Path, destroy: Callable[[Context], Any], unsealed: bool
) -> None:
    for name in ("a", "b"):
        context.registry.update(name, plan("sealed"), SYNC, LIMIT)
    if unsealed:
        context.shelf.may_write.clear()
        context.registry.update("a", plan("waits"), ASYNC, LIMIT)
    destroy(context)
    following = next_epoch(context, tmp_path)  # the dead one has no chance to write anything more
    context.shelf.may_write.set()
    assert following.registry.names() == ["b"]
    assert following.registry.get("a", LIMIT) is None
    assert context.registry.flush(LIMIT)
    assert next_epoch(following, tmp_path).registry.names() == ["b"]


@pytest.mark.parametrize("how", ["updated by others", "updated by itself", "forgotten", "destroyed"])
def test_what_a_job_reads_keeps_its_files_through_updates_and_sweeps_until_the_job_ends(
    context: Context, tmp_path: Path, how: str
) -> None:
    context.registry.update("a", plan("old"), SYNC, LIMIT)
    (old,) = data_of(context, "a")
    context = next_epoch(context, tmp_path)
    reader = RunningAttempt(AttemptRef("reader", 1), "g", "batch")
    handed: list[Callable[[], str]] = []

    def build() -> Callable[[], str]:
        handed.append(context.registry.get("a", LIMIT))
        return lambda: "new"

    with working_for(reader):
        if how == "updated by itself":
            context.registry.update("a", build, SYNC, LIMIT)
        else:
            build()
    if how in ("forgotten", "destroyed"):
        context.registry.remove("a", free=how == "destroyed")
    begun = update_until_swept(context)
    assert handed[0]() == "old"
    assert old in data_of(context, "a")
    assert begun not in data_of(context, "a"), "the sweep took what nobody reads"
    context.registry.released_by(reader.ref)
    update_until_swept(context)
    assert old not in data_of(context, "a")


def update_until_swept(context: Context) -> str:
    """Update until nothing of before is in a manifest that is kept, and swept; the first of these versions."""
    context.registry.update("a", plan("newer"), SYNC, LIMIT)
    first = context.journal.objects()["a"].version
    for number in range(2 * SWEEP_EVERY):
        context.registry.update("a", plan(str(number)), SYNC, LIMIT)
    context.settle()
    return first


@pytest.mark.parametrize("options", [ASYNC, UNKEPT], ids=["async", "never written"])
def test_what_an_object_was_built_from_keeps_its_files_as_long_as_that_object_reads_them(
    context: Context, options: ObjectOptions
) -> None:
    context.registry.update("a", plan("old"), SYNC, LIMIT)
    (old,) = data_of(context, "a")
    for name, source in (("b", "a"), ("c", "b")):
        job = RunningAttempt(AttemptRef(name, 1), "g", "batch")
        with working_for(job):
            handed = context.registry.get(source, LIMIT)
            context.registry.update(
                name, lambda handed=handed: lambda: f"{handed()}, derived", options, LIMIT
            )
        context.registry.released_by(job.ref)
    assert context.registry.flush(LIMIT)
    context.registry.remove("b", free=True)
    update_until_swept(context)
    assert context.registry.get("c", LIMIT)() == "old, derived, derived"
    context.registry.update("c", plan("new"), options, LIMIT)
    update_until_swept(context)
    assert old not in data_of(context, "a")


class Unwritable:
    """A DataFrame whose write fails in Spark."""

    write = property(lambda self: self)

    def mode(self, _: str) -> Unwritable:
        return self

    def parquet(self, _: str) -> None:
        raise RuntimeError("200 lines of Java")


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (None, RuntimeError, "200 lines of Java"),
        (Fault.FULL, StoreUnavailable, "FULL"),
    ],
    ids=["by the data", "by the store"],
)
def test_a_write_of_sparks_that_fails_says_so_in_the_stores_words_if_that_is_in_trouble(
    fault: Fault | None, error: type[Exception], words: str
) -> None:
    files = FaultyFiles()
    nobody: Any = None  # neither Spark nor jobs nor sealers are reached: the write fails before
    shelf = SparkShelf(nobody, nobody, ContextFolder(files, "ctx"), nobody)
    if fault is not None:
        files.inject(fault, "write_new", "ctx/probe")
    with pytest.raises(error, match=words) as caught:
        shelf.write_frame(Unwritable(), "progress/job/1-1")
    assert "200 lines of Java" in str(caught.value.__context__ or caught.value)
    assert files.content == {}
