"""Checkpoints of contexts that end, through whole servers: deleted with their context, kept, and begun from."""

from __future__ import annotations

from dataclasses import replace

import pytest

from checkpoint import catalog
from checkpoint.epoch import load
from checkpoint.errors import StoreUnavailable as FilesUnavailable
from checkpoint.manifest import Kind, NamedObject
from checkpoint.writer import Changes, CheckpointWriter
from jobserver.errors import BadRequest, StoreUnavailable
from jobserver.model import ContextState, ErrorInfo
from tests.fakes.cluster import FakeCluster, FakeServer, submission

SECRET = b"secret"


@pytest.fixture
async def cluster(tmp_path):
    made = FakeCluster(tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def two(cluster):
    return [await cluster.start(name) for name in ("s1", "s2")]


async def context_with_data(server: FakeServer, name: str) -> str:
    """A running context whose driver has sealed one value."""
    context = await server.contexts.create(name, {})
    fence = await server.store.fence(context.id)
    assert fence is not None
    pin = f"{fence.epoch:012d}-{0:012d}"
    base = load(server.files, context.id, pin, SECRET)
    writer = CheckpointWriter(server.files, context.id, fence.epoch, fence.token, base, SECRET)
    writer.commit(Changes(put=[NamedObject("v", Kind.VALUE, "x", "materialize", "sync", inline=b"1")]))
    return context.id


async def test_a_deleted_contexts_checkpoint_goes_and_a_living_ones_and_a_kept_ones_stay(two):
    gone, kept, living = [await context_with_data(two[0], name) for name in ("gone", "kept", "living")]
    assert await two[1].contexts.delete("gone", force=False)
    assert await two[1].contexts.delete("kept", force=False, keep=True)
    two[0].files.write_new("somebody-elses/file", b"x")
    assert await two[0].kept.remove_ended() == [gone]
    assert catalog.contexts(two[0].files) == sorted([kept, living, "somebody-elses"])
    assert await two[1].kept.remove_ended() == []


async def test_a_context_that_failed_or_was_killed_keeps_its_checkpoint_until_somebody_prunes_it(
    two, cluster
):
    context = await context_with_data(two[0], "broken")
    assert await two[0].contexts.delete("broken", force=False)
    record = cluster.store.contexts[context]
    cluster.store.contexts[context] = replace(
        record, state=ContextState.ERROR, error=ErrorInfo("it could not start")
    )
    assert await two[0].kept.remove_ended() == []
    assert catalog.contexts(two[0].files) == [context]


async def test_a_new_context_begins_with_what_a_kept_one_held_and_keeps_its_code(two, cluster):
    old = await context_with_data(two[0], "first")
    await two[0].jobs.submit(submission("answer:1", context="first"))
    ((_, digest),) = cluster.store.needs
    assert await two[0].contexts.delete("first", force=False, keep=True)
    new = await two[1].contexts.create("second", {"restore-from": old})
    assert (new.id, digest) in cluster.store.needs
    found = catalog.find(two[0].files, new.id, SECRET)
    assert found.base.objects["v"].inline == b"1"
    assert found.faults == ()
    manifest = catalog.find(two[0].files, old, SECRET).manifests[0]
    empty = await two[1].contexts.create("third", {"restore-from": f"{old}/{manifest}"})
    assert catalog.find(two[0].files, empty.id, SECRET).base.objects == {}


async def test_a_failover_of_such_a_context_takes_its_own_data_and_not_the_old_one_again(two, cluster):
    old = await context_with_data(two[0], "first")
    assert await two[0].contexts.delete("first", force=False, keep=True)
    new = await two[0].contexts.create("second", {"restore-from": old})
    fence = await two[0].store.fence(new.id)
    base = load(two[0].files, new.id, f"{fence.epoch:012d}-{0:012d}", SECRET)
    writer = CheckpointWriter(two[0].files, new.id, fence.epoch, fence.token, base, SECRET)
    writer.commit(Changes(remove=["v"]))
    cluster.launcher.drivers[-1].kill()
    while (await two[0].store.fence(new.id)).epoch == fence.epoch:
        await two[0].registry.change(0.05)
    await two[0].contexts.create("fourth", {})  # its base is made after the other's
    assert "v" not in catalog.find(two[0].files, new.id, SECRET).base.objects


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nobody", "no checkpoint of context nobody"),
        ("a/b/c", "neither a context's id nor"),
        ("{living}", "still runs"),
        ("{deleted}", "deleted without keep-checkpoint=true"),
        ("{kept}/000000000009-000000000009", "absent"),
    ],
)
async def test_what_cannot_be_begun_from_is_refused_before_anything_is_made(two, cluster, source, words):
    ids = {name: await context_with_data(two[0], name) for name in ("living", "deleted", "kept")}
    assert await two[0].contexts.delete("deleted", force=False)
    assert await two[0].contexts.delete("kept", force=False, keep=True)
    before = len(cluster.store.contexts)
    with pytest.raises(BadRequest, match=words):
        await two[1].contexts.create("new", {"restore-from": source.format(**ids)})
    assert len(cluster.store.contexts) == before


async def test_a_context_that_cannot_be_marked_as_kept_is_not_stopped(two, monkeypatch):
    await context_with_data(two[0], "ctx")

    def full(path: str, data: bytes) -> None:
        raise FilesUnavailable("no room left")

    monkeypatch.setattr(two[0].files, "write_new", full)
    with pytest.raises(StoreUnavailable, match="so the context runs on: no room left"):
        await two[0].contexts.delete("ctx", force=False, keep=True)
    assert (await two[0].contexts.view("ctx")).record.state is ContextState.RUNNING
