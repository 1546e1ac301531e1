"""A cluster's past moves from SQLite to MariaDB, and back."""

from __future__ import annotations

import io

from store_records import PROBLEM, a_binary, a_job, after, an_outcome, owned

from jobserver.history import Operation
from jobserver.model import JobState
from jobserver.store.metadata import Metadata

Servers = tuple[Metadata, Metadata]


async def rows(store: Metadata) -> list[str]:
    file = io.StringIO()
    await store.transfer.export(file)
    return file.getvalue().splitlines()[1:]


async def test_all_rows_move_from_sqlite_to_mariadb_and_can_be_moved_back(
    sqlite_servers: Servers, mariadb_servers: Servers
) -> None:
    one, two = sqlite_servers[0], mariadb_servers[0]
    fence = await owned(one)
    await one.put_binary(a_binary())
    for number in range(600):
        await one.insert_job(a_job(f"j{number}", submitted_at=after(number)), queue_limit=1000)
    await one.insert_job(a_job("ü", idempotency_key="k", request_digest="a"), queue_limit=1000)
    await one.start_attempt(fence, "ü", 1, after(1))
    await one.finish_job(fence, an_outcome("ü", result='"\U0001f600"' * 1000), JobState.FINISHED, after(2))
    await one.start_attempt(fence, "j1", 1, after(3))
    await one.restart_job(fence, "j1", 1, died=True, error=PROBLEM, at=after(4))
    await one.audit.add(Operation(after(5), "eve", "kill", "j1", {"ü": None}))
    file = io.StringIO()
    counts = await one.transfer.export(file)
    assert counts["jobs"] == 601
    file.seek(0)
    assert await two.transfer.take_in(file) == counts
    assert await rows(two) == await rows(one)
    assert await two.job("ü") == await one.job("ü")
    assert await two.start_attempt(fence, "j1", 2, after(6))
