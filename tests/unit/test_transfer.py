"""Export and import: what goes out comes in again, row by row, and nothing else is taken for an export."""

from __future__ import annotations

import asyncio
import io
import json
import tempfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobserver.errors import BadRequest, WrongSchema
from jobserver.history import Operation
from jobserver.model import (
    AttemptOutcome,
    BinaryRecord,
    BinaryRef,
    BinaryType,
    ContextRecord,
    ContextState,
    ErrorInfo,
    Fence,
    JobRecord,
    JobSpec,
    JobState,
    OutcomeKind,
)
from jobserver.saved import SavedConfig, SavedQuery
from jobserver.store.metadata import Metadata
from jobserver.store.transfer import TABLES

T0 = datetime(2026, 1, 1, tzinfo=UTC)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
ANY_TEXTS = st.text(max_size=30)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | ANY_TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXTS, inner, max_size=3),
    max_leaves=6,
)
PASTS = st.fixed_dictionaries(
    {
        "config": st.dictionaries(ANY_TEXTS, VALUES, max_size=3),
        "name": TEXTS,
        "error": ANY_TEXTS,
        "results": st.lists(VALUES, max_size=4),
        "key": st.none() | TEXTS,
        "seconds": st.integers(-(10**9), 10**9),
    }
)


@pytest.fixture(scope="module")
async def empty(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A store with its tables and nothing in them."""
    path = tmp_path_factory.mktemp("transfer") / "empty.db"
    store = await Metadata.open(f"sqlite:///{path}", timeout=5)
    await store.upgrade()
    await store.close()
    return path.read_bytes()


async def opened(path: Path, content: bytes) -> Metadata:
    await asyncio.to_thread(path.write_bytes, content)
    return await Metadata.open(f"sqlite:///{path}", timeout=5, synchronous="NORMAL", server="s1")


@pytest.fixture
async def pair(empty: bytes, tmp_path: Path) -> AsyncIterator[tuple[Metadata, Metadata]]:
    """Two empty stores."""
    stores = await opened(tmp_path / "from.db", empty), await opened(tmp_path / "to.db", empty)
    yield stores
    for store in stores:
        await store.close()


async def live_through(store: Metadata, past: dict[str, Any]) -> None:
    """A store's past with something in every table."""
    at = T0 + timedelta(seconds=past["seconds"])
    await store.create_context(
        ContextRecord("c1", past["name"], past["config"], ContextState.STARTED, True, at)
    )
    await store.grant("c1", 0, "s1", "i1", "t1")
    fence = Fence("c1", 1, "t1")
    await store.put_binary(BinaryRecord(past["name"], BinaryType.EGG, "d" * 64, 2**40, at))
    for number, result in enumerate(past["results"]):
        job_id = f"j{number}"
        spec = JobSpec("x.Y", (BinaryRef("b", BinaryType.ZIP, "e" * 64),), json.dumps(past["config"]))
        key = None if past["key"] is None else f"{number}{past['key']}"
        job = JobRecord(job_id, "c1", past["name"], spec, JobState.QUEUED, at, idempotency_key=key)
        await store.insert_job(job, queue_limit=100, callback_url="http://x")
        await store.start_attempt(fence, job_id, 1, at)
        if number % 2:
            error = ErrorInfo(past["error"], "E", past["error"])
            await store.restart_job(fence, job_id, 1, died=True, error=error, at=at)
        else:
            outcome = AttemptOutcome(job_id, 1, OutcomeKind.FINISHED, json.dumps(result, ensure_ascii=False))
            await store.finish_job(fence, outcome, JobState.FINISHED, at)
    await store.saved.put_config(SavedConfig(past["name"], past["config"], "eve", at, at))
    await store.saved.put_query(SavedQuery(past["name"], past["error"], "eve", at, at))
    await store.audit.add(Operation(at, "eve", "kill", past["name"], past["config"]))


async def exported(store: Metadata) -> str:
    file = io.StringIO()
    await store.transfer.export(file)
    return file.getvalue()


def rows(text: str) -> list[str]:
    return text.splitlines()[1:]


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(past=PASTS)
async def test_what_was_exported_and_imported_is_exported_again_the_same(empty: bytes, past) -> None:
    with tempfile.TemporaryDirectory() as folder:
        one, two = [await opened(Path(folder) / name, empty) for name in ("one.db", "two.db")]
        try:
            await live_through(one, past)
            text = await exported(one)
            counts = await two.transfer.take_in(io.StringIO(text))
            assert rows(await exported(two)) == rows(text)
            assert counts["jobs"] == len(past["results"])
            assert await two.job("j0") == await one.job("j0")
            assert await two.job_history("j0") == await one.job_history("j0")
            assert await two.fence("c1") == await one.fence("c1")
        finally:
            await one.close()
            await two.close()


PAST = {
    "config": {"a": 1},
    "name": "ü",
    "error": "\udc80",
    "results": [1, "x", None],
    "key": "k",
    "seconds": 5,
}


async def test_every_table_is_exported_in_an_order_in_which_it_can_be_inserted(pair) -> None:
    store, _ = pair
    await live_through(store, PAST)
    tables = [json.loads(line)["table"] for line in rows(await exported(store))[:-1]]
    assert list(dict.fromkeys(tables)) == list(TABLES)
    assert tables.index("contexts") < tables.index("jobs") < tables.index("job_history")


async def test_the_imported_store_goes_on_where_the_other_one_stopped(pair) -> None:
    one, two = pair
    await live_through(one, PAST)
    await two.transfer.take_in(io.StringIO(await exported(one)))
    assert await two.start_attempt(Fence("c1", 1, "t1"), "j1", 2, T0)
    assert not await two.grant("c1", 0, "s2", "i2", "t2")
    assert await two.grant("c1", 1, "s2", "i2", "t2")
    await two.put_binary(BinaryRecord("ü", BinaryType.EGG, "f" * 64, 1, T0))
    latest = await two.find_binary("ü")
    assert latest is not None
    assert latest.digest == "f" * 64


async def test_a_database_that_is_not_empty_is_refused_and_not_touched(pair) -> None:
    one, two = pair
    await live_through(one, PAST)
    await two.audit.add(Operation(T0, "eve", "kill", "x"))
    before = rows(await exported(two))
    with pytest.raises(BadRequest, match=r"not empty \(table audit has rows\)"):
        await two.transfer.take_in(io.StringIO(await exported(one)))
    assert rows(await exported(two)) == before


async def test_a_database_without_tables_is_refused_with_the_command_that_helps(pair, tmp_path) -> None:
    bare = await Metadata.open(f"sqlite:///{tmp_path}/bare.db", timeout=5)
    try:
        with pytest.raises(WrongSchema, match="jobserver db upgrade"):
            await bare.transfer.take_in(io.StringIO(await exported(pair[0])))
        with pytest.raises(WrongSchema, match="jobserver db upgrade"):
            await bare.transfer.export(io.StringIO())
    finally:
        await bare.close()


def changed(lines: list[str], number: int, **changes: Any) -> list[str]:
    value = json.loads(lines[number])
    (value.get("row") or value).update(changes)
    return [*lines[:number], json.dumps(value), *lines[number + 1 :]]


DAMAGES = {
    "cut short": (lambda lines: lines[:-1], "not whole"),
    "cut within a line": (lambda lines: [*lines[:-2], lines[-2][:20]], "no JSON object"),
    "a row is missing": (lambda lines: [*lines[:3], *lines[4:]], "nothing was imported"),
    "a row is doubled": (lambda lines: [*lines[:3], lines[2], *lines[3:]], "nothing was imported"),
    "more behind the end": (lambda lines: [*lines, lines[1]], "behind the last line"),
    "an unknown table": (lambda lines: [lines[0], '{"table":"x","row":{}}', *lines[1:]], "no row of a table"),
    "an unknown column": (lambda lines: changed(lines, 1, more=1), "no row of a table"),
    "no header": (lambda lines: lines[1:], "no export of this version"),
    "another format": (
        lambda lines: changed(lines, 0, **{"jobserver-export": 2}),
        "no export of this version",
    ),
    "another schema": (lambda lines: changed(lines, 0, schema="0001"), "rows of schema 0001"),
    "nothing": (lambda lines: [], "no JSON object"),
    "no JSON": (lambda lines: ["x", *lines], "no JSON object"),
}


@pytest.mark.parametrize(("damage", "words"), DAMAGES.values(), ids=DAMAGES)
async def test_a_file_that_is_no_whole_export_is_refused_and_nothing_of_it_stays(pair, damage, words) -> None:
    one, two = pair
    await live_through(one, PAST)
    text = await exported(one)
    nothing = rows(await exported(two))
    with pytest.raises(Exception, match=words):
        await two.transfer.take_in(io.StringIO("\n".join(damage(text.splitlines()))))
    assert rows(await exported(two)) == nothing
    await two.transfer.take_in(io.StringIO(text))
