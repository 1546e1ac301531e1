"""Routes under /jobs (rest_contract section 5)."""

from __future__ import annotations

import json
from dataclasses import replace

from jobserver.api import job_answers
from jobserver.api.bodies import configuration
from jobserver.api.calls import Call
from jobserver.api.conditions import applied, preferred_wait, tagged
from jobserver.api.context_names import of_context, told_of
from jobserver.api.envelopes import JSON, Answer, Streamed, encoded, json_answer
from jobserver.api.job_views import filled, valued
from jobserver.api.names import check_key
from jobserver.api.paging import next_page
from jobserver.api.parameters import Moment, Span, Whole, Word
from jobserver.api.queries import laid_under_query
from jobserver.api.representations import submitted_format
from jobserver.api.statements import QUERY
from jobserver.api.submissions import CONFIG, Asker, for_user, request_digest, submission, waiting
from jobserver.listing import JobQuery, Place, place_of
from jobserver.model import JobRecord, JobState
from jobserver.records import laid_under
from jobserver.service import Submitted

LIMIT = Whole("limit", "Most jobs to list.", lowest=0)
WAIT = Span("wait", "How long to wait for the job's end, in seconds or with a unit (ms, s, m, h).")
STATUS = Word("status", "Only jobs in this state, in any case.")
IN_CONTEXT = Word("context", "Only jobs of contexts of this name.")
OF_CLASS = Word("class", "Only jobs with this main class.")
SINCE = Moment("since", "Only jobs submitted then or later.")
UNTIL = Moment("until", "Only jobs submitted before.")
CURSOR = Word("cursor", "Where the page before ended: from its Link header.")
OFFSET = Whole("offset", "Jobs to leave out at the beginning; a cursor is quicker.", 0, 1_000_000)
LISTING = (LIMIT, STATUS, IN_CONTEXT, OF_CLASS, SINCE, UNTIL, CURSOR, OFFSET)
"""What GET /jobs reads of its query."""
ALL_OF = Word("context", "The context whose jobs are killed.", needed=True)


async def list_jobs(call: Call) -> Answer:
    """GET /jobs: newest first, without results; a `Link` header leads to the next page."""
    query = _job_query(call)
    found = await call.service.find_jobs(query.with_one_more())
    page = found[: query.limit]
    more = len(found) > query.limit > 0
    place = next_page(call, cursor=Place(page[-1].submitted_at, page[-1].id).cursor()) if more else None
    return json_answer([job_answers.in_list(job) for job in page], headers=place)


def _job_query(call: Call) -> JobQuery:
    limit = LIMIT.read(call.query)
    cursor = CURSOR.read(call.query)
    return JobQuery(
        limit=call.limits.default_list if limit is None else min(limit, call.limits.max_list),
        states=_states(STATUS.read(call.query)),
        context=IN_CONTEXT.read(call.query),
        main_class=OF_CLASS.read(call.query),
        since=SINCE.read(call.query),
        until=UNTIL.read(call.query),
        after=None if cursor is None else place_of(cursor),
        offset=OFFSET.read(call.query) or 0,
    )


def _states(status: str | None) -> frozenset[JobState] | None:
    """A state that does not exist has no jobs (rest_contract 5.2)."""
    return None if status is None else frozenset(state for state in JobState if state.value == status.upper())


async def get_job(call: Call) -> Answer | Streamed:
    """GET /jobs/<id>: with `wait` (or `Prefer: wait`), answered when it ends or when the time is over."""
    asked, preferred = WAIT.read(call.query), preferred_wait(call.request.headers)
    seconds = preferred if asked is None else asked
    if not seconds:
        job = await call.service.job(call.name)
        return await filled(call, _single(call, job), job)
    seconds = min(seconds, call.limits.max_wait)
    job = await call.service.await_job(call.name, seconds)
    answer = _single(call, job)
    return await filled(call, answer if asked is not None else applied(answer, seconds), job)


def _single(call: Call, job: JobRecord) -> Answer:
    """What ended never changes, so it has a tag."""
    answer = job_answers.single(job)
    if not job.state.final:
        return answer
    return tagged(answer, f"{job.id}.{job.attempt}.{job.state.value}", call.request.headers)


async def get_job_config(call: Call) -> Answer:
    """GET /jobs/<id>/config: the posted configuration, printed for people."""
    job = await call.service.job(call.name)
    text = json.dumps(json.loads(job.spec.config), ensure_ascii=False, indent=2)
    return Answer(200, encoded(text), JSON)


async def post_job(call: Call) -> Answer | Streamed:
    """POST /jobs: a repetition under the same Idempotency-Key gets the same job."""
    wait = waiting(call.query, call.limits)
    key = check_key(call.idempotency_key)
    body = await call.body()
    config = await configuration(body, call.charset, call.limits)
    if (saved := CONFIG.read(call.query)) is not None:
        config = laid_under((await call.service.records.config(saved)).body, config)
    context = None
    if (name := QUERY.read(call.query)) is not None:
        query = await call.service.records.query(name)
        config, context = laid_under_query(query, config), query.context
    digest = None if key is None else request_digest("POST", "/jobs", call.query_text, body)
    asker = Asker(call.principal, key, digest, submitted_format(call.request.headers.get("Accept")))
    asked = submission(call.query, config, wait, asker, call.limits)
    if context is not None and asked.context is None:
        asked = replace(asked, context=context)
    sent = for_user(asked, call.query, call.caller, call.limits.proxy_users)
    with told_of(asked.context or "", sent.context or ""):
        outcome = await call.service.submit(sent)
    preferred = preferred_wait(call.request.headers)
    if asked.sync or preferred is None:
        return await valued(call, job_answers.submitted(outcome, sync=asked.sync), outcome.job)
    return await _preferred(call, outcome, min(preferred, call.limits.max_wait))


async def _preferred(call: Call, outcome: Submitted, seconds: float) -> Answer | Streamed:
    """The value when the job ends within the wait that the client prefers, else the 202 of its acceptance."""
    job = outcome.job
    if not job.state.final and seconds > 0:
        job = await call.service.await_job(job.id, seconds)
    if not job.state.final:
        return applied(job_answers.submitted(outcome, sync=False), seconds)
    kind = outcome.outcome_kind or (job.outcome.value if job.outcome is not None else None)
    return await valued(call, applied(job_answers.submitted(Submitted(job, kind), sync=True), seconds), job)


async def delete_job(call: Call) -> Answer:
    """DELETE /jobs/<id>"""
    return job_answers.killed(await call.service.kill_job(call.name))


async def delete_jobs(call: Call) -> Answer:
    """DELETE /jobs?context=<name> (ours): every job of the context that has not ended."""
    name = ALL_OF.read(call.query) or ""
    killed = await of_context(call, name, call.service.kill_jobs)
    return json_answer({"status": "KILLED", "jobs": killed})
