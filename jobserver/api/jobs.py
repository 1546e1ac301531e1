"""Routes under /jobs (rest_contract section 5)."""

from __future__ import annotations

import json

from jobserver.api import job_answers
from jobserver.api.bodies import configuration
from jobserver.api.calls import Call
from jobserver.api.envelopes import JSON, Answer, encoded, json_answer
from jobserver.api.names import check_key
from jobserver.api.parameters import Whole, Word
from jobserver.api.submissions import Asker, request_digest, submission, waiting

LIMIT = Whole("limit", "Most jobs to list.", lowest=0)
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
    """GET /jobs/<id>"""
    return job_answers.single(await call.service.job(call.name))


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
    return job_answers.submitted(await call.service.submit(asked), sync=asked.sync)


async def delete_job(call: Call) -> Answer:
    """DELETE /jobs/<id>"""
    return job_answers.killed(await call.service.kill_job(call.name))
