"""Routes under /jobs (rest_contract section 5)."""

from __future__ import annotations

import json

from jobserver.api import job_answers
from jobserver.api.bodies import configuration
from jobserver.api.calls import Call
from jobserver.api.conditions import applied, preferred_wait, tagged
from jobserver.api.envelopes import JSON, Answer, encoded, json_answer
from jobserver.api.names import check_key
from jobserver.api.parameters import Span, Whole, Word
from jobserver.api.submissions import Asker, request_digest, submission, waiting
from jobserver.model import JobRecord
from jobserver.service import Submitted

LIMIT = Whole("limit", "Most jobs to list.", lowest=0)
WAIT = Span("wait", "How long to wait for the job's end, in seconds or with a unit (ms, s, m, h).")
STATUS = Word("status", "Only jobs in this state, in any case.")


async def list_jobs(call: Call) -> Answer:
    """GET /jobs: newest first, without results."""
    limit = LIMIT.read(call.query)
    if limit is None:
        limit = call.limits.default_list
    status = STATUS.read(call.query)
    state = status.upper() if status else None
    found = await call.service.list_jobs(min(limit, call.limits.max_list), state)
    return json_answer([job_answers.report(job) for job in found])


async def get_job(call: Call) -> Answer:
    """GET /jobs/<id>: with `wait` (or `Prefer: wait`), answered when it ends or when the time is over."""
    asked, preferred = WAIT.read(call.query), preferred_wait(call.request.headers)
    seconds = preferred if asked is None else asked
    if not seconds:
        return _single(call, await call.service.job(call.name))
    seconds = min(seconds, call.limits.max_wait)
    answer = _single(call, await call.service.await_job(call.name, seconds))
    return answer if asked is not None else applied(answer, seconds)


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


async def post_job(call: Call) -> Answer:
    """POST /jobs: a repetition under the same Idempotency-Key gets the same job."""
    wait = waiting(call.query, call.limits)
    key = check_key(call.idempotency_key)
    body = await call.body()
    config = await configuration(body, call.charset, call.limits)
    digest = None if key is None else request_digest("POST", "/jobs", call.query_text, body)
    asked = submission(call.query, config, wait, Asker(call.principal, key, digest), call.limits)
    outcome = await call.service.submit(asked)
    preferred = preferred_wait(call.request.headers)
    if asked.sync or preferred is None:
        return job_answers.submitted(outcome, sync=asked.sync)
    return await _preferred(call, outcome, min(preferred, call.limits.max_wait))


async def _preferred(call: Call, outcome: Submitted, seconds: float) -> Answer:
    """The value when the job ends within the wait that the client prefers, else the 202 of its acceptance."""
    job = outcome.job
    if not job.state.final and seconds > 0:
        job = await call.service.await_job(job.id, seconds)
    if not job.state.final:
        return applied(job_answers.submitted(outcome, sync=False), seconds)
    kind = outcome.outcome_kind or (job.outcome.value if job.outcome is not None else None)
    return applied(job_answers.submitted(Submitted(job, kind), sync=True), seconds)


async def delete_job(call: Call) -> Answer:
    """DELETE /jobs/<id>"""
    return job_answers.killed(await call.service.kill_job(call.name))
