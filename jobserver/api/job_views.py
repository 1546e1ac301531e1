"""What a job shows of itself: progress, events and output under /jobs/<id>."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator
from dataclasses import replace

from jobserver.api.calls import Call
from jobserver.api.dates import job_time
from jobserver.api.envelopes import JSON, Answer, Streamed, dumps, encoded, json_answer
from jobserver.api.parameters import Whole, Word
from jobserver.api.rejections import malformed
from jobserver.errors import BadRequest, NotFound
from jobserver.job_events import EventId, JobEvent, shown_progress
from jobserver.model import JobRecord, JobState
from jobserver.progress import JobProgress
from jobserver.stored_results import stored_result
from jobserver.watching import Output

EVENTS = "text/event-stream"
PLAIN = "text/plain; charset=utf-8"
LAST_EVENT_ID = Word("lastEventId", "Id of the last event that was seen; the header Last-Event-ID wins.")
OFFSET = Whole("offset", "First byte that is wanted; negative: counted from the end.", -(2**31), 2**31 - 1)
LIMIT = Whole("limit", "Bytes that are wanted at most.", 0, 2**31 - 1)
_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")


async def get_progress(call: Call) -> Answer:
    """GET /jobs/<id>/progress"""
    seen = await call.service.job_progress(call.name)
    job = seen.job
    progress = seen.progress or JobProgress(
        job.attempt, fraction=1.0 if job.state is JobState.FINISHED else None
    )
    started = job_time(job.started_at) if job.started_at else None
    return json_answer(
        {"jobId": job.id, "status": job.state.value, "startTime": started, **shown_progress(progress)}
    )


async def get_events(call: Call) -> Streamed:
    """GET /jobs/<id>/events: server-sent events until the job has ended."""
    text = call.request.headers.get("Last-Event-ID") or LAST_EVENT_ID.read(call.query)
    last = EventId.parse(text) if text else None
    if text and last is None:
        raise malformed("lastEventId", f"'{text[:200]}' is no id of an event")
    events = call.service.job_events(call.name, last)
    first = await anext(events, None)  # an unknown job is a 404, not a stream that breaks
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Streamed(200, _sent(first, events), EVENTS, headers, lasting=True)


async def _sent(
    first: JobEvent | None, rest: AsyncGenerator[JobEvent | None, None]
) -> AsyncGenerator[bytes, None]:
    async with contextlib.aclosing(rest):
        yield _event(first)
        async for event in rest:
            yield _event(event)


def _event(event: JobEvent | None) -> bytes:
    if event is None:  # a comment: it shows that the stream lives, and finds out whether the client does
        return b":\n\n"
    return encoded(f"id: {event.id}\nevent: {event.kind}\ndata: {dumps(event.data)}\n\n")


async def get_log(call: Call) -> Answer | Streamed:
    """GET /jobs/<id>/log: what the job wrote, as bytes; a range by header or by `offset` and `limit`."""
    offset, limit = OFFSET.read(call.query), LIMIT.read(call.query)
    output = await call.service.job_output(call.name)
    headers = {"X-Log-Size": str(output.size), "Cache-Control": "no-store"}
    if offset is None and limit is None:
        return _ranged(call, output, PLAIN, headers)
    start = offset or 0
    start = max(output.size + start, 0) if start < 0 else min(start, output.size)
    end = output.size if limit is None else min(start + limit, output.size)
    return Streamed(200, output.read(start, end), PLAIN, headers, end - start)


async def get_result(call: Call) -> Answer | Streamed:
    """GET /jobs/<id>/result: the value alone, as JSON; or a range of its bytes."""
    output = await call.service.job_result(await call.service.job(call.name))
    return _ranged(call, output, JSON, {})


async def filled(call: Call, answer: Answer, job: JobRecord) -> Answer | Streamed:
    """The answer with the job's stored result in the place of its reference; without a result when its files are gone."""
    stored = stored_result(job.result)
    if stored is None:
        return answer
    head, reference, tail = answer.body.partition(stored.reference.encode())
    if not reference:
        return answer
    try:
        output = await call.service.job_result(job)
    except NotFound:  # retention removes the files before the reference
        return replace(answer, body=head.removesuffix(b',"result":') + tail)
    length = len(head) + output.size + len(tail)
    body = _around(head, output.read(0, output.size), tail)
    return Streamed(answer.status, body, answer.content_type, answer.headers, length)


async def _around(
    head: bytes, middle: AsyncGenerator[bytes, None], tail: bytes
) -> AsyncGenerator[bytes, None]:
    async with contextlib.aclosing(middle):
        yield head
        async for data in middle:
            yield data
        yield tail


def _ranged(call: Call, output: Output, content_type: str, headers: dict[str, str]) -> Answer | Streamed:
    """The whole, or the range that the header asks for."""
    asked = wanted_range(call.request.headers.get("Range"), output.size)
    headers = {**headers, "Accept-Ranges": "bytes"}
    if asked is None:
        return Streamed(200, output.read(0, output.size), content_type, headers, output.size)
    start, end = asked
    if start >= output.size:
        return Answer(416, b"", content_type, {**headers, "Content-Range": f"bytes */{output.size}"})
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{output.size}"
    return Streamed(206, output.read(start, end), content_type, headers, end - start)


def wanted_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Start and end of the bytes that a Range header asks for; None when it asks for none, or for several. Raises BadRequest."""
    if header is None or "," in header or not header.startswith("bytes="):
        return None
    found = _RANGE.fullmatch(header)
    if found is None or not (found[1] or found[2]):
        raise BadRequest(f"the Range {header[:100]!r} is not of the form bytes=<first>-<last>")
    if not found[1]:
        return max(size - int(found[2]), 0), size
    start, end = int(found[1]), int(found[2]) + 1 if found[2] else size
    if end <= start and found[2]:
        raise BadRequest(f"the Range {header[:100]!r} ends before it begins")
    return start, min(end, size)
