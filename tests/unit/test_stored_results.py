"""Results that are too large for SQL: segments in the store, a reference in their place, and the same bytes back."""

import hashlib
import json
from datetime import UTC, datetime

import pytest

from checkpoint import layout
from checkpoint.segments import read_range, segments
from jobserver.api.job_answers import ended, without_stored
from jobserver.driver.result_store import SEGMENT, keep_result
from jobserver.driver.results import ResultTooLarge
from jobserver.errors import NotFound, StoreUnavailable
from jobserver.model import AttemptRef, JobRecord, JobSpec, JobState
from jobserver.stored_results import INLINE_LIMIT, StoredResult, stored_result
from jobserver.watching import JobWatch
from tests.fakes.files import Fault, FaultyFiles

REF = AttemptRef("j", 2)
LIMIT = 3 * SEGMENT
AT = datetime(2024, 5, 29, tzinfo=UTC)


def read_back(files):
    folder = layout.result_folder("j", 2)
    known = segments(files, folder)
    return b"".join(read_range(files, folder, known, 0, known[-1].end))


def job(result):
    return JobRecord("j", "c", "ctx", JobSpec("m.C", ()), JobState.FINISHED, AT, attempt=2, result=result)


def test_a_small_result_travels_with_its_outcome():
    files = FaultyFiles()
    assert keep_result(files, REF, '{"a":1}', LIMIT) == '{"a":1}'
    assert keep_result(files, REF, iter(["[1", ",2]"]), LIMIT) == "[1,2]"
    assert keep_result(None, REF, '"ä\ud800"', LIMIT) == '"ä\\ud800"', (
        "half a surrogate pair becomes its escape"
    )
    assert files.content == {}


@pytest.mark.parametrize("size", [INLINE_LIMIT + 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT + 5])
def test_a_large_result_is_stored_whole_and_named_by_size_and_digest(size):
    text = '"' + "x" * (size - 2) + '"'
    for produced in (text, iter([text[:3], text[3:1000], text[1000:]])):
        files = FaultyFiles()
        reference = keep_result(files, REF, produced, LIMIT)
        assert stored_result(reference) == StoredResult(size, hashlib.sha256(text.encode()).hexdigest())
        assert read_back(files) == text.encode()


@pytest.mark.parametrize("fault", [Fault.DOWN, Fault.LOST_REPLY])
def test_the_store_may_fail_for_a_moment(fault):
    files = FaultyFiles()
    files.inject(fault)
    assert stored_result(keep_result(files, REF, "1" * (INLINE_LIMIT + 1), LIMIT)) is not None


def test_a_result_beyond_the_limit_is_refused_with_a_sentence():
    with pytest.raises(ResultTooLarge, match="more than 2097152 bytes"):
        keep_result(FaultyFiles(), REF, ("1" * 1000 for _ in range(10**6)), 2 * 2**20)
    with pytest.raises(ResultTooLarge, match="no checkpoint"):
        keep_result(None, REF, "1" * (INLINE_LIMIT + 1), LIMIT)


@pytest.mark.parametrize(
    "result", [None, "1", '"@stored 1 ' + "a" * 64 + '"', "@stored", "@stored x y", "[]"]
)
def test_what_is_a_result_itself_is_no_reference(result):
    assert stored_result(result) is None


async def collected(chunks):
    return [chunk async for chunk in chunks]


async def collect(chunks, came):
    async for chunk in chunks:
        came.append(chunk)  # what came before it broke is wanted, too


async def test_a_stored_result_is_streamed_in_ranges_and_checked_as_a_whole():
    files = FaultyFiles()
    text = json.dumps(list(range(900_000)))
    result = keep_result(files, REF, text, LIMIT)
    watch = JobWatch(None, files, None)
    output = await watch.result(job(result))
    assert output.size == len(text)
    whole = await collected(output.read(0, output.size))
    assert b"".join(whole).decode() == text
    assert max(map(len, whole)) <= SEGMENT, "a server holds one segment at a time"
    assert b"".join(await collected(output.read(5, 11))).decode() == text[5:11]
    inside = segments(files, layout.result_folder("j", 2))[0]
    name = f"{layout.result_folder('j', 2)}/{inside.start:015d}"
    files.damage(name, b"y" + files.content[name][1:])
    came: list[bytes] = []
    with pytest.raises(StoreUnavailable, match="damaged"):
        await collect(output.read(0, output.size), came)
    assert sum(map(len, came)) < output.size, "no client takes it for whole"
    files.remove(layout.result_folder("j", 2))
    with pytest.raises(NotFound, match="removed"):
        await watch.result(job(result))


def test_a_callback_names_a_result_that_is_too_large_to_be_sent_along():
    large = job(StoredResult(10**7, "a" * 64).reference)
    assert json.loads(ended(without_stored(large)).body)["result"] == "<Stream result>"
    assert without_stored(job("1")) == job("1")
