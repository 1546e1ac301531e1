"""What must be true of a workload's jobs once everything has healed. Pure: a history and what the servers say, to faults.

The promises (design.md section 2): an acknowledged job is final in the end, with the right result; a key has one job; an
answer once given never changes; nobody finds jobs that no client asked for. Outcomes that no client ever learnt are unknown:
their jobs may or may not be there, but then they are final and right, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

FINAL = ("FINISHED", "ERROR", "KILLED")


@dataclass(frozen=True, slots=True)
class Operation:
    """One submission as its client saw it. `job_id` is None while no answer came; times are of one monotonic clock."""

    number: int
    key: str
    sync: bool
    expected: Any
    begun: float
    ended: float
    job_id: str | None
    result: Any = None
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class JobSeen:
    """A job as a server tells it."""

    id: str
    status: str
    result: Any = None


def faults(history: Sequence[Operation], jobs: Mapping[str, JobSeen]) -> list[str]:
    """Everything that is not as promised; `jobs` are all jobs of the workload that are on record, by id."""
    return [*_answers(history), *_outcomes(history, jobs), *_strangers(history, jobs)]


def unsettled(history: Sequence[Operation], jobs: Mapping[str, JobSeen]) -> set[str]:
    """Acknowledged jobs that are not final yet, as far as is known."""
    return {
        one.job_id
        for one in history
        if one.job_id is not None and (one.job_id not in jobs or jobs[one.job_id].status not in FINAL)
    }


def longest_pause(history: Sequence[Operation], since: float, until: float) -> float:
    """The longest time between two answers to synchronous submissions, in seconds."""
    times = sorted(one.ended for one in history if one.sync and one.job_id and since <= one.ended <= until)
    marks = [since, *times, until]
    return max(later - earlier for earlier, later in pairwise(marks))


def _answers(history: Sequence[Operation]) -> Iterable[str]:
    """What the clients saw themselves."""
    for one in history:
        if one.fault is not None:
            yield f"job {one.number} (sync {one.sync}): {one.fault}"
        elif one.sync and one.job_id is not None and one.result != one.expected:
            yield f"job {one.number} was answered {one.result!r}, not {one.expected!r}"


def _outcomes(history: Sequence[Operation], jobs: Mapping[str, JobSeen]) -> Iterable[str]:
    owners: dict[str, int] = {}
    for one in history:
        if one.job_id is None:
            continue
        if owners.setdefault(one.job_id, one.number) != one.number:
            yield f"jobs {owners[one.job_id]} and {one.number} were given the same id {one.job_id}"
        job = jobs.get(one.job_id)
        if job is None:
            yield f"job {one.number} was acknowledged as {one.job_id} and is lost"
        elif (job.status, job.result) != ("FINISHED", one.expected):
            yield f"job {one.number} ({one.job_id}) is {job.status} with {job.result!r}, not {one.expected!r}"


def _strangers(history: Sequence[Operation], jobs: Mapping[str, JobSeen]) -> Iterable[str]:
    """More jobs than were asked for: a key that was used twice has made two."""
    known = {one.job_id for one in history}
    unknown = sum(one.job_id is None for one in history)
    strangers = sorted(jobs.keys() - known)
    if len(strangers) > unknown:
        yield f"{len(strangers)} jobs on record that no client knows of, of {unknown} whose answer never came: {strangers}"
    for job_id in strangers:
        if jobs[job_id].status not in FINAL:
            yield f"job {job_id}, whose answer never came, is {jobs[job_id].status} for ever"
