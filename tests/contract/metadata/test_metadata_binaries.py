"""Binaries by name, version and digest: what every metadata store promises."""

from __future__ import annotations

from store_records import Store, a_binary, a_job, after, an_outcome, owned, running

from jobserver.model import JobSpec, JobState


async def test_the_binary_uploaded_last_counts_whatever_the_servers_clocks_say(
    store: Store, other: Store
) -> None:
    await store.put_binary(a_binary(digest="a" * 64, at=after(10)))
    await other.put_binary(a_binary(digest="b" * 64, at=after(5)))
    assert await store.find_binary("demo") == a_binary(digest="b" * 64, at=after(5))
    assert await store.find_binary("other") is None


async def test_binaries_are_listed_by_name_with_their_latest_version(store: Store) -> None:
    await store.put_binary(a_binary("b", "1" * 64))
    await store.put_binary(a_binary("a", "2" * 64))
    await store.put_binary(a_binary("b", "3" * 64))
    assert [(one.name, one.digest[0]) for one in await store.list_binaries()] == [("a", "2"), ("b", "3")]


async def test_names_of_binaries_are_compared_letter_by_letter(store: Store) -> None:
    await store.put_binary(a_binary("Demo"))
    assert await store.find_binary("demo") is None
    assert await store.find_binary("Demo ") is None


async def test_deleting_a_binary_deletes_all_its_versions(store: Store, other: Store) -> None:
    for digest in "123":
        await store.put_binary(a_binary(digest=digest * 64))
    await store.put_binary(a_binary("kept"))
    assert await other.delete_binary("demo")
    assert await store.find_binary("demo") is None
    assert not await store.delete_binary("demo")
    assert [one.name for one in await store.list_binaries()] == ["kept"]


async def test_a_binary_is_in_use_by_the_jobs_that_have_not_ended(store: Store) -> None:
    fence = await owned(store)
    await running(store, fence, a_job("j1"))
    await running(store, fence, a_job("j2"))
    await store.insert_job(a_job("j3"), queue_limit=100)
    await store.insert_job(a_job("j4", spec=JobSpec("other.Job", ())), queue_limit=100)
    assert await store.finish_job(fence, an_outcome("j1"), JobState.FINISHED, after(2))
    assert await store.jobs_using_binary("demo") == ["j2", "j3"]
    assert await store.jobs_using_binary("other") == []


async def test_a_digest_is_in_use_while_an_upload_or_an_unfinished_job_needs_it(store: Store) -> None:
    digest = "d" * 64
    assert not await store.digest_in_use(digest)
    await store.put_binary(a_binary())
    assert await store.digest_in_use(digest)
    fence = await owned(store)
    await running(store, fence)
    await store.delete_binary("demo")
    assert await store.digest_in_use(digest)
    await store.finish_job(fence, an_outcome(), JobState.FINISHED, after(2))
    assert not await store.digest_in_use(digest)
