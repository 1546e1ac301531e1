"""The data of named objects: what was destroyed stays gone, and what a job reads stays as long as it reads.

Values lie in files here, and what a job is handed reads them only when it is asked, as a DataFrame does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from checkpoint.layout import object_path
from jobserver.driver import jobthreads
from jobserver.driver.jobthreads import RunningAttempt
from jobserver.driver.journal import SWEEP_EVERY
from jobserver.driver.object_options import ObjectOptions
from jobserver.model import AttemptRef, ObjectDeed, ObjectOrder
from tests.fakes.named_objects import LIMIT, SYNC, Context

ASYNC = ObjectOptions(durability="async")


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(tmp_path, filed=True)


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
        context.registry.update(name, lambda: "sealed", SYNC, LIMIT)
    if unsealed:
        context.shelf.may_write.clear()
        context.registry.update("a", lambda: "waits", ASYNC, LIMIT)
    destroy(context)
    following = Context(tmp_path, epoch=2, filed=True)  # the dead one has no chance to write anything more
    context.shelf.may_write.set()
    assert following.registry.names() == ["b"]
    assert following.registry.get("a", LIMIT) is None
    assert context.registry.flush(LIMIT)
    assert Context(tmp_path, epoch=3, filed=True).registry.names() == ["b"]


@pytest.mark.parametrize("by_its_own_update", [False, True], ids=["while others update", "in its own update"])
def test_what_a_job_reads_keeps_its_files_through_updates_and_sweeps_until_the_job_ends(
    context: Context, tmp_path: Path, by_its_own_update: bool
) -> None:
    context.registry.update("a", lambda: "old", SYNC, LIMIT)
    (old,) = data_of(context, "a")
    context = Context(tmp_path, epoch=2, filed=True)
    reader = RunningAttempt(AttemptRef("reader", 1), "g", "batch")
    handed: list[Callable[[], str]] = []

    def build() -> str:
        handed.append(context.registry.get("a", LIMIT))
        return "new"

    with working_for(reader):
        if by_its_own_update:
            context.registry.update("a", build, SYNC, LIMIT)
        else:
            build()
    begun = update_until_swept(context)
    assert handed[0]() == "old"
    assert old in data_of(context, "a")
    assert begun not in data_of(context, "a"), "the sweep took what nobody reads"
    context.registry.released_by(reader.ref)
    update_until_swept(context)
    assert old not in data_of(context, "a")


def update_until_swept(context: Context) -> str:
    """Update until nothing of before is in a manifest that is kept, and swept; the first of these versions."""
    context.registry.update("a", lambda: "newer", SYNC, LIMIT)
    first = context.journal.objects()["a"].version
    for number in range(2 * SWEEP_EVERY):
        context.registry.update("a", lambda number=number: str(number), SYNC, LIMIT)
    context.settle()
    return first
