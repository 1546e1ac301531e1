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
from jobserver.api.representations import FORMATS, preferred, submitted_format
from jobserver.errors import BadRequest, NotAcceptable, NotFound
from jobserver.job_events import EventId, JobEvent, shown_progress
from jobserver.model import JobRecord, JobState, ResultFormat
from jobserver.progress import JobProgress
from jobserver.stored_results import stored_result
from jobserver.watching import Output

EVENTS = "text/event-stream"
PLAIN = "text/plain; charset=utf-8"
VARY = {"Vary": "Accept"}
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
    """GET /jobs/<id>/result: the value alone, in the format that `Accept` asks for; or a range of its bytes."""
    job = await call.service.job(call.name)
    stored = stored_result(job.result)
    kept = ResultFormat.JSON if stored is None else stored.format
    accept = call.request.headers.get("Accept")
    wanted = preferred(
        accept, (ResultFormat.JSON,) if kept is ResultFormat.JSON else (ResultFormat.JSON, kept)
    )
    if wanted is None and job.result is not None:
        raise _not_kept(job, kept, accept or "")
    if stored is not None and wanted is not kept:
        return Answer(200, encoded(stored.shown), JSON, VARY)
    return _ranged(call, await call.service.job_result(job), kept.media_type, VARY)


def _not_kept(job: JobRecord, kept: ResultFormat, accept: str) -> NotAcceptable:
    asked = next((form for form in FORMATS if preferred(accept, (form,))), None)
    how = (
        f": POST /jobs with Accept: {asked.media_type} keeps the rows of a DataFrame so"
        if asked is not None and job.spec.result_format is ResultFormat.JSON
        else ""
    )
    return NotAcceptable(
        f"the result of job {job.id} is kept as {kept.media_type}, not as {accept[:200]}{how}", job.id
    )


async def valued(call: Call, answer: Answer, job: JobRecord) -> Answer | Streamed:
    """The answer to who submitted a job: of one that has finished, its rows in the format that was asked for."""
    accept = call.request.headers.get("Accept")
    asked = submitted_format(accept)
    if asked is ResultFormat.JSON or answer.status != 200 or job.state is not JobState.FINISHED:
        return await filled(call, answer, job)
    stored = stored_result(job.result)
    if stored is None or stored.format is not asked:
        if preferred(accept, (ResultFormat.JSON,)):
            return await filled(call, answer, job)
        raise NotAcceptable(
            f"job {job.id} has finished, but its result is no DataFrame, or was submitted for another format: "
            f"GET /jobs/{job.id}/result has it",
            job.id,
        )
    output = await call.service.job_result(job)
    headers = {**answer.headers, **VARY, "X-Job-Id": job.id, "Content-Location": f"/jobs/{job.id}/result"}
    return Streamed(200, output.read(0, output.size), asked.media_type, headers, output.size)


async def filled(call: Call, answer: Answer, job: JobRecord) -> Answer | Streamed:
    """The answer with the job's stored result in the place of its reference; without a result when its files are gone."""
    stored = stored_result(job.result)
    if stored is None:
        return answer
    head, reference, tail = answer.body.partition(stored.reference.encode())
    if not reference:
        return answer
    if stored.format is not ResultFormat.JSON:
        return replace(answer, body=head + encoded(stored.shown) + tail)
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
