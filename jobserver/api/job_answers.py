"""Jobs as clients see them (rest_contract 5.1 to 5.7). Pure.

A result is JSON text that the driver made; it is spliced into the body as it is, never parsed and printed again.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import tzinfo

from jobserver.api.dates import duration, job_time
from jobserver.api.envelopes import (
    JSON,
    Answer,
    dumps,
    encoded,
    error_answer,
    error_value,
    exception,
    failed,
    json_answer,
    validation_failed,
)
from jobserver.errors import TimedOut
from jobserver.model import ErrorInfo, JobRecord, JobState, ListedJob, OutcomeKind, listed
from jobserver.service import Submitted
from jobserver.stored_results import stored_result

_NO_ERROR = ErrorInfo("")
_WITH_ERROR = (JobState.ERROR, JobState.KILLED, JobState.RESTARTING)


def report(job: JobRecord, zone: tzinfo | None = None) -> dict[str, object]:
    """The job JSON in its fixed key order, without the value of a finished job."""
    return in_list(listed(job), zone)


def in_list(job: ListedJob, zone: tzinfo | None = None) -> dict[str, object]:
    """The same of a job in a list."""
    shown: dict[str, object] = _head(job, zone)
    shown["duration"] = duration(job.started_at or job.submitted_at, job.ended_at)
    shown["status"] = job.state.value
    if job.state in _WITH_ERROR and job.error is not None:
        shown["result"] = error_value(job.error)
    return shown


def _head(job: ListedJob, zone: tzinfo | None) -> dict[str, object]:
    return {
        "jobId": job.id,
        "startTime": job_time(job.started_at or job.submitted_at, zone),
        "classPath": job.main_class,
        "context": job.context_name or "<<ad-hoc>>",
        "contextId": job.context_id,
    }


def single(job: JobRecord, zone: tzinfo | None = None) -> Answer:
    """GET /jobs/<id>: a finished job carries its result, unless that is gone."""
    text = dumps(report(job, zone))
    if job.state is JobState.FINISHED and job.result is not None:
        text = f'{text[:-1]},"result":{job.result}}}'
    return Answer(200, encoded(text), JSON)


def submitted(outcome: Submitted, *, sync: bool, zone: tzinfo | None = None) -> Answer:
    """POST /jobs, by how far the job came while the client waited (the tables of 5.5)."""
    job = outcome.job
    error = job.error or _NO_ERROR
    match outcome.outcome_kind:
        case OutcomeKind.INVALID:
            return validation_failed(error.message)
        case OutcomeKind.NOT_FOUND:
            return failed(404, f"classPath {job.spec.main_class} not found")
        case OutcomeKind.WRONG_TYPE:
            return failed(400, "Invalid job type for this context")
        case OutcomeKind.LOADING_FAILED:
            return exception(400, "JOB LOADING FAILED", error)
        case OutcomeKind.FAILED:
            return ended(job)
        case _:
            return ended(job) if sync else _started(job, zone)


def _started(job: JobRecord, zone: tzinfo | None) -> Answer:
    """The 202 of an accepted job: always in the words of its start, also when it has already ended."""
    shown = _head(listed(job), zone)
    return json_answer({**shown, "duration": duration(job.submitted_at, None), "status": "STARTED"}, 202)


def ended(job: JobRecord) -> Answer:
    """A sync answer: the value alone when the job finished, else its state and error, with 200 in both cases."""
    if job.state is JobState.FINISHED:
        value = "" if job.result is None else f',"result":{job.result}'
        return Answer(200, encoded(f'{{"jobId":{dumps(job.id)}{value}}}'), JSON)
    if not job.state.final:
        return error_answer(TimedOut(f"job {job.id} has not ended yet", job.id))
    return json_answer(
        {"jobId": job.id, "status": job.state.value, "result": error_value(job.error or _NO_ERROR)}
    )


def without_stored(job: JobRecord) -> JobRecord:
    """The job with the contract's words (5.9) in the place of a result that is too large to be sent along."""
    return job if stored_result(job.result) is None else replace(job, result='"<Stream result>"')


def killed(job: JobRecord) -> Answer:
    """DELETE /jobs/<id>: a job that had already failed answers with its error, under the contract's odd key."""
    if job.state is JobState.ERROR:
        return json_answer({"status": "ERROR", "ERROR": error_value(job.error or _NO_ERROR)})
    if job.state is JobState.FINISHED:
        return failed(404, f"No running job with ID {job.id}")
    return json_answer({"status": "KILLED"})
